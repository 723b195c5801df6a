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

from ..data.torch_datasets import EvalDataset, collate
from ..models.ensemble import first_member
from ..models.introspection import find_blocks, find_head, mean_pool
from .scores import softmax

OOD_ALPHA = 0.01  # an image that fewer than this share of the held-out ones are as unlike as is an outlier
MAX_IMAGES = 2000  # images of a split whose features are looked at


@dataclass(frozen=True)
class ConformalSets:
    """Sets of classes, by split conformal prediction for each class alone (Vovk 2012; Sadinle et al. 2019).

    The set of an image holds every class whose score is not among the lowest of the images that are of that class. If
    an image is exchangeable with the calibration images of its class, its set holds its class with the probability
    asked for, whichever class it is, however wrong the scores are.

    Args:
        calibration_scores: of each class, sorted, the scores that its calibration images give to it.
    """

    calibration_scores: list[np.ndarray]

    @classmethod
    def fit(cls, class_scores: np.ndarray, labels: np.ndarray) -> "ConformalSets":
        """From calibration images: scores (images, classes), class ids (images,)."""
        own = class_scores[np.arange(len(labels)), labels]
        return cls([np.sort(own[labels == index]) for index in range(class_scores.shape[1])])

    def p_values(self, class_scores: np.ndarray) -> np.ndarray:
        """(images, classes): the share of a class's calibration images, and this one, that score no higher for it."""
        columns = [
            (np.searchsorted(own, column, side="right") + 1) / (len(own) + 1)
            for own, column in zip(self.calibration_scores, class_scores.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def predict_sets(self, class_scores: np.ndarray, level: float) -> np.ndarray:
        """(images, classes), bool: which classes are in the set of an image.

        Args:
            level: how often a set holds the true class, as 0.9.
        """
        return self.p_values(class_scores) > 1 - level + 1e-12

    def uninformative_classes(self, level: float) -> list[int]:
        """Classes with so few calibration images that every set holds them."""
        return [index for index, own in enumerate(self.calibration_scores) if 1 / (len(own) + 1) > 1 - level + 1e-12]


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
    distance_mean: float = 0.0
    distance_std: float = 1.0

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "Gaussian":
        """From features (images, width) and class ids (images,)."""
        present, which = np.unique(labels, return_inverse=True)
        means = np.stack([features[which == index].mean(0, dtype=np.float64) for index in range(len(present))])
        covariance, _ = ledoit_wolf(features - means[which], assume_centered=True)
        precision = np.linalg.pinv(covariance, hermitian=True)
        plain = cls(means.astype(np.float32), precision.astype(np.float32))
        own = plain.distances(features)
        return replace(plain, distance_mean=float(own.mean()), distance_std=float(own.std()) or 1.0)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distances (images,) from the nearest class, less `centre`, in units of `scale`."""
        apart = features[:, None, :].astype(np.float64) - self.means
        squares = np.einsum("ncw,wv,ncv->nc", apart, self.precision.astype(np.float64), apart, optimize=True)
        nearest: np.ndarray = (np.sqrt(np.maximum(squares.min(1), 0)) - self.distance_mean) / self.distance_std
        return nearest


@dataclass(frozen=True)
class MahalanobisOOD:
    """How unlike the training images an image is, at several depths of the network (Lee et al. 2018).

    What the head reads knows the classes, and little of what is no endoscopy at all; the first layers know colours and
    textures. An image is as far as it is where it is farthest.

    Args:
        gaussians: one `Gaussian` each.
        calibration_distances: distances of held-out images, sorted.
    """

    gaussians: list[Gaussian]
    calibration_distances: np.ndarray

    @classmethod
    def fit(
        cls, features: list[np.ndarray], labels: np.ndarray, calibration_features: list[np.ndarray]
    ) -> "MahalanobisOOD":
        """From features (images, width) at each depth of training images with their class ids, and of held-out ones."""
        made = cls([Gaussian.fit(depth, labels) for depth in features], np.empty(0))
        return replace(made, calibration_distances=np.sort(made.distances(calibration_features)))

    def distances(self, features: list[np.ndarray]) -> np.ndarray:
        """(images,), of features (images, width) at each depth."""
        found = [gaussian.distances(depth) for gaussian, depth in zip(self.gaussians, features, strict=True)]
        farthest: np.ndarray = np.max(found, axis=0)
        return farthest

    def p_values(self, features: list[np.ndarray]) -> np.ndarray:
        """(images,): the share of the held-out images, and this one, that are as far."""
        farther = len(self.calibration_distances) - np.searchsorted(
            self.calibration_distances, self.distances(features), side="left"
        )
        shares: np.ndarray = (farther + 1) / (len(self.calibration_distances) + 1)
        return shares

    @property
    def p_value_threshold(self) -> float:
        """Of the p-value, up to which an image is an outlier: `RARE`, or farther than every held-out image."""
        return max(OOD_ALPHA, 1 / (len(self.calibration_distances) + 1) + 1e-12)


@dataclass(frozen=True)
class Uncertainty:
    """What a model does not know.

    Args:
        conformal_sets: of its scores, before any temperature.
        ood: of its features; None: they were not looked at.
        classes: names, by class id.
        fitted_on: the split that both were calibrated on.
        averaged_views: whether its scores were averaged over turned and mirrored views.
    """

    conformal_sets: ConformalSets
    ood: MahalanobisOOD | None
    classes: list[str]
    fitted_on: str
    averaged_views: bool = False


@contextmanager
def capture_features(model: Any) -> Iterator[Callable[[], list[np.ndarray]]]:
    """Within the block, a function gives what the last forward pass made of each image (of an ensemble, its first
    member's): the mean of the tokens before and after the first half of the blocks, and what the head read, each
    (images, width)."""
    stock = first_member(model)
    blocks = find_blocks(stock)
    kept: dict[int, Tensor] = {}

    def keeps_read(depth: int) -> Callable[..., None]:
        def keep(module: Any, inputs: tuple[Tensor, ...]) -> None:
            kept[depth] = mean_pool(inputs[0].detach().float())

        return keep

    def keep_half(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        kept[1] = mean_pool(tokens.detach().float())

    hooks = [
        blocks[0].register_forward_pre_hook(keeps_read(0)),
        blocks[(len(blocks) - 1) // 2].register_forward_hook(keep_half),
        find_head(stock)[1].register_forward_pre_hook(keeps_read(2)),
    ]
    try:
        yield lambda: [kept[depth].cpu().numpy() for depth in sorted(kept)]
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def extract_layer_features(model: Any, images: Any, batch_size: int) -> list[np.ndarray]:
    """Features of `EvaluationImages` at each depth: (images, width)."""
    loader = torch.utils.data.DataLoader(images, batch_size, collate_fn=collate)
    found = []
    with capture_features(model) as features:
        for batch in loader:
            model(pixel_values=batch["pixel_values"].to(model.device, model.dtype))
            found.append(features())
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def fit_uncertainty(
    model: Any,
    processor: Any,
    train_dataset: Any,
    calibration_dataset: EvalDataset,
    logits: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    fitted_on: str,
    averaged_views: bool = False,
    batch_size: int = 32,
) -> Uncertainty:
    """What a model does not know, from what it makes of held-out images.

    Args:
        model: in evaluation mode, on its device.
        train_dataset: the data set that it was trained on; None: no outliers are known.
        calibration_dataset: the images that `logits` (images, classes) and `labels` are of.
    """
    outliers = None
    if train_dataset is not None and len(calibration_dataset):
        seen = EvalDataset(train_dataset.select(_sample_indices(train_dataset)), processor, cache=False)
        assert seen.labels is not None
        others = torch.utils.data.Subset(calibration_dataset, _sample_indices(calibration_dataset))
        features, apart = (extract_layer_features(model, images, batch_size) for images in (seen, others))
        if all(np.isfinite(depth).all() for depth in (*features, *apart)):
            outliers = MahalanobisOOD.fit(features, np.asarray(seen.labels), apart)
    return Uncertainty(ConformalSets.fit(softmax(logits), labels), outliers, classes, fitted_on, averaged_views)


def evaluate_coverage(
    uncertainty: Uncertainty, logits: np.ndarray, labels: np.ndarray, split: str, level: float = 0.9
) -> dict[str, Any]:
    """How well the sets do what they say, on another split than they were fitted on.

    Returns:
        `level`, `split`, `fitted_on`, `images`, `coverage` (how often a set holds the true class), and the mean `size`.
    """
    held = uncertainty.conformal_sets.predict_sets(softmax(logits), level)
    facts: dict[str, Any] = {"level": level, "split": split, "fitted_on": uncertainty.fitted_on, "images": len(labels)}
    return facts | {
        "coverage": float(held[np.arange(len(labels)), labels].mean()),
        "size": float(held.sum(1).mean()),
    }


def _sample_indices(images: Sized) -> list[int]:
    """Places of at most `MOST` of the images, drawn once."""
    chosen: list[int] = np.sort(np.random.default_rng(0).permutation(len(images))[:MAX_IMAGES]).tolist()
    return chosen
