"""Lists the image files of a folder tree, and counts the ignored files."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ...errors import UsageError
from ..images.decoding import DICOM, HEAD_SIZE, detect_format
from ..images.videos import VIDEO_SUFFIXES
from ..messages import DataMessage

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".apng",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".gif",
    ".ppm",
    ".pgm",
    ".jp2",
)
HEIC_SUFFIXES, DICOM_SUFFIXES, META_IMAGE_SUFFIXES = (".heic", ".heif"), (".dcm", ".dicom"), (".mha",)
WITHOUT_SUFFIX = "files without a suffix"  # reason to ignore them
PACKED_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
MANIFEST_NAMES = tuple(f"{name}{suffix}" for name in ("manifest", "metadata") for suffix in TABLE_SUFFIXES)
IGNORED_DIRS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")  # created by operating systems


@cache
def readable_suffixes() -> tuple[str, ...]:
    """Returns the suffixes of the image files that can be read, as far as their packages are installed, and of videos.

    The frames of a video are read like those of other files, or the video is rejected by its name.
    """
    packages = {"pillow_heif": HEIC_SUFFIXES, "pydicom": DICOM_SUFFIXES, "SimpleITK": META_IMAGE_SUFFIXES}
    optional = [suffix for package, suffixes in packages.items() if find_spec(package) for suffix in suffixes]
    return (*IMAGE_SUFFIXES, *optional, *VIDEO_SUFFIXES)


@dataclass
class ImageTree:
    """Content of a folder tree."""

    root: Path
    images: list[str] = field(default_factory=list)  # relative to the root, sorted by folder and name
    leaf_folders: list[str] = field(default_factory=list)  # folders without subfolders, relative to the root
    manifests: list[str] = field(default_factory=list)  # tables that are named like manifests, relative to the root
    others: list[str] = field(default_factory=list)  # other visible files, relative to the root
    ignored_counts: Counter[str] = field(default_factory=Counter)  # reason -> number of files or folders

    def summary(self) -> str:
        """Returns the ignored files by reason, on one line; empty if there are none."""
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.ignored_counts.items()))


def walk_images(root: str | Path) -> ImageTree:
    """Lists a folder tree. Links are followed; each folder and file is listed once.

    Raises:
        UsageError: If a file name is not UTF-8.
    """
    tree, suffixes = ImageTree(Path(root)), readable_suffixes()
    linked: dict[tuple[int, int], str] = {}  # (device, inode) of a link target -> link
    for folder, children, files in walk_folders(Path(root), tree.ignored_counts):
        if not children:
            tree.leaf_folders.append(folder)
        for file in files:
            reason = ignore_reason(file.name, suffixes) or _special_file_kind(file)
            name = f"{folder}/{file.name}" if folder else file.name
            if file.name in MANIFEST_NAMES:
                tree.manifests.append(name)
            elif reason and not _is_dicom_without_suffix(file, reason):
                tree.ignored_counts[reason] += 1
                if not file.name.startswith(".") and file.is_file():
                    tree.others.append(name)
            elif file.is_symlink() and os.path.exists(file):
                status = file.stat()
                linked.setdefault((status.st_dev, status.st_ino), name)
            else:
                tree.images.append(name)
    _add_link_targets(tree, linked)
    check_utf8_names(tree.images, str(tree.root))
    return tree


def walk_folders(root: Path, ignored_counts: Counter[str]) -> Iterator[tuple[str, list[str], list[os.DirEntry[str]]]]:
    """Yields each folder once (relative, "" for the root) with its subfolders and files, sorted, without hidden
    folders."""
    seen: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        folder = pending.pop()
        status = os.stat(root / folder)
        if (status.st_dev, status.st_ino) in seen:
            ignored_counts["folders that are linked again"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(root / folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
        folders = [entry for entry in children if entry.is_dir()]
        repeated = [entry for entry in folders if entry.is_symlink() and _is_visible_below(root, entry)]
        if repeated:
            ignored_counts["folders that are linked again"] += len(repeated)
        hidden = [entry for entry in folders if entry.name.startswith(".") or entry.name in IGNORED_DIRS]
        if hidden:
            ignored_counts["hidden folders"] += len(hidden)
        skipped = {*hidden, *repeated}
        subfolders = [f"{folder}/{entry.name}".lstrip("/") for entry in folders if entry not in skipped]
        pending += reversed(subfolders)
        yield folder, subfolders, [entry for entry in children if not entry.is_dir()]


def _is_visible_below(root: Path, link: os.DirEntry[str]) -> bool:
    """Whether a link leads to a folder of the tree that is listed itself, under its own name."""
    target, real_root = os.path.realpath(link.path), os.path.realpath(root)
    parts = Path(os.path.relpath(target, real_root)).parts
    return not any(part.startswith(".") or part in IGNORED_DIRS for part in parts)  # `..` is outside


def ignore_reason(name: str, suffixes: tuple[str, ...]) -> str | None:
    """Returns the reason to ignore a file, by its name; None if it is an image."""
    if name.startswith("."):
        return "hidden files"
    lower = name.lower()
    if lower.endswith(suffixes):
        return None
    suffix = Path(lower).suffix
    if suffix in HEIC_SUFFIXES + DICOM_SUFFIXES + META_IMAGE_SUFFIXES:
        return f"{suffix} (to read them: pip install 'hf_mae[formats]')"
    return f"{suffix} (extract them first)" if suffix in PACKED_SUFFIXES else suffix or WITHOUT_SUFFIX


def _is_dicom_without_suffix(file: os.DirEntry[str], reason: str) -> bool:
    """Whether a file is DICOM by its content, with a name as scanners write it: `IM000001`, or a UID."""
    has_suffix = reason != WITHOUT_SUFFIX and not Path(file.name).suffix[1:].isdecimal()
    if has_suffix or file.name == "DICOMDIR" or not file.is_file() or not find_spec("pydicom"):
        return False
    try:
        with open(file, "rb") as content:
            return detect_format(content.read(HEAD_SIZE)) == DICOM
    except OSError:
        return False


def _special_file_kind(file: os.DirEntry[str]) -> str | None:
    """Returns the kind of a file that is not a regular file; None if it is one, or a broken link (reported when it is
    read)."""
    return None if file.is_file() or file.is_symlink() else "special files (pipes, devices)"


def _add_link_targets(tree: ImageTree, link_targets: dict[tuple[int, int], str]) -> None:
    """Adds link targets that are not in the tree themselves."""
    if not link_targets:
        return
    for name in tree.images:
        try:
            status = os.stat(tree.root / name)
        except OSError:
            continue
        if link_targets.pop((status.st_dev, status.st_ino), None):
            tree.ignored_counts["links to images in the same folder tree"] += 1
    tree.images += link_targets.values()
    tree.images.sort()


def check_utf8_names(names: list[str], source_name: str) -> None:
    """Raises UsageError if a file name is not UTF-8, because it could not be written to a table."""
    invalid = [name for name in names if any("\udc80" <= letter <= "\udcff" for letter in name)]
    if invalid:
        raise UsageError(
            DataMessage.FILE_NAME_NOT_UTF8, source=source_name, count=len(invalid), name=os.fsencode(invalid[0])
        )
