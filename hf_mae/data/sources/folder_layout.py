"""Infers splits, classes and patients from a folder tree.

Supported layouts are `split/class/image`, `class/image` and `class/split/image`, below any other folders, and with one
folder per patient or video below the class. Ambiguous layouts raise an error that names both interpretations.
"""

import logging
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import UsageError
from ..messages import DataMessage
from ..splits import parse_split_name
from .image_files import walk_images
from .samples import Sample, join_names

logger = logging.getLogger(__name__)

# Usual names of folders of patients, videos and examinations, which are unlikely names of classes.
PATIENT_FOLDER = re.compile(
    r"(patient|pat|case|subject|subj|sub|person|video|vid|study|exam|examination|session|seq|sequence|lesion|id|p|v)"
    r"[\s_.-]*(no[\s_.-]*)?[a-z]{0,2}\d+([\s_.-]\w+)?|[\da-f]*\d[\da-f]{3,}|\d+([\s_.-]\d+)*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _ImagePath:
    """An image and its folders, without the split folder."""

    name: str
    folders: tuple[str, ...]
    split: str


def scan_folder(root: Path, class_level: int | None = None) -> tuple[list[Sample], list[str]]:
    """Lists all images below `root`, and the class folders without images.

    Args:
        root: the data folder.
        class_level: level of the class folders, counted from 1 below the root (split folders are not counted); by
            default the image's own folder, or its parent if the folders are patients.

    Raises:
        UsageError: If the layout is ambiguous, or if images are not in a class folder.
    """
    tree = walk_images(root)
    if tree.ignored_counts:
        logger.info("Ignored in %s: %s", root, tree.summary())
    if not tree.images:
        if tree.ignored_counts:
            raise UsageError(DataMessage.FOLDER_WITHOUT_READABLE_IMAGES, root=root, ignored=tree.summary())
        raise UsageError(DataMessage.FOLDER_WITHOUT_CLASSES, root=root)
    names = [PurePosixPath(Path(name).as_posix()) for name in tree.images]
    split_level = _find_split_level(root, names, class_level)
    images = [_strip_split_folder(name, split_level) for name in names]
    _check_class_folders(root, images)
    if split_level is None and class_level is None:
        _check_split_folder_names(root, images)
    classes = _infer_classes(root, images, class_level)
    samples = [
        Sample(os.path.join(root, image.name), label, image.split, image.name, group)
        for image, (label, group) in zip(images, classes)
    ]
    with_images = {PurePosixPath(image.name).parent for image in images}
    leaves = [PurePosixPath(Path(folder).as_posix()) for folder in tree.leaf_folders]
    min_depth = 1 if split_level is None else 2  # of a class folder; the root and the splits are above it
    empty = [str(leaf) for leaf in leaves if len(leaf.parts) >= min_depth and leaf not in with_images]
    return samples, empty


def _find_split_level(root: Path, names: list[PurePosixPath], class_level: int | None) -> int | None:
    """Returns the level of the split folders, from 0; None without splits.

    Raises:
        UsageError: If only some of the folders at a level are named like splits, or if there are two such levels.
    """
    depth = max(len(name.parts) - 1 for name in names)
    levels = []
    for level in range(depth):
        folders = {name.parts[level] if len(name.parts) - 1 > level else None for name in names}
        splits = {folder for folder in folders if folder and parse_split_name(folder)}
        if not splits:
            continue
        others = sorted(str(folder) for folder in folders - splits if folder)
        if others or None in folders:
            if class_level is not None:
                continue
            raise UsageError(
                DataMessage.SPLITS_AND_OTHER_FOLDERS, root=root, splits=sorted(splits), others=others[:5] or ["images"]
            )
        levels.append(level)
    if len(levels) > 1:
        first, second = (sorted({name.parts[level] for name in names}) for level in levels[:2])
        raise UsageError(DataMessage.SPLITS_AT_TWO_LEVELS, root=root, first=first, second=second)
    return levels[0] if levels else None


def _strip_split_folder(name: PurePosixPath, split_level: int | None) -> _ImagePath:
    folders = name.parts[:-1]
    if split_level is None:
        return _ImagePath(str(name), folders, "train")
    split = parse_split_name(folders[split_level]) or "train"
    return _ImagePath(str(name), folders[:split_level] + folders[split_level + 1 :], split)


def _check_class_folders(root: Path, images: list[_ImagePath]) -> None:
    outside = [image.name for image in images if not image.folders]
    if outside:
        raise UsageError(
            DataMessage.IMAGES_OUTSIDE_CLASS_FOLDERS, root=root, count=len(outside), names=join_names(outside)
        )


def _check_split_folder_names(root: Path, images: list[_ImagePath]) -> None:
    """Raises UsageError if two folders contain the same class names: they may be splits with unknown names."""
    classes_by_folder: dict[str, set[str]] = defaultdict(set)
    for image in images:
        if len(image.folders) > 1:
            classes_by_folder[image.folders[0]].add(image.folders[-1])
    folders = sorted(classes_by_folder)
    for number, first in enumerate(folders):
        for second in folders[number + 1 :]:
            both = classes_by_folder[first] & classes_by_folder[second]
            names = sorted(name for name in both if not PATIENT_FOLDER.fullmatch(name))
            if names:
                depth = max(len(image.folders) for image in images)
                raise UsageError(
                    DataMessage.SAME_CLASSES_IN_TWO_FOLDERS,
                    root=root,
                    names=names[:3],
                    first=first,
                    second=second,
                    example=names[0],
                    level=depth,
                )


def _infer_classes(root: Path, images: list[_ImagePath], class_level: int | None) -> list[tuple[str, str | None]]:
    """Infers the class of each image, and its patient or video if there are such folders."""
    if class_level is not None:
        return [_class_at_level(root, image, class_level) for image in images]
    nested = [image for image in images if len(image.folders) > 1]
    in_patient_folder = [image for image in nested if PATIENT_FOLDER.fullmatch(image.folders[-1])]
    if in_patient_folder and len(in_patient_folder) < len(images):
        first = in_patient_folder[0]
        raise UsageError(
            DataMessage.PATIENT_FOLDERS_IN_PART,
            root=root,
            patient=first.name,
            other=next(image.name for image in images if image not in in_patient_folder),
            folder=first.folders[-1],
            level=len(first.folders),
        )
    if in_patient_folder:
        depth = min(_first_patient_level(image.folders) for image in images)
        if depth < 1:
            raise UsageError(DataMessage.PATIENTS_ABOVE_CLASSES, root=root, folder=nested[0].folders[0])
        logger.info(
            "%s has one folder per patient or video (%s...) below each class (%s...); they are used as groups. If they "
            "are the classes, pass --class_level %d.",
            root,
            images[0].folders[depth],
            images[0].folders[depth - 1],
            depth + 1,
        )
        return [(image.folders[depth - 1], image.folders[depth]) for image in images]
    if nested:
        logger.info(
            "The class of an image is the name of its own folder, e.g. %s for %s.",
            nested[0].folders[-1],
            nested[0].name,
        )
    return [(image.folders[-1], None) for image in images]


def _first_patient_level(folders: tuple[str, ...]) -> int:
    """Returns the level from which on all folders are patients, videos or examinations."""
    level = len(folders)
    while level and PATIENT_FOLDER.fullmatch(folders[level - 1]):
        level -= 1
    return level


def _class_at_level(root: Path, image: _ImagePath, class_level: int) -> tuple[str, str | None]:
    if not 1 <= class_level <= len(image.folders):
        raise UsageError(
            DataMessage.CLASS_LEVEL_TOO_DEEP, root=root, level=class_level, name=image.name, count=len(image.folders)
        )
    label = image.folders[class_level - 1]
    return label, image.folders[class_level] if class_level < len(image.folders) else None
