"""Class folders, manifests and Hub data sets -> `DatasetDict` with `image`, `labels` (ClassLabel) and `file_name`.

Nothing is copied: an image column holds paths. Everything that is wrong with the files is found here, before
training, and listed whole.
"""

import csv
import hashlib
import json
import logging
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from ..errors import UsageError
from .check import unreadable_images

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
# Folder names that are splits, by the split they name.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
SPLITS = ("train", "validation", "test")
MANIFEST_NAMES = ("manifest.csv", "manifest.jsonl", "metadata.csv", "metadata.jsonl")
LABEL_COLUMNS = ("labels", "label", "class", "category")


@dataclass(frozen=True)
class Entry:
    """One labelled image file."""

    path: str
    label: str
    split: str
    file_name: str  # as the user knows it: relative to data_dir


def load_image_folder(
    data_dir: str | Path,
    *,
    manifest: str | Path | None = None,
    val_fraction: float = 0.0,
    seed: int = 0,
    label_names: list[str] | None = None,
    on_bad_image: str = "error",
    num_workers: int | None = None,
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

    Returns:
        Splits with `image` (decoded on access), `labels` (`ClassLabel`, the same for every split) and `file_name`.

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
        entries, empty = read_manifest(manifest, root if root.is_dir() else manifest.parent), []
    elif root.is_dir() and not _is_datasets_folder(root):
        entries, empty = scan_folder(root)
    elif root.is_file():
        raise UsageError(f"{root} is no folder and no CSV or JSONL manifest.")
    else:
        return _load_with_datasets(str(data_dir), val_fraction, seed, label_names)

    entries = drop_or_refuse(entries, empty, on_bad_image, num_workers)
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
    if val_fraction:
        _refuse_second_validation(splits, val_fraction)
        held_out = stratified_share([entry.label for entry in splits.get("train", [])], val_fraction, seed)
        train = splits["train"]
        splits["validation"] = [entry for entry, out in zip(train, held_out) if out]
        splits["train"] = [entry for entry, out in zip(train, held_out) if not out]
    _warn_of_missing_labels({split: {entry.label for entry in found} for split, found in splits.items()}, names)
    return DatasetDict({split: to_dataset(splits[split], names) for split in SPLITS if split in splits})


def to_dataset(entries: list[Entry], names: list[str]) -> Dataset:
    ids = {name: index for index, name in enumerate(names)}
    columns = {
        "image": [entry.path for entry in entries],
        "labels": [ids[entry.label] for entry in entries],
        "file_name": [entry.file_name for entry in entries],
    }
    features = Features({"image": Image(), "labels": ClassLabel(names=names), "file_name": Value("string")})
    return Dataset.from_dict(columns, features=features)


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


def read_manifest(manifest: Path, root: Path) -> list[Entry]:
    """Rows of a CSV or JSONL with `file_name`, `label` and perhaps `split`; names are relative to `root`."""
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
    if missing := [column for column in ("file_name", "label") if column not in rows[0]]:
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
        entry = Entry(os.path.join(root, str(name)), str(label).strip(), SPLIT_NAMES[split], str(name))
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
    entries: list[Entry], empty: list[str], on_bad_image: str, num_workers: int | None, *, own_splits: bool = True
) -> list[Entry]:
    """Finds unreadable files and files in two splits; all are listed, and either refused or left out.

    Args:
        own_splits: whether the splits are the user's own; official ones are taken as they are, repeated files and all.
    """
    problems = {}
    if empty:
        problems["class folders without images"] = empty
    bad = unreadable_images([entry.path for entry in entries], num_workers)
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


def stratified_share(labels: list, fraction: float, seed: int, *, leave_one: bool = True) -> np.ndarray:
    """Which elements belong to a seeded share of `fraction` of every class: bool (elements,).

    With the same seed, a smaller share lies within a larger one.

    Args:
        leave_one: a class of two or more keeps at least one element on either side; else each has at least one inside.
    """
    labels = np.asarray(labels)
    chosen = np.zeros(len(labels), dtype=bool)
    generator = np.random.default_rng(seed)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = round(fraction * len(members))
        if len(members) > 1 or not leave_one:
            count = min(max(count, 1), len(members) - leave_one)
        chosen[members[:count]] = True
    return chosen


def _refuse_second_validation(splits, val_fraction: float) -> None:
    if "validation" in splits:
        raise UsageError(f"There is a validation split already: leave out --val_fraction {val_fraction:g}.")
    if "train" not in splits:
        raise UsageError("There is no training split to hold a share out of.")


def _warn_of_missing_labels(present: dict[str, set[str]], names: list[str]) -> None:
    for split, found in present.items():
        if missing := [name for name in names if name not in found]:
            logger.warning(
                "The %s split has no image of: %s. Class ids are not changed by that.", split, ", ".join(missing)
            )


def _load_with_datasets(source: str, val_fraction: float, seed: int, label_names: list[str] | None) -> DatasetDict:
    """A Hub id, a parquet folder or a saved data set, brought to the same columns."""
    from datasets import load_dataset, load_from_disk

    try:
        if (Path(source) / "dataset_dict.json").is_file() or (Path(source) / "state.json").is_file():
            loaded = load_from_disk(source)
        else:
            loaded = load_dataset(source)
    except Exception as error:  # datasets and huggingface_hub raise many kinds; one sentence serves them all
        reason = str(error).strip().split("\n")[0]
        raise UsageError(f"{source} is no folder here, and datasets cannot load it ({reason}).") from None
    if isinstance(loaded, Dataset):
        loaded = DatasetDict({"train": loaded})
    unnamed = [split for split in loaded if split.lower() not in SPLIT_NAMES]
    if unnamed:
        raise UsageError(
            f"{source} has splits of unknown names ({', '.join(unnamed)}); known are {', '.join(SPLIT_NAMES)}."
        )
    loaded = DatasetDict({SPLIT_NAMES[split.lower()]: dataset for split, dataset in loaded.items()})
    features = next(iter(loaded.values())).features
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    labels = labels or [name for name in LABEL_COLUMNS if name in features]
    if len(images) != 1 or len(labels) != 1:
        raise UsageError(
            f"{source} needs one image column and one label column; it has {images or 'no'} and {labels or 'no'} "
            f"among {', '.join(features)}."
        )
    own = features[labels[0]]
    if isinstance(own, ClassLabel):
        own_names = list(own.names)
    else:
        own_names = sorted({str(value) for dataset in loaded.values() for value in dataset.unique(labels[0])})
    names = label_names or own_names
    if unknown := [name for name in own_names if name not in names]:
        raise UsageError(f"{source} has classes that the checkpoint does not know: {', '.join(unknown)}.")
    if val_fraction:
        _refuse_second_validation(loaded, val_fraction)
        out = stratified_share(loaded["train"][labels[0]][:], val_fraction, seed)
        loaded["validation"] = loaded["train"].select(np.flatnonzero(out))
        loaded["train"] = loaded["train"].select(np.flatnonzero(~out))

    result = DatasetDict()
    for split in SPLITS:
        if split not in loaded:
            continue
        dataset = loaded[split]
        values = dataset[labels[0]][:]
        ids = [names.index(own_names[v] if isinstance(own, ClassLabel) else str(v)) for v in values]
        paths = dataset.cast_column(images[0], Image(decode=False)).select_columns(images)
        file_names = [row[images[0]].get("path") or f"{split}/{index}" for index, row in enumerate(paths)]
        tidy = dataset.select_columns(images)
        tidy = tidy if images == ["image"] else tidy.rename_column(images[0], "image")
        tidy = tidy.add_column("labels", ids).add_column("file_name", [str(name) for name in file_names])
        result[split] = tidy.cast_column("labels", ClassLabel(names=names))
    _warn_of_missing_labels({split: {names[i] for i in set(d["labels"][:])} for split, d in result.items()}, names)
    return result
