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
from .intervals import left_out
from .statistics import Predictions, units_of

UNKNOWN = "not known"
BANDS = 3  # of a column of numbers, of about equally many images
MOST_VALUES = 12  # that a column of words may have
Scores = Callable[[Floats], dict[str, Floats]]


@dataclass(frozen=True)
class Interaction:
    """A test of no difference between parts.

    Args:
        parts: how many were compared.
        statistic: F.
        df: its degrees of freedom.
    """

    score: str
    parts: int
    statistic: float
    df: tuple[float, float]
    p_value: float


def interactions(parts: Sequence[list[Predictions]], scores: Scores, names: Sequence[str]) -> list[Interaction]:
    """Whether scores differ between parts; nothing where there are fewer than two.

    Args:
        parts: the predictions (by fold) of each part.
        scores: of confusion matrices, by name.
        names: which of them.
    """
    if len(parts) < 2:
        return []
    units = [units_of(part) for part in parts]
    found = [left_out(of_part, scores) for of_part in units]
    result = []
    for name in names:
        values = np.array([value[name] for value, _ in found])
        if units[0].kind == "groups":
            covariance = _of_shared_groups(parts, [without[name] for _, without in found])
        else:
            errors = [_variance(without[name], of_part) for (_, without), of_part in zip(found, units)]
            covariance = np.diag(errors)
        worth = min(of_part.effective for of_part in units)
        if (
            one := _wald(name, values, covariance, worth * (len(parts) if units[0].kind == "images" else 1))
        ) is not None:
            result.append(one)
    return result


def _variance(without: Floats, units: Any) -> float:
    count = units.times.sum()
    mean = (units.times * without).sum() / count
    return float((count - 1) / count * (units.times * (without - mean) ** 2).sum())


def _of_shared_groups(parts: Sequence[list[Predictions]], without: list[Floats]) -> Floats:
    """The jackknife's covariance of the parts' scores, over the groups of all of them."""
    names = [np.unique(np.concatenate([np.asarray(fold.groups).astype(str) for fold in part])) for part in parts]
    everyone = np.unique(np.concatenate(names))
    changes = np.zeros((len(everyone), len(parts)))
    for column, (own, values) in enumerate(zip(names, without)):
        changes[np.searchsorted(everyone, own), column] = (values - values.mean()) * ((len(own) - 1) / len(own)) ** 0.5
    covariance: Floats = changes.T @ changes
    return covariance


def _wald(name: str, values: Floats, covariance: Floats, worth: float) -> Interaction | None:
    compared = len(values) - 1
    contrasts = np.hstack([np.ones((compared, 1)), -np.eye(compared)])
    spread = contrasts @ covariance @ contrasts.T
    freedom = worth - compared
    if not np.isfinite(spread).all() or np.linalg.matrix_rank(spread) < compared or freedom <= 0:
        return None
    gap = contrasts @ values
    statistic = float(gap @ np.linalg.solve(spread, gap)) * freedom / ((worth - 1) * compared)
    return Interaction(
        name, len(values), statistic, (compared, freedom), float(fisher.sf(statistic, compared, freedom))
    )


def parts_of(values: Sequence[Any], edges: Sequence[float] = ()) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the parts that a column makes, and the part of each image (images,).

    Words are parts by themselves, numbers of more than `MOST_VALUES` values bands: between `edges`, or three of about
    equally many images. Empty cells are `UNKNOWN`.

    Raises:
        ValueError: a column of words has more than `MOST_VALUES` of them.
    """
    words = ["" if value is None else str(value).strip() for value in values]
    known = {word for word in words if word}
    numbers = {word: float(word) for word in known if re.fullmatch(r"[+-]?\d+(\.\d+)?", word)}
    if known and len(numbers) == len(known) and (edges or len(known) > MOST_VALUES):
        every = np.array([numbers[word] for word in words if word])
        edges = sorted(set(edges or np.quantile(every, np.arange(1, BANDS) / BANDS).tolist()))
        titles = [f"below {edges[0]:g}"]
        titles += [f"{low:g} to below {high:g}" for low, high in zip(edges, edges[1:])]
        titles += [f"{edges[-1]:g} and above"]
        place = [int(np.searchsorted(edges, numbers[word], side="right")) if word else len(titles) for word in words]
    else:
        if len(known) > MOST_VALUES:
            raise ValueError(f"it has {len(known)} values, and parts are of at most {MOST_VALUES}")
        titles = sorted(known)
        place = [titles.index(word) if word else len(titles) for word in words]
    return [*titles, UNKNOWN], np.array(place, dtype=np.int64)
