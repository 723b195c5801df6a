"""Predictions of the same images by several runs, and the units that are independent in them: images, or patients and
videos where these are known."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .confusion import Floats


@dataclass(frozen=True)
class Predictions:
    """Class ids of the same images by one or several runs (seeds).

    Args:
        labels: (images,).
        predicted: (runs, images).
        num_classes: of the task.
        groups: patient or video of each image (images,), or None.
        class_scores: of every class (runs, images, classes), each row summing to 1, or None: not known.
        ordered: whether the classes are grades, in the order of their ids.
    """

    labels: NDArray[Any]
    predicted: NDArray[Any]
    num_classes: int
    groups: NDArray[Any] | None = None
    class_scores: Floats | None = None
    ordered: bool = False

    def select(self, indices: NDArray[Any]) -> "Predictions":
        """Those of some of the images: their places, or whether each is one of them (images,)."""
        return replace(
            self,
            labels=self.labels[indices],
            predicted=self.predicted[:, indices],
            groups=None if self.groups is None else self.groups[indices],
            class_scores=None if self.class_scores is None else self.class_scores[:, indices],
        )

    def confusion_matrices(self) -> Floats:
        """(runs, classes, classes), row: label, column: prediction."""
        return confusion_by_cluster(self, np.zeros(len(self.labels), dtype=int), 1)[:, 0]


def confusion_by_cluster(predictions: Predictions, cluster_index: NDArray[Any], num_clusters: int) -> Floats:
    """Confusion matrices (runs, units, classes, classes) of units of images.

    Args:
        cluster_index: of each image (images,).
    """
    matrices = np.zeros((len(predictions.predicted), num_clusters, predictions.num_classes, predictions.num_classes))
    for run, predicted in enumerate(predictions.predicted):
        np.add.at(matrices[run], (cluster_index, predictions.labels, predicted), 1)
    return matrices


@dataclass(frozen=True)
class Clusters:
    """What is independent in the images of folds.

    Images of one label and one set of predictions are alike, and are one unit that comes `counts`; a patient or video
    is a unit of its own, also where it stands in several folds.

    Args:
        kind: `images` or `groups`.
        matrices: by fold, (runs, units of the fold, classes, classes), each of one unit.
        members: by fold, the place of each of its units among all (units of the fold,).
        counts: how often each comes (units,).
        strata: what a unit counts within (units,): an image within its fold and class, a group within all.
        n_eff: the number of units that tell as much as these, which may be of very different sizes.
    """

    kind: str
    matrices: list[Floats]
    members: list[NDArray[Any]]
    counts: NDArray[Any]
    strata: NDArray[Any]
    n_eff: float


def clusters_from_predictions(folds: list[Predictions]) -> Clusters:
    """The units of folds; images where any fold does not know its groups."""
    if any(fold.groups is None for fold in folds):
        return _group_identical_images(folds)
    groups = [np.asarray(fold.groups).astype(str) for fold in folds]
    names, sizes = np.unique(np.concatenate(groups), return_counts=True)
    members, matrices = [], []
    for fold, of_fold in zip(folds, groups):
        own, unit = np.unique(of_fold, return_inverse=True)
        members.append(np.searchsorted(names, own))
        matrices.append(confusion_by_cluster(fold, unit.ravel(), len(own)))
    ones = np.ones(len(names), dtype=np.int64)
    return Clusters("groups", matrices, members, ones, 0 * ones, effective_sample_size(sizes, ones))


def image_level_clusters(folds: list[Predictions]) -> tuple[Clusters, list[NDArray[Any]]]:
    """The units of folds where each image is by itself, for what no confusion matrix tells.

    Returns:
        The units (without `matrices`; images count within their fold, whatever their class), and by fold the place of
        each image's among those of its fold (images,).
    """
    if all(fold.groups is not None for fold in folds):
        groups = [np.asarray(fold.groups).astype(str) for fold in folds]
        names, sizes = np.unique(np.concatenate(groups), return_counts=True)
        found = [np.unique(of_fold, return_inverse=True) for of_fold in groups]
        members = [np.searchsorted(names, own) for own, _ in found]
        ones = np.ones(len(names), dtype=np.int64)
        return Clusters("groups", [], members, ones, 0 * ones, effective_sample_size(sizes, ones)), [
            own.ravel() for _, own in found
        ]
    sizes = np.array([len(fold.labels) for fold in folds])
    starts = np.cumsum(sizes) - sizes
    strata = np.repeat(np.arange(len(folds)), sizes)
    ones = np.ones(int(sizes.sum()), dtype=np.int64)
    members = [start + np.arange(size) for start, size in zip(starts, sizes)]
    return Clusters("images", [], members, ones, strata, float(sizes.sum())), [np.arange(size) for size in sizes]


def effective_sample_size(sizes: NDArray[Any], counts: NDArray[Any]) -> float:
    """The number of equally large units that tell as much as units of these sizes, which come so many times."""
    squares = float((counts * sizes**2).sum())
    return float((counts * sizes).sum() ** 2 / squares) if squares else 0.0


def _group_identical_images(folds: list[Predictions]) -> Clusters:
    matrices, members, times, strata, start = [], [], [], [], 0
    for number, fold in enumerate(folds):
        kinds, kind, counts = np.unique(
            np.vstack([fold.labels, fold.predicted]), axis=1, return_inverse=True, return_counts=True
        )
        matrices.append(confusion_by_cluster(fold, kind.ravel(), len(counts)) / counts[:, None, None])
        members.append(start + np.arange(len(counts)))
        times.append(counts)
        strata.append(number * fold.num_classes + kinds[0])
        start += len(counts)
    everything = np.concatenate(times)
    return Clusters("images", matrices, members, everything, np.concatenate(strata), float(everything.sum()))
