"""Subgroup analysis: whether a model performs equally well in all subgroups (device, centre, sex, age band, ...).

The test of interaction is Wald's test of equal metrics in all subgroups. The covariance is the jackknife's over
clusters (a patient may have images in several subgroups), and the null distribution is F with degrees of freedom from
the effective number of clusters.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as fisher

from .intervals import jackknife_replicates
from .metrics import Floats
from .prediction_table import Predictions, clusters_from_predictions

MISSING = "not known"
NUM_BANDS = 3  # bands of a numeric column, of about equally many images
MAX_CATEGORIES = 12  # of a text column
ScoreFunction = Callable[[Floats], dict[str, Floats]]


@dataclass(frozen=True)
class InteractionTest:
    """Test of no difference between subgroups: F statistic with its degrees of freedom."""

    score: str
    num_subgroups: int
    statistic: float
    df: tuple[float, float]
    p_value: float


def interaction_tests(
    subgroups: Sequence[list[Predictions]], score_function: ScoreFunction, score_names: Sequence[str]
) -> list[InteractionTest]:
    """Tests whether metrics differ between subgroups (predictions by fold); empty if there are fewer than two."""
    if len(subgroups) < 2:
        return []
    clusters = [clusters_from_predictions(subgroup) for subgroup in subgroups]
    jackknife = [jackknife_replicates(subgroup_clusters, score_function) for subgroup_clusters in clusters]
    by_patient = clusters[0].kind == "groups"
    n_eff = min(subgroup_clusters.n_eff for subgroup_clusters in clusters) * (1 if by_patient else len(subgroups))
    tests = []
    for name in score_names:
        values = np.array([value[name] for value, _ in jackknife])
        replicates = [replicate[name] for _, replicate in jackknife]
        covariance = (
            _shared_cluster_covariance(subgroups, replicates)
            if by_patient
            else np.diag([_jackknife_variance(*pair) for pair in zip(replicates, clusters)])
        )
        if (test := _wald_test(name, values, covariance, n_eff)) is not None:
            tests.append(test)
    return tests


def _jackknife_variance(replicates: Floats, clusters: Any) -> float:
    count = clusters.counts.sum()
    mean = (clusters.counts * replicates).sum() / count
    return float((count - 1) / count * (clusters.counts * (replicates - mean) ** 2).sum())


def _shared_cluster_covariance(subgroups: Sequence[list[Predictions]], replicates: list[Floats]) -> Floats:
    """Computes the jackknife covariance of the metrics of subgroups that share patients or videos."""
    names = [
        np.unique(np.concatenate([np.asarray(fold.groups).astype(str) for fold in subgroup])) for subgroup in subgroups
    ]
    all_names = np.unique(np.concatenate(names))
    changes = np.zeros((len(all_names), len(subgroups)))
    for column, (subgroup_names, values) in enumerate(zip(names, replicates)):
        scale = ((len(subgroup_names) - 1) / len(subgroup_names)) ** 0.5
        changes[np.searchsorted(all_names, subgroup_names), column] = (values - values.mean()) * scale
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
