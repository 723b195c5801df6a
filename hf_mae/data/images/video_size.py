"""Whether the end of a video is missing, by the sizes in its container."""

import os
import struct
from collections.abc import Iterator
from typing import IO

QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip")  # of files without `ftyp`
MP4_BOXES = (*QUICKTIME_BOXES, b"ftyp", b"moof", b"uuid", b"sidx", b"styp", b"mfra", b"meta")
ASF_OBJECTS = tuple(start + bytes.fromhex("26b2758e66cf11a6d900aa0062ce6c") for start in (b"0", b"6"))  # header, data
EBML_START, FLV_START, PS_START = b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba"
SEGMENT = b"\x18\x53\x80\x67"  # of Matroska and WebM
TS_PACKET = 188  # bytes of a packet of an MPEG transport stream
RIFF_HEADER = 8  # bytes of the header of a chunk; some programs include them in its length
FLV_TAGS = (8, 9, 18)
PS_TAIL = 1 << 17  # more than the longest packet of an MPEG program stream


def is_cut(file: IO[bytes]) -> bool:
    """Whether a video ends within an element, chunk, packet or tag of its container."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(4096)
    if head[:1] == b"G":
        return bool(size % TS_PACKET)
    if head[4:8] in MP4_BOXES:
        return any(end > size for _, _, end in iter_boxes(file))
    if head.startswith(b"RIFF"):
        return _last_end(file, "<4sI", (b"RIFF",), RIFF_HEADER) > size + RIFF_HEADER
    if head.startswith(ASF_OBJECTS):
        return _last_end(file, "<16sQ", ASF_OBJECTS, 0) > size
    if head.startswith(EBML_START):
        return _segment_end(head) > size
    if head.startswith(FLV_START):
        return _has_damaged_last_tag(file, size)
    return head.startswith(PS_START) and _last_packet_end(file, size) > size


def iter_boxes(file: IO[bytes], start: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Yields the boxes of an MP4 or QuickTime file: name, start of the content, end (perhaps behind the file)."""
    size = file.seek(0, os.SEEK_END)
    while start + 8 <= size:
        file.seek(start)
        length, name, long_length = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        content = start + (16 if length == 1 else 8)
        end = start + (long_length if length == 1 else length or size - start)
        if name not in (*MP4_BOXES, b"mvhd") or end < content:
            return  # other data behind the video
        yield name, content, end
        start = end


def _last_end(file: IO[bytes], layout: str, names: tuple[bytes, ...], header_size: int) -> int:
    """Returns the end of the last of the chunks with these names, whose lengths do not include `header_size` bytes."""
    end, size = 0, struct.calcsize(layout)
    while True:
        file.seek(end)
        if len(head := file.read(size)) < size:
            return end
        name, length = struct.unpack(layout, head)
        if name not in names or not length:
            return end
        end += header_size + length


def _segment_end(head: bytes) -> int:
    """Returns the end of the segment of a Matroska file; 0 if it is not declared, as in a live recording."""
    length, start = _read_ebml_size(head, 4)
    if head[start + length : start + length + 4] != SEGMENT:
        return 0
    size, start = _read_ebml_size(head, start + length + 4)
    return start + size if size + 1 & size else 0  # all bits are set: unknown


def _read_ebml_size(head: bytes, start: int) -> tuple[int, int]:
    """Returns a size, and the offset behind it."""
    end = start + 9 - head[start].bit_length()
    return int.from_bytes(head[start:end], "big") & ((1 << 7 * (end - start)) - 1), end


def _has_damaged_last_tag(file: IO[bytes], size: int) -> bool:
    """Whether the length behind the last tag of a Flash video is not that of a tag."""
    file.seek(max(0, size - 4))
    length = int.from_bytes(file.read(4), "big")
    file.seek(max(0, size - 4 - length))
    tag = file.read(4)
    return tag[0] not in FLV_TAGS or int.from_bytes(tag[1:], "big") not in (length, length - 11)


def _last_packet_end(file: IO[bytes], size: int) -> int:
    """Returns the end of the last packet of an MPEG program stream."""
    offset = file.seek(max(0, size - PS_TAIL))
    tail = file.read()
    start = tail.rfind(b"\0\0\x01")
    while start >= 0 and tail[start + 3 : start + 4] < b"\xbb":  # start codes of the video itself, and of packs
        start = tail.rfind(b"\0\0\x01", 0, start)
    return offset + start + 6 + int.from_bytes(tail[start + 4 : start + 6], "big") if start >= 0 else 0
