"""Folder trees of image files."""

import os
from pathlib import Path, PurePosixPath

from ...errors import UsageError
from ..messages import DataMessage
from ..splits import parse_split_name
from .image_files import ImageTree
from .kinds import Samples, SourceKind, SourceOptions
from .location import Location
from .samples import build_path_dataset


def _matches(location: Location, options: SourceOptions) -> bool:
    return location.is_folder


def _read(location: Location, options: SourceOptions) -> Samples:
    root, tree = location.path, location.tree
    if not tree.images:
        if not options.labelled:
            raise UsageError(DataMessage.NO_IMAGES_IN_FOLDER, folder=root)
        if tree.ignored_counts:
            raise UsageError(DataMessage.FOLDER_WITHOUT_READABLE_IMAGES, root=root, ignored=tree.summary())
        raise UsageError(DataMessage.FOLDER_WITHOUT_CLASSES, root=root)
    names = [Path(name).as_posix() for name in tree.images]
    return Samples(
        build_path_dataset([os.path.join(root, name) for name in tree.images], names),
        paths=lambda: names,
        excluded=tree.ignored_counts,
        empty_folders=_find_empty_folders(tree, names),
    )


def _find_empty_folders(tree: ImageTree, names: list[str]) -> list[str]:
    """Returns the folders at the level of classes that contain no images."""
    with_images = {str(PurePosixPath(name).parent) for name in names}
    has_splits = any(parse_split_name(part) for folder in with_images for part in PurePosixPath(folder).parts)
    leaves = [PurePosixPath(Path(folder).as_posix()) for folder in tree.leaf_folders]
    min_depth = 2 if has_splits else 1  # of a class folder; the root and the splits are above it
    return [str(leaf) for leaf in leaves if len(leaf.parts) >= min_depth and str(leaf) not in with_images]


FOLDER = SourceKind(_matches, _read)
