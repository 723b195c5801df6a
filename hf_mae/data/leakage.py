"""Keeping images that will be evaluated out of pre-training, and noticing where they were in it.

Images are told by name (the file's stem, which survives re-encoding and moving) and by sight (`near_duplicates`).
"""

import csv
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from huggingface_hub import hf_hub_download

from ..errors import UsageError
from ..files.writing import write_csv
from .duplicates import candidates, near_duplicates, perceptual_hashes
from .entries import image_files
from .excluded import read_excluded, stem_of

logger = logging.getLogger(__name__)
RECORD = "pretraining_images.csv"  # of every image that a run is trained on: file_name,phash
EXCLUDED = "excluded_images.csv"  # of every image that it leaves out: file_name,why,like
SEEN = "seen_in_pretraining.csv"  # of evaluated images: split,file_name,why,like
BY_NAME, BY_SIGHT = "name", "near-duplicate"
RECORDED_DISTANCE = 2  # bits of 64: of hashes alone, without the images, only copies are that near


@dataclass(frozen=True)
class Match:
    """An image that is one of those to look for."""

    file_name: str
    why: str  # BY_NAME or BY_SIGHT
    like: str  # what it is like: a file, or the list that names it


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


def write_image_list(folder: Path, images: Dataset, excluded: list[Match]) -> None:
    """Writes what a run is trained on, and what it leaves out."""
    write_csv(folder / RECORD, ("file_name", "phash"), [(name, "") for name in images["file_name"][:]])
    (folder / EXCLUDED).unlink(missing_ok=True)
    if excluded:
        rows = [(match.file_name, match.why, match.like) for match in excluded]
        write_csv(folder / EXCLUDED, ("file_name", "why", "like"), rows)


def record_hashes(folder: Path, images: Dataset, num_workers: int | None = None) -> None:
    """Adds the perceptual hashes to the list: by them copies of other names are found, wherever the model goes."""
    hashes = perceptual_hashes(image_files(images), num_workers)[:, 0].tolist()
    rows = [(name, f"{value:016x}") for name, value in zip(images["file_name"][:], hashes)]
    write_csv(folder / RECORD, ("file_name", "phash"), rows)


def seen_in_pretraining(
    record: Path, root: Path | None, splits: DatasetDict, num_workers: int | None = None
) -> dict[str, list[Match]]:
    """Images of each split that the base was pre-trained on, by name and by sight.

    Args:
        record: of `pretraining_record`.
        root: the folder of the images that the base was trained on, where that is known.

    Returns:
        By split.
    """
    with open(record, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    trained = {stem_of(row["file_name"]): row["file_name"] for row in rows}
    hashed = [row for row in rows if row["phash"]]
    hashes = np.array([int(row["phash"], 16) for row in hashed], dtype=np.uint64)[:, None]
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


def pretraining_record(base: str | Path) -> Path | None:
    """The list of images that a base was pre-trained on; None where there is none.

    Args:
        base: a pre-trained model: its folder (or a checkpoint in it), or a Hub id.
    """
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


def warn_of_seen(
    base: str | Path, found: dict[str, list[Match]], held_out: DatasetDict, output_dir: Path
) -> dict[str, int]:
    """Warns where images that will be evaluated were pre-trained on, and lists them in the output folder.

    Args:
        found: of `seen_in_pretraining`.

    Returns:
        How many, by split, where there are any.
    """
    counts = {split: len(matches) for split, matches in found.items() if matches}
    if counts:
        rows = [(split, m.file_name, m.why, m.like) for split, matches in found.items() for m in matches]
        write_csv(output_dir / SEEN, ("split", "file_name", "why", "like"), rows)
        told = ", ".join(f"{count} of the {len(held_out[split])} {split} images" for split, count in counts.items())
        logger.warning(
            "%s was pre-trained on %s (listed in %s): their scores are too good. hf-mae pretrain --exclude leaves "
            "such images out.",
            base,
            told,
            output_dir / SEEN,
        )
    return counts
