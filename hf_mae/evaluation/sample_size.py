"""Sample size before a study: images and patients for a half-width of the 95 % interval, or for a power.

The half-width is that of the intervals of this package at the expected score (`intervals`): Wilson's for proportions
(for a sensitivity at a prevalence: Buderer, 1996, Acad Emerg Med 3:895), the score interval for means over classes, and
for the AUROC Wilson's with the variance of the binormal model (Obuchowski and McClish, 1997, Stat Med 16:1529). The
images of a patient are correlated: the variance is multiplied by the design effect
1 + (images per patient - 1) * intraclass correlation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq
from scipy.special import owens_t
from scipy.stats import norm

from .estimation import PROPORTIONS
from .intervals import QUANTILE, Floats, effective_wilson_interval, score_interval, t_quantile
from .metrics import ConfusionMatrices, headline_metrics

HALF_WIDTH_FACTORS = (2.0, 1.5, 1.0, 0.75, 0.5)  # rows of the table, in parts of the requested half-width
MAX_IMAGES = 10**9


@dataclass(frozen=True)
class Clustering:
    """Patients of a study: images per patient, and the intraclass correlation of the score."""

    images_per_patient: float = 1.0
    correlation: float = 0.0

    @property
    def design_effect(self) -> float:
        """Factor of the variance of independent images."""
        return 1 + (self.images_per_patient - 1) * self.correlation

    def quantile(self, images: float) -> float:
        """Returns the quantile of the normal distribution, or with patients that of Student's t."""
        return QUANTILE if self.images_per_patient == 1 else t_quantile(self.patients(images) - 1)

    def patients(self, images: float) -> int:
        """Returns the number of patients with this number of images, rounded up."""
        return math.ceil(images / self.images_per_patient - 1e-9)


@dataclass(frozen=True)
class Expectation:
    """Expected results of a study.

    Args:
        score: one of those of `settings.sample_size`, except `difference`.
        value: expected score.
        class_fractions: fractions of the images by class, with sum 1; for scores of two classes, positive and negative.
        sensitivity: expected sensitivity, for the PPV.
    """

    score: str
    value: float
    class_fractions: tuple[float, ...]
    sensitivity: float = 1.0

    def trials_per_image(self) -> float:
        """Returns the expected fraction of the images in the denominator of a proportion."""
        positive = self.class_fractions[0]
        fractions = {
            "sensitivity": positive,
            "specificity": 1 - positive,
            "ppv": positive * self.sensitivity / self.value,
        }
        return min(fractions.get(self.score, 1.0), 1.0)

    def interval(self, images: int, clustering: Clustering) -> tuple[float, float]:
        """Computes the interval of the expected score for a number of images."""
        design, quantile = clustering.design_effect, clustering.quantile(images)
        if self.score == "auroc":
            variance = binormal_auroc_variance(self.value, *(images * part for part in self.class_fractions))
            df = math.inf if clustering.images_per_patient == 1 else clustering.patients(images) - 1
            return effective_wilson_interval(self.value, variance * design, self.value, df)
        if self.score in ("macro_recall", "macro_f1"):
            return self._macro_interval(images, design, quantile)
        trials = images * self.trials_per_image()
        low, high = score_interval([self.value], [trials], [1.0], design, quantile)
        return float(low), float(high)

    def _macro_interval(self, images: int, design: float, quantile: float) -> tuple[float, float]:
        """Computes the score interval at the expected confusion matrix, as `estimation.fit_proportions`."""
        score, matrix = PROPORTIONS[self.score], ConfusionMatrices(images * self.expected_matrix)
        numerator, trials = score.counts(matrix)
        weights, proportions = score.weights(matrix), numerator / trials
        slopes = 2 / (1 + proportions) ** 2 if score.f1 else np.ones(len(trials))
        independent = ((weights * slopes) ** 2 * proportions * (1 - proportions) / trials).sum()
        variance = (matrix.counts * score.derivatives(matrix, weights) ** 2).sum()
        factor = design * variance / independent
        low, high = score_interval(proportions, trials, weights, factor, quantile, score.f1)
        return float(low), float(high)

    @cached_property
    def expected_matrix(self) -> Floats:
        """Confusion matrix (classes, classes) with sum 1, with equal recalls and errors in all other classes alike."""
        fractions = np.array(self.class_fractions)
        count = len(fractions)

        def matrix(recall: float) -> Floats:
            errors = (1 - np.eye(count)) * (1 - recall) / (count - 1)
            cells: Floats = fractions[:, None] * (recall * np.eye(count) + errors)
            return cells

        if self.score == "macro_recall":
            return matrix(self.value)
        recall = brentq(lambda r: float(headline_metrics(matrix(r)[None])["macro_f1"][0]) - self.value, 0.0, 1.0)
        return matrix(recall)


def binormal_auroc_variance(area: float, positive: float, negative: float) -> float:
    """Computes the variance of an AUROC of scores with normal distributions of equal variance.

    Args:
        positive, negative: numbers of images.
    """
    z = norm.ppf(area)
    both = float(norm.cdf(z) - 2 * owens_t(z, 3**-0.5))  # both of two images are ranked right against a third one
    return (area * (1 - area) + (positive + negative - 2) * (both - area**2)) / (positive * negative)


@dataclass(frozen=True)
class SampleSize:
    """Images and patients for a half-width (or a power).

    Args:
        half_width: requested; None: the size is for a power.
        interval: of the expected score with this number of images.
    """

    images: int
    patients: int
    half_width: float | None = None
    interval: tuple[float, float] | None = None


def size_for_half_width(expected: Expectation, half_width: float, clustering: Clustering) -> SampleSize | None:
    """Finds the smallest number of images whose interval has at most this half-width; None: more than `MAX_IMAGES`."""

    def is_enough(images: int) -> bool:
        low, high = expected.interval(images, clustering)
        return (high - low) / 2 <= half_width

    smallest = math.ceil(2 / min(*expected.class_fractions, 0.5))
    images = _find_first(is_enough, max(smallest, math.ceil(2 * clustering.images_per_patient) + 1))
    if images is None:
        return None
    return SampleSize(images, clustering.patients(images), half_width, expected.interval(images, clustering))


def _find_first(is_enough: Callable[[int], bool], start: int) -> int | None:
    high = start
    while not is_enough(high):
        high *= 2
        if high > MAX_IMAGES:
            return None
    low = start - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def size_for_difference(
    difference: float, discordant: float, power: float, clustering: Clustering, margin: float | None = None
) -> SampleSize:
    """Computes the images for a paired comparison of the accuracy of two models, on the same images.

    Without a margin, for McNemar's test (Connor, 1987, Biometrics 43:207). With a margin, for the test that the second
    model is not worse by it, one-sided at 2.5 % (Liu et al., 2002, Stat Med 21:231).

    Args:
        difference: expected accuracy of the second model minus that of the first.
        discordant: expected fraction of the images on which exactly one of them is right, at least |difference|.
        power: probability of a significant result.
    """
    beta = float(norm.ppf(power))
    spread = discordant - difference**2
    if margin is None:
        images = ((QUANTILE * discordant**0.5 + beta * spread**0.5) / difference) ** 2
    else:
        images = (QUANTILE + beta) ** 2 * spread / (difference + margin) ** 2
    total = math.ceil(images * clustering.design_effect - 1e-9)
    return SampleSize(total, clustering.patients(total))
