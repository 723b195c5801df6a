"""Matches the images of two tables by their file names, whatever folders the names begin with."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ..data.splits import parse_split_name

Parts = tuple[str, ...]


@dataclass(frozen=True)
class NameMatch:
    """Result of `match_names`.

    Args:
        positions: by known name, the position of the same image among the names.
        missing: known names of images that are not among the names.
        extra: names of other images.
    """

    positions: dict[str, int]
    missing: list[str]
    extra: list[str]

    @property
    def is_complete(self) -> bool:
        """Whether both have the same images."""
        return not (self.missing or self.extra)


def path_parts(name: str) -> Parts:
    """Splits a file name of any system into its folders and its last part; `./` has no effect."""
    text = unicodedata.normalize("NFC", name).replace("\\", "/")
    return tuple(part for part in text.split("/") if part not in ("", "."))


def match_names(names: Sequence[str], known_names: Sequence[str]) -> NameMatch:
    """Finds images with known names among file names.

    Names are equal if their last parts are: as many parts as most names share, and enough to distinguish the images.
    So absolute paths, paths in another folder and, if each occurs once, names without folders are found. Names in
    folders of different splits (`train/1.png` and `test/1.png`) are different images.
    """
    known = list(dict.fromkeys(known_names))
    own, others = [path_parts(name) for name in names], [path_parts(name) for name in known]
    found: dict[int, int] = {}
    for depth in range(max(map(len, [*own, *others]), default=0), 0, -1):
        by_end = {parts[-depth:]: position for position, parts in enumerate(own)}
        ends = [parts[-depth:] for parts in others]
        if len(by_end) < len(own) or len(set(ends)) < len(ends):
            break
        matched = {index: by_end[end] for index, end in enumerate(ends) if end in by_end}
        pairs = {(own[position][:-depth], others[index][:-depth]) for index, position in matched.items()}
        if len(matched) > len(found) and not any(_are_different_splits(*pair) for pair in pairs):
            found = matched
        if len(found) == min(len(own), len(others)):
            break
    used = set(found.values())
    return NameMatch(
        {known[index]: position for index, position in found.items()},
        [name for index, name in enumerate(known) if index not in found],
        [name for position, name in enumerate(names) if position not in used],
    )


def _are_different_splits(first: Parts, second: Parts) -> bool:
    """Whether the last folders that differ are those of different splits."""
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    splits = [parse_split_name(parts[-1]) if parts else None for parts in (first, second)]
    return None not in splits and splits[0] != splits[1]
