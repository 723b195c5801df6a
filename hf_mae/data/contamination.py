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
from ..files.atomic import write_csv
from .duplicates import find_candidate_pairs, find_near_duplicates, perceptual_hashes
from .exclude_list import file_stem, resolve_exclude_patterns
from .samples import get_image_paths

logger = logging.getLogger(__name__)
PRETRAINING_IMAGES_FILE = "pretraining_images.csv"  # of every image that a run is trained on: file_name,phash
EXCLUDED_IMAGES_FILE = "excluded_images.csv"  # of every image that it leaves out: file_name,why,like
SEEN_IN_PRETRAINING_FILE = "seen_in_pretraining.csv"  # of evaluated images: split,file_name,why,like
SAME_NAME, NEAR_DUPLICATE = "name", "near-duplicate"
MAX_RECORDED_DISTANCE = 2  # bits of 64: of hashes alone, without the images, only copies are that near


@dataclass(frozen=True)
class ImageMatch:
    """An image that is one of those to look for."""

    file_name: str
    reason: str  # BY_NAME or BY_SIGHT
    matched_file: str  # what it is like: a file, or the list that names it


def exclude_images(
    images: Dataset, exclude: list[str], match_by: list[str], num_workers: int | None = None
) -> tuple[Dataset, list[ImageMatch]]:
    """The images without those that `--exclude` names, and without those that look like them.

    Args:
        images: of `load_unlabelled`.
        exclude: of `read_excluded`.
        match_by: `name`, `hash` or both. An image that a list names is also looked for by its looks, where it is among
            `images`.

    Raises:
        UsageError: a word stands for nothing, or no image is left.
    """
    stems, files = resolve_exclude_patterns(exclude)
    names, paths = images["file_name"][:], get_image_paths(images)
    matches: dict[int, ImageMatch] = {}
    for index, name in enumerate(names):
        if file_stem(name) in stems:
            matches[index] = ImageMatch(name, SAME_NAME, stems[file_stem(name)])
    if "hash" in match_by:
        sought = list(dict.fromkeys(files + [paths[index] for index in matches]))
        if "name" not in match_by:
            matches = {}
        rest = [index for index in range(len(names)) if index not in matches]
        looked_at = [paths[index] for index in rest] if sought else []
        for pair in find_near_duplicates(looked_at, sought, num_workers=num_workers) if looked_at else []:
            matches.setdefault(
                rest[pair.first], ImageMatch(names[rest[pair.first]], NEAR_DUPLICATE, sought[pair.second])
            )
    counts = Counter(match.reason for match in matches.values())
    logger.info(
        "%d of %d images are left out: %d by name, %d by sight",
        len(matches),
        len(names),
        counts[SAME_NAME],
        counts[NEAR_DUPLICATE],
    )
    if not matches:
        logger.warning("--exclude %s: none of these is among the images.", " ".join(exclude))
    kept = [index for index in range(len(names)) if index not in matches]
    if not kept:
        raise UsageError(f"--exclude {' '.join(exclude)} leaves no image to train on.")
    return images.select(kept), [matches[index] for index in sorted(matches)]


def write_image_list(folder: Path, images: Dataset, excluded: list[ImageMatch]) -> None:
    """Writes what a run is trained on, and what it leaves out."""
    write_csv(folder / PRETRAINING_IMAGES_FILE, ("file_name", "phash"), [(name, "") for name in images["file_name"][:]])
    (folder / EXCLUDED_IMAGES_FILE).unlink(missing_ok=True)
    if excluded:
        rows = [(match.file_name, match.reason, match.matched_file) for match in excluded]
        write_csv(folder / EXCLUDED_IMAGES_FILE, ("file_name", "reason", "matched_file"), rows)


def record_hashes(folder: Path, images: Dataset, num_workers: int | None = None) -> None:
    """Adds the perceptual hashes to the list: by them copies of other names are found, wherever the model goes."""
    hashes = perceptual_hashes(get_image_paths(images), num_workers)[:, 0].tolist()
    rows = [(name, f"{value:016x}") for name, value in zip(images["file_name"][:], hashes)]
    write_csv(folder / PRETRAINING_IMAGES_FILE, ("file_name", "phash"), rows)


def find_seen_in_pretraining(
    image_list: Path, root: Path | None, splits: DatasetDict, num_workers: int | None = None
) -> dict[str, list[ImageMatch]]:
    """Images of each split that the base was pre-trained on, by name and by sight.

    Args:
        image_list: of `pretraining_record`.
        root: the folder of the images that the base was trained on, where that is known.

    Returns:
        By split.
    """
    with open(image_list, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    trained = {file_stem(row["file_name"]): row["file_name"] for row in rows}
    hashed = [row for row in rows if row["phash"]]
    hashes = np.array([int(row["phash"], 16) for row in hashed], dtype=np.uint64)[:, None]
    found = {}
    for split, dataset in splits.items():
        names, matches = dataset["file_name"][:], {}
        for name in names:
            if file_stem(name) in trained:
                matches[name] = ImageMatch(name, SAME_NAME, trained[file_stem(name)])
        if len(hashed) and (paths := get_image_paths(dataset)):
            own = perceptual_hashes(paths, num_workers)
            for first, second in _match_by_hash(
                own, paths, hashes, [row["file_name"] for row in hashed], root, num_workers
            ):
                like = hashed[second]["file_name"]
                matches.setdefault(names[first], ImageMatch(names[first], NEAR_DUPLICATE, like))
        found[split] = [matches[name] for name in names if name in matches]
    return found


def find_pretraining_image_list(base: str | Path) -> Path | None:
    """The list of images that a base was pre-trained on; None where there is none.

    Args:
        base: a pre-trained model: its folder (or a checkpoint in it), or a Hub id.
    """
    folder = Path(base)
    if folder.exists():
        return next(
            (
                place / PRETRAINING_IMAGES_FILE
                for place in (folder, folder.parent)
                if (place / PRETRAINING_IMAGES_FILE).is_file()
            ),
            None,
        )
    try:
        return Path(hf_hub_download(str(base), PRETRAINING_IMAGES_FILE))
    except Exception:  # it has none, or there is no network: then nothing is known
        return None


def _match_by_hash(
    query_hashes, paths: list[str], known_hashes, known_names: list[str], root: Path | None, num_workers: int | None
):
    """Pairs of places: one of `paths`, one of `known_names`; confirmed on the images where these are still there."""
    near = find_candidate_pairs(query_hashes, other_hashes=known_hashes)
    there = {
        second: str(root / known_names[second])
        for _, second, _ in near
        if root and (root / known_names[second]).is_file()
    }
    sure = [(first, second) for first, second, distance in near if distance <= MAX_RECORDED_DISTANCE]
    gone = [(first, second) for first, second in sure if second not in there]
    if not there:
        return gone
    mine = sorted({first for first, second, _ in near if second in there})
    other = sorted(there)
    pairs = find_near_duplicates([paths[i] for i in mine], [there[i] for i in other], num_workers=num_workers)
    return gone + [(mine[pair.first], other[pair.second]) for pair in pairs]


def warn_about_contamination(
    base: str | Path, matches_by_split: dict[str, list[ImageMatch]], eval_splits: DatasetDict, output_dir: Path
) -> dict[str, int]:
    """Warns where images that will be evaluated were pre-trained on, and lists them in the output folder.

    Args:
        matches_by_split: of `seen_in_pretraining`.

    Returns:
        How many, by split, where there are any.
    """
    counts = {split: len(matches) for split, matches in matches_by_split.items() if matches}
    if counts:
        rows = [
            (split, m.file_name, m.reason, m.matched_file)
            for split, matches in matches_by_split.items()
            for m in matches
        ]
        write_csv(output_dir / SEEN_IN_PRETRAINING_FILE, ("split", "file_name", "reason", "matched_file"), rows)
        told = ", ".join(f"{count} of the {len(eval_splits[split])} {split} images" for split, count in counts.items())
        logger.warning(
            "%s was pre-trained on %s (listed in %s): their scores are too good. hf-mae pretrain --exclude leaves "
            "such images out.",
            base,
            told,
            output_dir / SEEN_IN_PRETRAINING_FILE,
        )
    return counts
