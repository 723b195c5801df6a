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
from ..evaluation.doubt import Doubt, features_kept
from ..evaluation.scores import softmax
from ..files.writing import write_csv
from ..models.ensemble import first_member
from ..models.parts import is_vit
from .space_app import MEGABYTES, PIXELS, SEEN, SIMILAR, VIDEO_MEGABYTES, Facts, Mistake, Shown

LOOPBACK = "127.0.0.1"
LEVEL = 0.9  # of the sets of classes


class Classifier(Shown):
    """A model with what the page shows of it.

    Args:
        model, processor: of `models.loading.load_classifier`.
        training: `EvaluationImages` that are looked through for similar ones; None: no such gallery.
        doubt: what the model does not know; None: that is not known.
    """

    def __init__(
        self,
        model: StockModel,
        processor: Any,
        facts: Facts | None = None,
        training: Any = None,
        batch_size: int = 32,
        doubt: Doubt | None = None,
    ):
        super().__init__(model, processor, facts or Facts("", ""))
        self.doubt = doubt
        self.training = training
        self.has_similar = training is not None
        if training is not None:
            self._remember(batch_size)

    def read(self, path: str) -> Image.Image:
        """As `Shown.read`, of every format that the package reads, and with its rule for grey levels."""
        from ..data.files import readable_suffixes
        from ..data.opening import open_image, reason_of, to_rgb

        name = self.checked(path, readable_suffixes(), MEGABYTES)
        try:
            with open_image(path) as image:
                if image.width * image.height > PIXELS:
                    raise Mistake(f"{name} has more than {PIXELS / 1e6:g} million pixels.")
                return to_rgb(image)
        except Mistake:
            raise
        except UsageError as error:
            raise Mistake(str(error)) from None
        except Exception as error:  # PIL raises whatever the format's plugin does
            raise Mistake(f"{name} cannot be read as an image ({reason_of(error, path)}).") from None

    def frames(self, path: str) -> Iterator[tuple[float, Image.Image]]:
        """As `Shown.frames`, with the package's bounds and true times where the rate changes."""
        from ..data.opening import reason_of
        from ..data.videos import VIDEO_SUFFIXES, frames

        name = self.checked(path, VIDEO_SUFFIXES, VIDEO_MEGABYTES)
        try:
            yield from frames(path, 1.0)
        except OSError as error:
            raise Mistake(f"{name} cannot be read as a video ({reason_of(error, path)}).") from None

    def remarks(self, image: Image.Image, logits: torch.Tensor) -> list[str]:
        """The set of classes of level `LEVEL`, and whether the image is unlike the training images."""
        if self.doubt is None:
            return []
        (held,) = self.doubt.sets.sets(softmax(logits[None].numpy()), LEVEL)
        names = [name for name, inside in zip(self.names, held, strict=True) if inside]
        found = [f"Set that holds the class of {100 * LEVEL:.0f} % of images: {', '.join(names) or 'none'}."]
        if self.doubt.outliers is not None:
            with torch.inference_mode(), features_kept(self.model) as features:
                self.model(pixel_values=self.prepared(image))
                (value,) = self.doubt.outliers.p_values(features())
            if value <= self.doubt.outliers.bound:
                found.append("**This image is unlike those that the model was trained on: its scores say nothing.**")
        return found

    def pictures(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """The image as the model sees it, under Grad-CAM and under attention rollout (of an ensemble, its first
        member's)."""
        from ..reporting.explanations import GRAD_CAM, ROLLOUT, explain_batch

        if not is_vit(self.model.config):
            return [(self.seen(self.prepared(image)[0]), SEEN)]
        (found,) = explain_batch(first_member(self.model), self.processor, self.prepared(image), [""])
        return [
            (found.image, SEEN),
            (found.grad_cam, f"{GRAD_CAM} of {found.target}"),
            (found.rollout, ROLLOUT),
        ]

    def similar(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """The training images whose features are nearest, with their class.

        Nearness is the cosine of features less the training set's mean: without that, all features point the same way,
        and every image is near every other.
        """
        if self.training is None:
            return []
        nearness = self.features @ _unit(self._features(self.prepared(image)) - self.centre)[0]
        chosen = np.argsort(-nearness)[:SIMILAR]
        return [
            (self.training.pixels[int(i)], f"{self.names[int(self.training.labels[i])]} ({nearness[i]:.2f})")
            for i in chosen
        ]

    def write_csv(self, path: Path, head: list[str], rows: list[list[str]]) -> None:
        """As every table of the package: names are read back as they are."""
        write_csv(path, head, rows)

    @torch.inference_mode()
    def _features(self, pixel_values: torch.Tensor) -> np.ndarray:
        """What the head (of an ensemble, its first member's) reads: (images, width)."""
        with features_kept(self.model) as features:
            self.model(pixel_values=pixel_values)
            return features()[-1]

    def _remember(self, batch_size: int) -> None:
        """Keeps the features of all training images."""
        from tqdm.auto import tqdm

        from ..data.images import collate

        loader = torch.utils.data.DataLoader(self.training, batch_size, collate_fn=collate)
        batches = tqdm(loader, desc="Looking at the training images", unit="batch", delay=1)
        found = np.concatenate([self._features(batch["pixel_values"].to(self.model.device)) for batch in batches])
        self.centre = found.mean(0)
        self.features = _unit(found - self.centre)


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1; one that is nothing stays nothing."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def reach_ourselves(host: str) -> None:
    """Lets gradio's look at its own page go past a proxy of the environment, which does not know this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [part for part in os.environ.get(name, "").split(",") if part.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, host, LOOPBACK, "localhost"]))
