"""Decides the split, the label and the group of each image: one function each, for all kinds of sources.

Each of them has up to three readings: a column (or a sidecar file) of the source, the folders of the image below the
source's root, and the name of the archive or table that contains it. Readings that contradict each other, or that exist
for a part of the images only, stop the run. Without any reading, all images are training images, which is logged.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from ...errors import UsageError, inform, warn
from ...settings.data import SPLIT_READINGS
from ..messages import DataMessage
from ..splits import SPLIT_NAMES, STOPWORDS, UNCLEAR_NAMES, extract_groups, parse_split_name, split_words
from .folder_layout import (
    NAMED_PATIENT,
    PATIENT_TEXT,
    Folder,
    FolderClass,
    find_patient_level,
    find_split_levels,
    infer_folder_classes,
)
from .tables import SPLIT_COLUMNS, check_class_names, flagged_split, has_split_word, normalize_text, parse_label

logger = logging.getLogger(__name__)

COLUMN, PATH, ARCHIVE, NONE = SPLIT_READINGS
MAX_EXAMPLES = 3  # groups and values in the log
NOT = "not "  # before a split: the reading excludes it
FLAG_VALUES = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0", "x"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}


@dataclass(frozen=True)
class Statements:
    """What a source states about its images; each list has one value per image.

    Args:
        root: the source, for messages.
        file_names: names of the images.
        paths: paths of the images below the root, as the source has them (`tables.posix_paths`); an absolute path if an
            image is not below the root, and an empty text if the name was made up.
        stored_paths: paths in the archive or table, if `paths` are those of sidecar files or a column.
        labels, groups: values of the columns or sidecar files; None without.
        split_columns: name and values of each column that may state the split.
        containers: name of the archive or table file below the root; None for separate files.
        locate: returns the location of a value (row, column), for messages.
        is_final: the splits and groups are official or written by this package; names are not compared with them.
    """

    root: str
    file_names: Sequence[str]
    paths: Sequence[str]
    stored_paths: Sequence[str] | None = None
    labels: Sequence[Any] | None = None
    split_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    groups: Sequence[Any] | None = None
    containers: Sequence[str] | None = None
    locate: Callable[[int, str], str] = field(default=lambda row, column: f"row {row}, {column}")
    is_final: bool = False


@dataclass(frozen=True)
class Assignment:
    """Split, class name and group of each image; `groups` is None if the images have none."""

    splits: list[str]
    labels: list[str]
    groups: list[str] | None


def assign(
    stated: Statements,
    *,
    split_from: str | None = None,
    class_level: int | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
) -> Assignment:
    """Decides split, label and group of each image of a source.

    Raises:
        UsageError: If readings contradict each other or are incomplete, or if values are missing or invalid.
    """
    folders = Folders.from_paths(stated.paths, class_level, split_from in (None, PATH))
    splits = assign_splits(stated, folders, split_from)
    classes = None if stated.labels is not None else infer_folder_classes(stated.root, folders.stripped, class_level)
    labels = assign_labels(stated, folders, classes)
    if split_from is None:
        _check_splits_in_labels(set(labels), stated.root)
    return Assignment(splits, labels, assign_groups(stated, folders, classes, group_column, group_pattern))


class Folders:
    """The distinct folders of a source, without the level of the split folders.

    Args:
        index: folder number of each image.
        splits: split words in the path of each folder.
        stripped: each folder without split folders.
        outside: whether each folder is not below the root: its path was absolute, and begins at the folder that all of
            these have in common.
    """

    def __init__(self, index: list[int], splits: list[set[str]], stripped: list[Folder], outside: list[bool]):
        self.index, self.splits, self.stripped, self.outside = index, splits, stripped, outside

    @classmethod
    def from_paths(cls, paths: Sequence[str], class_level: int | None = None, has_splits: bool = True) -> "Folders":
        """Finds the folders of images and the level of their split folders.

        Args:
            paths: as in `Statements`.
            class_level: see `load_image_folder`.
            has_splits: the folders may be splits, so the last one is not a class if it is named like a split.
        """
        numbers: dict[str, int] = {}
        examples: list[str] = []
        index, counts = [], []
        for path in paths:
            number = numbers.setdefault(path.rpartition("/")[0], len(numbers))
            if number == len(examples):
                examples.append(path)
                counts.append(0)
            counts[number] += 1
            index.append(number)
        names = [tuple(name for name in PurePosixPath(path).parts if name not in ("/", "..")) for path in numbers]
        outside = [path.startswith("/") for path in examples]
        common = len(os.path.commonprefix([parts for parts, is_outside in zip(names, outside) if is_outside]))
        names = [parts[common:] if is_outside else parts for parts, is_outside in zip(names, outside)]
        levels, splits = find_split_levels(names, class_level)
        if not has_splits and (depth := min(map(len, names), default=0)) == len(levels):
            levels = [level for level in levels if level < depth - 1]
        stripped = [
            Folder(example, tuple(name for level, name in enumerate(parts) if level not in levels), count)
            for example, parts, count in zip(examples, names, counts)
        ]
        return cls(index, splits, stripped, outside)


@dataclass(frozen=True)
class _Reading:
    """What one thing states about the splits.

    Args:
        kind: one of `SPLIT_READINGS`.
        splits: the split of each image; `not SPLIT`, or None if it is not stated.
        describe: returns the reading of an image as text.
    """

    kind: str
    splits: Sequence[str | None]
    describe: Callable[[int], str]


def assign_splits(stated: Statements, folders: Folders, split_from: str | None) -> list[str]:
    """Decides the split of each image: from columns, the path, and the name of the archive, which must agree.

    Args:
        stated: what the source states.
        folders: the folders of the images.
        split_from: the only reading that counts; `none`: all images are `train`.
    """
    readings = list(_split_readings(stated, folders, split_from))
    if split_from in (None, PATH) and not any(_states_split(reading) for reading in readings):
        readings += _path_readings(stated, folders, outside=True)
    if any(_states_split(reading) for reading in readings):
        return _combine(stated, [reading for reading in readings if any(reading.splits)])
    if excluding := [reading for reading in readings if NOT + "train" in reading.splits]:
        unknown = [excluding[0].describe(excluding[0].splits.index(NOT + "train"))]
        raise UsageError(DataMessage.UNKNOWN_SPLIT_NAMES, source=stated.root, unknown=unknown, known=SPLIT_NAMES)
    if split_from is None:
        _check_unclear_names(stated, folders)
    if split_from not in (None, NONE):
        raise UsageError(DataMessage.SPLIT_READING_MISSING, source=stated.root, reading=split_from)
    logger.info("%s states no splits: all images are training images.", stated.root)
    return ["train"] * len(stated.file_names)


def _states_split(reading: _Reading) -> bool:
    return any(split is not None and not split.startswith(NOT) for split in reading.splits)


def _combine(stated: Statements, readings: list[_Reading]) -> list[str]:
    """Returns the split of each image.

    Raises:
        UsageError: If the readings of an image contradict each other, or if an image has none.
    """
    first_row: dict[tuple[str | None, ...], int] = {}
    counts: dict[tuple[str | None, ...], int] = {}
    combinations = list(zip(*(reading.splits for reading in readings)))
    for row, combination in enumerate(combinations):
        first_row.setdefault(combination, row)
        counts[combination] = counts.get(combination, 0) + 1
    chosen: dict[tuple[str | None, ...], str] = {}
    undecided = []
    for combination, row in first_row.items():
        values = {value for value in combination if value is not None}
        splits = {value for value in values if not value.startswith(NOT)}
        if len(splits) > 1 or any(NOT + split in values for split in splits):
            _raise_contradiction(stated, readings, row, counts[combination])
        if splits:
            chosen[combination] = splits.pop()
        else:
            undecided.append(combination)
    if undecided:
        _raise_incomplete(stated, readings, first_row, undecided, sum(counts[item] for item in undecided))
    return [chosen[combination] for combination in combinations]


def _split_readings(stated: Statements, folders: Folders, split_from: str | None) -> Iterator[_Reading]:
    """Yields the readings of the splits, of all kinds or of the requested one."""
    if split_from in (None, COLUMN):
        yield from _column_readings(stated)
    if split_from in (None, PATH) and not stated.is_final:
        yield from _path_readings(stated, folders, outside=False)
    if split_from in (None, ARCHIVE) and not stated.is_final and (names := stated.containers) is not None:
        parsed = {name: container_split(name) for name in set(names)}
        yield _Reading(ARCHIVE, [parsed[name] for name in names], partial(_describe_value, ARCHIVE, names))


def _describe_value(name: str, values: Sequence[Any], row: int) -> str:
    return f"{name}: {values[row]}"


def _column_readings(stated: Statements) -> Iterator[_Reading]:
    columns = {name: _parse_split_column(name, values) for name, values in stated.split_columns.items()}
    stating = {name for name, (splits, _) in columns.items() if any(splits)}
    unused: dict[str, list[str]] = {}
    for name, (splits, unknown) in columns.items():
        is_split = name in stating or name.lower() == SPLIT_COLUMNS[0] or not stating and name.lower() in SPLIT_COLUMNS
        if unknown and is_split:
            raise UsageError(DataMessage.UNKNOWN_SPLIT_NAMES, source=stated.root, unknown=unknown, known=SPLIT_NAMES)
        if unknown and has_split_word(name):
            unused[name] = unknown[:MAX_EXAMPLES]
        yield _Reading(COLUMN, splits, partial(_describe_value, f"{COLUMN} {name}", stated.split_columns[name]))
    if unused:
        inform(
            logger, DataMessage.SPLIT_COLUMNS_UNUSED, source=stated.root, columns=[*unused], values=[*unused.values()]
        )


def _parse_split_column(name: str, values: Sequence[Any]) -> tuple[list[str | None], list[str]]:
    """Returns the splits of a column, and its values that are not splits.

    A column of booleans that is named after a split (`is_test`) states this split, or excludes it.
    """
    texts = ["" if value is None else str(value).strip().lower() for value in values]
    distinct = set(texts)
    split = flagged_split(name)
    if split is not None and distinct <= {"", *FLAG_VALUES}:
        flags = {text: f"{'' if is_true else NOT}{split}" for text, is_true in FLAG_VALUES.items()}
        return [flags.get(text) for text in texts], []
    parsed = {text: parse_split_name(text) for text in distinct}
    return [parsed[text] for text in texts], sorted(text for text, split in parsed.items() if text and split is None)


def _path_readings(stated: Statements, folders: Folders, outside: bool) -> Iterator[_Reading]:
    """Yields the readings of the folders.

    Args:
        stated: what the source states.
        folders: the folders of `stated.paths`.
        outside: read the folders that are not below the root, in place of those that are.
    """
    if stated.is_final:
        return
    sources = [(stated.paths, folders)]
    if stated.stored_paths is not None:
        sources.append((stated.stored_paths, Folders.from_paths(stated.stored_paths)))
    for paths, found in sources:
        by_folder = []
        for splits, folder, is_outside in zip(found.splits, found.stripped, found.outside):
            if len(splits) > 1 and is_outside == outside:
                raise UsageError(
                    DataMessage.SPLITS_AT_TWO_LEVELS,
                    root=stated.root,
                    name=folder.example,
                    splits=sorted(splits),
                    level=max(len(folder.names), 1),
                )
            by_folder.append(next(iter(splits), None) if is_outside == outside else None)
        splits_by_image = [by_folder[number] for number in found.index]
        yield _Reading(PATH, splits_by_image, partial(_describe_value, PATH, paths))


def container_split(name: str) -> str | None:
    """Returns the split that the name of an archive or a table file states: `kvasir_test.zip`, `val/0.parquet`."""
    splits = _splits_in_name(name)
    if len(splits) == 1:
        return splits.pop()
    return "train" if splits == {"train", "validation"} else None


def _splits_in_name(container: str) -> set[str]:
    words = split_words(container.rpartition(".")[0] or container)
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return splits or ({"validation", "test"} if any(word in UNCLEAR_NAMES for word in words) else set())


def _check_unclear_names(stated: Statements, folders: Folders) -> None:
    """Raises UsageError if nothing but the names of archives, folders or files states splits, and they are unclear."""
    if stated.is_final:
        return
    names = sorted({name for folder in folders.stripped for name in folder.names})
    unclear = [
        name
        for name in names
        if {*split_words(name)} - STOPWORDS and {*split_words(name)} - STOPWORDS <= {*UNCLEAR_NAMES}
    ]
    for name in (*set(stated.containers or ()), *unclear):
        if splits := sorted(_splits_in_name(name)):
            raise UsageError(DataMessage.SEVERAL_SPLITS_IN_NAME, source=stated.root, name=name, splits=splits)
    first_words = set()
    for name in stated.file_names:
        word = next(iter(split_words(PurePosixPath(name).name)), "")
        if word not in SPLIT_NAMES:
            return
        first_words.add(SPLIT_NAMES[word])
    if len(first_words) > 1:
        name, splits = PurePosixPath(stated.file_names[0]).name, sorted(first_words)
        raise UsageError(DataMessage.SEVERAL_SPLITS_IN_NAME, source=stated.root, name=name, splits=splits)


def _check_splits_in_labels(labels: Iterable[str], root: str) -> None:
    """Raises UsageError if two class names differ only in the words of splits: `polyp_train` and `polyp_test`."""
    by_rest: dict[str, dict[str, str]] = {}
    for label in labels:
        words = split_words(label)
        if len(splits := {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}) == 1 and len(words) > 1:
            rest = re.sub("|".join(SPLIT_NAMES), "", label, flags=re.IGNORECASE)
            by_rest.setdefault(rest, {})[splits.pop()] = label
    if similar := [" and ".join(names.values()) for names in by_rest.values() if len(names) > 1]:
        raise UsageError(DataMessage.SPLITS_IN_CLASS_NAMES, source=root, names=similar)


def _raise_contradiction(stated: Statements, readings: list[_Reading], row: int, count: int) -> None:
    stating = [reading for reading in readings if reading.splits[row] is not None]
    kinds = [reading.kind for reading in stating]
    raise UsageError(
        DataMessage.SPLITS_CONTRADICT,
        source=stated.root,
        count=count,
        name=stated.file_names[row],
        readings=[f"{reading.splits[row]} ({reading.describe(row)})" for reading in stating],
        choices=" or ".join([kind for kind in kinds if kinds.count(kind) == 1] or [NONE]),
    )


def _raise_incomplete(
    stated: Statements,
    readings: list[_Reading],
    first_row: dict[tuple[str | None, ...], int],
    undecided: list[tuple[str | None, ...]],
    count: int,
) -> None:
    row = next(row for combination, row in first_row.items() if combination not in undecided)
    reading = next(reading for reading in readings if (reading.splits[row] or NOT)[: len(NOT)] != NOT)
    other = first_row[undecided[0]]
    raise UsageError(
        DataMessage.SPLITS_INCOMPLETE,
        source=stated.root,
        name=stated.file_names[row],
        split=reading.splits[row],
        reading=reading.describe(row),
        count=count,
        other=stated.file_names[other] + ("" if stated.containers is None else f" in {stated.containers[other]}"),
    )


def assign_labels(stated: Statements, folders: Folders, classes: list[FolderClass] | None) -> list[str]:
    """Decides the class name of each image: from a column, or else from its class folder.

    Args:
        stated: what the source states.
        folders: the folders of the images.
        classes: class and group of each folder, without labels of a column.
    """
    if stated.labels is None:
        names = [normalize_text(item.label) for item in classes or []]
        labels = [names[number] for number in folders.index]
    else:
        labels = _parse_values(stated.labels, lambda row: stated.locate(row, "label"))
    check_class_names(sorted(set(labels)), stated.root)
    return labels


def _parse_values(values: Sequence[Any], locate: Callable[[int], str]) -> list[str]:
    """Parses labels or groups; equal values are parsed once."""
    parsed: dict[Any, str] = {}
    texts = []
    for row, value in enumerate(values):
        key = (type(value), value) if isinstance(value, (str, int, float, bool)) else None
        if key is None or key not in parsed:
            text = parse_label(value, locate(row))
            if key is not None:
                parsed[key] = text
        texts.append(text if key is None else parsed[key])
    return texts


def assign_groups(
    stated: Statements,
    folders: Folders,
    classes: list[FolderClass] | None,
    group_column: str | None = None,
    group_pattern: str | None = None,
) -> list[str] | None:
    """Decides the patient or video of each image: from `group_pattern`, a column, or folders of patients.

    Args:
        stated: what the source states.
        folders: the folders of the images.
        classes: class and group of each folder, without labels of a column.
        group_column: name of the column, if it was requested.
        group_pattern: regular expression on the file name.
    """
    if group_column and stated.groups is None:
        raise UsageError(DataMessage.GROUP_COLUMN_WITHOUT_MANIFEST, column=group_column, root=stated.root)
    if group_pattern:
        return extract_groups(list(stated.file_names), group_pattern)
    if stated.groups is not None:
        return _parse_values(stated.groups, lambda row: stated.locate(row, group_column or "group"))
    if stated.is_final:
        return None
    if classes is None:
        level = find_patient_level(folders.stripped, NAMED_PATIENT)
        by_folder = [None if level is None else folder.names[level] for folder in folders.stripped]
    else:
        by_folder = [item.group for item in classes]
    if None in by_folder or not by_folder:
        _warn_of_patients(stated.root, folders, classes)
        return None
    groups = [str(by_folder[number]) for number in folders.index]
    examples = list(dict.fromkeys(groups))[:MAX_EXAMPLES]
    inform(logger, DataMessage.GROUPS_FROM_FOLDERS, source=stated.root, pattern=PATIENT_TEXT, examples=examples)
    return groups


def _warn_of_patients(root: str, folders: Folders, classes: list[FolderClass] | None) -> None:
    """Warns of folders that look like patients and are not groups, because not all images are in them."""
    labels = [item.label for item in classes] if classes else [""] * len(folders.stripped)
    counts: dict[str, int] = {}
    for folder, label in zip(folders.stripped, labels):
        for name in folder.names:
            if name != label and NAMED_PATIENT.fullmatch(name):
                counts[name] = counts.get(name, 0) + folder.count
                break
    if len(counts) > 1:
        grouped = sum(counts.values())
        others, examples = len(folders.index) - grouped, list(counts)[:MAX_EXAMPLES]
        warn(logger, DataMessage.PATIENTS_IN_PART, source=root, count=grouped, others=others, examples=examples)
