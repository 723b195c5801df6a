"""Folder trees, archives and data sets of images without labels."""

import logging
import os
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset, Features, Image, Value, concatenate_datasets

from ..compat.datasets import get_fingerprint
from ..errors import UsageError, pluralize
from ..settings.parse import looks_like_path
from .archive_index import DIGEST_COLUMN
from .hf_datasets import load_images
from .image_check import ImageCheck, check_image_files, check_table_images
from .image_files import walk_images
from .samples import arrow_column, get_image_paths
from .source_type import is_packed_source

logger = logging.getLogger(__name__)


def load_unlabelled(
    data_dir: str, on_bad_image: str, num_workers: int | None = None, *, decode: bool = True
) -> Dataset:
    """Every image below a folder, in archives (`shards`), or in what `datasets` loads, as `image` and `file_name`; of
    folders and archives nothing is copied.

    Args:
        on_bad_image: `error` stops at files that cannot be read, and lists them; `skip` leaves them out.
        decode: check that every image can be decoded, rather than its head and its end alone (which takes seconds for
            100,000 images, and finds what is no image and what was cut off).
    """
    root = Path(data_dir)
    if is_packed_source(data_dir) or not (root.exists() or looks_like_path(data_dir)):
        return _load_packed(data_dir, on_bad_image, num_workers, decode)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder, archive or URL.")
    tree = walk_images(root)
    if tree.ignored_counts:
        logger.info("Not read of %s: %s", root, tree.summary())
    paths = sorted(os.path.join(root, name) for name in tree.images)
    if not paths:
        raise UsageError(f"{root} holds no images.")
    verdict = check_image_files(paths, num_workers, decode=decode)
    if bad := _handle_unreadable(verdict, paths, data_dir, on_bad_image):
        paths = [path for place, path in enumerate(paths) if place not in bad]
    columns = {"image": paths, "file_name": [Path(os.path.relpath(path, root)).as_posix() for path in paths]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "file_name": Value("string")}))


def _load_packed(source: str, on_bad_image: str, num_workers: int | None, decode: bool) -> Dataset:
    """All images of archives or of a data set; those of `hf-mae shard` were looked at when they were packed."""
    splits = list(load_images(source).values())
    whole = splits[0] if len(splits) == 1 else concatenate_datasets(splits)
    images = _sort_by_name(whole)
    if DIGEST_COLUMN in whole.column_names:
        return images.remove_columns(DIGEST_COLUMN)
    if paths := get_image_paths(images):
        verdict = check_image_files(paths, num_workers, decode=decode)
    else:
        rows = images.cast_column("image", Image(decode=False))["image"]
        verdict = check_table_images(rows, get_fingerprint(images), num_workers, decode=decode)
    bad = _handle_unreadable(verdict, arrow_column(images, "file_name").to_pylist(), source, on_bad_image)
    return images.select([place for place in range(len(images)) if place not in bad]) if bad else images


def _sort_by_name(images: Dataset) -> Dataset:
    """In the order in which a folder's are."""
    names = arrow_column(images, "file_name").combine_chunks()
    in_order = len(names) < 2 or pc.all(pc.less_equal(names[:-1], names[1:])).as_py()
    rows = images if in_order else images.select(pc.sort_indices(names).to_numpy())
    return rows.select_columns(["image", "file_name", *({DIGEST_COLUMN} & set(rows.column_names))])


def _handle_unreadable(verdict: ImageCheck, names: list[str], source: str, on_bad_image: str) -> dict[int, str]:
    """Images that cannot be read, by place, with the reason; they are left out, or refused."""
    bad = verdict.bad
    if not bad:
        return {}
    listed = "\n  ".join(f"{names[place]} ({reason})" for place, reason in bad.items())
    if on_bad_image == "error":
        raise UsageError(
            f"{pluralize(len(bad), 'image')} of {source} cannot be read (--on_bad_image skip leaves them out):"
            f"\n  {listed}"
        )
    logger.warning("Left out, because they cannot be read:\n  %s", listed)
    if len(bad) == len(names):
        raise UsageError(f"{source} holds no image that can be read.")
    return bad
