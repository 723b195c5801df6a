"""Near-duplicate images: perceptual hashes find candidates, alignment and structural similarity confirm them.

A hash of the whole image is compared with hashes of crops of the other, so that a slightly cropped copy is found too.
A candidate pair is aligned (affine, by OpenCV's enhanced correlation coefficient) and counts if, where the two overlap
and with brightness and contrast evened out, their structural similarity is high and their fine detail correlates.
The latter tells copies from smooth images that merely look alike (mucosa, black corners).
"""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import imagehash
import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity
from tqdm.auto import tqdm

from ..files.caches import cached, files_fingerprint
from .image_io import open_image, to_rgb

logger = logging.getLogger(__name__)
HASHED_SIZE = 160  # pixels, square and grey, of what is hashed
COMPARED_SIZE = 96  # and of what is compared
CROPS = (0.95, 0.9)  # sides of the crops that are hashed too: in the middle and at every corner
MAX_DISTANCE = 8  # of 64 bits
MIN_SIMILARITY = 0.6
MIN_DETAIL = 0.5
MAX_WARP = 0.2  # of an alignment: scale, shear, and shift as a share of the side; any two blobs fit with more
DARK, BRIGHT = 16, 250  # grey levels outside of which there is no detail: borders, and reflections of the lamp
_CROP_ANCHORS = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
_ALIGNMENT_STEPS: Any = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)


@dataclass(frozen=True)
class DuplicatePair:
    """Two images, by their places in the list, `first` < `second`."""

    first: int
    second: int
    distance: int  # of the hashes, in bits of 64
    similarity: float  # structural, of the overlap: 1 is equal
    detail: float  # correlation of the fine detail there


def perceptual_hashes(paths: list[str], num_workers: int | None = None) -> np.ndarray:
    """Hashes (images, 1 + crops) uint64, the whole image's first; they are kept in the cache while the files do not
    change."""

    def make() -> np.ndarray:
        with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool:
            bar = tqdm(pool.map(_compute_hashes, paths), total=len(paths), desc="Hashing", unit="image", delay=1)
            return np.stack(list(bar))

    return cached(f"hashes/{files_fingerprint(paths, '2')}.npy", make, read=np.load, write=np.save)


def _load_grey(path: str, size: int) -> Image.Image:
    """A square grey thumbnail; black for a file that turns out unreadable."""
    try:
        with open_image(path) as image:
            image.draft("RGB", (2 * HASHED_SIZE, 2 * HASHED_SIZE))  # a JPEG is decoded at a fraction of its size
            whole = to_rgb(image).convert("L").resize((HASHED_SIZE, HASHED_SIZE), Image.Resampling.BOX)
    except Exception as error:  # PIL raises whatever the format's plugin does
        logger.warning("%s cannot be read (%s), and so is like no other image.", path, " ".join(str(error).split()))
        return Image.new("L", (size, size))
    return whole if size == HASHED_SIZE else whole.resize((size, size), Image.Resampling.BOX)


def _thumbnail(path: str) -> np.ndarray:
    """Grey (96, 96) uint8, of which similarities are."""
    return np.asarray(_load_grey(path, COMPARED_SIZE))


def _compute_hashes(path: str) -> np.ndarray:
    grey = _load_grey(path, HASHED_SIZE)
    views = [grey]
    for side in CROPS:
        margin = HASHED_SIZE * (1 - side)
        for x, y in _CROP_ANCHORS:
            corner = np.array([x * margin, y * margin])
            views.append(grey.crop(tuple(np.round([*corner, *(corner + HASHED_SIZE * side)]).astype(int))))
    bits = np.stack([imagehash.phash(view).hash.ravel() for view in views])
    return np.packbits(bits, axis=-1).view(np.uint64)[:, 0]


def find_candidate_pairs(
    hashes: np.ndarray, max_distance: int = MAX_DISTANCE, other_hashes: np.ndarray | None = None
) -> list[tuple[int, int, int]]:
    """Pairs (first, second, distance) whose hashes differ in at most `max_distance` bits.

    Args:
        hashes: of `perceptual_hashes`.
        other_hashes: hashes of other images: then pairs are of one of these (second) with one of those (first).
    """
    best: dict[tuple[int, int], int] = {}

    def search(crops: np.ndarray, whole: np.ndarray, swapped: bool) -> None:
        for start in range(0, len(crops), 256):
            block = crops[start : start + 256]
            distance = np.full((len(block), len(whole)), 64, dtype=np.uint8)
            for column in range(crops.shape[1]):
                np.minimum(distance, np.bitwise_count(block[:, column, None] ^ whole[None]), out=distance)
            for row, other in np.argwhere(distance <= max_distance).tolist():
                one, two = (other, start + row) if swapped else (start + row, other)
                if other_hashes is None:
                    if one == two:
                        continue
                    one, two = min(one, two), max(one, two)
                value = int(distance[row, other])
                best[one, two] = min(value, best.get((one, two), 64))

    if other_hashes is None:
        search(hashes, hashes[:, 0], swapped=False)
    else:
        search(hashes, other_hashes[:, 0], swapped=False)
        search(other_hashes, hashes[:, 0], swapped=True)
    return [(one, two, value) for (one, two), value in sorted(best.items())]


def compute_similarity(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """How alike two grey thumbnails (H, W) are after alignment, where they overlap.

    Returns:
        Structural similarity, and correlation of the fine detail; (0, 0) where no small warp aligns them.
    """
    height, width = first.shape
    one, two = (cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.8) for image in (first, second))
    if min(one.std(), two.std()) < 2.0:  # an empty image has nothing to align
        both_empty = float(max(one.std(), two.std()) < 2.0)
        return both_empty, both_empty
    warp: Any = np.eye(2, 3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(one, two, warp, cv2.MOTION_AFFINE, _ALIGNMENT_STEPS, None, 3)  # type: ignore[call-overload]
    except cv2.error:  # the two do not correlate
        return 0.0, 0.0
    if np.abs(warp[:, :2] - np.eye(2)).max() > MAX_WARP or np.abs(warp[:, 2]).max() > MAX_WARP * max(height, width):
        return 0.0, 0.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    overlap = cv2.warpAffine(np.ones_like(two), warp, (width, height), flags=flags) > 0.99
    two = cv2.warpAffine(two, warp, (width, height), flags=flags)
    gain = one[overlap].std() / max(two[overlap].std(), 1e-6)
    evened = (two - two[overlap].mean()) * gain + one[overlap].mean()
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, values = structural_similarity(one, evened, full=True, **settings)
    inside = cv2.erode(overlap.astype(np.uint8), np.ones((7, 7))) > 0
    empty = (np.minimum(one, two) < DARK) | (np.maximum(one, two) > BRIGHT)
    textured = inside & (cv2.dilate(empty.astype(np.uint8), np.ones((7, 7))) == 0)
    if textured.mean() < 0.05:
        textured = inside
    return float(values[inside].mean()), _detail_correlation(one, evened, textured)


def _detail_correlation(one: np.ndarray, two: np.ndarray, mask: np.ndarray) -> float:
    """Correlation of what a blur takes away, large deviations (edges, reflections) clipped."""
    details = [(image - cv2.GaussianBlur(image, (0, 0), 2.0))[mask] for image in (one, two)]
    first, second = (np.clip(detail - detail.mean(), -8, 8) for detail in details)
    return float((first * second).sum() / max(np.sqrt((first**2).sum() * (second**2).sum()), 1e-6))


def find_near_duplicates(
    paths: list[str],
    other_paths: list[str] | None = None,
    *,
    max_distance: int = MAX_DISTANCE,
    min_similarity: float = MIN_SIMILARITY,
    min_detail: float = MIN_DETAIL,
    num_workers: int | None = None,
) -> list[DuplicatePair]:
    """Pairs of near-duplicates among image files, the surest first.

    Args:
        paths: files that can be decoded.
        other_paths: other files: then pairs are of one of `paths` (first) with one of these (second).
        max_distance: bits of 64 by which the hashes of a candidate may differ.
        min_similarity, min_detail: structural similarity and correlation of the fine detail that confirm a candidate.
    """
    cv2.setNumThreads(1)  # our own threads share the cores
    others = paths if other_paths is None else other_paths
    hashes = perceptual_hashes(paths, num_workers)
    found = find_candidate_pairs(
        hashes, max_distance, None if other_paths is None else perceptual_hashes(other_paths, num_workers)
    )
    logger.info("%d pairs have similar hashes", len(found))
    involved = sorted({paths[pair[0]] for pair in found} | {others[pair[1]] for pair in found})

    with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool:
        thumbnails = dict(zip(involved, pool.map(_thumbnail, involved)))

        def confirm(pair: tuple[int, int, int]) -> tuple[float, float]:
            return compute_similarity(thumbnails[paths[pair[0]]], thumbnails[others[pair[1]]])

        values = list(tqdm(pool.map(confirm, found), total=len(found), desc="Comparing", unit="pair", delay=1))
    pairs = [DuplicatePair(*pair, *value) for pair, value in zip(found, values)]
    pairs = [pair for pair in pairs if pair.similarity >= min_similarity and pair.detail >= min_detail]
    return sorted(pairs, key=lambda pair: (-pair.detail, pair.first, pair.second))
