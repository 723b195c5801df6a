"""What a classifier does not know: sets of classes that hold the true one as often as is asked for, and images that are
unlike those that it was trained on."""

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from ..data.images import EvaluationImages, collate
from ..models.ensemble import first_member
from ..models.parts import blocks_of, head_of, mean_of_places
from .scores import softmax

RARE = 0.01  # an image that fewer than this share of the held-out ones are as unlike as is an outlier
MOST = 2000  # images of a split whose features are looked at


@dataclass(frozen=True)
class PredictionSets:
    """Sets of classes, by split conformal prediction for each class alone (Vovk 2012; Sadinle et al. 2019).

    The set of an image holds every class whose score is not among the lowest of the images that are of that class. If
    an image is exchangeable with the calibration images of its class, its set holds its class with the probability
    asked for, whichever class it is, however wrong the scores are.

    Args:
        scores: of each class, sorted, the scores that its calibration images give to it.
    """

    scores: list[np.ndarray]

    @classmethod
    def of(cls, class_scores: np.ndarray, labels: np.ndarray) -> "PredictionSets":
        """From calibration images: scores (images, classes), class ids (images,)."""
        own = class_scores[np.arange(len(labels)), labels]
        return cls([np.sort(own[labels == index]) for index in range(class_scores.shape[1])])

    def p_values(self, class_scores: np.ndarray) -> np.ndarray:
        """(images, classes): the share of a class's calibration images, and this one, that score no higher for it."""
        columns = [
            (np.searchsorted(own, column, side="right") + 1) / (len(own) + 1)
            for own, column in zip(self.scores, class_scores.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def sets(self, class_scores: np.ndarray, level: float) -> np.ndarray:
        """(images, classes), bool: which classes are in the set of an image.

        Args:
            level: how often a set holds the true class, as 0.9.
        """
        return self.p_values(class_scores) > 1 - level + 1e-12

    def without_meaning(self, level: float) -> list[int]:
        """Classes with so few calibration images that every set holds them."""
        return [index for index, own in enumerate(self.scores) if 1 / (len(own) + 1) > 1 - level + 1e-12]


@dataclass(frozen=True)
class Gaussian:
    """The features of training images at one depth: a mean for each class, and a covariance that all share, shrunk by
    Ledoit and Wolf's rule.

    Args:
        means: (classes, width).
        precision: (width, width), the inverse of the covariance.
        centre, scale: mean and standard deviation of the training images' own distances.
    """

    means: np.ndarray
    precision: np.ndarray
    centre: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray) -> "Gaussian":
        """From features (images, width) and class ids (images,)."""
        present, which = np.unique(labels, return_inverse=True)
        means = np.stack([features[which == index].mean(0, dtype=np.float64) for index in range(len(present))])
        covariance, _ = ledoit_wolf(features - means[which], assume_centered=True)
        precision = np.linalg.pinv(covariance, hermitian=True)
        plain = cls(means.astype(np.float32), precision.astype(np.float32))
        own = plain.distances(features)
        return replace(plain, centre=float(own.mean()), scale=float(own.std()) or 1.0)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distances (images,) from the nearest class, less `centre`, in units of `scale`."""
        apart = features[:, None, :].astype(np.float64) - self.means
        squares = np.einsum("ncw,wv,ncv->nc", apart, self.precision.astype(np.float64), apart, optimize=True)
        nearest: np.ndarray = (np.sqrt(np.maximum(squares.min(1), 0)) - self.centre) / self.scale
        return nearest


@dataclass(frozen=True)
class Outliers:
    """How unlike the training images an image is, at several depths of the network (Lee et al. 2018).

    What the head reads knows the classes, and little of what is no endoscopy at all; the first layers know colours and
    textures. An image is as far as it is where it is farthest.

    Args:
        depths: one `Gaussian` each.
        held_out: distances of held-out images, sorted.
    """

    depths: list[Gaussian]
    held_out: np.ndarray

    @classmethod
    def of(cls, features: list[np.ndarray], labels: np.ndarray, held_out: list[np.ndarray]) -> "Outliers":
        """From features (images, width) at each depth of training images with their class ids, and of held-out ones."""
        made = cls([Gaussian.of(depth, labels) for depth in features], np.empty(0))
        return replace(made, held_out=np.sort(made.distances(held_out)))

    def distances(self, features: list[np.ndarray]) -> np.ndarray:
        """(images,), of features (images, width) at each depth."""
        found = [gaussian.distances(depth) for gaussian, depth in zip(self.depths, features, strict=True)]
        farthest: np.ndarray = np.max(found, axis=0)
        return farthest

    def p_values(self, features: list[np.ndarray]) -> np.ndarray:
        """(images,): the share of the held-out images, and this one, that are as far."""
        farther = len(self.held_out) - np.searchsorted(self.held_out, self.distances(features), side="left")
        shares: np.ndarray = (farther + 1) / (len(self.held_out) + 1)
        return shares

    @property
    def bound(self) -> float:
        """Of the p-value, up to which an image is an outlier: `RARE`, or farther than every held-out image."""
        return max(RARE, 1 / (len(self.held_out) + 1) + 1e-12)


@dataclass(frozen=True)
class Doubt:
    """What a model does not know.

    Args:
        sets: of its scores, before any temperature.
        outliers: of its features; None: they were not looked at.
        classes: names, by class id.
        fitted_on: the split that both were calibrated on.
        averaged_views: whether its scores were averaged over turned and mirrored views.
    """

    sets: PredictionSets
    outliers: Outliers | None
    classes: list[str]
    fitted_on: str
    averaged_views: bool = False


@contextmanager
def features_kept(model: Any) -> Iterator[Callable[[], list[np.ndarray]]]:
    """Within the block, a function gives what the last forward pass made of each image (of an ensemble, its first
    member's): the mean of the tokens before and after the first half of the blocks, and what the head read, each
    (images, width)."""
    stock = first_member(model)
    blocks = blocks_of(stock)
    kept: dict[int, Tensor] = {}

    def keeps_read(depth: int) -> Callable[..., None]:
        def keep(module: Any, inputs: tuple[Tensor, ...]) -> None:
            kept[depth] = mean_of_places(inputs[0].detach().float())

        return keep

    def keep_half(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        kept[1] = mean_of_places(tokens.detach().float())

    hooks = [
        blocks[0].register_forward_pre_hook(keeps_read(0)),
        blocks[(len(blocks) - 1) // 2].register_forward_hook(keep_half),
        head_of(stock)[1].register_forward_pre_hook(keeps_read(2)),
    ]
    try:
        yield lambda: [kept[depth].cpu().numpy() for depth in sorted(kept)]
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def features_of_images(model: Any, images: Any, batch_size: int) -> list[np.ndarray]:
    """Features of `EvaluationImages` at each depth: (images, width)."""
    loader = torch.utils.data.DataLoader(images, batch_size, collate_fn=collate)
    found = []
    with features_kept(model) as features:
        for batch in loader:
            model(pixel_values=batch["pixel_values"].to(model.device, model.dtype))
            found.append(features())
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def fit_doubt(
    model: Any,
    processor: Any,
    training: Any,
    held_out: EvaluationImages,
    logits: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    fitted_on: str,
    averaged_views: bool = False,
    batch_size: int = 32,
) -> Doubt:
    """What a model does not know, from what it makes of held-out images.

    Args:
        model: in evaluation mode, on its device.
        training: the data set that it was trained on; None: no outliers are known.
        held_out: the images that `logits` (images, classes) and `labels` are of.
    """
    outliers = None
    if training is not None and len(held_out):
        seen = EvaluationImages(training.select(_some_of(training)), processor, cache=False)
        assert seen.labels is not None
        others = torch.utils.data.Subset(held_out, _some_of(held_out))
        features, apart = (features_of_images(model, images, batch_size) for images in (seen, others))
        if all(np.isfinite(depth).all() for depth in (*features, *apart)):
            outliers = Outliers.of(features, np.asarray(seen.labels), apart)
    return Doubt(PredictionSets.of(softmax(logits), labels), outliers, classes, fitted_on, averaged_views)


def judged(doubt: Doubt, logits: np.ndarray, labels: np.ndarray, split: str, level: float = 0.9) -> dict[str, Any]:
    """How well the sets do what they say, on another split than they were fitted on.

    Returns:
        `level`, `split`, `fitted_on`, `images`, `coverage` (how often a set holds the true class), and the mean `size`.
    """
    held = doubt.sets.sets(softmax(logits), level)
    facts: dict[str, Any] = {"level": level, "split": split, "fitted_on": doubt.fitted_on, "images": len(labels)}
    return facts | {
        "coverage": float(held[np.arange(len(labels)), labels].mean()),
        "size": float(held.sum(1).mean()),
    }


def _some_of(images: Sized) -> list[int]:
    """Places of at most `MOST` of the images, drawn once."""
    chosen: list[int] = np.sort(np.random.default_rng(0).permutation(len(images))[:MOST]).tolist()
    return chosen
