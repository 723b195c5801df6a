"""Splits: their names, held-out fractions (stratified, seeded, grouped by patient), and cross-validation folds."""

import logging
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ..errors import UsageError, inform, warn
from .exclusion_log import ExclusionReason, record_excluded
from .messages import DataMessage

logger = logging.getLogger(__name__)

SplitT = TypeVar("SplitT")

SPLIT_NAMES = {  # word in a name -> split
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
# Words that are ignored in names of splits.
UNCLEAR_NAMES = ("eval", "evaluation")  # words that may mean validation or test
STOPWORDS = set("set sets split splits data dataset subset images image imgs frames and the".split())

SPLITS = ("train", "validation", "test")
EVAL_SPLITS = ("selection", "validation", "test")
COMPOUND_WORD = re.compile(f"({'|'.join(SPLIT_NAMES)})({'|'.join(STOPWORDS)})", re.IGNORECASE)  # `testset`
FRACTION_TOLERANCE = 0.02  # largest accepted difference of a fraction from the requested one
MAX_PARTS = 20  # parts into which groups are divided


def split_words(name: str) -> list[str]:
    """Returns the words of a name in lower case: `TestDataset_01` and `testdataset` -> `test`, `dataset`."""
    name = re.sub(r"(?i)(?<![a-z])(?:hold|held)[\W_]?out(?![a-z])", "holdout", name)
    words = [word.lower() for word in re.split(r"[^a-zA-Z]+|(?<=[a-z])(?=[A-Z])", name) if word]
    compounds = [COMPOUND_WORD.fullmatch(word) for word in words]
    return [part for word, match in zip(words, compounds) for part in (match.groups() if match else [word])]


def parse_split_name(name: str) -> str | None:
    """Returns the split of a folder name or word: `Test`, `test_set`, `train_and_validation_sets`; None if it is not a
    split.

    A name with both `train` and `validation` is the training split.
    """
    splits = {SPLIT_NAMES.get(word) for word in split_words(name) if word not in STOPWORDS}
    if len(splits) == 1:
        return splits.pop()
    return "train" if splits == {"train", "validation"} else None


def selection_split(splits: Container[str]) -> str | None:
    """Returns the split whose scores select the epoch: `selection`, or else `validation`; None if there is neither."""
    return next((split for split in ("selection", "validation") if split in splits), None)


def get_split(splits: Mapping[str, SplitT], split: str, data_dir: str | None) -> SplitT:
    """Returns a split by name.

    Raises:
        UsageError: If the dataset does not have it.
    """
    if split not in splits:
        raise UsageError(DataMessage.SPLIT_NOT_FOUND, data_dir=data_dir, split=split, splits=list(splits))
    return splits[split]


def stratified_mask(labels: list, fraction: float, seed: int, *, leave_remainder: bool = True) -> np.ndarray:
    """Selects a seeded fraction of each class: bool (elements,).

    With the same seed, a smaller selection is a subset of a larger one.

    Args:
        labels: class of each element.
        fraction: fraction to select.
        seed: random seed.
        leave_remainder: if True, a class with two or more elements has at least one selected and one other element; if
            False, each class has at least one selected element.
    """
    by_label = np.asarray(labels)
    mask = np.zeros(len(labels), dtype=bool)
    generator = np.random.default_rng(seed)
    for label in np.unique(by_label):
        members = generator.permutation(np.flatnonzero(by_label == label))
        count = round(fraction * len(members))
        if len(members) > 1 or not leave_remainder:
            count = min(max(count, 1), len(members) - leave_remainder)
        mask[members[:count]] = True
    return mask


def holdout_mask(labels: list, groups: list[str] | None, fraction: float, seed: int) -> np.ndarray:
    """Selects images to hold out: like `stratified_mask`, but with `groups` all images of a group are on the same side.

    The groups are divided into n stratified parts. One of them (or k, if 1/n is too far from `fraction`) is selected.
    The resulting fraction is logged.

    Raises:
        UsageError: If there are fewer groups than parts.
    """
    if groups is None:
        return stratified_mask(labels, fraction, seed)
    count = len(set(groups))
    num_parts, num_selected = check_groups_suffice(count, fraction)
    mask = np.zeros(len(labels), dtype=bool)
    splitter = StratifiedGroupKFold(num_parts, shuffle=True, random_state=seed)
    for _, part in islice(splitter.split(labels, labels, groups), num_selected):
        mask[part] = True
    _log_holdout(mask, groups, fraction)
    return mask


def check_groups_suffice(count: int, fraction: float) -> tuple[int, int]:
    """Returns the number of parts of groups, and how many of them to hold out.

    Raises:
        UsageError: If there are fewer groups than parts.
    """
    num_parts, num_selected = _choose_num_parts(fraction, count)
    if count < num_parts:
        raise UsageError(DataMessage.TOO_FEW_GROUPS, fraction=f"{fraction:g}", count=count)
    return num_parts, num_selected


def _choose_num_parts(fraction: float, groups: int) -> tuple[int, int]:
    """Chooses the number of parts into which the groups are divided, and the number of parts to hold out."""
    num_parts = max(2, round(1 / fraction))
    if abs(1 / num_parts - fraction) <= FRACTION_TOLERANCE or groups < 3:
        return num_parts, 1
    choices = [(abs(k / n - fraction), n, k) for n in range(2, min(groups, MAX_PARTS) + 1) for k in range(1, n)]
    near = [choice for choice in choices if choice[0] <= FRACTION_TOLERANCE / 2]
    _, num_parts, num_selected = min(near, key=lambda choice: choice[1]) if near else min(choices)
    return num_parts, num_selected


def _log_holdout(mask: np.ndarray, groups: list[str], fraction: float) -> None:
    """Logs the numbers of images and groups that are held out; a warning if the fraction differs from the requested."""
    differs = abs(mask.mean() - fraction) > 2 * FRACTION_TOLERANCE
    (warn if differs else inform)(
        logger,
        DataMessage.GROUPS_HELD_OUT,
        images=mask.sum(),
        all_images=len(mask),
        percent=f"{100 * mask.mean():.1f}",
        requested=f"{100 * fraction:g}",
        groups=len({group for group, is_selected in zip(groups, mask) if is_selected}),
        all_groups=len(set(groups)),
    )


def extract_groups(file_names: list[str], pattern: str) -> list[str]:
    """Extracts the patient or video of each file: the first group of a regular expression in its name.

    Raises:
        UsageError: If the pattern is invalid, has no group, or does not match a file.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UsageError(DataMessage.GROUP_PATTERN_INVALID, pattern=pattern, reason=error) from None
    if regex.groups < 1:
        raise UsageError(DataMessage.GROUP_PATTERN_WITHOUT_GROUP, pattern=pattern)
    matches = [regex.search(name) for name in file_names]
    if unmatched := [name for name, match in zip(file_names, matches) if match is None or match.group(1) is None]:
        raise UsageError(
            DataMessage.GROUP_PATTERN_UNMATCHED, pattern=pattern, count=len(unmatched), example=unmatched[0]
        )
    return [match.group(1) for match in matches if match is not None]


def warn_group_overlap(groups_by_split: dict[str, list[str]]) -> None:
    """Warns if a patient or video is in two splits."""
    splits = list(groups_by_split)
    for number, first in enumerate(splits):
        for second in splits[number + 1 :]:
            if both := sorted(set(groups_by_split[first]) & set(groups_by_split[second])):
                warn(
                    logger,
                    DataMessage.GROUPS_IN_TWO_SPLITS,
                    count=len(both),
                    first=first,
                    second=second,
                    examples=both[:5],
                )


def hold_out(splits: DatasetDict, name: str, fraction: float, seed: int) -> None:
    """Moves a fraction of the training images (stratified, seeded, by group) to a new split."""
    if "train" not in splits:
        raise UsageError(DataMessage.NO_TRAINING_SPLIT)
    train = splits["train"]
    mask = holdout_mask(
        train["labels"][:], train["group"][:] if "group" in train.column_names else None, fraction, seed
    )
    splits[name] = train.select(np.flatnonzero(mask))
    splits["train"] = train.select(np.flatnonzero(~mask))


def make_stratified_folds(splits: DatasetDict, num_folds: int) -> list[DatasetDict]:
    """Splits the training and validation images into `num_folds` folds, stratified by class; deterministic.

    Args:
        splits: `train`, and optionally `validation` (which is merged with it) and `test` (which is not used). Images of
            a `group` (patient or video) stay in one fold.
        num_folds: number of folds.
    """
    images = _merge_training(splits)
    labels = np.asarray(images["labels"][:])
    smallest = np.bincount(labels)[np.unique(labels)].min()
    if not 2 <= num_folds <= smallest:
        raise UsageError(DataMessage.TOO_MANY_FOLDS, num_folds=num_folds, smallest=smallest)
    groups, splitter = None, StratifiedKFold(num_folds, shuffle=True, random_state=0)
    if "group" in images.column_names:
        groups, splitter = images["group"][:], StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
        if len(set(groups)) < num_folds:
            raise UsageError(DataMessage.MORE_FOLDS_THAN_GROUPS, num_folds=num_folds, count=len(set(groups)))
    return [
        DatasetDict({"train": images.select(train), "validation": images.select(validation)})
        for train, validation in splitter.split(labels, labels, groups)
    ]


def _merge_training(splits: DatasetDict) -> Dataset:
    """Merges the training and validation images of `splits`; the test images are not used."""
    if "test" in splits:
        logger.info(
            "The test split (%d images) is not used: the folds are made from the training and validation images. To "
            "evaluate a run on it, use hf-mae evaluate --split test.",
            len(splits["test"]),
        )
        record_excluded(ExclusionReason.UNUSED_SPLIT, len(splits["test"]), detail="test")
    return concatenate_datasets([splits[split] for split in ("train", "validation") if split in splits])


def make_centre_folds(splits: DatasetDict, centre_by_file: Mapping[str, str], column: str) -> dict[str, DatasetDict]:
    """Makes one fold per centre, whose images are its `validation` split; as `sklearn`'s `LeaveOneGroupOut`.

    Args:
        splits: as in `make_stratified_folds`.
        centre_by_file: centre of each image, by file name.
        column: its column in the manifest, for messages.

    Returns:
        The folds by centre, in the order of the names (numbers by value).

    Raises:
        UsageError: If there is one centre, or if a patient or video is in several.
    """
    images = _merge_training(splits)
    centres = np.array([centre_by_file[name] for name in images["file_name"][:]])
    names = sorted(
        set(centres.tolist()), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else name)
    )
    if len(names) < 2:
        raise UsageError(DataMessage.ONE_CENTRE, column=column, name=names[0])
    if "group" in images.column_names:
        pairs = set(zip(images["group"][:], centres.tolist()))
        counts = Counter(group for group, _ in pairs)
        if repeated := sorted(group for group, count in counts.items() if count > 1):
            code = DataMessage.PATIENTS_IN_TWO_CENTRES
            raise UsageError(code, count=len(repeated), column=column, examples=repeated[:5])
    return {
        name: DatasetDict(
            {
                "train": images.select(np.flatnonzero(centres != name)),
                "validation": images.select(np.flatnonzero(centres == name)),
            }
        )
        for name in names
    }


def check_folds(folds: list[DatasetDict], fold_names: Sequence[str] = ()) -> None:
    """Raises UsageError if a fold has no training image of a class, and warns if it has no validation image of one.

    Args:
        fold_names: names of the folds for messages, instead of their numbers.
    """
    names = folds[0]["train"].features["labels"].names
    for number, fold in zip(fold_names or range(1, len(folds) + 1), folds):
        counts = {split: np.bincount(dataset["labels"][:], minlength=len(names)) for split, dataset in fold.items()}
        has_images = np.stack(list(counts.values())).sum(0) > 0
        if missing := [name for i, name in enumerate(names) if has_images[i] and not counts["train"][i]]:
            raise UsageError(DataMessage.FOLD_WITHOUT_TRAINING_IMAGES, fold=number, names=missing)
        if missing := [name for i, name in enumerate(names) if has_images[i] and not counts["validation"][i]]:
            warn(logger, DataMessage.FOLD_WITHOUT_VALIDATION_IMAGES, fold=number, names=missing)
