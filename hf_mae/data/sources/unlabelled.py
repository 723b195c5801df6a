"""Loads unlabelled images from folders, archives and datasets."""

import logging
import os
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset, Features, Image, Value, concatenate_datasets

from ...compat.datasets import get_fingerprint
from ...errors import UsageError, warn
from ...settings.parse import looks_like_path
from ..checks.image_check import ImageCheck, check_image_files, check_table_images
from ..messages import DataMessage
from .archive_index import DIGEST_COLUMN
from .hf_datasets import load_images
from .image_files import walk_images
from .samples import arrow_column, get_image_paths
from .source_type import is_packed_source

logger = logging.getLogger(__name__)


def load_unlabelled(
    data_dir: str, on_bad_image: str, num_workers: int | None = None, *, decode: bool = True
) -> Dataset:
    """Loads all images of a folder, of archives or of a dataset, with `image` and `file_name`; nothing is copied.

    Args:
        data_dir: a folder, an archive, a folder or URL of archives, or a Hub id.
        on_bad_image: `error` stops at unreadable files and lists them; `skip` excludes them.
        num_workers: threads that read the files.
        decode: check that each image can be decoded. If False, only the header and the end are checked, which takes
            seconds for 100,000 images and finds files that are not images or are truncated.
    """
    root = Path(data_dir)
    if is_packed_source(data_dir) or not (root.exists() or looks_like_path(data_dir)):
        return _load_packed(data_dir, on_bad_image, num_workers, decode)
    if not root.is_dir():
        raise UsageError(DataMessage.NOT_A_DATA_SOURCE, path=root)
    tree = walk_images(root)
    if tree.ignored_counts:
        logger.info("Ignored in %s: %s", root, tree.summary())
    paths = sorted(os.path.join(root, name) for name in tree.images)
    if not paths:
        raise UsageError(DataMessage.NO_IMAGES_IN_FOLDER, folder=root)
    checked = check_image_files(paths, num_workers, decode=decode)
    if bad := _handle_unreadable(checked, paths, data_dir, on_bad_image):
        paths = [path for index, path in enumerate(paths) if index not in bad]
    columns = {"image": paths, "file_name": [Path(os.path.relpath(path, root)).as_posix() for path in paths]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "file_name": Value("string")}))


def _load_packed(source: str, on_bad_image: str, num_workers: int | None, decode: bool) -> Dataset:
    """Loads all images of archives or of a dataset; those of `hf-mae shard` were checked when they were packed."""
    splits = list(load_images(source).values())
    images = _sort_by_name(splits[0] if len(splits) == 1 else concatenate_datasets(splits))
    if DIGEST_COLUMN in images.column_names:
        return images.remove_columns(DIGEST_COLUMN)
    if paths := get_image_paths(images):
        checked = check_image_files(paths, num_workers, decode=decode)
    else:
        rows = images.cast_column("image", Image(decode=False))["image"]
        checked = check_table_images(rows, get_fingerprint(images), num_workers, decode=decode)
    bad = _handle_unreadable(checked, arrow_column(images, "file_name").to_pylist(), source, on_bad_image)
    return images.select([row for row in range(len(images)) if row not in bad]) if bad else images


def _sort_by_name(images: Dataset) -> Dataset:
    """Sorts the images by file name, as in a folder."""
    names = arrow_column(images, "file_name").combine_chunks()
    in_order = len(names) < 2 or pc.all(pc.less_equal(names[:-1], names[1:])).as_py()
    rows = images if in_order else images.select(pc.sort_indices(names).to_numpy())
    return rows.select_columns(["image", "file_name", *({DIGEST_COLUMN} & set(rows.column_names))])


def _handle_unreadable(checked: ImageCheck, names: list[str], source: str, on_bad_image: str) -> dict[int, str]:
    """Returns the images that cannot be read, by index, with the reason.

    Raises:
        UsageError: If there are any and `on_bad_image` is `error`, or if no image can be read.
    """
    bad = checked.bad
    if not bad:
        return {}
    images = "\n  ".join(f"{names[index]} ({reason})" for index, reason in bad.items())
    if on_bad_image == "error":
        raise UsageError(DataMessage.UNREADABLE_IMAGES, source=source, count=len(bad), images=images)
    warn(logger, DataMessage.UNREADABLE_IMAGES_EXCLUDED, source=source, count=len(bad), images=images)
    if len(bad) == len(names):
        raise UsageError(DataMessage.NO_READABLE_IMAGES, source=source)
    return bad
