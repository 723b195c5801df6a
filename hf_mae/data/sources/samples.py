"""Labelled image files (samples), their `datasets.Dataset`, and the checks of both."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from datasets import ClassLabel, Dataset, Features, Image, Value

from ...errors import MAX_MESSAGE_LENGTH, UsageError, pluralize, warn
from ..exclusion_log import ExclusionReason, record_excluded, record_total
from ..images.image_check import ImageCheck, check_image_files
from ..messages import DataMessage
from ..splits import SPLITS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """A labelled image file."""

    path: str
    label: str
    split: str
    file_name: str  # relative to data_dir, as shown to the user
    group: str | None = None  # patient or video
    extra_columns: dict[str, str] = field(default_factory=dict)


ImageCheckFn = Callable[[list[str], list[str]], ImageCheck]  # checks (paths, splits); the result has their order


def samples_to_dataset(samples: list[Sample], class_names: list[str]) -> Dataset:
    """Builds a dataset of paths, with `image`, `labels`, `file_name`, and `group` if each sample has one."""
    ids = {name: index for index, name in enumerate(class_names)}
    columns = {
        "image": [sample.path for sample in samples],
        "labels": [ids[sample.label] for sample in samples],
        "file_name": [sample.file_name for sample in samples],
    }
    features = Features({"image": Image(), "labels": ClassLabel(names=class_names), "file_name": Value("string")})
    if groups := _get_groups(samples):
        columns["group"], features["group"] = groups, Value("string")
    for name in samples[0].extra_columns if samples else ():
        columns[name], features[name] = [sample.extra_columns.get(name, "") for sample in samples], Value("string")
    return Dataset.from_dict(columns, features=features)


def _get_groups(samples: list[Sample]) -> list[str] | None:
    groups = [sample.group for sample in samples if sample.group is not None]
    return groups if len(groups) == len(samples) else None


def join_names(names: list[str], show_all: bool = False) -> str:
    """Joins names with commas for a message: all of them, or the first five and the total."""
    names = [name if len(name) <= MAX_MESSAGE_LENGTH else f"{name[:MAX_MESSAGE_LENGTH]}..." for name in names]
    return ", ".join(names) if show_all or len(names) <= 5 else f"{', '.join(names[:5])}, ... {len(names)} in all"


def filter_valid_samples(
    samples: list[Sample],
    empty_folders: list[str],
    on_bad_image: str,
    num_workers: int | None,
    *,
    check_overlap: bool = True,
    check: ImageCheckFn | None = None,
) -> list[Sample]:
    """Finds unreadable files and images in two splits, and rejects or excludes them.

    Args:
        samples: the samples.
        empty_folders: class folders without images.
        on_bad_image: `error` lists all invalid images in an error; `skip` excludes them.
        num_workers: threads that read the files.
        check_overlap: look for images in two splits. Official splits are used as published, with repeated files.
        check: see `load_image_folder`.
    """
    names, splits = [sample.file_name for sample in samples], [sample.split for sample in samples]
    paths = [sample.path for sample in samples]
    checked = check_image_files(paths, num_workers, check_fn=check and (lambda: check(paths, splits)))
    mask = valid_image_mask(
        names, splits, checked, on_bad_image, empty_folders=empty_folders, check_overlap=check_overlap
    )
    return [sample for sample, is_valid in zip(samples, mask) if is_valid]


def valid_image_mask(
    names: list[str],
    splits: list[str],
    checked: ImageCheck,
    on_bad_image: str,
    *,
    empty_folders: Sequence[str] = (),
    check_overlap: bool = True,
) -> list[bool]:
    """Selects the images that can be decoded; of equal images in two splits, those in the evaluated split.

    Raises:
        UsageError: If there are other images and `on_bad_image` is `error`; all are listed.
    """
    problems: dict[str, list[str]] = {}
    if empty_folders:
        problems[f"{pluralize(len(empty_folders), 'class folder')} without images"] = list(empty_folders)
    if checked.bad:
        unreadable = [f"{names[index]} ({reason})" for index, reason in checked.bad.items()]
        problems[pluralize(len(unreadable), "unreadable image")] = unreadable
    record_total(len(names))
    excluded, overlaps = _find_split_overlap(names, splits, checked.digests) if check_overlap else (set(), [])
    if overlaps:
        problems[f"{pluralize(len(overlaps), 'image')} in two splits"] = overlaps
    if problems:
        text = "\n".join(f"{problem}:\n  " + "\n  ".join(sorted(listed)) for problem, listed in problems.items())
        if on_bad_image == "error":
            raise UsageError(DataMessage.INVALID_IMAGES, problems=text)
        warn(logger, DataMessage.INVALID_IMAGES_EXCLUDED, problems=text)
        record_excluded(ExclusionReason.UNREADABLE, len(checked.bad), [names[index] for index in checked.bad])
        repeated = sorted(names[index] for index in excluded - set(checked.bad))
        record_excluded(ExclusionReason.IN_ANOTHER_SPLIT, len(repeated), repeated)
    return [index not in checked.bad and index not in excluded for index in range(len(names))]


def _find_split_overlap(names: list[str], splits: list[str], digests: list[str]) -> tuple[set[int], list[str]]:
    """Finds images with equal pixels in different splits: the indices to exclude, and a description of all of them."""
    by_digest = defaultdict(list)
    for index, digest in enumerate(digests):
        if digest:
            by_digest[digest].append(index)
    excluded, overlaps = set(), []
    for equal in by_digest.values():
        if len({splits[index] for index in equal}) > 1:
            ordered = sorted(equal, key=lambda index: (SPLITS.index(splits[index]), names[index]))
            overlaps.append(" = ".join(f"{splits[index]}: {names[index]}" for index in ordered))
            # The evaluated split keeps its images: test before validation before train.
            excluded |= {index for index in equal if splits[index] != splits[ordered[-1]]}
    return excluded, overlaps
