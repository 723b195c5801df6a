"""Decides the split, the label and the group of each image: one function each, for all kinds of sources.

Each of them has up to three readings: a column (or a sidecar file) of the source, the folders of the image below the
source's root, and the name of the archive or table that contains it. Readings that contradict each other, or that exist
for a part of the images only, stop the run. Without any reading, all images are training images, which is logged.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from ...errors import UsageError, inform
from ...settings.data import SPLIT_READINGS
from ..messages import DataMessage
from ..splits import SPLIT_NAMES, extract_groups, parse_split_name, split_words
from .folder_layout import (
    NAMED_PATIENT,
    PATIENT_TEXT,
    Folder,
    FolderClass,
    find_patient_level,
    find_split_levels,
    infer_folder_classes,
)
from .tables import check_class_names, normalize_text, parse_label

logger = logging.getLogger(__name__)

COLUMN, PATH, ARCHIVE, NONE = SPLIT_READINGS
MAX_EXAMPLES = 3  # groups in the log


@dataclass(frozen=True)
class Statements:
    """What a source states about its images; each list has one value per image.

    Args:
        root: the source, for messages.
        file_names: names of the images.
        paths: paths of the images below the root, as the source has them; an empty text if the name was made up.
        labels, splits, groups: values of the columns or sidecar files; None without.
        containers: name of the archive or table file below the root; None for separate files.
        locate: returns the location of a value (row, column), for messages.
        is_final: the splits and groups are official or written by this package; names are not compared with them.
    """

    root: str
    file_names: Sequence[str]
    paths: Sequence[str]
    labels: Sequence[Any] | None = None
    splits: Sequence[Any] | None = None
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
    folders = Folders.from_paths(stated.paths, class_level)
    splits = assign_splits(stated, folders, split_from)
    classes = None if stated.labels is not None else infer_folder_classes(stated.root, folders.stripped, class_level)
    labels = assign_labels(stated, folders, classes)
    return Assignment(splits, labels, assign_groups(stated, folders, classes, group_column, group_pattern))


class Folders:
    """The distinct folders of a source, without the level of the split folders.

    Args:
        index: folder number of each image.
        splits: split words in the path of each folder.
        stripped: each folder without split folders.
    """

    def __init__(self, index: list[int], splits: list[set[str]], stripped: list[Folder]):
        self.index, self.splits, self.stripped = index, splits, stripped

    @classmethod
    def from_paths(cls, paths: Sequence[str], class_level: int | None) -> "Folders":
        """Finds the folders of images and the level of their split folders."""
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
        split_paths = [tuple(name for name in PurePosixPath(path).parts if name not in ("/", "..")) for path in numbers]
        levels, splits = find_split_levels(split_paths, class_level)
        stripped = [
            Folder(example, tuple(name for level, name in enumerate(names) if level not in levels), count)
            for example, names, count in zip(examples, split_paths, counts)
        ]
        return cls(index, splits, stripped)


def assign_splits(stated: Statements, folders: Folders, split_from: str | None) -> list[str]:
    """Decides the split of each image: from a column, the path, and the name of the archive, which must agree.

    Args:
        stated: what the source states.
        folders: the folders of the images.
        split_from: the only reading that counts; `none`: all images are `train`.
    """
    readings = _split_readings(stated, folders, split_from)
    if not readings and split_from is None:
        _check_container_names(stated)
    if not readings:
        if split_from not in (None, NONE):
            raise UsageError(DataMessage.SPLIT_READING_MISSING, source=stated.root, reading=split_from)
        logger.info("%s states no splits: all images are training images.", stated.root)
        return ["train"] * len(stated.file_names)
    first_row: dict[tuple[str | None, ...], int] = {}
    counts: dict[tuple[str | None, ...], int] = {}
    combinations = list(zip(*readings.values()))
    for row, combination in enumerate(combinations):
        first_row.setdefault(combination, row)
        counts[combination] = counts.get(combination, 0) + 1
    chosen: dict[tuple[str | None, ...], str] = {}
    undecided = []
    for combination, row in first_row.items():
        values = {value for value in combination if value is not None}
        if len(values) > 1:
            _raise_contradiction(stated, readings, combination, row, counts[combination])
        if values:
            chosen[combination] = values.pop()
        else:
            undecided.append(combination)
    if undecided:
        _raise_incomplete(stated, readings, first_row, undecided, sum(counts[item] for item in undecided))
    return [chosen[combination] for combination in combinations]


def _split_readings(stated: Statements, folders: Folders, split_from: str | None) -> dict[str, list[str | None]]:
    """Returns the readings that give at least one image a split."""
    makers: dict[str, Callable[[], list[str | None]]] = {COLUMN: partial(_splits_of_column, stated)}
    if not stated.is_final:
        makers[PATH] = partial(_splits_of_folders, stated, folders)
        makers[ARCHIVE] = partial(_splits_of_containers, stated)
    wanted = [reading for reading in makers if split_from in (None, reading)]
    readings = {reading: makers[reading]() for reading in wanted}
    return {reading: values for reading, values in readings.items() if any(value is not None for value in values)}


def _splits_of_column(stated: Statements) -> list[str | None]:
    if stated.splits is None:
        return []
    texts = ["" if value is None else str(value).strip().lower() for value in stated.splits]
    parsed = {text: parse_split_name(text) for text in set(texts)}
    if unknown := sorted(text for text, split in parsed.items() if text and split is None):
        raise UsageError(DataMessage.UNKNOWN_SPLIT_NAMES, source=stated.root, unknown=unknown, known=SPLIT_NAMES)
    return [parsed[text] for text in texts]


def _splits_of_folders(stated: Statements, folders: Folders) -> list[str | None]:
    for splits, folder in zip(folders.splits, folders.stripped):
        if len(splits) > 1:
            raise UsageError(
                DataMessage.SPLITS_AT_TWO_LEVELS, root=stated.root, name=folder.example, splits=sorted(splits)
            )
    by_folder = [next(iter(splits), None) for splits in folders.splits]
    return [by_folder[number] for number in folders.index]


def _splits_of_containers(stated: Statements) -> list[str | None]:
    if stated.containers is None:
        return []
    parsed = {name: container_split(name) for name in set(stated.containers)}
    return [parsed[name] for name in stated.containers]


def container_split(name: str) -> str | None:
    """Returns the split that the name of an archive or a table file states: `kvasir_test.zip`, `val/0.parquet`."""
    splits = _splits_in_name(name)
    if len(splits) == 1:
        return splits.pop()
    return "train" if splits == {"train", "validation"} else None


def _splits_in_name(container: str) -> set[str]:
    words = split_words(container.rpartition(".")[0] or container)
    return {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}


def _check_container_names(stated: Statements) -> None:
    """Raises UsageError if nothing but the name of an archive states splits, and it names several."""
    for name in set(stated.containers or ()) if not stated.is_final else ():
        if splits := sorted(_splits_in_name(name)):
            raise UsageError(DataMessage.SEVERAL_SPLITS_IN_NAME, source=stated.root, name=name, splits=splits)


def _raise_contradiction(
    stated: Statements,
    readings: dict[str, list[str | None]],
    combination: tuple[str | None, ...],
    row: int,
    count: int,
) -> None:
    described = [
        f"{split} ({_describe(stated, reading, row)})"
        for reading, split in zip(readings, combination)
        if split is not None
    ]
    choices = [reading for reading, split in zip(readings, combination) if split is not None]
    raise UsageError(
        DataMessage.SPLITS_CONTRADICT,
        source=stated.root,
        count=count,
        name=stated.file_names[row],
        readings=described,
        choices=" or ".join(choices),
    )


def _raise_incomplete(
    stated: Statements,
    readings: dict[str, list[str | None]],
    first_row: dict[tuple[str | None, ...], int],
    undecided: list[tuple[str | None, ...]],
    count: int,
) -> None:
    combination, row = next((item, row) for item, row in first_row.items() if item not in undecided)
    reading, split = next((name, value) for name, value in zip(readings, combination) if value is not None)
    other = first_row[undecided[0]]
    raise UsageError(
        DataMessage.SPLITS_INCOMPLETE,
        source=stated.root,
        name=stated.file_names[row],
        split=split,
        reading=_describe(stated, reading, row),
        count=count,
        other=stated.file_names[other] + ("" if stated.containers is None else f" in {stated.containers[other]}"),
    )


def _describe(stated: Statements, reading: str, row: int) -> str:
    """Returns a reading as text: `column: test`, `path: test/1.png`, `archive: test.zip`."""
    if reading == COLUMN and stated.splits is not None:
        return f"{COLUMN}: {stated.splits[row]}"
    if reading == ARCHIVE and stated.containers is not None:
        return f"{ARCHIVE}: {stated.containers[row]}"
    return f"{PATH}: {stated.paths[row]}"


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
    groups = [by_folder[number] for number in folders.index]
    existing = [group for group in groups if group is not None]
    if len(existing) < len(groups) or not existing:
        return None
    examples = list(dict.fromkeys(existing))[:MAX_EXAMPLES]
    inform(logger, DataMessage.GROUPS_FROM_FOLDERS, source=stated.root, pattern=PATIENT_TEXT, examples=examples)
    return existing
