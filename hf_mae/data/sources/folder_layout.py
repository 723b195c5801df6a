"""Finds the levels of splits, classes and patients in the folders of a source.

Supported layouts are `split/class/image`, `class/image` and `class/split/image`, below any other folders, and with one
folder per patient or video below or above the class. Ambiguous layouts raise an error that names both interpretations.
"""

import logging
import re
from collections import defaultdict
from dataclasses import dataclass

from ...errors import UsageError
from ..messages import DataMessage
from ..splits import parse_split_name

logger = logging.getLogger(__name__)

# Usual names of folders of patients, videos and examinations, which are unlikely names of classes. Letters may follow a
# long word (`patientAB12`), but not a short one (`pT1` and `IDH1` are classes).
LONG_WORDS = "patient|case|subject|person|video|study|examination|session|sequence|lesion"
SHORT_WORDS = "pat|subj|sub|vid|exam|seq|id|p|v"
SEPARATOR = r"[\s_.#-]"
NAMED_PATIENT = re.compile(
    rf"(?:(?:{LONG_WORDS}){SEPARATOR}*|(?:{SHORT_WORDS})(?:{SEPARATOR}+|(?=\d)))(?:no{SEPARATOR}*)?[a-z]{{0,2}}"
    rf"\d+[a-z]?(?:{SEPARATOR}+\w+)*|(?:patient|subject|person){SEPARATOR}+[a-z]+{SEPARATOR}*\d+",
    re.IGNORECASE,
)
PATIENT_FOLDER = re.compile(rf"{NAMED_PATIENT.pattern}|[\da-f]*\d[\da-f]{{3,}}|\d+([\s_.-]\d+)*", re.IGNORECASE)
PATIENT_TEXT = f"a word ({f'{LONG_WORDS}|{SHORT_WORDS}'.replace('|', ', ')}) and a number, or a number"


@dataclass(frozen=True)
class Folder:
    """A folder of images, without the level of the split folders: example, names in the path, number of images."""

    example: str
    names: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class FolderClass:
    """Class of a folder, and its patient or video if there is one."""

    label: str
    group: str | None = None


def find_split_levels(folders: list[tuple[str, ...]], class_level: int | None) -> tuple[list[int], list[set[str]]]:
    """Finds the levels, from 0, at which all folders are named like splits, and the splits in the path of each folder.

    With `class_level`, a level at which only some folders are named like splits, or like other splits than at a level
    above it, is not a level of splits.
    """
    levels: list[int] = []
    splits: list[set[str]] = [set() for _ in folders]
    for level in range(max(map(len, folders), default=0)):
        at_level = {names[level] if len(names) > level else "" for names in folders}
        parsed = {name: split for name in at_level if (split := parse_split_name(name))}
        is_complete = bool(parsed) and len(parsed) == len(at_level)
        if class_level is not None and is_complete:
            is_complete = all(in_path <= {parsed[names[level]]} for names, in_path in zip(folders, splits))
        if is_complete:
            levels.append(level)
        if is_complete or class_level is None:
            for names, in_path in zip(folders, splits):
                if len(names) > level and names[level] in parsed:
                    in_path.add(parsed[names[level]])
    return levels, splits


def find_patient_level(folders: list[Folder], pattern: re.Pattern[str]) -> int | None:
    """Returns the first level, from 0, at which all folders are patients and at least two differ; None without."""
    for level in range(min((len(folder.names) for folder in folders), default=0)):
        names = {folder.names[level] for folder in folders}
        if len(names) > 1 and all(pattern.fullmatch(name) for name in names):
            return level
    return None


def infer_folder_classes(root: str, folders: list[Folder], class_level: int | None) -> list[FolderClass]:
    """Infers the class of each folder, and its patient or video.

    Args:
        root: the source, for messages.
        folders: the folders, without the level of the splits.
        class_level: level of the class folders, counted from 1 below the root (split folders are not counted); by
            default the image's own folder, or its parent if the folders are patients.

    Raises:
        UsageError: If images are not in class folders, or if the layout is ambiguous.
    """
    if outside := [folder for folder in folders if not folder.names]:
        raise UsageError(
            DataMessage.IMAGES_OUTSIDE_CLASS_FOLDERS,
            root=root,
            count=sum(folder.count for folder in outside),
            names=", ".join(folder.example for folder in outside[:3]),
        )
    if class_level is not None:
        return _classes_at_level(root, folders, class_level)
    in_patient_folder = [folder for folder in folders if _is_in_patient_folder(folder)]
    if in_patient_folder and len(in_patient_folder) < len(folders):
        first = in_patient_folder[0]
        other = next(folder for folder in folders if folder not in in_patient_folder)
        raise UsageError(
            DataMessage.PATIENT_FOLDERS_IN_PART,
            root=root,
            patient=first.example,
            other=other.example,
            folder=first.names[-1],
            level=len(first.names),
        )
    depth = min(_first_patient_level(folder.names) for folder in folders) if in_patient_folder else None
    if depth == 0:
        first = max(folders, key=lambda folder: len(folder.names))
        raise UsageError(DataMessage.PATIENTS_ABOVE_CLASSES, root=root, folder=first.names[0])
    class_index = -1 if depth is None else depth - 1
    if depth is not None:
        _check_numbers_are_patients(root, folders, depth)
    heads = [Folder(folder.example, folder.names[:class_index], folder.count) for folder in folders]
    above = find_patient_level(heads, NAMED_PATIENT)
    if above != 0:
        _check_split_folder_names(root, folders)
    group_index = depth if above is None else above
    _log_class_level(folders, class_index)
    return [
        FolderClass(folder.names[class_index], None if group_index is None else folder.names[group_index])
        for folder in folders
    ]


def _check_numbers_are_patients(root: str, folders: list[Folder], depth: int) -> None:
    """Raises UsageError if folders that are only numbers would be patients of a single class; they may be classes."""
    numbers = {folder.names[depth] for folder in folders}
    is_named = all(NAMED_PATIENT.fullmatch(name) for name in numbers)
    if len({folder.names[depth - 1] for folder in folders}) == 1 and len(numbers) > 1 and not is_named:
        first = folders[0]
        raise UsageError(
            DataMessage.NUMBERS_IN_ONE_FOLDER,
            root=root,
            folder=first.names[depth - 1],
            number=first.names[depth],
            level=depth,
            next_level=depth + 1,
        )


def _is_in_patient_folder(folder: Folder) -> bool:
    return len(folder.names) > 1 and bool(PATIENT_FOLDER.fullmatch(folder.names[-1]))


def _log_class_level(folders: list[Folder], class_index: int) -> None:
    if nested := [folder for folder in folders if len(folder.names) > 1]:
        first = nested[0]
        logger.info(
            "The class of an image is the name of the folder %s, e.g. for %s. For another folder, pass --class_level.",
            first.names[class_index],
            first.example,
        )


def _check_split_folder_names(root: str, folders: list[Folder]) -> None:
    """Raises UsageError if two folders contain the same class names: they may be splits with unknown names."""
    classes_by_folder: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        if len(folder.names) > 1:
            classes_by_folder[folder.names[0]].add(folder.names[-1])
    names = sorted(classes_by_folder)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            both = classes_by_folder[first] & classes_by_folder[second]
            classes = sorted(name for name in both if not PATIENT_FOLDER.fullmatch(name))
            if classes:
                raise UsageError(
                    DataMessage.SAME_CLASSES_IN_TWO_FOLDERS,
                    root=root,
                    names=classes[:3],
                    first=first,
                    second=second,
                    example=classes[0],
                    level=max(len(folder.names) for folder in folders),
                )


def _first_patient_level(names: tuple[str, ...]) -> int:
    """Returns the level from which on all folders are patients, videos or examinations."""
    level = len(names)
    while level and PATIENT_FOLDER.fullmatch(names[level - 1]):
        level -= 1
    return level


def _classes_at_level(root: str, folders: list[Folder], class_level: int) -> list[FolderClass]:
    for folder in folders:
        if not 1 <= class_level <= len(folder.names):
            raise UsageError(
                DataMessage.CLASS_LEVEL_TOO_DEEP,
                root=root,
                level=class_level,
                name=folder.example,
                count=len(folder.names),
            )
    labels = [folder.names[class_level - 1] for folder in folders]
    if all(len(folder.names) > class_level for folder in folders):
        return [FolderClass(label, folder.names[class_level]) for label, folder in zip(labels, folders)]
    heads = [Folder(folder.example, folder.names[: class_level - 1], folder.count) for folder in folders]
    level = find_patient_level(heads, PATIENT_FOLDER)
    return [
        FolderClass(label, None if level is None else folder.names[level]) for label, folder in zip(labels, folders)
    ]
