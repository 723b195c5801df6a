"""Detection of images that cannot be decoded, and digests of their pixels; cached until the files change."""

import json
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from PIL import Image
from tqdm.auto import tqdm

from ...files.caches import cached, files_fingerprint
from ...settings.limits import MAX_PIXELS, count_usable_cores, max_pixels
from .decoding import HEAD_SIZE, detect_format
from .image_error import ImageError, summarize_image_error
from .image_io import ImageSource, open_single_image, read_rgb, split_frame_name
from .messages import ImageMessage

JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class ImageCheck:
    """Result of a check of images, by index."""

    bad: dict[int, str]  # reason why an image cannot be decoded
    digests: list[str]  # digests of the pixels; an empty string if the image is bad or was not decoded

    def to_json(self) -> str:
        """Serializes the result for the cache."""
        return json.dumps({"bad": self.bad, "digests": self.digests})

    @classmethod
    def from_json(cls, text: str) -> "ImageCheck":
        """Reads the output of `to_json`."""
        fields = json.loads(text)
        return cls({int(index): reason for index, reason in fields["bad"].items()}, fields["digests"])


def pixel_digest(pixels: np.ndarray | Image.Image) -> str:
    """Returns the digest of an image's pixels and shape: equal for equal pixels, independent of the file."""
    array: Any = np.ascontiguousarray(np.asarray(pixels))
    return xxhash.xxh3_128(array.data.cast("B")).hexdigest() + "x".join(map(str, array.shape))


def check_decoding(source: ImageSource) -> tuple[str | None, str]:
    """Decodes an image (see `read_rgb`). Returns the reason if that fails (otherwise None), and the digest of the
    pixels.

    A JPEG is read completely but decoded at an eighth of its size, which is the same for equal images.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return None, pixel_digest(read_rgb(source, draft_size=(1, 1)))
    except Exception as error:  # e.g. an archive that was removed
        return summarize_image_error(error, source if isinstance(source, str) else ""), ""


def check_header_and_end(source: ImageSource) -> tuple[str | None, str]:
    """Checks the header and the number of frames of an image, and the end marker of a JPEG. A frame is decoded.

    Returns:
        The reason if the image is invalid or truncated (otherwise None), and an empty digest.
    """
    try:
        if split_frame_name(source)[1] is not None:
            read_rgb(source)
            return None, ""
        with open_single_image(source) as frames:
            frames.file.seek(0, os.SEEK_END)
            size = frames.file.tell()
            frames.file.seek(0)
            if detect_format(frames.file.read(HEAD_SIZE)) == "JPEG":
                frames.file.seek(max(0, size - 4096))
                if JPEG_END not in frames.file.read():  # some cameras append data after the end marker
                    raise ImageError(ImageMessage.TRUNCATED_FILE)
    except Exception as error:  # e.g. an archive that was removed
        return summarize_image_error(error, source if isinstance(source, str) else ""), ""
    return None, ""


def check_image_files(
    paths: list[str],
    num_workers: int | None = None,
    *,
    decode: bool = True,
    check_fn: Callable[[], ImageCheck] | None = None,
) -> ImageCheck:
    """Checks image files. The result is cached until the files change.

    Args:
        paths: the files.
        num_workers: number of threads.
        decode: decode the images; otherwise only the header and the end are checked, without digests.
        check_fn: another function that decodes and checks the images.
    """
    if not paths:
        return ImageCheck({}, [])
    check_one = check_decoding if decode else check_header_and_end
    key = files_fingerprint(paths, *_check_options(decode))
    return _cached_check(key, check_fn or (lambda: _check_all(check_one, paths, num_workers)))


def hash_image_files(paths: list[str], num_workers: int | None = None) -> ImageCheck:
    """Checks image files and hashes them at full size as RGB, like `PixelCache`. The result is not cached."""

    def check_one(path: str) -> tuple[str | None, str]:
        try:
            return None, pixel_digest(read_rgb(path))
        except Exception as error:  # as in `check_decoding`
            return summarize_image_error(error, path), ""

    return _check_all(check_one, paths, num_workers)


def check_table_images(
    rows: Sequence[dict[str, Any]], fingerprint: str, num_workers: int | None = None, *, decode: bool = True
) -> ImageCheck:
    """Checks images in a table (`{"bytes", "path"}`). The result is cached by the fingerprint of the table.

    Args:
        rows: the undecoded images.
        fingerprint: fingerprint of the table.
        num_workers: number of threads.
        decode: as in `check_image_files`.
    """

    def check_one(index: int) -> tuple[str | None, str]:
        return check_decoding(rows[index]) if decode else check_header_and_end(rows[index])

    if not len(rows):
        return ImageCheck({}, [])
    key = "-".join([fingerprint, *_check_options(decode)])
    return _cached_check(key, lambda: _check_all(check_one, range(len(rows)), num_workers))


def _check_options(decode: bool) -> list[str]:
    """Returns the options that are part of the cache key."""
    return [*([] if decode else ["ends"]), *([] if max_pixels() == MAX_PIXELS else [str(max_pixels())])]


def _cached_check(key: str, make: Callable[[], ImageCheck]) -> ImageCheck:
    def write(path: Path, check: ImageCheck) -> None:
        path.write_text(check.to_json(), encoding="utf-8")

    return cached(
        f"checked/{key}.v4.json",
        make=make,
        read=lambda path: ImageCheck.from_json(path.read_text(encoding="utf-8")),
        write=write,
    )


def _check_all(
    check_one: Callable[[Any], tuple[str | None, str]], items: Sequence[Any], num_workers: int | None
) -> ImageCheck:
    bad, digests = {}, []
    with ThreadPoolExecutor(num_workers or count_usable_cores()) as pool:
        results: Any = tqdm(pool.map(check_one, items), total=len(items), desc="Checking images", unit="image", delay=1)
        for index, (reason, digest) in enumerate(results):
            digests.append(digest)
            if reason is not None:
                bad[index] = reason
    return ImageCheck(bad, digests)
