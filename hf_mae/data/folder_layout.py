"""What a folder tree says of its images: which of its levels are splits, which is the class, which the patient.

People keep images as `split/class/image`, `class/image`, `class/split/image`, below folders of their own, and with a
folder for each patient or video below the class. What can be read in two ways is refused, with both.
"""

import logging
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import UsageError, pluralize
from .image_files import walk_images
from .samples import Sample, join_names
from .splits import parse_split_name

logger = logging.getLogger(__name__)

# Names that people give to the folders of patients, videos and examinations, and hardly to classes.
PATIENT_FOLDER = re.compile(
    r"(patient|pat|case|subject|subj|sub|person|video|vid|study|exam|examination|session|seq|sequence|lesion|id|p|v)"
    r"[\s_.-]*(no[\s_.-]*)?[a-z]{0,2}\d+([\s_.-]\w+)?|[\da-f]*\d[\da-f]{3,}|\d+([\s_.-]\d+)*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _ImagePath:
    """An image and the folders that lead to it, without the one that is its split."""

    name: str
    folders: tuple[str, ...]
    split: str


def scan_folder(root: Path, class_level: int | None = None) -> tuple[list[Sample], list[str]]:
    """Every image below `root` as an entry, and the class folders that hold none.

    Args:
        class_level: which folder is the class, counted from 1 below the root (and below the split, where there are
            splits); not given: the image's own folder, or the one above folders that are patients.

    Raises:
        UsageError: the folders can be read in two ways, or images are in no class folder.
    """
    tree = walk_images(root)
    if tree.ignored_counts:
        logger.info("Not read of %s: %s", root, tree.summary())
    if not tree.images:
        more = f" (not read: {tree.summary()})" if tree.ignored_counts else ""
        raise UsageError(f"{root} holds no images{more}: put them into a folder for each class.")
    names = [PurePosixPath(Path(name).as_posix()) for name in tree.images]
    level = _find_split_level(root, names, class_level)
    images = [_strip_split_folder(name, level) for name in names]
    _check_class_folders(root, images)
    _check_split_folder_names(root, images, level, class_level)
    classes = _infer_classes(root, images, class_level)
    entries = [
        Sample(os.path.join(root, image.name), label, image.split, image.name, group)
        for image, (label, group) in zip(images, classes)
    ]
    with_images = {PurePosixPath(image.name).parent for image in images}
    leaves = [PurePosixPath(Path(folder).as_posix()) for folder in tree.leaf_folders]
    deep_enough = 1 if level is None else 2  # a class folder, rather than the root or a split
    empty = [str(leaf) for leaf in leaves if len(leaf.parts) >= deep_enough and leaf not in with_images]
    return entries, empty


def _find_split_level(root: Path, names: list[PurePosixPath], class_level: int | None) -> int | None:
    """At which level of the tree the splits are, from 0; None: there are none.

    Raises:
        UsageError: at some level a few folders are named like splits and others are not.
    """
    depth = max(len(name.parts) - 1 for name in names)
    found = []
    for level in range(depth):
        words = {name.parts[level] if len(name.parts) - 1 > level else None for name in names}
        splits = {word for word in words if word and parse_split_name(word)}
        if not splits:
            continue
        others = sorted(str(word) for word in words - splits if word)
        if others or None in words:
            if class_level is not None:
                continue
            beside = ", ".join(others[:5]) or "images"
            raise UsageError(
                f"{root} has split folders ({', '.join(sorted(splits))}) and others beside them ({beside}): is one of "
                "them a class? Move the class folders into train/, validation/ or test/; or, if all of these are "
                "classes, pass --class_level."
            )
        found.append(level)
    if len(found) > 1:
        both = [sorted({name.parts[level] for name in names}) for level in found]
        raise UsageError(
            f"{root} has folders named like splits at two levels ({', '.join(both[0])}; {', '.join(both[1])}): leave "
            "one."
        )
    return found[0] if found else None


def _strip_split_folder(name: PurePosixPath, level: int | None) -> _ImagePath:
    folders = name.parts[:-1]
    if level is None:
        return _ImagePath(str(name), folders, "train")
    split = parse_split_name(folders[level]) or "train"
    return _ImagePath(str(name), folders[:level] + folders[level + 1 :], split)


def _check_class_folders(root: Path, images: list[_ImagePath]) -> None:
    homeless = [image.name for image in images if not image.folders]
    if homeless:
        raise UsageError(
            f"{root} has {pluralize(len(homeless), 'image')} in no class folder ({join_names(homeless)}): an image's class "
            "is the name of its own folder."
        )


def _check_split_folder_names(root: Path, images: list[_ImagePath], level: int | None, class_level: int | None) -> None:
    """Two folders with the same classes in them may be splits whose names are not known: they are not thrown
    together."""
    if level is not None or class_level is not None:
        return
    tops: dict[str, set[str]] = defaultdict(set)
    for image in images:
        if len(image.folders) > 1:
            tops[image.folders[0]].add(image.folders[-1])
    names = sorted(tops)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            both = sorted(name for name in tops[first] & tops[second] if not PATIENT_FOLDER.fullmatch(name))
            if both:
                depth = max(len(image.folders) for image in images)
                raise UsageError(
                    f"{root} has {', '.join(both[:3])} in {first}/ and in {second}/. If these are two splits, call "
                    f"them train, validation or test; if {both[0]} ... are the classes, of one set, pass "
                    f"--class_level {depth}; if {first} is a class, with {both[0]} a patient or a part of it, pass "
                    "--class_level 1."
                )


def _infer_classes(root: Path, images: list[_ImagePath], class_level: int | None) -> list[tuple[str, str | None]]:
    """Class of every image, and its patient or video where the folders tell."""
    if class_level is not None:
        return [_class_at_level(root, image, class_level) for image in images]
    nested = [image for image in images if len(image.folders) > 1]
    patients = [image for image in nested if PATIENT_FOLDER.fullmatch(image.folders[-1])]
    if patients and len(patients) < len(images):
        other = next(image for image in images if image not in patients)
        raise UsageError(
            f"{root} has folders that look like patients or videos ({patients[0].name}) and others that do not "
            f"({other.name}): --class_level 1 says that the first folder is the class, --class_level "
            f"{len(patients[0].folders)} the one that {patients[0].folders[-1]} is."
        )
    if patients:
        depth = min(_first_patient_level(image.folders) for image in images)
        if depth < 1:
            raise UsageError(
                f"{root} has folders of patients or videos ({nested[0].folders[0]}...) above all others: the class is "
                "to be above them, or pass --class_level."
            )
        logger.info(
            "%s has a folder for each patient or video (%s...) below each class (%s...): these are the groups. "
            "--class_level %d says that they are the classes.",
            root,
            images[0].folders[depth],
            images[0].folders[depth - 1],
            depth + 1,
        )
        return [(image.folders[depth - 1], image.folders[depth]) for image in images]
    if nested:
        logger.info(
            "The class of an image is the name of its own folder, as %s for %s.", nested[0].folders[-1], nested[0].name
        )
    return [(image.folders[-1], None) for image in images]


def _first_patient_level(folders: tuple[str, ...]) -> int:
    """From which level on all folders are patients', videos' or examinations'."""
    level = len(folders)
    while level and PATIENT_FOLDER.fullmatch(folders[level - 1]):
        level -= 1
    return level


def _class_at_level(root: Path, image: _ImagePath, class_level: int) -> tuple[str, str | None]:
    if not 1 <= class_level <= len(image.folders):
        raise UsageError(
            f"--class_level {class_level} does not fit {image.name} of {root}, which has {len(image.folders)} folders "
            "beside its split."
        )
    label = image.folders[class_level - 1]
    return label, image.folders[class_level] if class_level < len(image.folders) else None
