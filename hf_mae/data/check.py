"""Finding image files that cannot be decoded, in parallel, once for each state of the files."""

import json
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from tqdm.auto import tqdm

from ..files.caches import files_fingerprint, kept
from .opening import reason_of


def fault_of(path: str) -> str | None:
    """Why an image cannot be decoded, or None. JPEGs are read whole but decoded at an eighth of their size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
                image.load()
    except Exception as error:  # PIL raises whatever the format's plugin does
        return reason_of(error, path)
    return None


JPEG_END = b"\xff\xd9"


def fault_at_the_ends(path: str) -> str | None:
    """Why a file is no image or was cut off, as far as its head, and a JPEG's last bytes, tell; or None."""
    try:
        with open(path, "rb") as file:
            with Image.open(file) as image:
                is_jpeg = image.format == "JPEG"
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            if is_jpeg and JPEG_END not in file.read():  # some cameras write more behind it
                return "its end is missing"
    except Exception as error:  # PIL raises whatever the format's plugin does
        return reason_of(error, path)
    return None


def unreadable_images(
    paths: list[str],
    num_workers: int | None = None,
    *,
    decode: bool = True,
    find: Callable[[], dict[str, str]] | None = None,
) -> dict[str, str]:
    """The files that cannot be decoded, with the reason; the verdict is remembered while the files do not change.

    Args:
        decode: try to; else look at the head and the end alone.
        find: another way to find them, which tries to decode every one.
    """
    if not paths:
        return {}
    kind = [] if decode else ["ends"]
    fault = fault_of if decode else fault_at_the_ends
    return kept(
        f"checked/{files_fingerprint(paths, *kind)}.json",
        make=find or (lambda: _look_at(paths, num_workers, fault)),
        read=lambda path: json.loads(path.read_text(encoding="utf-8")),
        write=lambda path, bad: path.write_text(json.dumps(bad), encoding="utf-8"),
    )


def _look_at(paths: list[str], num_workers: int | None, fault: Callable[[str], str | None]) -> dict[str, str]:
    with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool:
        faults = tqdm(pool.map(fault, paths), total=len(paths), desc="Checking images", unit="image", delay=1)
        return {path: found for path, found in zip(paths, faults) if found}
