"""Agreement of annotators: percentage agreement, Cohen's and Fleiss' kappa, and Krippendorff's alpha.

Krippendorff's alpha (2011, Computing Krippendorff's alpha-reliability) and Fleiss' kappa (1971, Psychological Bulletin
76:378) are 1 - observed / expected disagreement of the pairs of labels of an image. An image with n labels counts n
times for alpha and once for kappa (Gwet, 2014, for missing labels). Their intervals are those of the effective number
of images (`intervals.effective_wilson_interval`), with the variance of the influences of the images or patients.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from .estimation import Influence, Sample, estimate_score, smooth_matrices, too_few_units
from .intervals import PSEUDO_IMAGES, Estimate, Floats, effective_wilson_interval
from .prediction_table import Predictions

MISSING_LABEL = -1
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two annotators, or of a model and an annotator, on the images that both labelled.

    Args:
        kappa: Cohen's kappa; None: both used one class only.
        qwk: quadratic weighted kappa, if the classes are grades.
    """

    first: str
    second: str
    images: int
    agreement: Estimate
    kappa: Estimate | None
    qwk: Estimate | None = None


@dataclass(frozen=True)
class Agreement:
    """Agreement of several annotators.

    Args:
        images: number of images with at least two labels.
        agreement: mean over images of the fraction of equal pairs of labels.
        alpha: Krippendorff's alpha of nominal classes; None: all labels are equal. The same holds for the next fields.
        ordinal_alpha: that of grades.
        fleiss_kappa: Fleiss' kappa.
    """

    annotators: list[str]
    images: int
    agreement: Estimate
    alpha: Estimate | None
    ordinal_alpha: Estimate | None
    fleiss_kappa: Estimate | None
    pairs: list[PairAgreement]


def estimate_agreement(
    labels: Labels, annotators: Sequence[str], num_classes: int, groups: NDArray[np.str_] | None, ordered: bool
) -> Agreement:
    """Estimates the agreement of annotators, with 95 % intervals.

    Args:
        labels: class ids (images, annotators); `MISSING_LABEL`: no label.
        groups: patient or video of each image (images,); None: the images are independent.
        ordered: whether the classes are grades in the order of their ids.

    Raises:
        ValueError: If no image has two labels.
    """
    pairs = []
    for one, other in combinations(range(len(annotators)), 2):
        predictions = Predictions(labels[:, one], labels[None, :, other], num_classes, groups, ordered=ordered)
        known = np.flatnonzero((labels[:, one] >= 0) & (labels[:, other] >= 0))
        if len(known):
            pairs.append(estimate_pair(annotators[one], annotators[other], [predictions.select(known)]))
    if not pairs:
        raise ValueError("No image has labels of two annotators.")
    several = (labels >= 0).sum(1) >= 2
    labels, groups = labels[several], None if groups is None else groups[several]
    group = None if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    count = (labels >= 0).sum(1)
    by_image, by_pair = 1 / (count * (count - 1)), 1 / (count - 1)
    return Agreement(
        list(annotators),
        len(labels),
        _estimate_mean_agreement(labels, by_image, num_classes, group),
        _estimate_coefficient(labels, by_pair, num_classes, group, nominal_distance, correction=1),
        _estimate_coefficient(labels, by_pair, num_classes, group, ordinal_distance, correction=1) if ordered else None,
        _estimate_coefficient(labels, by_image, num_classes, group, nominal_distance, correction=0),
        pairs,
    )


# Two annotators


def estimate_pair(first: str, second: str, folds: list[Predictions]) -> PairAgreement:
    """Estimates the agreement of two annotators, or of an annotator and a model, as a mean over folds and runs.

    Args:
        first, second: their names.
        folds: the labels of one as `labels`, those of the other as `predicted`.
    """
    sample = Sample(folds)
    classes = set().union(*(np.unique(ids).tolist() for fold in folds for ids in (fold.labels, fold.predicted)))
    names = ["kappa", *(["qwk"] if sample.ordered else [])] if len(classes) > 1 else []
    found = {name: estimate_score(sample, name) for name in ("accuracy", *names)}
    return PairAgreement(first, second, sample.num_images, found["accuracy"], found.get("kappa"), found.get("qwk"))


# Several annotators


def _label_pairs(labels: Labels) -> Iterator[tuple[NDArray[np.bool_], Labels, Labels]]:
    """Yields, for each ordered pair of annotators, the mask of the images that both labelled, and their labels."""
    for one, other in permutations(range(labels.shape[1]), 2):
        known = (labels[:, one] >= 0) & (labels[:, other] >= 0)
        yield known, labels[known, one], labels[known, other]


def _estimate_mean_agreement(
    labels: Labels, weights: Floats, num_classes: int, group: NDArray[np.int64] | None
) -> Estimate:
    agreements = np.zeros(len(labels))
    for known, first, second in _label_pairs(labels):
        agreements[known] += weights[known] * (first == second)
    value, count = float(agreements.mean()), len(labels)
    smoothed = (value * count + PSEUDO_IMAGES) / (count + 2 * PSEUDO_IMAGES)
    pseudo_variance = PSEUDO_IMAGES * (value**2 + (1 - value) ** 2) / count**2
    influence = Influence((agreements - value) / count, np.ones(count), pseudo_variance)
    return _interval(value, smoothed, influence, group, low=0.0)


Distance = Callable[[Floats], Floats]


def nominal_distance(marginals: Floats) -> Floats:
    """Returns the squared distances of classes (classes, classes): 1 between different ones."""
    return 1 - np.eye(len(marginals))


def ordinal_distance(marginals: Floats) -> Floats:
    """Computes Krippendorff's squared distances of grades (classes, classes) from their counts (classes,)."""
    position = marginals.cumsum() - marginals / 2
    distances: Floats = np.subtract.outer(position, position) ** 2
    return distances


def chance_corrected(matrix: Floats, marginals: Floats, distance: Distance, correction: int) -> float:
    """Computes 1 - observed / expected disagreement.

    Args:
        matrix: weights of the pairs of labels (classes, classes), symmetric.
        marginals: their sums (classes,).
        correction: 1: an expected pair consists of two different labels (Krippendorff); 0: labels are drawn with
            replacement (Fleiss).
    """
    distances = distance(marginals)
    expected = float(marginals @ distances @ marginals)
    return 1 - float((matrix * distances).sum()) * (float(marginals.sum()) - correction) / expected


def _estimate_coefficient(
    labels: Labels,
    weights: Floats,
    num_classes: int,
    group: NDArray[np.int64] | None,
    distance: Distance,
    correction: int,
) -> Estimate | None:
    """Estimates a coefficient of agreement; `weights`: of each pair of labels of an image (images,)."""
    matrix = np.zeros((num_classes, num_classes))
    for known, first, second in _label_pairs(labels):
        np.add.at(matrix, (first, second), weights[known])
    if (matrix.sum(-1) > 0).sum() < 2:
        return None
    value = chance_corrected(matrix, matrix.sum(-1), distance, correction)
    size = float(matrix.sum()) / len(labels)  # weight of an image
    added = smooth_matrices(matrix[None], PSEUDO_IMAGES * size)[0] - matrix
    added = (added + added.T) / 2
    smoothed = matrix + added
    derivatives = _derivatives(smoothed, distance, correction)
    values = np.zeros(len(labels))
    for known, first, second in _label_pairs(labels):
        values[known] += weights[known] * derivatives[first, second]
    influence = Influence(values, np.ones(len(labels)), size * float((added * derivatives**2).sum()))
    smoothed_value = chance_corrected(smoothed, smoothed.sum(-1), distance, correction)
    return _interval(value, smoothed_value, influence, group, low=-1.0, chance=0.0)


def _derivatives(matrix: Floats, distance: Distance, correction: int) -> Floats:
    """Differentiates `chance_corrected` with respect to the cells (classes, classes)."""
    marginals = matrix.sum(-1)
    distances = distance(marginals)
    direct = -distances * (marginals.sum() - correction) / (marginals @ distances @ marginals)
    step = 1e-5 * float(marginals.mean())
    changes = step * np.eye(len(marginals))
    by_marginal = [
        (
            chance_corrected(matrix, marginals + change, distance, correction)
            - chance_corrected(matrix, marginals - change, distance, correction)
        )
        / (2 * step)
        for change in changes
    ]
    derivatives: Floats = direct + np.add.outer(by_marginal, by_marginal) / 2
    return derivatives


def _interval(
    value: float,
    smoothed: float,
    influence: Influence,
    group: NDArray[np.int64] | None,
    low: float,
    chance: float | None = None,
) -> Estimate:
    if (reason := too_few_units(len(influence.values), group)) is not None:
        return Estimate(value, None, reason)
    design = influence.design(group)
    variance = influence.variance * design.factor
    return Estimate(
        value,
        effective_wilson_interval(value, variance, smoothed, design.degrees_of_freedom, low, 1.0, chance),
    )
