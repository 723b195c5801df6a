"""Subgroups of images (device, centre, sex, age band, ...), and the classes on which they are compared."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .intervals import Floats
from .messages import EvaluationMessage
from .prediction_table import Predictions

MISSING = "not known"
MISSING_TEXTS = {"", MISSING, "unknown", "nan", "null", "<na>", "nat", "na", "n/a", "?", "-"}  # in any case
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
NUM_BANDS = 3  # bands of a numeric column, of about equally many images
MAX_CATEGORIES = 12  # of a text column


def share_classes(subgroups: Sequence[list[Predictions]]) -> tuple[int, ...]:
    """Returns the ids of the classes that have an image in every subgroup (predictions by fold)."""
    labels = [set(np.concatenate([fold.labels for fold in subgroup]).tolist()) for subgroup in subgroups]
    return tuple(sorted(set.intersection(*labels)))


def select_classes(folds: list[Predictions], class_ids: Sequence[int]) -> list[Predictions]:
    """Selects the images of some classes, whose means are over these classes; folds without such images are left out.

    Predictions of other classes count as errors.
    """
    selected = [fold.select(np.isin(fold.labels, class_ids)) for fold in folds]
    return [replace(fold, macro_over_labels=True) for fold in selected if len(fold.labels)]


def assign_subgroups(
    column: str, values: Sequence[Any], edges: Sequence[float] = ()
) -> tuple[list[str], NDArray[np.int64]]:
    """Returns the names of the subgroups of a column, and the subgroup of each image (images,).

    Each text is a subgroup. A numeric column with more than `MAX_CATEGORIES` values, or with `edges`, is divided into
    bands: at the `edges`, or into three of about equally many images. Cells that state no value (`MISSING_TEXTS`) form
    the subgroup `MISSING`.

    Raises:
        UsageError: If a cell of a column with `edges` is not a number, or if there are more than `MAX_CATEGORIES`
            texts.
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    numbers = {text: float(text) for text in set(texts) if NUMBER.fullmatch(text) and np.isfinite(float(text))}
    missing = {text for text in set(texts) if text.casefold() in MISSING_TEXTS}
    categories = set(texts) - missing
    odd = [text for text in texts if text not in numbers and text not in missing and text.casefold() != "none"]
    if (edges or len(categories) > MAX_CATEGORIES) and numbers:
        if odd:
            raise UsageError(EvaluationMessage.CELL_IS_NOT_A_NUMBER, column=column, value=odd[0])
        known = np.array([numbers.get(text, np.nan) for text in texts])
        edges = sorted(set(edges)) or _band_edges(known[~np.isnan(known)])
        names = _format_edges(edges)
        titles = [f"below {names[0]}", *(f"{low} to below {high}" for low, high in zip(names, names[1:]))]
        titles += [f"{names[-1]} and above"]
        indices = np.where(np.isnan(known), len(titles), np.searchsorted(edges, known, side="right"))
        return [*titles, MISSING], indices.astype(np.int64)
    if edges and odd:
        raise UsageError(EvaluationMessage.CELL_IS_NOT_A_NUMBER, column=column, value=odd[0])
    if len(categories) > MAX_CATEGORIES:
        code = EvaluationMessage.TOO_MANY_SUBGROUPS
        raise UsageError(code, column=column, count=len(categories), limit=MAX_CATEGORIES)
    titles = sorted(categories, key=lambda text: (numbers.get(text, 0.0), text))
    index = {text: number for number, text in enumerate(titles)}
    return [*titles, MISSING], np.array([index.get(text, len(titles)) for text in texts], dtype=np.int64)


def _band_edges(values: Floats) -> list[float]:
    """Divides more than `MAX_CATEGORIES` different values into three bands of about equally many images, or into two
    if many are equal to the smallest value."""
    quantiles = np.quantile(values, np.arange(1, NUM_BANDS) / NUM_BANDS)
    return sorted(set(quantiles[quantiles > values.min()].tolist())) or [float(values[values > values.min()].min())]


def _format_edges(edges: Sequence[float]) -> list[str]:
    """Formats the edges of bands with six digits, or with as many as distinguish them."""
    names = [f"{edge:g}" for edge in edges]
    exact = all(abs(edge) < 1e6 for edge in edges) and len(set(names)) == len(names)
    return names if exact else [f"{edge:.15g}" for edge in edges]
