"""Labelled image files -> a `datasets.Dataset`, and what can be wrong with them."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, Image, Value

from ..errors import MAX_MESSAGE_LENGTH, UsageError, pluralize
from ..files.archive_members import all_archives_exist, all_files_exist, archives_and_sizes, parse_member, stored_sizes
from .exclusion_log import record_excluded, record_total
from .image_check import ImageCheck, check_image_files
from .splits import SPLITS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One labelled image file."""

    path: str
    label: str
    split: str
    file_name: str  # as the user knows it: relative to data_dir
    group: str | None = None  # patient or video
    extra_columns: dict[str, str] = field(default_factory=dict)  # what else is known of it, by column


ImageCheckFn = Callable[[list[Sample]], ImageCheck]  # what is to be said of the images, in their order


def samples_to_dataset(samples: list[Sample], class_names: list[str]) -> Dataset:
    """A data set of paths, with `image`, `labels`, `file_name`, and `group` where every image has one."""
    ids = {name: index for index, name in enumerate(class_names)}
    columns = {
        "image": [entry.path for entry in samples],
        "labels": [ids[entry.label] for entry in samples],
        "file_name": [entry.file_name for entry in samples],
    }
    features = Features({"image": Image(), "labels": ClassLabel(names=class_names), "file_name": Value("string")})
    if groups := _get_groups(samples):
        columns["group"], features["group"] = groups, Value("string")
    for name in samples[0].extra_columns if samples else ():
        columns[name], features[name] = [entry.extra_columns.get(name, "") for entry in samples], Value("string")
    return Dataset.from_dict(columns, features=features)


def _get_groups(samples: list[Sample]) -> list[str] | None:
    groups = [entry.group for entry in samples]
    known = [group for group in groups if group is not None]
    return known if len(known) == len(groups) else None


def arrow_column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """A column as Arrow holds it: of a data set on the disk, it takes no memory."""
    whole = dataset.with_format("arrow").select_columns([name])[:]
    return whole.column(name)


def get_column(dataset: Dataset, name: str) -> list | None:
    """A column as a list; None where there is none."""
    return dataset[name][:] if name in dataset.column_names else None


def get_label_ids(dataset: Dataset) -> np.ndarray | None:
    """The class ids; None where there are none."""
    return arrow_column(dataset, "labels").to_numpy() if "labels" in dataset.column_names else None


def is_image_dataset(dataset: Any) -> bool:
    """Whether a data set is one of undecoded images with classes, rather than one that gives tensors."""
    if not isinstance(dataset, Dataset) or dataset.format["type"] not in (None, "python"):
        return False  # with a format or transform of its own, it gives what its owner wants
    return "image" in dataset.column_names


def standardize_columns(dataset: Dataset) -> Dataset:
    """A data set of images with the columns that this package works with: `image`, `labels`, `file_name`.

    `datasets.load_dataset("imagefolder")` calls the class `label`; its files have their names from their paths.
    """
    if "labels" not in dataset.column_names and "label" in dataset.column_names:
        dataset = dataset.rename_column("label", "labels")
    if "file_name" not in dataset.column_names:
        undecoded = dataset.select_columns(["image"]).cast_column("image", Image(decode=False))
        names = [str(row["image"].get("path") or index) for index, row in enumerate(undecoded)]
        dataset = dataset.add_column("file_name", names)
    return dataset


def get_image_paths(dataset: Dataset) -> list[str]:
    """The paths of the images, where every one is a file of its own or a member of an archive; else (a parquet file, a
    Hub data set) none."""
    paths = arrow_image_paths(dataset)
    return [] if paths is None else paths.to_pylist()


def arrow_image_paths(dataset: Dataset) -> pa.ChunkedArray | None:
    """`image_files` as Arrow holds them; None: there are none."""
    images = arrow_column(dataset, "image")
    paths = pc.struct_field(images, "path")
    if paths.null_count or pc.struct_field(images, "bytes").null_count < len(images) or not len(paths):
        return None
    within = archives_and_sizes(paths)
    there = all_files_exist(paths.to_pylist()) if within is None else all_archives_exist(within[0])
    return paths if there else None


def has_archived_images(dataset: Dataset) -> bool:
    """Whether the images are members of archives."""
    path = dataset.cast_column("image", Image(decode=False))[0]["image"]["path"] if len(dataset) else None
    return path is not None and parse_member(path) is not None


def image_byte_sizes(dataset: Dataset) -> pa.ChunkedArray | None:
    """How large the file of every image is; None: they lie in a table."""
    if within := archives_and_sizes(pc.struct_field(arrow_column(dataset, "image"), "path")):
        return within[1]
    paths = arrow_image_paths(dataset)
    return None if paths is None else pa.chunked_array([stored_sizes(paths.to_pylist())], pa.int64())


def join_names(names: list[str], show_all: bool = False) -> str:
    """Names for a sentence: all of them, or the first five."""
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
    """Finds unreadable files and images in two splits; all are listed, and either refused or left out.

    Args:
        check_overlap: whether the splits are the user's own; official ones are taken as they are, repeated files and all.
        check: as of `load_image_folder`.
    """
    verdict = check_image_files(
        [entry.path for entry in samples], num_workers, check_fn=check and (lambda: check(samples))
    )
    names, splits = [entry.file_name for entry in samples], [entry.split for entry in samples]
    keep = valid_image_mask(
        names, splits, verdict, on_bad_image, empty_folders=empty_folders, check_overlap=check_overlap
    )
    return [entry for entry, kept in zip(samples, keep) if kept]


def valid_image_mask(
    names: list[str],
    splits: list[str],
    checked: ImageCheck,
    on_bad_image: str,
    *,
    empty_folders: Sequence[str] = (),
    check_overlap: bool = True,
) -> list[bool]:
    """Which images are kept: those that can be decoded, and of equal ones in two splits those that are evaluated.

    Raises:
        UsageError: there are others, and `on_bad_image` is `error`; all are listed.
    """
    problems = {}
    if empty_folders:
        problems[pluralize(len(empty_folders), "class folder", "without images", "without images")] = list(
            empty_folders
        )
    if checked.bad:
        unreadable = [f"{names[place]} ({reason})" for place, reason in checked.bad.items()]
        problems[pluralize(len(unreadable), "unreadable image")] = unreadable
    record_total(len(names))
    leave, repeated = _find_split_overlap(names, splits, checked.digests) if check_overlap else (set(), [])
    if repeated:
        told = pluralize(len(repeated), "image", "that stands in two splits", "that stand in two splits")
        problems[told] = repeated
    if problems:
        text = "\n".join(f"{problem}:\n  " + "\n  ".join(sorted(found)) for problem, found in problems.items())
        if on_bad_image == "error":
            raise UsageError(
                f"The data set has faults; mend them, or pass --on_bad_image skip to leave them out.\n{text}"
            )
        logger.warning("Left out of the data set:\n%s", text)
        record_excluded("unreadable", len(checked.bad), [names[place] for place in checked.bad])
        again = sorted(names[place] for place in leave - set(checked.bad))
        record_excluded("the same image in another split", len(again), again)
    return [place not in checked.bad and place not in leave for place in range(len(names))]


def _find_split_overlap(names: list[str], splits: list[str], digests: list[str]) -> tuple[set[int], list[str]]:
    """Images of equal pixels in different splits: places to leave out to keep the evaluation clean, and all of them."""
    places = defaultdict(list)
    for place, digest in enumerate(digests):
        if digest:
            places[digest].append(place)
    leave, repeated = set(), []
    for same in places.values():
        if len({splits[place] for place in same}) > 1:
            ordered = sorted(same, key=lambda place: (SPLITS.index(splits[place]), names[place]))
            repeated.append(" = ".join(f"{splits[place]}: {names[place]}" for place in ordered))
            # The evaluation keeps its images: test before validation before train.
            leave |= {place for place in same if splits[place] != splits[ordered[-1]]}
    return leave, repeated
