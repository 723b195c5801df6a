"""Class folders, manifests and Hub data sets -> `DatasetDict` with `image`, `labels` (ClassLabel) and `file_name`.

Nothing is copied: an image column holds paths. Everything that is wrong with the files is found here, before
training, and listed whole.
"""

import csv
import dataclasses
import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from ..errors import UsageError
from .check import unreadable_images
from .files import IMAGE_SUFFIXES, image_files_below
from .remote import SPLIT_NAMES, SPLITS, load_with_datasets
from .shares import groups_of, held_out_share, warn_of_shared_groups

logger = logging.getLogger(__name__)

MANIFEST_NAMES = ("manifest.csv", "manifest.jsonl", "metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class Entry:
    """One labelled image file."""

    path: str
    label: str
    split: str
    file_name: str  # as the user knows it: relative to data_dir
    group: str | None = None  # patient or video


Check = Callable[[list[Entry]], dict[str, str]]  # path -> why it cannot be decoded, of those that cannot


def load_image_folder(
    data_dir: str | Path,
    *,
    manifest: str | Path | None = None,
    val_fraction: float = 0.0,
    seed: int = 0,
    label_names: list[str] | None = None,
    on_bad_image: str = "error",
    num_workers: int | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
    keep_repeated: bool = False,
    check: Check | None = None,
) -> DatasetDict:
    """Reads a labelled image data set of any usual layout.

    Args:
        data_dir: a folder of class folders, under `train/ val(idation)/ test/` or without splits (then all is `train`),
            nested as deep as you like (the class is the image's own folder); a CSV or JSONL manifest with
            `file_name,label[,split]`; a folder that holds one; or whatever `datasets.load_dataset` reads (a Hub id, a
            parquet folder).
        manifest: a manifest whose file names are relative to `data_dir`.
        val_fraction: share of the training images that is held out as `validation`, stratified by class and seeded.
        seed: of the held-out share.
        label_names: classes in the order of their ids (a checkpoint's own); not given: sorted names over all splits.
        on_bad_image: `error` stops at unreadable files, empty class folders and files that stand in two splits, and
            lists them all; `skip` leaves them out (a file in two splits leaves the training part) and logs them.
        num_workers: threads that read the files.
        group_column: manifest column with the patient or video, whose images are held out together; not given: `group`,
            where there is one.
        group_pattern: or a regular expression on `file_name`, whose first group it is.
        keep_repeated: let files stand in two splits (for an audit that lists them).
        check: finds the files that cannot be decoded, in place of reading each of them for that alone.

    Returns:
        Splits with `image` (decoded on access), `labels` (`ClassLabel`, the same for every split), `file_name`, and
        `group` where there are groups.

    Raises:
        UsageError: what is wrong, with every file that has it.
    """
    if on_bad_image not in ("error", "skip"):
        raise UsageError(f"on_bad_image takes error or skip, not {on_bad_image}.")
    if not 0.0 <= val_fraction < 1.0:
        raise UsageError(f"val_fraction must be at least 0 and below 1, not {val_fraction}.")
    root = Path(data_dir)
    manifest = Path(manifest) if manifest else _find_manifest(root)
    if manifest is not None:
        entries, empty = read_manifest(manifest, root if root.is_dir() else manifest.parent, group_column), []
    elif root.is_dir() and not _is_datasets_folder(root):
        entries, empty = scan_folder(root)
    elif root.is_file():
        raise UsageError(f"{root} is no folder and no CSV or JSONL manifest.")
    else:
        loaded = load_with_datasets(str(data_dir), label_names, group_column, group_pattern)
        return _finish(loaded, val_fraction, seed)

    if group_column and not (entries and entries[0].group):
        raise UsageError(f"--group_column {group_column} is a column of a manifest, and {root} has none.")
    if group_pattern:
        groups = groups_of([entry.file_name for entry in entries], group_pattern)
        entries = [dataclasses.replace(entry, group=group) for entry, group in zip(entries, groups)]
    entries = drop_or_refuse(entries, empty, on_bad_image, num_workers, own_splits=not keep_repeated, check=check)
    if not entries:
        raise UsageError(
            f"{root} has no images left to train on ({', '.join(IMAGE_SUFFIXES[:4])}... in class folders)."
        )
    names = label_names or sorted({entry.label for entry in entries})
    if unknown := sorted({entry.label for entry in entries} - set(names)):
        raise UsageError(
            f"{root} has classes that the checkpoint does not know: {', '.join(unknown)}. It knows {', '.join(names)}."
        )
    splits = {split: [entry for entry in entries if entry.split == split] for split in SPLITS}
    splits = {split: found for split, found in splits.items() if found}
    return _finish(
        DatasetDict({split: to_dataset(found, names) for split, found in splits.items()}), val_fraction, seed
    )


def _finish(splits: DatasetDict, val_fraction: float, seed: int) -> DatasetDict:
    """Holds a validation part out, and warns of what the splits lack or share."""
    if val_fraction:
        if "validation" in splits:
            raise UsageError(f"There is a validation split already: leave out --val_fraction {val_fraction:g}.")
        hold_out(splits, "validation", val_fraction, seed)
    splits = DatasetDict({split: splits[split] for split in SPLITS if split in splits})
    names = next(iter(splits.values())).features["labels"].names
    for split, dataset in splits.items():
        present = set(dataset["labels"][:])
        if missing := [name for index, name in enumerate(names) if index not in present]:
            logger.warning(
                "The %s split has no image of: %s. Class ids are not changed by that.", split, ", ".join(missing)
            )
    warn_of_shared_groups({split: column(dataset, "group") or [] for split, dataset in splits.items()})
    return splits


def hold_out(splits: DatasetDict, name: str, fraction: float, seed: int) -> None:
    """Moves a share of the training images (stratified, seeded, groups kept together) into a split of its own."""
    if "train" not in splits:
        raise UsageError("There is no training split to hold a share out of.")
    train = splits["train"]
    out = held_out_share(train["labels"][:], column(train, "group"), fraction, seed)
    splits[name] = train.select(np.flatnonzero(out))
    splits["train"] = train.select(np.flatnonzero(~out))


def column(dataset: Dataset, name: str) -> list | None:
    """A column as a list; None where there is none."""
    return dataset[name][:] if name in dataset.column_names else None


def to_dataset(entries: list[Entry], names: list[str]) -> Dataset:
    ids = {name: index for index, name in enumerate(names)}
    columns = {
        "image": [entry.path for entry in entries],
        "labels": [ids[entry.label] for entry in entries],
        "file_name": [entry.file_name for entry in entries],
    }
    features = Features({"image": Image(), "labels": ClassLabel(names=names), "file_name": Value("string")})
    if groups := _groups(entries):
        columns["group"], features["group"] = groups, Value("string")
    return Dataset.from_dict(columns, features=features)


def _groups(entries: list[Entry]) -> list[str] | None:
    groups = [entry.group for entry in entries]
    return None if None in groups else groups


def _find_manifest(root: Path) -> Path | None:
    if root.is_file() and root.suffix.lower() in (".csv", ".jsonl"):
        return root
    return next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)


def _is_datasets_folder(root: Path) -> bool:
    """Whether `datasets` wrote or reads this folder (parquet, arrow), rather than image files in folders."""
    return any(next(root.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet", "*.arrow", "*/*.arrow"))


def scan_folder(root: Path) -> tuple[list[Entry], list[str]]:
    """Every image below `root`, and the class folders that hold none.

    A first-level folder named like a split is that split, if any is; the class is the image's own folder.
    """
    first = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    has_splits = any(name.lower() in SPLIT_NAMES for name in first)
    if has_splits and (other := [name for name in first if name.lower() not in SPLIT_NAMES]):
        raise UsageError(
            f"{root} has split folders and others beside them ({', '.join(other[:5])}): is one of them a class? "
            "Move the class folders into train/, validation/ or test/."
        )
    entries, empty, homeless = [], [], []
    for folder, children, files in os.walk(root, followlinks=True):
        children[:] = sorted(name for name in children if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        split = SPLIT_NAMES[relative.parts[0].lower()] if has_splits and relative.parts else "train"
        depth = len(relative.parts) - has_splits
        images = sorted(name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))
        if depth < 1:
            homeless += [str(relative / name) for name in images]
            continue
        if not images and not children:
            empty.append(str(relative))
        entries += [
            Entry(os.path.join(folder, name), relative.name, split, (relative / name).as_posix()) for name in images
        ]
    if homeless:
        raise UsageError(
            f"{len(homeless)} images of {root} are in no class folder ({listed(homeless)}): an image's class is the "
            "name of its own folder."
        )
    if not entries:
        raise UsageError(f"{root} holds no images: put them into a folder for each class.")
    return entries, empty


def read_manifest(manifest: Path, root: Path, group_column: str | None = None) -> list[Entry]:
    """Rows of a CSV or JSONL with `file_name`, `label`, perhaps `split` and `group`; names are relative to `root`."""
    if not manifest.is_file():
        raise UsageError(f"The manifest {manifest} does not exist.")
    with open(manifest, encoding="utf-8-sig", newline="") as file:
        if manifest.suffix.lower() == ".jsonl":
            try:
                rows = [json.loads(line) for line in file if line.strip()]
            except json.JSONDecodeError as error:
                raise UsageError(f"{manifest} has a line that is no JSON ({error}).") from None
        else:
            rows = list(csv.DictReader(file))
    if not rows:
        raise UsageError(f"{manifest} has no rows.")
    needed = ("file_name", "label", *([group_column] if group_column else []))
    if missing := [column for column in needed if column not in rows[0]]:
        raise UsageError(f"{manifest} lacks the column {', '.join(missing)}; it has {', '.join(map(str, rows[0]))}.")
    entries, absent, unknown = [], [], set()
    seen: dict[str, Entry] = {}
    clashes = []
    for row in rows:
        name, label, split = row["file_name"], row["label"], str(row.get("split") or "train").strip().lower()
        if name is None or label is None or not str(label).strip():
            raise UsageError(f"{manifest} has a row without file_name or label: {row}.")
        if split not in SPLIT_NAMES:
            unknown.add(split)
            continue
        group = row.get(group_column or "group")
        if group in (None, "") and (group_column or "group") in rows[0]:
            raise UsageError(f"{manifest} has a row without {group_column or 'group'}: {row}.")
        group = None if group is None else str(group).strip()
        entry = Entry(os.path.join(root, str(name)), str(label).strip(), SPLIT_NAMES[split], str(name), group)
        if not os.path.isfile(entry.path):
            absent.append(entry.file_name)
        before = seen.setdefault(entry.path, entry)
        if before is not entry and before.label != entry.label:
            clashes.append(f"{entry.file_name} ({before.label}, {entry.label})")
        entries.append(entry)
    for problem, found in (
        ("files that do not exist", absent),
        (f"splits of unknown names (known: {', '.join(SPLIT_NAMES)})", sorted(unknown)),
        ("files with two labels", clashes),
    ):
        if found:
            raise UsageError(f"{manifest} names {len(found)} {problem}: {listed(found, whole=True)}.")
    return entries


def listed(names: list[str], whole: bool = False) -> str:
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
    """Finds unreadable files and files in two splits; all are listed, and either refused or left out.

    Args:
        own_splits: whether the splits are the user's own; official ones are taken as they are, repeated files and all.
        check: as of `load_image_folder`.
    """
    problems = {}
    if empty:
        problems["class folders without images"] = empty
    paths = [entry.path for entry in entries]
    bad = unreadable_images(paths, num_workers, find=check and (lambda: check(entries)))
    if bad:
        problems["unreadable images"] = [f"{e.file_name} ({bad[e.path]})" for e in entries if e.path in bad]
    leave, repeated = _in_two_splits([e for e in entries if e.path not in bad]) if own_splits else (set(), [])
    if repeated:
        problems["files that stand in two splits"] = repeated
    if problems:
        text = "\n".join(
            f"{len(found)} {problem}:\n  " + "\n  ".join(sorted(found)) for problem, found in problems.items()
        )
        if on_bad_image == "error":
            raise UsageError(
                f"The data set has faults; mend them, or pass --on_bad_image skip to leave them out.\n{text}"
            )
        logger.warning("Left out of the data set:\n%s", text)
    return [entry for entry in entries if entry.path not in bad and entry not in leave]


def _in_two_splits(entries: list[Entry]) -> tuple[set[Entry], list[str]]:
    """Files of equal content in different splits: those to leave out to keep the evaluation clean, and all pairs.

    Only files of equal size are read.
    """
    by_size = defaultdict(list)
    for entry in entries:
        by_size[os.path.getsize(entry.path)].append(entry)
    leave, repeated = set(), []
    for same_size in by_size.values():
        if len({entry.split for entry in same_size}) < 2:
            continue
        by_content = defaultdict(list)
        for entry in same_size:
            by_content[hashlib.sha1(Path(entry.path).read_bytes()).digest()].append(entry)
        for same in by_content.values():
            if len({entry.split for entry in same}) > 1:
                ordered = sorted(same, key=lambda entry: (SPLITS.index(entry.split), entry.file_name))
                repeated.append(" = ".join(f"{entry.split}: {entry.file_name}" for entry in ordered))
                # The evaluation keeps its images: test before validation before train.
                last = max(same, key=lambda entry: SPLITS.index(entry.split)).split
                leave |= {entry for entry in same if entry.split != last}
    return leave, repeated


def image_files(dataset: Dataset) -> list[str]:
    """The paths of the images, where every one is a file of its own; else (a parquet file, a Hub data set) none."""
    undecoded = dataset.select_columns(["image"]).cast_column("image", Image(decode=False))["image"][:]
    paths = [row["path"] for row in undecoded if row["path"] and not row["bytes"]]
    return paths if len(paths) == len(dataset) and all(map(os.path.isfile, paths)) else []


def load_unlabelled(
    data_dir: str, on_bad_image: str, num_workers: int | None = None, *, decode: bool = True
) -> Dataset:
    """Every image below a folder, as `image` and `file_name`; nothing is copied.

    Args:
        on_bad_image: `error` stops at files that cannot be read, and lists them; `skip` leaves them out.
        decode: check that every image can be decoded, rather than its head and its end alone (which takes seconds for
            100,000 images, and finds what is no image and what was cut off).
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder.")
    paths = image_files_below(root)
    if not paths:
        raise UsageError(f"{root} holds no images.")
    if bad := unreadable_images(paths, num_workers, decode=decode):
        listed = "\n  ".join(f"{path} ({reason})" for path, reason in bad.items())
        if on_bad_image == "error":
            raise UsageError(
                f"{len(bad)} images of {root} cannot be read (--on_bad_image skip leaves them out):\n  {listed}"
            )
        logger.warning("Left out, because they cannot be read:\n  %s", listed)
        paths = [path for path in paths if path not in bad]
        if not paths:
            raise UsageError(f"{root} holds no image that can be read.")
    columns = {"image": paths, "file_name": [Path(os.path.relpath(path, root)).as_posix() for path in paths]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "file_name": Value("string")}))
