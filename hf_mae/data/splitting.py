"""Shares of a data set: stratified by class, seeded, nested, with the images of a patient or video kept together."""

import logging
import re
from itertools import islice

import numpy as np
from datasets import DatasetDict
from sklearn.model_selection import StratifiedGroupKFold

from ..errors import UsageError, pluralize
from .samples import get_column

logger = logging.getLogger(__name__)

FRACTION_TOLERANCE = 0.02  # a share that is no further from what was asked for is it
MAX_PARTS = 20  # into which groups are cut


def stratified_mask(labels: list, fraction: float, seed: int, *, leave_remainder: bool = True) -> np.ndarray:
    """Which elements belong to a seeded share of `fraction` of every class: bool (elements,).

    With the same seed, a smaller share lies within a larger one.

    Args:
        leave_remainder: a class of two or more keeps at least one element on either side; else each has at least one inside.
    """
    by_label = np.asarray(labels)
    chosen = np.zeros(len(labels), dtype=bool)
    generator = np.random.default_rng(seed)
    for label in np.unique(by_label):
        members = generator.permutation(np.flatnonzero(by_label == label))
        count = round(fraction * len(members))
        if len(members) > 1 or not leave_remainder:
            count = min(max(count, 1), len(members) - leave_remainder)
        chosen[members[:count]] = True
    return chosen


def holdout_mask(labels: list, groups: list[str] | None, fraction: float, seed: int) -> np.ndarray:
    """The same, for images that are held out: with `groups`, every group (patient, video) is in or out as a whole.

    The share is then made of whole parts of the groups, and as well stratified as they allow: 1/n of them where that is
    near enough, else k/n. What it is in the end is logged.

    Raises:
        UsageError: there are fewer groups than that takes.
    """
    if groups is None:
        return stratified_mask(labels, fraction, seed)
    count = len(set(groups))
    parts, taken = _choose_num_parts(fraction, count)
    if count < parts:
        raise UsageError(f"A share of {fraction:g} cannot be held out: there are only {count} patients or videos.")
    chosen = np.zeros(len(labels), dtype=bool)
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    for _, inside in islice(splitter.split(labels, labels, groups), taken):
        chosen[inside] = True
    _log_holdout(chosen, groups, fraction)
    return chosen


def _choose_num_parts(fraction: float, groups: int) -> tuple[int, int]:
    """Into how many parts the groups are cut, and how many of these are held out."""
    whole = max(2, round(1 / fraction))
    if abs(1 / whole - fraction) <= FRACTION_TOLERANCE or groups < 3:
        return whole, 1
    choices = [(abs(k / n - fraction), n, k) for n in range(2, min(groups, MAX_PARTS) + 1) for k in range(1, n)]
    near = [choice for choice in choices if choice[0] <= FRACTION_TOLERANCE / 2]
    _, parts, taken = min(near, key=lambda choice: choice[1]) if near else min(choices)
    return parts, taken


def _log_holdout(mask: np.ndarray, groups: list[str], fraction: float) -> None:
    """What is held out, in images and groups; a warning where it is far from what was asked for."""
    of_groups = len({group for group, out in zip(groups, mask) if out}), len(set(groups))
    off = abs(mask.mean() - fraction) > 2 * FRACTION_TOLERANCE
    (logger.warning if off else logger.info)(
        "Held out are %d of %d images, %.1f %% (asked for: %g %%), of %d of %d patients or videos, which stay whole.",
        mask.sum(),
        len(mask),
        100 * mask.mean(),
        100 * fraction,
        *of_groups,
    )


def extract_groups(file_names: list[str], pattern: str) -> list[str]:
    """The patient or video of every file: the first group of a regular expression in its name.

    Raises:
        UsageError: the pattern is no expression, has no group, or does not match a file.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group_pattern {pattern} is no regular expression ({error}).") from None
    if regex.groups < 1:
        raise UsageError(f"--group_pattern {pattern} needs a group in parentheses: the patient or video.")
    found = [regex.search(name) for name in file_names]
    if unmatched := [name for name, match in zip(file_names, found) if match is None or match.group(1) is None]:
        raise UsageError(
            f"--group_pattern {pattern} does not match {pluralize(len(unmatched), 'file')}, {unmatched[0]} among them."
        )
    return [match.group(1) for match in found if match is not None]


def warn_group_overlap(groups_by_split: dict[str, list[str]]) -> None:
    """Says so where a patient or video stands in two splits."""
    splits = list(groups_by_split)
    for number, first in enumerate(splits):
        for second in splits[number + 1 :]:
            if both := sorted(set(groups_by_split[first]) & set(groups_by_split[second])):
                logger.warning(
                    "%d patients or videos have images in both %s and %s (%s): scores will be too good.",
                    len(both),
                    first,
                    second,
                    ", ".join(both[:5]),
                )


def hold_out(splits: DatasetDict, name: str, fraction: float, seed: int) -> None:
    """Moves a share of the training images (stratified, seeded, groups kept together) into a split of its own."""
    if "train" not in splits:
        raise UsageError("There is no training split to hold a share out of.")
    train = splits["train"]
    out = holdout_mask(train["labels"][:], get_column(train, "group"), fraction, seed)
    splits[name] = train.select(np.flatnonzero(out))
    splits["train"] = train.select(np.flatnonzero(~out))
