"""Subgroup analysis: whether a model performs equally well in all subgroups (device, centre, sex, age band, ...).

The test of interaction is Wald's test of equal metrics in all subgroups. The covariance is that of the influences of
the images, or of patients (who may have images in several subgroups), and the null distribution is F with degrees of
freedom from the effective number of clusters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as fisher

from ..settings.metrics import METRICS
from .estimation import Sample, score_influence
from .intervals import Floats
from .metrics import ConfusionMatrices
from .prediction_table import Predictions

MISSING = "not known"
NUM_BANDS = 3  # bands of a numeric column, of about equally many images
MAX_CATEGORIES = 12  # of a text column


@dataclass(frozen=True)
class InteractionTest:
    """Test of no difference between subgroups: F statistic with its degrees of freedom."""

    score: str
    num_subgroups: int
    statistic: float
    df: tuple[float, float]
    p_value: float


def interaction_tests(subgroups: Sequence[list[Predictions]], score_names: Sequence[str]) -> list[InteractionTest]:
    """Tests whether metrics differ between subgroups (predictions by fold); empty if there are fewer than two."""
    if len(subgroups) < 2:
        return []
    samples = [Sample(subgroup) for subgroup in subgroups]
    by_patient = samples[0].group is not None
    n_eff = min(sample.n_eff for sample in samples) * (1 if by_patient else len(subgroups))
    tests = []
    for name in score_names:
        function = METRICS[name].function
        assert function is not None
        values = np.array([sample.value(lambda m: function(ConfusionMatrices(m))) for sample in samples])  # noqa: B023
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
    return InteractionTest(name, len(values), statistic, (df1, df2), float(fisher.sf(statistic, df1, df2)))


def assign_subgroups(values: Sequence[Any], edges: Sequence[float] = ()) -> tuple[list[str], NDArray[np.int64]]:
    """Returns the names of the subgroups of a column, and the subgroup of each image (images,).

    Each text is a subgroup. A numeric column with more than `MAX_CATEGORIES` values, or with `edges`, is divided into
    bands: at the `edges`, or into three of about equally many images. Empty cells form the subgroup `MISSING`.

    Raises:
        ValueError: If a text column has more than `MAX_CATEGORIES` values.
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    categories = {text for text in texts if text}
    numbers = {text: float(text) for text in categories if re.fullmatch(r"[+-]?\d+(\.\d+)?", text)}
    if categories and len(numbers) == len(categories) and (edges or len(categories) > MAX_CATEGORIES):
        column = np.array([numbers[text] for text in texts if text])
        edges = sorted(set(edges or np.quantile(column, np.arange(1, NUM_BANDS) / NUM_BANDS).tolist()))
        titles = [f"below {edges[0]:g}"]
        titles += [f"{low:g} to below {high:g}" for low, high in zip(edges, edges[1:])]
        titles += [f"{edges[-1]:g} and above"]
        indices = [int(np.searchsorted(edges, numbers[text], side="right")) if text else len(titles) for text in texts]
    else:
        if len(categories) > MAX_CATEGORIES:
            raise ValueError(f"it has {len(categories)} different values; at most {MAX_CATEGORIES} are supported")
        titles = sorted(categories)
        indices = [titles.index(text) if text else len(titles) for text in texts]
    return [*titles, MISSING], np.array(indices, dtype=np.int64)
