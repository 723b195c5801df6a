"""Tests of interaction: whether a score differs between subgroups (device, centre, sex, age band, ...).

- Independent images: the subgroups of the images of each class are permuted. If the prediction of an image does not
  depend on its subgroup, the test is exact, with any number of images in a class. Differences that follow from the
  numbers of images of each class do not count.
- Patients or videos that are in one subgroup each: the subgroups of complete patients are permuted (within classes, if
  all images of each patient have the same class).
- At least half of the patients have images in several subgroups: the subgroups of the images of each class of each
  patient are permuted.
- Fewer such patients, and predictions of several folds: Wald's test with the covariance of the influences of the
  patients, if there are at least `MIN_PATIENTS`. The null distribution is F with the effective number of patients.

The statistic of a permutation test is the sum over subgroups of (score - mean)^2 / variance, where a score is relative
to its mean over the permutations (studentised: Janssen, 1997, Stat Probab Lett 36:9).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import f as fisher
from scipy.stats import random_table

from .estimation import Sample, matrix_function, score_influence, score_slopes, smooth_matrices
from .intervals import PSEUDO_IMAGES, Floats
from .metrics import ConfusionMatrices
from .prediction_table import Predictions

PERMUTATIONS = 1_999
BATCH_SIZE = 250  # permutations in memory at once
MIN_PATIENTS = 20  # smallest effective number of patients of Wald's test; with fewer, it finds too many differences
IMAGES, PATIENTS, IMAGES_OF_PATIENTS = "images within classes", "groups", "images within groups and classes"
PERMUTATION_TEST, WALD_TEST = "permutation of {units}", "Wald, F"


@dataclass(frozen=True)
class InteractionTest:
    """Test of no difference between subgroups.

    Args:
        df: degrees of freedom of the F statistic; None: a permutation test.
    """

    score: str
    num_subgroups: int
    statistic: float
    df: tuple[float, float] | None
    p_value: float
    test: str


def interaction_tests(
    subgroups: Sequence[list[Predictions]],
    score_names: Sequence[str],
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[InteractionTest]:
    """Tests whether scores of confusion matrices differ between subgroups (predictions by fold); empty if there are
    fewer than two."""
    if len(subgroups) < 2:
        return []
    units = None if any(len(folds) > 1 for folds in subgroups) else _permuted_units([fold for (fold,) in subgroups])
    if units is None:
        return _wald_tests(subgroups, score_names)
    return _PermutedSubgroups([fold for (fold,) in subgroups], units).test(score_names, permutations, seed)


def _permuted_units(subgroups: list[Predictions]) -> str | None:
    """Returns what is permuted; None: nothing can be."""
    if any(fold.groups is None for fold in subgroups):
        return IMAGES
    names = np.concatenate([np.unique(np.asarray(fold.groups).astype(str)) for fold in subgroups])
    _, counts = np.unique(names, return_counts=True)
    if counts.max() == 1:
        return PATIENTS
    return IMAGES_OF_PATIENTS if (counts > 1).mean() >= 0.5 else None


class _PermutedSubgroups:
    """Scores of subgroups if their images or patients are permuted.

    Images with the same label and predictions have the same pattern; a subgroup is the number of its images of each.
    """

    def __init__(self, subgroups: list[Predictions], units: str):
        self.folds, self.units = subgroups, units
        columns = np.hstack([np.vstack([fold.labels, fold.predicted]) for fold in subgroups])
        patterns, index = np.unique(columns, axis=1, return_inverse=True)
        self.labels, self.predicted, self.index = patterns[0], patterns[1:], index.ravel()
        self.subgroup = np.repeat(np.arange(len(subgroups)), [len(fold.labels) for fold in subgroups])
        self.observed = np.zeros((len(subgroups), len(self.labels)), dtype=np.int64)
        np.add.at(self.observed, (self.subgroup, self.index), 1)

    @cached_property
    def strata(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The images within which subgroups are permuted, if that changes anything: their patterns, and how many images
        each subgroup has of each (subgroups, patterns)."""
        stratum = self.labels[self.index]
        if self.units == IMAGES_OF_PATIENTS:
            names = np.concatenate([np.asarray(fold.groups).astype(str) for fold in self.folds])
            stratum = np.unique(names, return_inverse=True)[1].ravel() * (stratum.max() + 1) + stratum
        order = np.argsort(stratum, kind="stable")
        found = []
        for images in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
            patterns, column = np.unique(self.index[images], return_inverse=True)
            table = np.zeros((len(self.folds), len(patterns)), dtype=np.int64)
            np.add.at(table, (self.subgroup[images], column.ravel()), 1)
            if len(patterns) > 1 and (table.sum(1) > 0).sum() > 1:
                found.append((patterns, table))
        return found

    @cached_property
    def patients(self) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """Images of each pattern of each patient (patients, patterns), the subgroup of each, and the class within which
        patients are permuted, or 0."""
        names = np.concatenate([np.asarray(fold.groups).astype(str) for fold in self.folds])
        _, first, patient = np.unique(names, return_index=True, return_inverse=True)
        counts = np.zeros((len(first), len(self.labels)))
        np.add.at(counts, (patient.ravel(), self.index), 1)
        labels = np.concatenate([fold.labels for fold in self.folds])
        same = (labels == labels[first][patient.ravel()]).all()
        return counts, self.subgroup[first], labels[first] if same else np.zeros(len(first), dtype=np.int64)

    def test(self, score_names: Sequence[str], permutations: int, seed: int) -> list[InteractionTest]:
        """Tests each score."""
        generator, num = np.random.default_rng(seed), len(self.folds)
        found: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in score_names}
        for start in range(-1, permutations, BATCH_SIZE):  # the first one is the observed one
            size = min(BATCH_SIZE, permutations - start)
            member = None if self.units != PATIENTS else self._permute_patients(generator, size, start < 0)
            counts = self._permute_images(generator, size, start < 0) if member is None else self._count(member)
            for name, batches in found.items():
                batches.append(self._scores(name, counts, member))
        tests = []
        for name, batches in found.items():
            values, variances = (np.concatenate(parts) for parts in zip(*batches))
            values = values - values.mean(0)
            weights = 1 / variances
            mean = (values * weights).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
            statistics = ((values - mean) ** 2 * weights).sum(1)
            p_value = float((statistics >= statistics[0] * (1 - 1e-9)).mean())
            title = PERMUTATION_TEST.format(units=self.units)
            tests.append(InteractionTest(name, num, float(statistics[0]), None, p_value, title))
        return tests

    def _permute_images(self, generator: np.random.Generator, size: int, with_observed: bool) -> Floats:
        """Draws subgroups of the images of each stratum (permutations, subgroups, patterns)."""
        counts = np.tile(self.observed.astype(float), (size, 1, 1))
        for patterns, table in self.strata:
            tables = random_table(table.sum(1), table.sum(0))  # "patefield" is wrong for one column and for empty rows
            drawn = tables.rvs(size=size, method="boyett", random_state=generator)
            counts[int(with_observed) :, :, patterns] += (drawn - table)[int(with_observed) :]
        return counts

    def _permute_patients(self, generator: np.random.Generator, size: int, with_observed: bool) -> NDArray[np.int64]:
        """Draws the subgroup of each patient (permutations, patients)."""
        _, subgroup, stratum = self.patients
        member = np.tile(subgroup, (size, 1))
        for label in np.unique(stratum):
            columns = np.flatnonzero(stratum == label)
            member[int(with_observed) :, columns] = generator.permuted(member[int(with_observed) :, columns], axis=1)
        return member

    def _count(self, member: NDArray[np.int64]) -> Floats:
        """Counts the images of subgroups of patients (permutations, subgroups, patterns)."""
        return np.stack([(member == number) @ self.patients[0] for number in range(len(self.folds))], axis=1)

    def _scores(self, name: str, counts: Floats, member: NDArray[np.int64] | None) -> tuple[Floats, Floats]:
        """Computes the score of each subgroup and its variance (permutations, subgroups)."""
        values, variances = [], []
        for number in range(len(self.folds)):
            value, influence, pseudo_variance = self._influence(name, counts[:, number])
            if member is None:
                variance = (counts[:, number] * influence**2).sum(-1)
            else:
                variance = ((member == number) * (influence @ self.patients[0].T) ** 2).sum(-1)
            values.append(value)
            variances.append(variance + pseudo_variance)
        return np.stack(values, axis=1), np.stack(variances, axis=1)

    def _influence(self, name: str, counts: Floats) -> tuple[Floats, Floats, Floats]:
        """Computes a score (permutations,), the influence of an image of each pattern (permutations, patterns) and the
        variance that the smoothing adds (permutations,)."""
        fold, runs, size = self.folds[0], len(self.predicted), self.folds[0].num_classes
        value, pseudo_variance, influence = np.zeros(len(counts)), np.zeros(len(counts)), np.zeros(counts.shape)
        for predicted in self.predicted:
            cells = self.labels * size + predicted
            ones = csr_array((np.ones(len(cells)), (np.arange(len(cells)), cells)), shape=(len(cells), size**2))
            matrices = (counts @ ones).reshape(-1, size, size)
            smoothed = smooth_matrices(matrices, PSEUDO_IMAGES)
            raw, smooth = (ConfusionMatrices(m, fold.macro_over_labels) for m in (matrices, smoothed))
            slopes = score_slopes(name, raw, smooth)
            value += matrix_function(name)(raw) / runs
            influence += slopes.reshape(len(counts), -1)[:, cells] / runs
            pseudo_variance += ((smoothed - matrices) * slopes**2).sum((-2, -1)) / runs
        return value, influence, pseudo_variance


# Patients in several subgroups, and several folds


def _wald_tests(subgroups: Sequence[list[Predictions]], score_names: Sequence[str]) -> list[InteractionTest]:
    samples = [Sample(subgroup) for subgroup in subgroups]
    by_patient = samples[0].group is not None
    n_eff = min(sample.n_eff for sample in samples) * (1 if by_patient else len(subgroups))
    if n_eff < MIN_PATIENTS:
        return []
    tests = []
    for name in score_names:
        function = matrix_function(name)
        values = np.array([sample.value(lambda m: function(sample.confusion(m))) for sample in samples])  # noqa: B023
        influences = [score_influence(sample, name) for sample in samples]
        if by_patient:
            covariance = _shared_patient_covariance(subgroups, [influence.values for influence in influences])
        else:
            sizes = [sample.num_images for sample in samples]
            covariance = np.diag([found.variance * size / (size - 1) for found, size in zip(influences, sizes)])
        if (test := _wald_test(name, values, covariance, n_eff)) is not None:
            tests.append(test)
    return tests


def _shared_patient_covariance(subgroups: Sequence[list[Predictions]], influences: list[Floats]) -> Floats:
    """Computes the covariance of the metrics of subgroups that share patients or videos."""
    names = [np.concatenate([np.asarray(fold.groups).astype(str) for fold in subgroup]) for subgroup in subgroups]
    all_names = np.unique(np.concatenate(names))
    changes = np.zeros((len(all_names), len(subgroups)))
    for column, (group, values) in enumerate(zip(names, influences)):
        count = len(np.unique(group))
        np.add.at(changes[:, column], np.searchsorted(all_names, group), values - values.mean())
        changes[:, column] *= (count / max(count - 1, 1)) ** 0.5
    covariance: Floats = changes.T @ changes
    return covariance


def _wald_test(name: str, values: Floats, covariance: Floats, n_eff: float) -> InteractionTest | None:
    df1 = len(values) - 1
    contrasts = np.hstack([np.ones((df1, 1)), -np.eye(df1)])
    contrast_covariance = contrasts @ covariance @ contrasts.T
    df2 = n_eff - df1
    if not np.isfinite(contrast_covariance).all() or np.linalg.matrix_rank(contrast_covariance) < df1 or df2 <= 0:
        return None
    difference = contrasts @ values
    statistic = float(difference @ np.linalg.solve(contrast_covariance, difference)) * df2 / ((n_eff - 1) * df1)
    return InteractionTest(name, len(values), statistic, (df1, df2), float(fisher.sf(statistic, df1, df2)), WALD_TEST)
