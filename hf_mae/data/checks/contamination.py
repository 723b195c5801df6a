"""Exclusion of evaluation images from pre-training, and detection of train-test contamination.

Images match by name (the stem of the file name, which survives re-encoding and moving) or as near-duplicates.
"""

import csv
import logging
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from huggingface_hub import hf_hub_download

from ...errors import UsageError, warn
from ...files.atomic import read_text, write_csv
from ..columns import get_image_paths
from ..images.messages import ImageMessage
from ..messages import DataMessage
from ..sources.image_files import IMAGE_SUFFIXES, TABLE_SUFFIXES
from ..sources.predict_inputs import find_input_paths
from ..sources.tables import read_table
from .duplicates import find_candidate_pairs, find_near_duplicates, perceptual_hashes

logger = logging.getLogger(__name__)
PRETRAINING_IMAGES_FILE = "pretraining_images.csv"  # every training image: file_name,phash
EXCLUDED_IMAGES_FILE = "excluded_images.csv"  # every excluded image: file_name,reason,matched_file
SEEN_IN_PRETRAINING_FILE = "seen_in_pretraining.csv"  # evaluation images: split,file_name,reason,matched_file
SAME_NAME, NEAR_DUPLICATE = "name", "near-duplicate"
_NAME_COLUMNS = ("file_name", "filename", "file", "file_stem", "stem", "image", "path")
_SPLIT_COLUMNS = ("split", "split_index", "fold")
MAX_RECORDED_DISTANCE = 2  # of 64 bits; if only the hashes are available, larger distances are not reliable


def file_stem(name: str) -> str:
    """Returns the file name without folder and suffix, which identifies an image."""
    return Path(name.replace("\\", "/")).stem


def resolve_exclude_patterns(patterns: list[str]) -> tuple[dict[str, str], list[str]]:
    """Resolves the values of `--exclude`.

    Args:
        patterns: image files, folders and globs; lists (.csv, .jsonl, .txt) of file names. `LIST:SPLIT` selects the
            rows of one split (`2_fold_split.csv:1`, `manifest.csv:test`).

    Returns:
        Stem -> the pattern that matched it, and the image files that exist.

    Raises:
        UsageError: If a pattern matches nothing.
    """
    stems: dict[str, str] = {}
    files: list[str] = []
    for pattern in patterns:
        has_split = ":" in pattern and not os.path.exists(pattern)
        path, _, split = pattern.rpartition(":") if has_split else (pattern, "", "")
        if os.path.isfile(path) and path.lower().endswith((*TABLE_SUFFIXES, ".txt")):
            names = read_file_names(Path(path), split or None)
            candidates = (os.path.join(os.path.dirname(path), name) for name in names)
            paths = [file for file in candidates if file.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(file)]
        else:
            paths = names = list(filter(os.path.isfile, find_input_paths([pattern])))
        if not names:
            raise UsageError(DataMessage.EXCLUDE_MATCHES_NOTHING, pattern=pattern)
        stems.update({file_stem(name): pattern for name in names})
        files += paths
    return stems, list(dict.fromkeys(files))


def read_file_names(path: Path, split: str | None) -> list[str]:
    """Reads file names: the lines of a .txt file, or a column of a .csv (commas or semicolons) or .jsonl file."""
    if path.suffix.lower() == ".txt":
        rows = [{"file_name": line.strip()} for line in re.split(r"[\r\n]", read_text(path)) if line.strip()]
    else:
        rows = read_table(path)
    rows = [{str(key).strip().lower().replace("-", "_"): value for key, value in row.items()} for row in rows]
    columns = list(rows[0]) if rows else []
    name_column = next((name for name in _NAME_COLUMNS if name in columns), None)
    if name_column is None:
        raise UsageError(DataMessage.LIST_WITHOUT_FILE_NAMES, path=path, columns=_NAME_COLUMNS)
    if split is not None:
        split_column = next((name for name in _SPLIT_COLUMNS if name in columns), None)
        if split_column is None:
            raise UsageError(DataMessage.LIST_WITHOUT_SPLITS, path=path, split=split)
        values = sorted({str(row[split_column]) for row in rows})
        if split not in values:
            raise UsageError(DataMessage.LIST_UNKNOWN_SPLIT, path=path, split=split, column=split_column, values=values)
        rows = [row for row in rows if str(row[split_column]) == split]
    return [str(row[name_column]) for row in rows if row[name_column]]


@dataclass(frozen=True)
class ImageMatch:
    """An image that matches one of the images searched for."""

    file_name: str
    reason: str  # SAME_NAME or NEAR_DUPLICATE
    matched_file: str  # the matching file, or the list that contains its name


def exclude_images(
    images: Dataset, exclude: list[str], match_by: list[str], num_workers: int | None = None
) -> tuple[Dataset, list[ImageMatch]]:
    """Removes the images that `--exclude` lists, and their near-duplicates.

    Args:
        images: result of `load_unlabelled`.
        exclude: sources of images to exclude (see `resolve_exclude_patterns`).
        match_by: `name`, `hash` or both. If a list names an image of `images`, its near-duplicates are searched, too.

    Raises:
        UsageError: If a source cannot be resolved, or no image remains.
    """
    stems, files = resolve_exclude_patterns(exclude)
    names, paths = images["file_name"][:], get_image_paths(images)
    matches: dict[int, ImageMatch] = {}
    for index, name in enumerate(names):
        if file_stem(name) in stems:
            matches[index] = ImageMatch(name, SAME_NAME, stems[file_stem(name)])
    if "hash" in match_by:
        excluded_paths = list(dict.fromkeys(files + [paths[index] for index in matches]))
        if "name" not in match_by:
            matches = {}
        candidates = [index for index in range(len(names)) if index not in matches]
        candidate_paths = [paths[index] for index in candidates]
        if excluded_paths and candidate_paths:
            for pair in find_near_duplicates(candidate_paths, excluded_paths, num_workers=num_workers):
                index = candidates[pair.first]
                match = ImageMatch(names[index], NEAR_DUPLICATE, excluded_paths[pair.second])
                matches.setdefault(index, match)
    counts = Counter(match.reason for match in matches.values())
    logger.info(
        "%d of %d images are excluded: %d by name, %d as near-duplicates",
        len(matches),
        len(names),
        counts[SAME_NAME],
        counts[NEAR_DUPLICATE],
    )
    if not matches:
        warn(logger, ImageMessage.EXCLUDE_WITHOUT_MATCH, sources=" ".join(exclude))
    remaining = [index for index in range(len(names)) if index not in matches]
    if not remaining:
        raise UsageError(ImageMessage.EXCLUDE_LEAVES_NOTHING, sources=" ".join(exclude))
    return images.select(remaining), [matches[index] for index in sorted(matches)]


def write_image_list(folder: Path, images: Dataset, excluded: list[ImageMatch]) -> None:
    """Writes the lists of training images and of excluded images."""
    write_csv(folder / PRETRAINING_IMAGES_FILE, ("file_name", "phash"), [(name, "") for name in images["file_name"][:]])
    (folder / EXCLUDED_IMAGES_FILE).unlink(missing_ok=True)
    if excluded:
        rows = [(match.file_name, match.reason, match.matched_file) for match in excluded]
        write_csv(folder / EXCLUDED_IMAGES_FILE, ("file_name", "reason", "matched_file"), rows, for_people=True)


def record_hashes(folder: Path, images: Dataset, num_workers: int | None = None) -> None:
    """Adds the perceptual hashes to the list of training images, to detect renamed copies on any machine."""
    hashes = perceptual_hashes(get_image_paths(images), num_workers)[:, 0].tolist()
    rows = [(name, f"{value:016x}") for name, value in zip(images["file_name"][:], hashes)]
    write_csv(folder / PRETRAINING_IMAGES_FILE, ("file_name", "phash"), rows)


def find_seen_in_pretraining(
    image_list: Path, root: Path | None, splits: DatasetDict, num_workers: int | None = None
) -> dict[str, list[ImageMatch]]:
    """Finds the images of each split that the base model was pre-trained on, by name and as near-duplicates.

    Args:
        image_list: result of `find_pretraining_image_list`.
        root: folder of the pre-training images, if known.
        splits: the images to check.

    Returns:
        The matches of each split.
    """
    with open(image_list, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    trained = {file_stem(row["file_name"]): row["file_name"] for row in rows}
    hashed_names = [row["file_name"] for row in rows if row["phash"]]
    hashes = np.array([int(row["phash"], 16) for row in rows if row["phash"]], dtype=np.uint64)[:, None]
    matches_by_split = {}
    for split, dataset in splits.items():
        names, matches = dataset["file_name"][:], {}
        for name in names:
            if file_stem(name) in trained:
                matches[name] = ImageMatch(name, SAME_NAME, trained[file_stem(name)])
        if len(hashes) and (paths := get_image_paths(dataset)):
            query_hashes = perceptual_hashes(paths, num_workers)
            for first, second in _match_by_hash(query_hashes, paths, hashes, hashed_names, root, num_workers):
                match = ImageMatch(names[first], NEAR_DUPLICATE, hashed_names[second])
                matches.setdefault(names[first], match)
        matches_by_split[split] = [matches[name] for name in names if name in matches]
    return matches_by_split


def find_pretraining_image_list(base: str | Path) -> Path | None:
    """Finds the list of images that a base model was pre-trained on; None if it does not exist.

    Args:
        base: a pre-trained model: its folder (or a checkpoint in it), or a Hub id.
    """
    folder = Path(base)
    if folder.exists():
        paths = [parent / PRETRAINING_IMAGES_FILE for parent in (folder, folder.parent)]
        return next((path for path in paths if path.is_file()), None)
    try:
        return Path(hf_hub_download(str(base), PRETRAINING_IMAGES_FILE))
    except Exception:  # the repository has no list, or the network is unavailable
        return None


def _match_by_hash(
    query_hashes, paths: list[str], known_hashes, known_names: list[str], root: Path | None, num_workers: int | None
):
    """Returns pairs of indices (into `paths`, into `known_names`), confirmed on the images if these still exist in
    `root`."""
    candidates = find_candidate_pairs(query_hashes, other_hashes=known_hashes)
    known_paths = {
        second: str(root / known_names[second])
        for _, second, _ in candidates
        if root and (root / known_names[second]).is_file()
    }
    by_hash_only = [
        (first, second)
        for first, second, distance in candidates
        if distance <= MAX_RECORDED_DISTANCE and second not in known_paths
    ]
    if not known_paths:
        return by_hash_only
    queries = sorted({first for first, second, _ in candidates if second in known_paths})
    known = sorted(known_paths)
    pairs = find_near_duplicates([paths[i] for i in queries], [known_paths[i] for i in known], num_workers=num_workers)
    return by_hash_only + [(queries[pair.first], known[pair.second]) for pair in pairs]


def warn_about_contamination(
    base: str | Path, matches_by_split: dict[str, list[ImageMatch]], eval_splits: DatasetDict, output_dir: Path
) -> dict[str, int]:
    """Warns if evaluation images were used in pre-training, and lists them in the output folder.

    Args:
        base: the pre-trained model.
        matches_by_split: result of `find_seen_in_pretraining`.
        eval_splits: the evaluation images.
        output_dir: folder of the list.

    Returns:
        Number of such images of each split that has any.
    """
    counts = {split: len(matches) for split, matches in matches_by_split.items() if matches}
    if counts:
        path = output_dir / SEEN_IN_PRETRAINING_FILE
        rows = [
            (split, match.file_name, match.reason, match.matched_file)
            for split, matches in matches_by_split.items()
            for match in matches
        ]
        write_csv(path, ("split", "file_name", "reason", "matched_file"), rows, for_people=True)
        described = [f"{count} of the {len(eval_splits[split])} {split} images" for split, count in counts.items()]
        warn(logger, ImageMessage.SEEN_IN_PRETRAINING, base=base, counts=described, file=path)
    return counts
