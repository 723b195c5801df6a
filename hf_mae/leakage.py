"""Keeping images that will be evaluated out of pre-training, and noticing where they were in it.

Images are told by name (the file's stem, which survives re-encoding and moving) and by sight (`near_duplicates`).
"""

import csv
import glob
import json
import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from huggingface_hub import hf_hub_download

from .data.duplicates import candidates, near_duplicates, perceptual_hashes
from .data.files import IMAGE_SUFFIXES, image_files_below
from .data.folders import image_files
from .errors import UsageError

logger = logging.getLogger(__name__)

RECORD = "pretraining_images.csv"  # of every image that a run is trained on: file_name,phash
EXCLUDED = "excluded_images.csv"  # of every image that it leaves out: file_name,why,like
SEEN = "seen_in_pretraining.csv"  # of evaluated images: split,file_name,why,like
BY_NAME, BY_SIGHT = "name", "near-duplicate"
RECORDED_DISTANCE = 2  # bits of 64: of hashes alone, without the images, only copies are that near
_NAME_COLUMNS = ("file_name", "filename", "file", "file_stem", "stem", "image", "path")
_SPLIT_COLUMNS = ("split", "split_index", "fold")


@dataclass(frozen=True)
class Match:
    """An image that is one of those to look for."""

    file_name: str
    why: str  # BY_NAME or BY_SIGHT
    like: str  # what it is like: a file, or the list that names it


def stem_of(name: str) -> str:
    """The file's name without folder and suffix, by which images are told."""
    return Path(name.replace("\\", "/")).stem


def read_excluded(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """What `--exclude` names.

    Args:
        words: image files, folders and globs; lists (.csv, .jsonl, .txt) of file names, of which `LIST:SPLIT` takes the
            rows of one split (`2_fold_split.csv:1`, `manifest.csv:test`).

    Returns:
        Stem -> the word that names it, and the image files that there are.

    Raises:
        UsageError: a word that stands for nothing.
    """
    stems: dict[str, str] = {}
    files: list[str] = []
    for word in words:
        path, _, split = word.rpartition(":") if not os.path.exists(word) and ":" in word else (word, "", "")
        if os.path.isfile(path) and path.lower().endswith((".csv", ".jsonl", ".txt")):
            names = listed_names(Path(path), split or None)
            beside = (os.path.join(os.path.dirname(path), name) for name in names)
            found = [file for file in beside if file.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(file)]
        else:
            if os.path.isdir(word):
                found = image_files_below(word)
            else:
                found = [word] if os.path.isfile(word) else sorted(filter(os.path.isfile, glob.glob(word)))
            names = found
        if not names:
            raise UsageError(f"--exclude {word} names no image: it takes files, folders, globs and lists (LIST:SPLIT).")
        stems.update({stem_of(name): word for name in names})
        files += found
    return stems, list(dict.fromkeys(files))


def listed_names(path: Path, split: str | None) -> list[str]:
    """The file names of a list: lines of a .txt, or a column of a .csv (commas or semicolons) or .jsonl."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".txt":
        rows = [{"file_name": line.strip()} for line in text.splitlines() if line.strip()]
    elif path.suffix.lower() == ".jsonl":
        try:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise UsageError(f"{path} has a line that is no JSON ({error}).") from None
    else:
        head = text.split("\n", 1)[0]
        rows = list(csv.DictReader(text.splitlines(), delimiter=";" if head.count(";") > head.count(",") else ","))
    rows = [{str(key).strip().lower().replace("-", "_"): value for key, value in row.items()} for row in rows]
    known = list(rows[0]) if rows else []
    column = next((name for name in _NAME_COLUMNS if name in known), None)
    if column is None:
        raise UsageError(f"{path} has no column of file names (one of {', '.join(_NAME_COLUMNS)}).")
    if split is not None:
        kind = next((name for name in _SPLIT_COLUMNS if name in known), None)
        values = sorted({str(row[kind]) for row in rows}) if kind else []
        if split not in values:
            there = f"its {kind} is one of {', '.join(values)}" if kind else "it has no column split"
            raise UsageError(f"{path} has no rows of {split}: {there}.")
        rows = [row for row in rows if str(row[kind]) == split]
    return [str(row[column]) for row in rows if row[column]]


def leave_out(
    images: Dataset, words: list[str], by: list[str], num_workers: int | None = None
) -> tuple[Dataset, list[Match]]:
    """The images without those that `--exclude` names, and without those that look like them.

    Args:
        images: of `load_unlabelled`.
        words: of `read_excluded`.
        by: `name`, `hash` or both. An image that a list names is also looked for by its looks, where it is among
            `images`.

    Raises:
        UsageError: a word stands for nothing, or no image is left.
    """
    stems, files = read_excluded(words)
    names, paths = images["file_name"][:], image_files(images)
    matches: dict[int, Match] = {}
    for index, name in enumerate(names):
        if stem_of(name) in stems:
            matches[index] = Match(name, BY_NAME, stems[stem_of(name)])
    if "hash" in by:
        sought = list(dict.fromkeys(files + [paths[index] for index in matches]))
        if "name" not in by:
            matches = {}
        rest = [index for index in range(len(names)) if index not in matches]
        looked_at = [paths[index] for index in rest] if sought else []
        for pair in near_duplicates(looked_at, sought, num_workers=num_workers) if looked_at else []:
            matches.setdefault(rest[pair.first], Match(names[rest[pair.first]], BY_SIGHT, sought[pair.second]))
    counts = Counter(match.why for match in matches.values())
    logger.info(
        "%d of %d images are left out: %d by name, %d by sight",
        len(matches),
        len(names),
        counts[BY_NAME],
        counts[BY_SIGHT],
    )
    if not matches:
        logger.warning("--exclude %s: none of these is among the images.", " ".join(words))
    kept = [index for index in range(len(names)) if index not in matches]
    if not kept:
        raise UsageError(f"--exclude {' '.join(words)} leaves no image to train on.")
    return images.select(kept), [matches[index] for index in sorted(matches)]


def write_matches(path: Path, rows: list[tuple[str, ...]], head: tuple[str, ...]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def write_record(folder: Path, images: Dataset, excluded: list[Match]) -> None:
    """Writes what a run is trained on, and what it leaves out."""
    folder.mkdir(parents=True, exist_ok=True)
    write_matches(folder / RECORD, [(name, "") for name in images["file_name"][:]], ("file_name", "phash"))
    (folder / EXCLUDED).unlink(missing_ok=True)
    if excluded:
        rows = [(match.file_name, match.why, match.like) for match in excluded]
        write_matches(folder / EXCLUDED, rows, ("file_name", "why", "like"))


def record_hashes(folder: Path, images: Dataset, num_workers: int | None = None) -> None:
    """Adds the perceptual hashes to the record: by them copies of other names are found, wherever the model goes."""
    hashes = perceptual_hashes(image_files(images), num_workers)[:, 0].tolist()
    rows = [(name, f"{value:016x}") for name, value in zip(images["file_name"][:], hashes)]
    write_matches(folder / RECORD, rows, ("file_name", "phash"))


def seen_in_pretraining(
    base: str | Path, splits: DatasetDict, num_workers: int | None = None
) -> dict[str, list[Match]] | None:
    """Images of each split that the base was pre-trained on, by name and by sight.

    Args:
        base: a pre-trained model: its folder (or a checkpoint in it), or a Hub id.

    Returns:
        By split; None where it is not known what the base was trained on.
    """
    record = _record_of(base)
    if record is None:
        return None
    with open(record, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    trained = {stem_of(row["file_name"]): row["file_name"] for row in rows}
    hashed = [row for row in rows if row["phash"]]
    hashes = np.array([int(row["phash"], 16) for row in hashed], dtype=np.uint64)[:, None]
    root = _data_dir(record.parent)
    found = {}
    for split, dataset in splits.items():
        names, matches = dataset["file_name"][:], {}
        for name in names:
            if stem_of(name) in trained:
                matches[name] = Match(name, BY_NAME, trained[stem_of(name)])
        if len(hashed) and (paths := image_files(dataset)):
            own = perceptual_hashes(paths, num_workers)
            for first, second in _alike(own, paths, hashes, [row["file_name"] for row in hashed], root, num_workers):
                like = hashed[second]["file_name"]
                matches.setdefault(names[first], Match(names[first], BY_SIGHT, like))
        found[split] = [matches[name] for name in names if name in matches]
    return found


def _record_of(base: str | Path) -> Path | None:
    folder = Path(base)
    if folder.exists():
        return next((place / RECORD for place in (folder, folder.parent) if (place / RECORD).is_file()), None)
    try:
        return Path(hf_hub_download(str(base), RECORD))
    except Exception:  # it has none, or there is no network: then nothing is known
        return None


def _alike(own, paths: list[str], hashes, names: list[str], root: Path | None, num_workers: int | None):
    """Pairs of places: one of `paths`, one of `names`; confirmed on the images where these are still there."""
    near = candidates(own, against=hashes)
    there = {second: str(root / names[second]) for _, second, _ in near if root and (root / names[second]).is_file()}
    sure = [(first, second) for first, second, distance in near if distance <= RECORDED_DISTANCE]
    gone = [(first, second) for first, second in sure if second not in there]
    if not there:
        return gone
    mine = sorted({first for first, second, _ in near if second in there})
    other = sorted(there)
    pairs = near_duplicates([paths[i] for i in mine], [there[i] for i in other], num_workers=num_workers)
    return gone + [(mine[pair.first], other[pair.second]) for pair in pairs]


def _data_dir(folder: Path) -> Path | None:
    try:
        return Path(json.loads((folder / "all_results.json").read_text(encoding="utf-8"))["data_dir"])
    except (OSError, ValueError, KeyError):
        return None


def warn_of_seen(
    base: str | Path, held_out: DatasetDict, output_dir: Path, num_workers: int | None
) -> dict[str, int] | None:
    """Warns where images that will be evaluated were pre-trained on, and lists them in the output folder.

    Returns:
        How many, by split, where there are any; None where it is not known what the base was trained on.
    """
    found = seen_in_pretraining(base, held_out, num_workers)
    if found is None:
        return None
    counts = {split: len(matches) for split, matches in found.items() if matches}
    if counts:
        output_dir.mkdir(parents=True, exist_ok=True)
        rows = [(split, m.file_name, m.why, m.like) for split, matches in found.items() for m in matches]
        write_matches(output_dir / SEEN, rows, ("split", "file_name", "why", "like"))
        told = ", ".join(f"{count} of the {len(held_out[split])} {split} images" for split, count in counts.items())
        logger.warning(
            "%s was pre-trained on %s (listed in %s): their scores are too good. hf-mae pretrain --exclude leaves "
            "such images out.",
            base,
            told,
            output_dir / SEEN,
        )
    return counts
