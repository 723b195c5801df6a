"""Predictions of several runs on the same images, and their independent clusters: images, or patients or videos."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import Floats


@dataclass(frozen=True)
class Predictions:
    """Class ids of the same images from one or several runs (seeds).

    Args:
        labels: (images,).
        predicted: (runs, images).
        groups: patient or video of each image (images,), or None.
        class_scores: scores (runs, images, classes), each row summing to 1, or None if they are unknown.
        ordered: whether the classes are grades in the order of their ids.
        macro_over_labels: whether means over classes leave out the classes that are predicted, but have no image.
    """

    labels: NDArray[Any]
    predicted: NDArray[Any]
    num_classes: int
    groups: NDArray[Any] | None = None
    class_scores: Floats | None = None
    ordered: bool = False
    macro_over_labels: bool = False

    @property
    def known_scores(self) -> Floats:
        """`class_scores`; raises a ValueError if they are unknown."""
        if self.class_scores is None:
            raise ValueError("The predictions have no class scores.")
        return np.asarray(self.class_scores, dtype=np.float64)

    def select(self, indices: NDArray[Any]) -> "Predictions":
        """Selects the predictions of some images, by their indices or by a mask (images,)."""
        return replace(
            self,
            labels=self.labels[indices],
            predicted=self.predicted[:, indices],
            groups=None if self.groups is None else self.groups[indices],
            class_scores=None if self.class_scores is None else self.class_scores[:, indices],
        )

    def confusion_matrices(self) -> Floats:
        """Computes confusion matrices (runs, classes, classes), row: label, column: prediction."""
        return confusion_by_cluster(self, np.zeros(len(self.labels), dtype=int), 1)[:, 0]


def pool_folds(folds: Sequence[Predictions]) -> Predictions:
    """Combines the predictions of folds, which have different images and the same number of runs."""
    groups = [fold.groups for fold in folds if fold.groups is not None]
    scores = [fold.class_scores for fold in folds if fold.class_scores is not None]
    return replace(
        folds[0],
        labels=np.concatenate([fold.labels for fold in folds]),
        predicted=np.concatenate([fold.predicted for fold in folds], axis=1),
        groups=np.concatenate(groups) if len(groups) == len(folds) else None,
        class_scores=np.concatenate(scores, axis=1) if len(scores) == len(folds) else None,
    )


def confusion_by_cluster(predictions: Predictions, cluster_index: NDArray[Any], num_clusters: int) -> Floats:
    """Computes confusion matrices (runs, clusters, classes, classes) of the clusters of images (images,)."""
    matrices = np.zeros((len(predictions.predicted), num_clusters, predictions.num_classes, predictions.num_classes))
    for run, predicted in enumerate(predictions.predicted):
        np.add.at(matrices[run], (cluster_index, predictions.labels, predicted), 1)
    return matrices


@dataclass(frozen=True)
class Clusters:
    """Independent clusters of the images of one or several folds: each image, or each patient or video.

    Images with the same label and the same predictions are stored once, as a cluster that occurs `counts` times. A
    patient or video is one cluster, even if it occurs in several folds.

    Args:
        kind: `images` or `groups`.
        matrices: per fold, confusion matrices (runs, clusters of the fold, classes, classes).
        members: per fold, the index of each of its clusters among all clusters (clusters of the fold,).
        counts: how many times each cluster occurs (clusters,).
        n_eff: effective sample size (Kish): the number of equally large clusters with the same information.
    """

    kind: str
    matrices: list[Floats]
    members: list[NDArray[Any]]
    counts: NDArray[Any]
    n_eff: float


def clusters_from_predictions(folds: list[Predictions]) -> Clusters:
    """Builds the clusters of folds: groups if all folds have them, otherwise images."""
    if any(fold.groups is None for fold in folds):
        return _group_identical_images(folds)
    groups = [np.asarray(fold.groups).astype(str) for fold in folds]
    names, sizes = np.unique(np.concatenate(groups), return_counts=True)
    members, matrices = [], []
    for fold, fold_groups in zip(folds, groups):
        fold_names, cluster_index = np.unique(fold_groups, return_inverse=True)
        members.append(np.searchsorted(names, fold_names))
        matrices.append(confusion_by_cluster(fold, cluster_index.ravel(), len(fold_names)))
    ones = np.ones(len(names), dtype=np.int64)
    return Clusters("groups", matrices, members, ones, effective_sample_size(sizes, ones))


def effective_sample_size(sizes: NDArray[Any], counts: NDArray[Any]) -> float:
    """Computes the effective sample size (Kish) of clusters of these sizes, each occurring `counts` times."""
    squares = float((counts * sizes**2).sum())
    return float((counts * sizes).sum() ** 2 / squares) if squares else 0.0


def _group_identical_images(folds: list[Predictions]) -> Clusters:
    matrices, members, counts, start = [], [], [], 0
    for fold in folds:
        _, pattern_index, fold_counts = np.unique(
            np.vstack([fold.labels, fold.predicted]), axis=1, return_inverse=True, return_counts=True
        )
        sums = confusion_by_cluster(fold, pattern_index.ravel(), len(fold_counts))
        matrices.append(sums / fold_counts[:, None, None])
        members.append(start + np.arange(len(fold_counts)))
        counts.append(fold_counts)
        start += len(fold_counts)
    all_counts = np.concatenate(counts)
    return Clusters("images", matrices, members, all_counts, float(all_counts.sum()))
