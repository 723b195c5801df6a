"""Does a model do equally well in every part of the images: by device, centre, sex, age band, ...

The test is of interaction: Wald's, of equal scores in all parts, with the jackknife's covariance over units (a patient
may have images in several parts) and an F distribution of as many degrees of freedom as the units are worth.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as fisher

from .confusion import Floats
from .intervals import jackknife_replicates
from .prediction_table import Predictions, clusters_from_predictions

MISSING = "not known"
NUM_BANDS = 3  # of a column of numbers, of about equally many images
MAX_CATEGORIES = 12  # that a column of words may have
ScoreFunction = Callable[[Floats], dict[str, Floats]]


@dataclass(frozen=True)
class InteractionTest:
    """A test of no difference between parts.

    Args:
        num_subgroups: how many were compared.
        statistic: F.
        df: its degrees of freedom.
    """

    score: str
    num_subgroups: int
    statistic: float
    df: tuple[float, float]
    p_value: float


def interaction_tests(
    subgroups: Sequence[list[Predictions]], score_function: ScoreFunction, score_names: Sequence[str]
) -> list[InteractionTest]:
    """Whether scores differ between parts; nothing where there are fewer than two.

    Args:
        subgroups: the predictions (by fold) of each part.
        score_function: of confusion matrices, by name.
        score_names: which of them.
    """
    if len(subgroups) < 2:
        return []
    units = [clusters_from_predictions(part) for part in subgroups]
    found = [jackknife_replicates(of_part, score_function) for of_part in units]
    result = []
    for name in score_names:
        values = np.array([value[name] for value, _ in found])
        if units[0].kind == "groups":
            covariance = _shared_cluster_covariance(subgroups, [without[name] for _, without in found])
        else:
            errors = [_jackknife_variance(without[name], of_part) for (_, without), of_part in zip(found, units)]
            covariance = np.diag(errors)
        worth = min(of_part.n_eff for of_part in units)
        if (
            one := _wald_test(name, values, covariance, worth * (len(subgroups) if units[0].kind == "images" else 1))
        ) is not None:
            result.append(one)
    return result


def _jackknife_variance(replicates: Floats, clusters: Any) -> float:
    count = clusters.counts.sum()
    mean = (clusters.counts * replicates).sum() / count
    return float((count - 1) / count * (clusters.counts * (replicates - mean) ** 2).sum())


def _shared_cluster_covariance(subgroups: Sequence[list[Predictions]], replicates: list[Floats]) -> Floats:
    """The jackknife's covariance of the parts' scores, over the groups of all of them."""
    names = [np.unique(np.concatenate([np.asarray(fold.groups).astype(str) for fold in part])) for part in subgroups]
    everyone = np.unique(np.concatenate(names))
    changes = np.zeros((len(everyone), len(subgroups)))
    for column, (own, values) in enumerate(zip(names, replicates)):
        changes[np.searchsorted(everyone, own), column] = (values - values.mean()) * ((len(own) - 1) / len(own)) ** 0.5
    covariance: Floats = changes.T @ changes
    return covariance


def _wald_test(name: str, values: Floats, covariance: Floats, n_eff: float) -> InteractionTest | None:
    compared = len(values) - 1
    contrasts = np.hstack([np.ones((compared, 1)), -np.eye(compared)])
    spread = contrasts @ covariance @ contrasts.T
    freedom = n_eff - compared
    if not np.isfinite(spread).all() or np.linalg.matrix_rank(spread) < compared or freedom <= 0:
        return None
    gap = contrasts @ values
    statistic = float(gap @ np.linalg.solve(spread, gap)) * freedom / ((n_eff - 1) * compared)
    return InteractionTest(
        name, len(values), statistic, (compared, freedom), float(fisher.sf(statistic, compared, freedom))
    )


def assign_subgroups(values: Sequence[Any], edges: Sequence[float] = ()) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the parts that a column makes, and the part of each image (images,).

    Words are parts by themselves, numbers of more than `MOST_VALUES` values bands: between `edges`, or three of about
    equally many images. Empty cells are `UNKNOWN`.

    Raises:
        ValueError: a column of words has more than `MOST_VALUES` of them.
    """
    words = ["" if value is None else str(value).strip() for value in values]
    known = {word for word in words if word}
    numbers = {word: float(word) for word in known if re.fullmatch(r"[+-]?\d+(\.\d+)?", word)}
    if known and len(numbers) == len(known) and (edges or len(known) > MAX_CATEGORIES):
        every = np.array([numbers[word] for word in words if word])
        edges = sorted(set(edges or np.quantile(every, np.arange(1, NUM_BANDS) / NUM_BANDS).tolist()))
        titles = [f"below {edges[0]:g}"]
        titles += [f"{low:g} to below {high:g}" for low, high in zip(edges, edges[1:])]
        titles += [f"{edges[-1]:g} and above"]
        place = [int(np.searchsorted(edges, numbers[word], side="right")) if word else len(titles) for word in words]
    else:
        if len(known) > MAX_CATEGORIES:
            raise ValueError(f"it has {len(known)} values, and parts are of at most {MAX_CATEGORIES}")
        titles = sorted(known)
        place = [titles.index(word) if word else len(titles) for word in words]
    return [*titles, MISSING], np.array(place, dtype=np.int64)
