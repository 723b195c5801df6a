"""The model of `hf-mae demo`: like a Space, plus uncertainty and similar images."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..compat.transformers import StockModel
from ..evaluation.metrics import softmax
from ..files.atomic import write_csv
from ..inference.uncertainty import Uncertainty, capture_features, extract_layer_features
from ..models.ensemble import first_member
from ..models.introspection import is_vit
from .space.app import NUM_SIMILAR, DemoMetadata, DemoModel

LOOPBACK = "127.0.0.1"
COVERAGE = 0.9  # of the prediction sets


class Classifier(DemoModel):
    """A classifier, and everything that the page shows about an image.

    Args:
        model, processor: result of `models.loading.load_classifier`.
        training: `EvalDataset` that is searched for similar images; None: the page has no such gallery.
        batch_size: of the features of the training images.
        uncertainty: prediction sets and out-of-distribution detector; None: the page shows neither.
    """

    def __init__(
        self,
        model: StockModel,
        processor: Any,
        metadata: DemoMetadata | None = None,
        training: Any = None,
        batch_size: int = 32,
        uncertainty: Uncertainty | None = None,
    ):
        super().__init__(model, processor, metadata or DemoMetadata("", ""))
        self.uncertainty = uncertainty
        self.training = training
        self.has_similar = training is not None
        if training is not None:
            self._index_training_images(batch_size)

    def remarks(self, image: Image.Image, logits: torch.Tensor) -> list[str]:
        """Returns the prediction set with coverage `COVERAGE`, and a warning if the image is out of distribution."""
        if self.uncertainty is None:
            return []
        (members,) = self.uncertainty.conformal_sets.predict_sets(softmax(logits[None].numpy()), COVERAGE)
        names = [name for name, is_member in zip(self.names, members, strict=True) if is_member]
        remarks = [f"Prediction set ({100 * COVERAGE:.0f} % coverage): {', '.join(names) or 'empty'}."]
        if self.uncertainty.ood is not None:
            with torch.inference_mode(), capture_features(self.model) as features:
                self.model(pixel_values=self.preprocess(image))
                (value,) = self.uncertainty.ood.p_values(features())
            if value <= self.uncertainty.ood.p_value_threshold:
                remarks.append("**This image differs from the training images. Do not rely on the scores.**")
        return remarks

    def saliency_model(self) -> StockModel | None:
        """Returns the ViT that Grad-CAM explains (for an ensemble: its first member); None for another network."""
        return first_member(self.model) if is_vit(self.model.config) else None

    def similar_images(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """Returns the training images with the most similar features, with their class.

        The similarity is the cosine of features from which the mean of the training set is subtracted. Otherwise all
        features have a similar direction, and all images are similar.
        """
        if self.training is None:
            return []
        (query,) = _normalize_rows(self._extract_features(self.preprocess(image)) - self.mean_features)
        similarity = self.features @ query
        return [
            (self.training.pixels[int(i)], f"{self.names[int(self.training.labels[i])]} ({similarity[i]:.2f})")
            for i in np.argsort(-similarity)[:NUM_SIMILAR]
        ]

    def write_csv(self, path: Path, head: list[str], rows: list[list[str]]) -> None:
        """Writes a table like the other tables of the package, so that names are restored exactly."""
        write_csv(path, head, rows)

    @torch.inference_mode()
    def _extract_features(self, pixel_values: torch.Tensor) -> np.ndarray:
        """Extracts the input of the head (for an ensemble: of its first member): (images, width)."""
        with capture_features(self.model) as features:
            self.model(pixel_values=pixel_values)
            return features()[-1]

    def _index_training_images(self, batch_size: int) -> None:
        """Computes the features of all training images."""
        features = extract_layer_features(self.model, self.training, batch_size)[-1]
        self.mean_features = features.mean(0)
        self.features = _normalize_rows(features - self.mean_features)


def _normalize_rows(features: np.ndarray) -> np.ndarray:
    """Scales rows to unit length; a zero row stays zero."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def bypass_proxy_for_localhost(host: str) -> None:
    """Adds the host to NO_PROXY: gradio requests its own page, and a proxy cannot reach this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [item for item in os.environ.get(name, "").split(",") if item.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, host, LOOPBACK, "localhost"]))
