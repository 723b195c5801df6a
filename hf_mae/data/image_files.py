"""Which files of a folder tree are images, and what else lies there."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ..errors import UsageError, pluralize
from .image_io import DICOM_SUFFIXES, HEIC_SUFFIXES

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2"),
)
PACKED_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")
IGNORED_DIRS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")  # folders that no person put there


def readable_suffixes() -> tuple[str, ...]:
    """The suffixes of image files that can be read here: DICOM and HEIC where their packages are installed."""
    more = HEIC_SUFFIXES if find_spec("pillow_heif") else ()
    return IMAGE_SUFFIXES + more + (DICOM_SUFFIXES if find_spec("pydicom") else ())


@dataclass
class ImageTree:
    """What a folder tree holds."""

    root: Path
    images: list[str] = field(default_factory=list)  # relative to the root, sorted by folder and name
    leaf_folders: list[str] = field(default_factory=list)  # those without folders in them, relative
    ignored_counts: Counter[str] = field(default_factory=Counter)  # by kind

    def summary(self) -> str:
        """What is left out, by kind, for a line; empty where nothing is."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.ignored_counts.items()))


def walk_images(root: str | Path) -> ImageTree:
    """Looks through a folder tree; links are followed, but into no folder and to no file twice.

    Raises:
        UsageError: names that are no UTF-8, which no table could hold.
    """
    tree, suffixes = ImageTree(Path(root)), readable_suffixes()
    linked: dict[tuple[int, int], str] = {}  # files that a link leads to, by what they are
    for folder, children, files in _walk_folders(Path(root), tree.ignored_counts):
        if not children:
            tree.leaf_folders.append(folder)
        for file in files:
            kind = _ignore_reason(file.name, suffixes) or _special_file_kind(file)
            name = os.path.join(folder, file.name) if folder else file.name
            if kind:
                tree.ignored_counts[kind] += 1
            elif file.is_symlink() and os.path.exists(file):
                status = file.stat()
                linked.setdefault((status.st_dev, status.st_ino), name)
            else:
                tree.images.append(name)
    _add_link_targets(tree, linked)
    check_utf8_names(tree.images, str(tree.root))
    return tree


def _walk_folders(root: Path, ignored_counts: Counter[str]) -> Iterator[tuple[str, list[str], list[os.DirEntry[str]]]]:
    """Every folder (relative, "" for the root) with its folders and files, sorted, without litter, none of them
    twice."""
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        status = os.stat(root / folder)
        if (status.st_dev, status.st_ino) in seen:
            ignored_counts["folders that are linked twice"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(root / folder) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
        folders = [entry for entry in inside if entry.is_dir()]
        hidden = [entry for entry in folders if entry.name.startswith(".") or entry.name in IGNORED_DIRS]
        if hidden:
            ignored_counts["hidden folders"] += len(hidden)
        children = [os.path.join(folder, entry.name) for entry in folders if entry not in hidden]
        waiting += reversed(children)
        yield folder, children, [entry for entry in inside if entry not in folders]


def _ignore_reason(name: str, suffixes: tuple[str, ...]) -> str | None:
    """Why a file is no image by its name: its kind; None: it is."""
    if name.startswith("."):
        return "hidden files"
    lower = name.lower()
    if lower.endswith(suffixes):
        return None
    suffix = Path(lower).suffix
    if suffix in HEIC_SUFFIXES + DICOM_SUFFIXES:
        return f"{suffix} (pip install 'hf_mae[formats]' reads them)"
    return f"{suffix} (unpack them first)" if suffix in PACKED_SUFFIXES else suffix or "files without a suffix"


def _special_file_kind(file: os.DirEntry[str]) -> str | None:
    """What a file is that cannot be read as one; None: it can, or it is a broken link, of which its reader says so."""
    return None if file.is_file() or file.is_symlink() else "pipes, devices and the like"


def _add_link_targets(tree: ImageTree, link_targets: dict[tuple[int, int], str]) -> None:
    """Adds files that only links lead to; those that lie in the tree themselves are there already."""
    if not link_targets:
        return
    for name in tree.images:
        try:
            status = os.stat(tree.root / name)
        except OSError:
            continue
        if link_targets.pop((status.st_dev, status.st_ino), None):
            tree.ignored_counts["links to images beside them"] += 1
    tree.images += link_targets.values()
    tree.images.sort()


def check_utf8_names(names: list[str], source_name: str) -> None:
    """Raises UsageError for file names that are no UTF-8, which no table could hold."""
    odd = [name for name in names if any("\udc80" <= letter <= "\udcff" for letter in name)]
    if odd:
        raise UsageError(
            f"{source_name} has {pluralize(len(odd), 'image')} whose name is no UTF-8 ({os.fsencode(odd[0])!r}), which no "
            "table can hold: rename."
        )


def list_image_files(folder: str | Path) -> list[str]:
    """Every image file of a folder tree, sorted."""
    return sorted(os.path.join(folder, name) for name in walk_images(folder).images)
