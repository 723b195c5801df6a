"""Folder trees of images without labels."""

import logging
import os
from pathlib import Path

from datasets import Dataset, Features, Image, Value

from ..errors import UsageError, counted
from .check import verdict_on_files
from .files import walk_images

logger = logging.getLogger(__name__)


def load_unlabelled(
    data_dir: str, on_bad_image: str, num_workers: int | None = None, *, decode: bool = True
) -> Dataset:
    """Every image below a folder, as `image` and `file_name`; nothing is copied.

    Args:
        on_bad_image: `error` stops at files that cannot be read, and lists them; `skip` leaves them out.
        decode: check that every image can be decoded, rather than its head and its end alone (which takes seconds for
            100,000 images, and finds what is no image and what was cut off).
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder.")
    tree = walk_images(root)
    if tree.left_out:
        logger.info("Not read of %s: %s", root, tree.said())
    paths = sorted(os.path.join(root, name) for name in tree.images)
    if not paths:
        raise UsageError(f"{root} holds no images.")
    if bad := verdict_on_files(paths, num_workers, decode=decode).bad:
        listed = "\n  ".join(f"{paths[place]} ({reason})" for place, reason in bad.items())
        if on_bad_image == "error":
            raise UsageError(
                f"{counted(len(bad), 'image')} of {root} cannot be read (--on_bad_image skip leaves them out):"
                f"\n  {listed}"
            )
        logger.warning("Left out, because they cannot be read:\n  %s", listed)
        paths = [path for place, path in enumerate(paths) if place not in bad]
        if not paths:
            raise UsageError(f"{root} holds no image that can be read.")
    columns = {"image": paths, "file_name": [Path(os.path.relpath(path, root)).as_posix() for path in paths]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "file_name": Value("string")}))
