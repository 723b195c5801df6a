"""Datasets of images: their columns, and the images of them that are valid."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

import pyarrow.compute as pc
from datasets import Dataset, Features, Image, Value

from ...compat.datasets import get_fingerprint
from ...errors import MAX_MESSAGE_LENGTH, UsageError, pluralize, warn
from ..columns import arrow_column
from ..exclusion_log import ExclusionReason, record_excluded, record_total
from ..images.image_check import ImageCheck, check_image_files, check_table_images
from ..messages import DataMessage
from ..splits import SPLITS
from .kinds import DIGEST_COLUMN

logger = logging.getLogger(__name__)


ImageCheckFn = Callable[[list[str], list[str]], ImageCheck]  # checks (paths, splits); the result has their order


def build_path_dataset(paths: list[str], file_names: list[str]) -> Dataset:
    """Builds a dataset of image files, with `image` (decoded on access) and `file_name`."""
    features = Features({"image": Image(), "file_name": Value("string")})
    return Dataset.from_dict({"image": paths, "file_name": file_names}, features=features)


def join_names(names: list[str], show_all: bool = False) -> str:
    """Joins names with commas for a message: all of them, or the first five and the total."""
    names = [name if len(name) <= MAX_MESSAGE_LENGTH else f"{name[:MAX_MESSAGE_LENGTH]}..." for name in names]
    return ", ".join(names) if show_all or len(names) <= 5 else f"{', '.join(names[:5])}, ... {len(names)} in all"


def check_samples(
    data: Dataset,
    num_workers: int | None,
    splits: list[str] | None = None,
    check: ImageCheckFn | None = None,
    *,
    decode: bool = True,
) -> ImageCheck:
    """Finds the images that cannot be decoded, and the digests of the others; `hf-mae shard` did this for its shards.

    Args:
        data: with the columns of `kinds.Samples`.
        num_workers: threads that read the files.
        splits, check: another function that decodes and checks separate files, and the splits that it gets.
        decode: see `check_image_files`.
    """
    if DIGEST_COLUMN in data.column_names:
        return ImageCheck({}, arrow_column(data, DIGEST_COLUMN).to_pylist())
    images = arrow_column(data, "image")
    if pc.struct_field(images, "bytes").null_count == len(images):
        paths = pc.struct_field(images, "path").to_pylist()
        return check_image_files(
            paths, num_workers, decode=decode, check_fn=check and (lambda: check(paths, splits or []))
        )
    rows = data.select_columns(["image"]).cast_column("image", Image(decode=False))["image"]
    return check_table_images(rows, get_fingerprint(data), num_workers, decode=decode)


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
