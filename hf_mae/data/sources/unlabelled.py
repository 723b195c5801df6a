"""Loads unlabelled images from folders, archives and datasets."""

import logging

import pyarrow.compute as pc
from datasets import Dataset

from ...errors import UsageError, warn
from ..columns import arrow_column
from ..images.image_check import ImageCheck
from ..messages import DataMessage
from .kinds import DIGEST_COLUMN, SourceOptions
from .samples import check_samples
from .source import open_source

logger = logging.getLogger(__name__)


def load_unlabelled(
    data_dir: str, on_bad_image: str, num_workers: int | None = None, *, decode: bool = True, frames: str | None = None
) -> Dataset:
    """Loads all images of a folder, of archives or of a dataset, with `image` and `file_name`; nothing is copied.

    Args:
        data_dir: a folder, an archive, a folder or URL of archives, or a Hub id.
        on_bad_image: `error` stops at unreadable files and lists them; `skip` excludes them.
        num_workers: threads that read the files.
        decode: check that each image can be decoded. If False, only the header and the end are checked, which takes
            seconds for 100,000 images and finds files that are not images or are truncated.
        frames: see `load_image_folder`.
    """
    samples = open_source(data_dir, SourceOptions(labelled=False, frames=frames)).samples
    images = _sort_by_name(samples.data)
    if DIGEST_COLUMN in images.column_names:  # hf-mae shard checked the images
        return images.remove_columns(DIGEST_COLUMN)
    checked = check_samples(images, num_workers, decode=decode)
    bad = _handle_unreadable(checked, arrow_column(images, "file_name").to_pylist(), data_dir, on_bad_image)
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
