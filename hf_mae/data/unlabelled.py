"""Folder trees and archives of images without labels."""

import logging
import os
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset, Features, Image, Value, concatenate_datasets

from ..errors import UsageError, counted
from .check import verdict_on_files
from .entries import column_of
from .files import walk_images
from .shards import DIGEST, is_sharded, load_shards

logger = logging.getLogger(__name__)


def load_unlabelled(
    data_dir: str, on_bad_image: str, num_workers: int | None = None, *, decode: bool = True
) -> Dataset:
    """Every image below a folder, or in archives (`shards`), as `image` and `file_name`; nothing is copied.

    Args:
        on_bad_image: `error` stops at files that cannot be read, and lists them; `skip` leaves them out.
        decode: check that every image can be decoded, rather than its head and its end alone (which takes seconds for
            100,000 images, and finds what is no image and what was cut off).
    """
    if is_sharded(data_dir):
        return _of_shards(data_dir, on_bad_image, num_workers, decode)
    root = Path(data_dir)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder, archive or URL.")
    tree = walk_images(root)
    if tree.left_out:
        logger.info("Not read of %s: %s", root, tree.said())
    paths = sorted(os.path.join(root, name) for name in tree.images)
    if not paths:
        raise UsageError(f"{root} holds no images.")
    if bad := _bad(paths, paths, data_dir, on_bad_image, num_workers, decode):
        paths = [path for place, path in enumerate(paths) if place not in bad]
    columns = {"image": paths, "file_name": [Path(os.path.relpath(path, root)).as_posix() for path in paths]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "file_name": Value("string")}))


def _of_shards(source: str, on_bad_image: str, num_workers: int | None, decode: bool) -> Dataset:
    """All images of archives; those of `hf-mae shard` were looked at when they were packed."""
    splits = list(load_shards(source).values())
    whole = splits[0] if len(splits) == 1 else concatenate_datasets(splits)
    images = _by_name(whole)
    if DIGEST in whole.column_names:
        return images.remove_columns(DIGEST)
    paths = pc.struct_field(column_of(images, "image"), "path").to_pylist()
    names = column_of(images, "file_name").to_pylist()
    bad = _bad(paths, names, source, on_bad_image, num_workers, decode)
    return images.select([place for place in range(len(images)) if place not in bad]) if bad else images


def _by_name(images: Dataset) -> Dataset:
    """In the order in which a folder's are."""
    names = column_of(images, "file_name").combine_chunks()
    in_order = len(names) < 2 or pc.all(pc.less_equal(names[:-1], names[1:])).as_py()
    rows = images if in_order else images.select(pc.sort_indices(names).to_numpy())
    return rows.select_columns(["image", "file_name", *({DIGEST} & set(rows.column_names))])


def _bad(
    paths: list[str], names: list[str], source: str, on_bad_image: str, num_workers: int | None, decode: bool
) -> dict[int, str]:
    """Images that cannot be read, by place, with the reason; they are left out, or refused."""
    bad = verdict_on_files(paths, num_workers, decode=decode).bad
    if not bad:
        return {}
    listed = "\n  ".join(f"{names[place]} ({reason})" for place, reason in bad.items())
    if on_bad_image == "error":
        raise UsageError(
            f"{counted(len(bad), 'image')} of {source} cannot be read (--on_bad_image skip leaves them out):"
            f"\n  {listed}"
        )
    logger.warning("Left out, because they cannot be read:\n  %s", listed)
    if len(bad) == len(paths):
        raise UsageError(f"{source} holds no image that can be read.")
    return bad
