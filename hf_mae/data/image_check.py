"""Finding images that cannot be decoded, and telling images by their pixels, once for each state of the files."""

import io
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

from ..files.archive_members import parse_member, read_member
from ..files.caches import cached, files_fingerprint
from ..settings.data import MAX_PIXELS
from .image_io import max_pixels, open_encoded, open_image, read_rgb, summarize_image_error


@dataclass(frozen=True)
class ImageCheck:
    """What was found of images, by their place."""

    bad: dict[int, str]  # why an image cannot be decoded
    digests: list[str]  # of the pixels; empty where there are none, or where nobody looked

    def to_json(self) -> str:
        """As it is kept."""
        return json.dumps({"bad": self.bad, "digests": self.digests})

    @classmethod
    def from_json(cls, text: str) -> "ImageCheck":
        """What `to_json` wrote."""
        found = json.loads(text)
        return cls({int(place): reason for place, reason in found["bad"].items()}, found["digests"])


def pixel_digest(pixels: np.ndarray | Image.Image) -> str:
    """Of an image's pixels and shape: equal for equal pixels, whatever file holds them."""
    array: Any = np.ascontiguousarray(np.asarray(pixels))
    return xxhash.xxh3_128(array.data.cast("B")).hexdigest() + "x".join(map(str, array.shape))


def check_decoding(open_fn: Callable[[], Image.Image]) -> tuple[str | None, str]:
    """Why an image cannot be decoded (None: it can), and the digest of its pixels.

    JPEGs are read whole but decoded at an eighth of their size, which equal ones share.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_fn() as image:
                image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
                image.load()
                return None, pixel_digest(image)
    except Exception as error:  # PIL raises whatever the format's plugin does
        return summarize_image_error(error), ""


JPEG_END = b"\xff\xd9"


def check_header_and_end(path: str, content: bytes | None = None) -> tuple[str | None, str]:
    """Why an image (its bytes, or a file, or a member of an archive) is none or was cut off, as far as its head, and a
    JPEG's last bytes, tell; or None. No digest."""
    try:
        member = parse_member(path) if content is None else None
        content = read_member(member) if member else content
        with open_image(path if content is None else content) as image:
            is_jpeg = image.format == "JPEG"
        with open(path, "rb") if content is None else io.BytesIO(content) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            if is_jpeg and JPEG_END not in file.read():  # some cameras write more behind it
                return "its end is missing", ""
    except Exception as error:  # PIL raises whatever the format's plugin does
        return summarize_image_error(error, path), ""
    return None, ""


def check_image_files(
    paths: list[str],
    num_workers: int | None = None,
    *,
    decode: bool = True,
    check_fn: Callable[[], ImageCheck] | None = None,
) -> ImageCheck:
    """What is to be said of image files; it is remembered while the files do not change.

    Args:
        decode: try to decode them; else look at the head and the end alone, which gives no digests.
        check_fn: another way to find it, which tries to decode every one.
    """

    def make() -> ImageCheck:
        return _check_all(check_file_decoding if decode else check_header_and_end, paths, num_workers)

    more = [*([] if decode else ["ends"]), *([] if max_pixels() == MAX_PIXELS else [str(max_pixels())])]
    return _cached_check(files_fingerprint(paths, *more), check_fn or make) if paths else ImageCheck({}, [])


def hash_image_files(paths: list[str], num_workers: int | None = None) -> ImageCheck:
    """The same with digests of the whole images, as RGB, which those of a `PixelStore` are too; not remembered."""

    def look(path: str) -> tuple[str | None, str]:
        try:
            return None, pixel_digest(read_rgb(path))
        except Exception as error:  # PIL raises whatever the format's plugin does
            return summarize_image_error(error, path), ""

    return _check_all(look, paths, num_workers)


def check_file_decoding(path: str) -> tuple[str | None, str]:
    """`look_whole` of a file; the reason does not repeat its name."""
    reason, digest = check_decoding(lambda: open_image(path))
    return reason and (reason.replace(path, "").strip() or reason), digest


def check_table_images(
    rows: Sequence[dict[str, Any]], fingerprint: str, num_workers: int | None = None, *, decode: bool = True
) -> ImageCheck:
    """What is to be said of images within a table (`{"bytes", "path"}`); it is remembered by the table's
    fingerprint.

    Args:
        decode: as of `verdict_on_files`.
    """

    def look(place: int) -> tuple[str | None, str]:
        if not decode:
            row = rows[place]
            return check_header_and_end(row["path"] or "", row["bytes"])
        return check_decoding(lambda: open_encoded(rows[place]))

    more = [*([] if decode else ["ends"]), *([] if max_pixels() == MAX_PIXELS else [str(max_pixels())])]
    key = "-".join([fingerprint, *more])
    return (
        _cached_check(key, lambda: _check_all(look, range(len(rows)), num_workers)) if len(rows) else ImageCheck({}, [])
    )


def _cached_check(fingerprint: str, make: Callable[[], ImageCheck]) -> ImageCheck:
    def write(path: Path, verdict: ImageCheck) -> None:
        path.write_text(verdict.to_json(), encoding="utf-8")

    return cached(
        f"checked/{fingerprint}.v2.json",
        make=make,
        read=lambda path: ImageCheck.from_json(path.read_text(encoding="utf-8")),
        write=write,
    )


def _check_all(
    check_one: Callable[[Any], tuple[str | None, str]], items: Sequence[Any], num_workers: int | None
) -> ImageCheck:
    bad, digests = {}, []
    with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool:
        found: Any = tqdm(pool.map(check_one, items), total=len(items), desc="Checking images", unit="image", delay=1)
        for place, (reason, digest) in enumerate(found):
            digests.append(digest)
            if reason is not None:
                bad[place] = reason
    return ImageCheck(bad, digests)
