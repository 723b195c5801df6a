"""Names of frames: `stack.tif#frame=3` (counted from 0), `clip.mp4#t=12.500` (seconds)."""

import os
import re
from dataclasses import dataclass

FRAME_PATTERN = re.compile(r"(?P<file>.+)#(?:frame=(?P<index>\d{1,9})|t=(?P<seconds>\d{1,9}(?:\.\d{1,9})?))", re.DOTALL)


@dataclass(frozen=True)
class FrameName:
    """A frame of a file, by its index or by its time."""

    file: str
    index: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.file}#t={self.seconds:.3f}" if self.index is None else f"{self.file}#frame={self.index}"


def parse_frame_name(name: str) -> FrameName | None:
    """Parses the name of a frame; returns None for other names, and for the path of an existing file."""
    match = FRAME_PATTERN.fullmatch(name) if "#" in name else None
    if match is None or os.path.lexists(name):
        return None
    index, seconds = match["index"], match["seconds"]
    return FrameName(match["file"], int(index) if index else None, float(seconds) if seconds else None)


def file_of_frame(name: str) -> str:
    """Returns the file that contains a frame; other names are returned unchanged."""
    frame = parse_frame_name(name)
    return name if frame is None else frame.file
