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

    def of_images(self, chosen: NDArray[Any]) -> "Predictions":
        """Those of some of the images: their places, or whether each is one of them (images,)."""
        return replace(
            self,
            labels=self.labels[chosen],
            predicted=self.predicted[:, chosen],
            groups=None if self.groups is None else self.groups[chosen],
            class_scores=None if self.class_scores is None else self.class_scores[:, chosen],
        )

    def confusion_matrices(self) -> Floats:
        """(runs, classes, classes), row: label, column: prediction."""
        return confusion(self, np.zeros(len(self.labels), dtype=int), 1)[:, 0]


def confusion(data: Predictions, unit: NDArray[Any], units: int) -> Floats:
    """Confusion matrices (runs, units, classes, classes) of units of images.

    Args:
        unit: of each image (images,).
    """
    matrices = np.zeros((len(data.predicted), units, data.num_classes, data.num_classes))
    for run, predicted in enumerate(data.predicted):
        np.add.at(matrices[run], (unit, data.labels, predicted), 1)
    return matrices


@dataclass(frozen=True)
class Units:
    """What is independent in the images of folds.

    Images of one label and one set of predictions are alike, and are one unit that comes `times`; a patient or video
    is a unit of its own, also where it stands in several folds.

    Args:
        kind: `images` or `groups`.
        matrices: by fold, (runs, units of the fold, classes, classes), each of one unit.
        members: by fold, the place of each of its units among all (units of the fold,).
        times: how often each comes (units,).
        strata: what a unit counts within (units,): an image within its fold and class, a group within all.
        effective: the number of units that tell as much as these, which may be of very different sizes.
    """

    kind: str
    matrices: list[Floats]
    members: list[NDArray[Any]]
    times: NDArray[Any]
    strata: NDArray[Any]
    effective: float


def units_of(folds: list[Predictions]) -> Units:
    """The units of folds; images where any fold does not know its groups."""
    if any(fold.groups is None for fold in folds):
        return _images(folds)
    groups = [np.asarray(fold.groups).astype(str) for fold in folds]
    names, sizes = np.unique(np.concatenate(groups), return_counts=True)
    members, matrices = [], []
    for fold, of_fold in zip(folds, groups):
        own, unit = np.unique(of_fold, return_inverse=True)
        members.append(np.searchsorted(names, own))
        matrices.append(confusion(fold, unit.ravel(), len(own)))
    ones = np.ones(len(names), dtype=np.int64)
    return Units("groups", matrices, members, ones, 0 * ones, worth_of(sizes, ones))


def units_of_images(folds: list[Predictions]) -> tuple[Units, list[NDArray[Any]]]:
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
        return Units("groups", [], members, ones, 0 * ones, worth_of(sizes, ones)), [own.ravel() for _, own in found]
    sizes = np.array([len(fold.labels) for fold in folds])
    starts = np.cumsum(sizes) - sizes
    strata = np.repeat(np.arange(len(folds)), sizes)
    ones = np.ones(int(sizes.sum()), dtype=np.int64)
    members = [start + np.arange(size) for start, size in zip(starts, sizes)]
    return Units("images", [], members, ones, strata, float(sizes.sum())), [np.arange(size) for size in sizes]


def worth_of(sizes: NDArray[Any], times: NDArray[Any]) -> float:
    """The number of equally large units that tell as much as units of these sizes, which come so many times."""
    squares = float((times * sizes**2).sum())
    return float((times * sizes).sum() ** 2 / squares) if squares else 0.0


def _images(folds: list[Predictions]) -> Units:
    matrices, members, times, strata, start = [], [], [], [], 0
    for number, fold in enumerate(folds):
        kinds, kind, counts = np.unique(
            np.vstack([fold.labels, fold.predicted]), axis=1, return_inverse=True, return_counts=True
        )
        matrices.append(confusion(fold, kind.ravel(), len(counts)) / counts[:, None, None])
        members.append(start + np.arange(len(counts)))
        times.append(counts)
        strata.append(number * fold.num_classes + kinds[0])
        start += len(counts)
    everything = np.concatenate(times)
    return Units("images", matrices, members, everything, np.concatenate(strata), float(everything.sum()))
