"""What the page of `hf-mae demo` shows beyond a Space: files of every format, Grad-CAM, similar training images."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..compat.transformers import StockModel
from ..errors import UsageError
from ..evaluation.scores import softmax
from ..evaluation.uncertainty import Uncertainty, capture_features
from ..files.atomic import write_csv
from ..models.ensemble import first_member
from ..models.introspection import is_vit
from .space_app import (
    INPUT_CAPTION,
    MAX_IMAGE_MB,
    MAX_PIXELS,
    MAX_VIDEO_MB,
    NUM_SIMILAR,
    DemoMetadata,
    DemoModel,
    UserError,
)

LOOPBACK = "127.0.0.1"
COVERAGE = 0.9  # of the sets of classes


class Classifier(DemoModel):
    """A model with what the page shows of it.

    Args:
        model, processor: of `models.loading.load_classifier`.
        training: `EvaluationImages` that are looked through for similar ones; None: no such gallery.
        uncertainty: what the model does not know; None: that is not known.
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

    def read(self, path: str) -> Image.Image:
        """As `Shown.read`, of every format that the package reads, and with its rule for grey levels."""
        from ..data.image_files import readable_suffixes
        from ..data.image_io import open_image, summarize_image_error, to_rgb

        name = self.check_upload(path, readable_suffixes(), MAX_IMAGE_MB)
        try:
            with open_image(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(f"{name} has more than {MAX_PIXELS / 1e6:g} million pixels.")
                return to_rgb(image)
        except UserError:
            raise
        except UsageError as error:
            raise UserError(str(error)) from None
        except Exception as error:  # PIL raises whatever the format's plugin does
            raise UserError(f"{name} cannot be read as an image ({summarize_image_error(error, path)}).") from None

    def iter_frames(self, path: str) -> Iterator[tuple[float, Image.Image]]:
        """As `Shown.frames`, with the package's bounds and true times where the rate changes."""
        from ..data.image_io import summarize_image_error
        from ..data.videos import VIDEO_SUFFIXES, iter_frames

        name = self.check_upload(path, VIDEO_SUFFIXES, MAX_VIDEO_MB)
        try:
            yield from iter_frames(path, 1.0)
        except OSError as error:
            raise UserError(f"{name} cannot be read as a video ({summarize_image_error(error, path)}).") from None

    def remarks(self, image: Image.Image, logits: torch.Tensor) -> list[str]:
        """The set of classes of level `LEVEL`, and whether the image is unlike the training images."""
        if self.uncertainty is None:
            return []
        (held,) = self.uncertainty.conformal_sets.predict_sets(softmax(logits[None].numpy()), COVERAGE)
        names = [name for name, inside in zip(self.names, held, strict=True) if inside]
        found = [f"Set that holds the class of {100 * COVERAGE:.0f} % of images: {', '.join(names) or 'none'}."]
        if self.uncertainty.ood is not None:
            with torch.inference_mode(), capture_features(self.model) as features:
                self.model(pixel_values=self.preprocess(image))
                (value,) = self.uncertainty.ood.p_values(features())
            if value <= self.uncertainty.ood.p_value_threshold:
                found.append("**This image is unlike those that the model was trained on: its scores say nothing.**")
        return found

    def visualizations(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """The image as the model sees it, under Grad-CAM and under attention rollout (of an ensemble, its first
        member's)."""
        from ..reporting.explanations import GRAD_CAM, ROLLOUT, explain_batch

        if not is_vit(self.model.config):
            return [(self.denormalize(self.preprocess(image)[0]), INPUT_CAPTION)]
        (found,) = explain_batch(first_member(self.model), self.processor, self.preprocess(image), [""])
        return [
            (found.image, INPUT_CAPTION),
            (found.grad_cam, f"{GRAD_CAM} of {found.target}"),
            (found.rollout, ROLLOUT),
        ]

    def similar_images(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """The training images whose features are nearest, with their class.

        Nearness is the cosine of features less the training set's mean: without that, all features point the same way,
        and every image is near every other.
        """
        if self.training is None:
            return []
        nearness = (
            self.features @ _normalize_rows(self._extract_features(self.preprocess(image)) - self.mean_features)[0]
        )
        chosen = np.argsort(-nearness)[:NUM_SIMILAR]
        return [
            (self.training.pixels[int(i)], f"{self.names[int(self.training.labels[i])]} ({nearness[i]:.2f})")
            for i in chosen
        ]

    def write_csv(self, path: Path, head: list[str], rows: list[list[str]]) -> None:
        """As every table of the package: names are read back as they are."""
        write_csv(path, head, rows)

    @torch.inference_mode()
    def _extract_features(self, pixel_values: torch.Tensor) -> np.ndarray:
        """What the head (of an ensemble, its first member's) reads: (images, width)."""
        with capture_features(self.model) as features:
            self.model(pixel_values=pixel_values)
            return features()[-1]

    def _index_training_images(self, batch_size: int) -> None:
        """Keeps the features of all training images."""
        from tqdm.auto import tqdm

        from ..data.torch_datasets import collate

        loader = torch.utils.data.DataLoader(self.training, batch_size, collate_fn=collate)
        batches = tqdm(loader, desc="Looking at the training images", unit="batch", delay=1)
        found = np.concatenate(
            [self._extract_features(batch["pixel_values"].to(self.model.device)) for batch in batches]
        )
        self.mean_features = found.mean(0)
        self.features = _normalize_rows(found - self.mean_features)


def _normalize_rows(features: np.ndarray) -> np.ndarray:
    """Rows of length 1; one that is nothing stays nothing."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def bypass_proxy_for_localhost(host: str) -> None:
    """Lets gradio's look at its own page go past a proxy of the environment, which does not know this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [part for part in os.environ.get(name, "").split(",") if part.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, host, LOOPBACK, "localhost"]))
