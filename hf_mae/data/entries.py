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

from ..errors import LONGEST, UsageError, counted
from ..files.members import all_there, archives_and_sizes, are_there, member_of, sizes_of
from .check import Verdict, verdict_on_files
from .ledger import note_found, note_left_out
from .splits import SPLITS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One labelled image file."""

    path: str
    label: str
    split: str
    file_name: str  # as the user knows it: relative to data_dir
    group: str | None = None  # patient or video
    more: dict[str, str] = field(default_factory=dict)  # what else is known of it, by column


Check = Callable[[list[Entry]], Verdict]  # what is to be said of the images, in their order


def to_dataset(entries: list[Entry], names: list[str]) -> Dataset:
    """A data set of paths, with `image`, `labels`, `file_name`, and `group` where every image has one."""
    ids = {name: index for index, name in enumerate(names)}
    columns = {
        "image": [entry.path for entry in entries],
        "labels": [ids[entry.label] for entry in entries],
        "file_name": [entry.file_name for entry in entries],
    }
    features = Features({"image": Image(), "labels": ClassLabel(names=names), "file_name": Value("string")})
    if groups := _groups(entries):
        columns["group"], features["group"] = groups, Value("string")
    for name in entries[0].more if entries else ():
        columns[name], features[name] = [entry.more.get(name, "") for entry in entries], Value("string")
    return Dataset.from_dict(columns, features=features)


def _groups(entries: list[Entry]) -> list[str] | None:
    groups = [entry.group for entry in entries]
    known = [group for group in groups if group is not None]
    return known if len(known) == len(groups) else None


def column_of(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """A column as Arrow holds it: of a data set on the disk, it takes no memory."""
    whole = dataset.with_format("arrow").select_columns([name])[:]
    return whole.column(name)


def column(dataset: Dataset, name: str) -> list | None:
    """A column as a list; None where there is none."""
    return dataset[name][:] if name in dataset.column_names else None


def labels_of(dataset: Dataset) -> np.ndarray | None:
    """The class ids; None where there are none."""
    return column_of(dataset, "labels").to_numpy() if "labels" in dataset.column_names else None


def holds_images(dataset: Any) -> bool:
    """Whether a data set is one of undecoded images with classes, rather than one that gives tensors."""
    if not isinstance(dataset, Dataset) or dataset.format["type"] not in (None, "python"):
        return False  # with a format or transform of its own, it gives what its owner wants
    return "image" in dataset.column_names


def with_own_columns(dataset: Dataset) -> Dataset:
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


def image_files(dataset: Dataset) -> list[str]:
    """The paths of the images, where every one is a file of its own or a member of an archive; else (a parquet file, a
    Hub data set) none."""
    paths = image_places(dataset)
    return [] if paths is None else paths.to_pylist()


def image_places(dataset: Dataset) -> pa.ChunkedArray | None:
    """`image_files` as Arrow holds them; None: there are none."""
    images = column_of(dataset, "image")
    paths = pc.struct_field(images, "path")
    if paths.null_count or pc.struct_field(images, "bytes").null_count < len(images) or not len(paths):
        return None
    within = archives_and_sizes(paths)
    there = all_there(paths.to_pylist()) if within is None else are_there(within[0])
    return paths if there else None


def is_within_archives(dataset: Dataset) -> bool:
    """Whether the images are members of archives."""
    path = dataset.cast_column("image", Image(decode=False))[0]["image"]["path"] if len(dataset) else None
    return path is not None and member_of(path) is not None


def bytes_of_images(dataset: Dataset) -> pa.ChunkedArray | None:
    """How large the file of every image is; None: they lie in a table."""
    if within := archives_and_sizes(pc.struct_field(column_of(dataset, "image"), "path")):
        return within[1]
    paths = image_places(dataset)
    return None if paths is None else pa.chunked_array([sizes_of(paths.to_pylist())], pa.int64())


def listed(names: list[str], whole: bool = False) -> str:
    """Names for a sentence: all of them, or the first five."""
    names = [name if len(name) <= LONGEST else f"{name[:LONGEST]}..." for name in names]
    return ", ".join(names) if whole or len(names) <= 5 else f"{', '.join(names[:5])}, ... {len(names)} in all"


def drop_or_refuse(
    entries: list[Entry],
    empty: list[str],
    on_bad_image: str,
    num_workers: int | None,
    *,
    own_splits: bool = True,
    check: Check | None = None,
) -> list[Entry]:
    """Finds unreadable files and images in two splits; all are listed, and either refused or left out.

    Args:
        own_splits: whether the splits are the user's own; official ones are taken as they are, repeated files and all.
        check: as of `load_image_folder`.
    """
    verdict = verdict_on_files([entry.path for entry in entries], num_workers, find=check and (lambda: check(entries)))
    names, splits = [entry.file_name for entry in entries], [entry.split for entry in entries]
    keep = keep_or_refuse(names, splits, verdict, on_bad_image, empty=empty, own_splits=own_splits)
    return [entry for entry, kept in zip(entries, keep) if kept]


def keep_or_refuse(
    names: list[str],
    splits: list[str],
    verdict: Verdict,
    on_bad_image: str,
    *,
    empty: Sequence[str] = (),
    own_splits: bool = True,
) -> list[bool]:
    """Which images are kept: those that can be decoded, and of equal ones in two splits those that are evaluated.

    Raises:
        UsageError: there are others, and `on_bad_image` is `error`; all are listed.
    """
    problems = {}
    if empty:
        problems[counted(len(empty), "class folder", "without images", "without images")] = list(empty)
    if verdict.bad:
        unreadable = [f"{names[place]} ({reason})" for place, reason in verdict.bad.items()]
        problems[counted(len(unreadable), "unreadable image")] = unreadable
    note_found(len(names))
    leave, repeated = _in_two_splits(names, splits, verdict.digests) if own_splits else (set(), [])
    if repeated:
        told = counted(len(repeated), "image", "that stands in two splits", "that stand in two splits")
        problems[told] = repeated
    if problems:
        text = "\n".join(f"{problem}:\n  " + "\n  ".join(sorted(found)) for problem, found in problems.items())
        if on_bad_image == "error":
            raise UsageError(
                f"The data set has faults; mend them, or pass --on_bad_image skip to leave them out.\n{text}"
            )
        logger.warning("Left out of the data set:\n%s", text)
        note_left_out("unreadable", len(verdict.bad), [names[place] for place in verdict.bad])
        again = sorted(names[place] for place in leave - set(verdict.bad))
        note_left_out("the same image in another split", len(again), again)
    return [place not in verdict.bad and place not in leave for place in range(len(names))]


def _in_two_splits(names: list[str], splits: list[str], digests: list[str]) -> tuple[set[int], list[str]]:
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
