"""Near-duplicate images: perceptual hashes find candidates, alignment and structural similarity confirm them.

The hash of an image is compared with the hashes of crops of the other image, to find slightly cropped copies, too.
A candidate pair is aligned (affine, OpenCV's enhanced correlation coefficient), and its brightness and contrast are
equalized. It counts if, in the overlap, the structural similarity is high and the fine detail correlates. The detail
distinguishes copies from smooth images that are only similar (mucosa, black corners).
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import imagehash
import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity
from tqdm.auto import tqdm

from ...errors import UsageError, summarize_exception, warn
from ...files.caches import cached, files_fingerprint
from ...settings.limits import count_usable_cores
from ..images.image_io import read_rgb
from ..images.messages import ImageMessage

logger = logging.getLogger(__name__)
HASHED_SIZE = 160  # side in pixels of the square grey image that is hashed
COMPARED_SIZE = 96  # side in pixels of the thumbnails that are compared
CROPS = (0.95, 0.9)  # relative side of the crops that are hashed, too: one in the centre and one in each corner
MAX_DISTANCE = 8  # of 64 bits
MIN_SIMILARITY = 0.6
MIN_DETAIL = 0.5
MAX_WARP = 0.2  # of an alignment: scale, shear, and shift relative to the side; with more, any two blobs can be aligned
DARK, BRIGHT = 16, 250  # grey levels outside this range have no detail: borders, and reflections of the lamp
_CROP_ANCHORS = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
_ALIGNMENT_STEPS: Any = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)


@dataclass(frozen=True)
class DuplicatePair:
    """Two images, as indices into the list (`first` < `second`)."""

    first: int
    second: int
    distance: int  # Hamming distance of the hashes (64 bits)
    similarity: float  # structural similarity of the overlap: 1 is equal
    detail: float  # correlation of the fine detail in the overlap


def perceptual_hashes(paths: list[str], num_workers: int | None = None) -> np.ndarray:
    """Computes hashes, uint64 (images, 1 + crops). Column 0 is the hash of the complete image. The result is cached
    until a file changes."""

    def make() -> np.ndarray:
        with ThreadPoolExecutor(num_workers or count_usable_cores()) as pool:
            bar = tqdm(pool.map(_compute_hashes, paths), total=len(paths), desc="Hashing", unit="image", delay=1)
            return np.stack(list(bar))

    return cached(f"hashes/{files_fingerprint(paths, '2')}.npy", make, read=np.load, write=np.save)


def _load_grey(path: str, size: int) -> Image.Image:
    """Loads a square grey thumbnail; it is black if the file is unreadable."""
    try:
        image = read_rgb(path, draft_size=(2 * HASHED_SIZE, 2 * HASHED_SIZE))
        grey = image.convert("L").resize((HASHED_SIZE, HASHED_SIZE), Image.Resampling.BOX)
    except UsageError:
        raise
    except Exception as error:  # each Pillow plugin raises its own types
        warn(logger, ImageMessage.IMAGE_NOT_COMPARED, file=path, reason=summarize_exception(error))
        return Image.new("L", (size, size))
    return grey if size == HASHED_SIZE else grey.resize((size, size), Image.Resampling.BOX)


def _load_thumbnail(path: str) -> np.ndarray:
    """Loads the thumbnail that is compared: grey uint8 (96, 96)."""
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
    """Finds pairs (first, second, distance) whose hashes differ in at most `max_distance` bits.

    Args:
        hashes: result of `perceptual_hashes`.
        max_distance: maximum Hamming distance.
        other_hashes: hashes of other images. If given, `first` is an index into `hashes` and `second` into
            `other_hashes`; otherwise both are indices into `hashes`.
    """
    distances: dict[tuple[int, int], int] = {}  # the smallest of each pair

    def search(crop_hashes: np.ndarray, image_hashes: np.ndarray, swapped: bool) -> None:
        for start in range(0, len(crop_hashes), 256):
            block = crop_hashes[start : start + 256]
            block_distances = np.full((len(block), len(image_hashes)), 64, dtype=np.uint8)
            for crop in range(crop_hashes.shape[1]):
                crop_distances = np.bitwise_count(block[:, crop, None] ^ image_hashes[None])
                np.minimum(block_distances, crop_distances, out=block_distances)
            for row, column in np.argwhere(block_distances <= max_distance).tolist():
                first, second = (column, start + row) if swapped else (start + row, column)
                if other_hashes is None:
                    if first == second:
                        continue
                    first, second = min(first, second), max(first, second)
                distance = int(block_distances[row, column])
                distances[first, second] = min(distance, distances.get((first, second), 64))

    if other_hashes is None:
        search(hashes, hashes[:, 0], swapped=False)
    else:
        search(hashes, other_hashes[:, 0], swapped=False)
        search(other_hashes, hashes[:, 0], swapped=True)
    return [(first, second, distance) for (first, second), distance in sorted(distances.items())]


def compute_similarity(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Compares two grey thumbnails (H, W) in their overlap, after alignment.

    Returns:
        Structural similarity, and correlation of the fine detail; (0, 0) if no small warp aligns them.
    """
    height, width = first.shape
    first, second = (cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.8) for image in (first, second))
    if min(first.std(), second.std()) < 2.0:  # an empty image has nothing to align
        both_empty = float(max(first.std(), second.std()) < 2.0)
        return both_empty, both_empty
    warp: Any = np.eye(2, 3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(first, second, warp, cv2.MOTION_AFFINE, _ALIGNMENT_STEPS, None, 3)  # type: ignore[call-overload]
    except cv2.error:  # the images do not correlate
        return 0.0, 0.0
    if np.abs(warp[:, :2] - np.eye(2)).max() > MAX_WARP or np.abs(warp[:, 2]).max() > MAX_WARP * max(height, width):
        return 0.0, 0.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    overlap = cv2.warpAffine(np.ones_like(second), warp, (width, height), flags=flags) > 0.99
    second = cv2.warpAffine(second, warp, (width, height), flags=flags)
    gain = first[overlap].std() / max(second[overlap].std(), 1e-6)
    second_matched = (second - second[overlap].mean()) * gain + first[overlap].mean()
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, similarity_map = structural_similarity(first, second_matched, full=True, **settings)
    inside = cv2.erode(overlap.astype(np.uint8), np.ones((7, 7))) > 0
    empty = (np.minimum(first, second) < DARK) | (np.maximum(first, second) > BRIGHT)
    textured = inside & (cv2.dilate(empty.astype(np.uint8), np.ones((7, 7))) == 0)
    if textured.mean() < 0.05:
        textured = inside
    return float(similarity_map[inside].mean()), _detail_correlation(first, second_matched, textured)


def _detail_correlation(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Returns the correlation of the high-pass filtered images; large deviations (edges, reflections) are clipped."""
    details = [(image - cv2.GaussianBlur(image, (0, 0), 2.0))[mask] for image in (first, second)]
    first_detail, second_detail = (np.clip(detail - detail.mean(), -8, 8) for detail in details)
    norm = np.sqrt((first_detail**2).sum() * (second_detail**2).sum())
    return float((first_detail * second_detail).sum() / max(norm, 1e-6))


def find_near_duplicates(
    paths: list[str],
    other_paths: list[str] | None = None,
    *,
    max_distance: int = MAX_DISTANCE,
    min_similarity: float = MIN_SIMILARITY,
    min_detail: float = MIN_DETAIL,
    num_workers: int | None = None,
) -> list[DuplicatePair]:
    """Finds pairs of near-duplicate image files, the highest detail correlation first.

    Args:
        paths: readable image files.
        other_paths: other files. If given, `first` of a pair is an index into `paths` and `second` into `other_paths`;
            otherwise both are indices into `paths`.
        max_distance: maximum Hamming distance of the hashes of a candidate pair (64 bits).
        min_similarity, min_detail: structural similarity and correlation of the fine detail that confirm a candidate.
    """
    cv2.setNumThreads(1)  # the pool below uses all cores
    second_paths = paths if other_paths is None else other_paths
    hashes = perceptual_hashes(paths, num_workers)
    candidates = find_candidate_pairs(
        hashes, max_distance, None if other_paths is None else perceptual_hashes(other_paths, num_workers)
    )
    logger.info("%d pairs have similar hashes", len(candidates))
    files = sorted({paths[pair[0]] for pair in candidates} | {second_paths[pair[1]] for pair in candidates})

    with ThreadPoolExecutor(num_workers or count_usable_cores()) as pool:
        thumbnails = dict(zip(files, pool.map(_load_thumbnail, files)))

        def compare(pair: tuple[int, int, int]) -> tuple[float, float]:
            return compute_similarity(thumbnails[paths[pair[0]]], thumbnails[second_paths[pair[1]]])

        results = pool.map(compare, candidates)
        similarities = list(tqdm(results, total=len(candidates), desc="Comparing", unit="pair", delay=1))
    pairs = [DuplicatePair(*pair, *similarity) for pair, similarity in zip(candidates, similarities)]
    pairs = [pair for pair in pairs if pair.similarity >= min_similarity and pair.detail >= min_detail]
    return sorted(pairs, key=lambda pair: (-pair.detail, pair.first, pair.second))
