"""Metadata of image files: which texts they contain, and the same image without them.

Of JPEG and PNG files, only the segments and chunks that the pixels need are kept, so the compressed pixels do not
change. Files of other formats are decoded, and written as PNG.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image

from ..data.images.decoding import DICOM, EXIF_TRANSPOSITIONS, HEAD_SIZE, detect_format
from ..data.images.image_io import read_rgb

JPEG_START, JPEG_SCAN, JPEG_END, JPEG_APPS, JPEG_COMMENT = b"\xff\xd8", 0xDA, 0xD9, range(0xE0, 0xF0), 0xFE
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # not within the compressed data
AFTER_IMAGE = "bytes after the image"
JPEG_KEPT_APPS = (b"JFIF\0", b"Adobe")  # they define the colours
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"sBIT", b"gAMA", b"sRGB")
TEXT_NAMES = (  # first characters of segments, chunks and entries with text; EXIF is listed by its tags
    *("http://ns.adobe.com", "Photoshop 3.0", "comment", "tEXt", "zTXt", "iTXt", "tIME", "xmp", "XMP"),
)
NEEDED_TIFF_TAGS = frozenset(  # of the pixels; numbers of TIFF 6.0
    (254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 296, 297, 317, 318)
    + (319, 320, 322, 323, 324, 325, 338, 339, 340, 341, 347, 529, 530, 531, 532)
)
PATIENT_ATTRIBUTES = (  # of DICOM (PS3.15 E.1, basic profile), in addition to names of persons and private tags
    *("PatientID", "OtherPatientIDs", "OtherPatientIDsSequence", "PatientBirthDate", "PatientBirthTime"),
    *("PatientAddress", "PatientTelephoneNumbers", "PatientAge", "AccessionNumber", "StudyID", "StudyDate"),
    *("SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "InstitutionName", "InstitutionAddress"),
    *("InstitutionalDepartmentName", "StationName", "MedicalRecordLocator", "EthnicGroup", "Occupation"),
    *("AdditionalPatientHistory", "PatientComments", "ImageComments", "AdmissionID", "IssuerOfPatientID"),
    *("DeviceSerialNumber", "ProtocolName", "StudyDescription", "SeriesDescription"),
)


def list_metadata(content: bytes) -> list[str]:
    """Lists the texts in an image file that its pixels do not need: names of tags, chunks and attributes."""
    kind = detect_format(content[:HEAD_SIZE])
    if kind == DICOM:
        return _list_dicom(content)
    try:
        with Image.open(io.BytesIO(content)) as image:
            info, exif, tags = dict(image.info), dict(image.getexif()), dict(getattr(image, "tag_v2", {}))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return []
    segments = _split(kind, content)
    names = [name for name, _, is_kept in segments if not is_kept] if segments else [str(name) for name in info]
    texts = [name for name in names if name == AFTER_IMAGE or name.startswith(TEXT_NAMES)]
    return texts + _tag_names({tag: value for tag, value in (exif | tags).items() if tag not in NEEDED_TIFF_TAGS})


def remove_metadata(content: bytes) -> bytes:
    """Returns an image file without metadata; other formats than JPEG and PNG become PNG."""
    kind = detect_format(content[:HEAD_SIZE])
    if kind == "JPEG":
        return _keep_jpeg(content)
    if kind == "PNG":
        return _keep_png(content)
    return to_png(content)


def to_png(content: bytes) -> bytes:
    """Decodes an image file, and encodes its pixels as PNG."""
    buffer = io.BytesIO()
    read_rgb(content).save(buffer, "PNG")
    return buffer.getvalue()


def _split(kind: str | None, content: bytes) -> list[tuple[str, bytes, bool]]:
    """Returns the segments or chunks of a JPEG or PNG file."""
    return list(_jpeg_segments(content) if kind == "JPEG" else _png_chunks(content) if kind == "PNG" else [])


def _tag_names(tags: dict[int, Any]) -> list[str]:
    return [ExifTags.TAGS.get(tag, f"tag {tag}") for tag in tags]


def _list_dicom(content: bytes) -> list[str]:
    from pydicom import dcmread

    header = dcmread(io.BytesIO(content), force=True, stop_before_pixels=True)
    names = []
    for element in header.iterall():
        if element.tag.is_private:
            names.append("private tag")
        elif (element.VR == "PN" or element.keyword in PATIENT_ATTRIBUTES) and element.value:
            names.append(element.keyword)
    return list(dict.fromkeys(names))


def _orientation(content: bytes) -> bytes:
    """Returns the EXIF data of an image file with its orientation only; empty if it is upright."""
    with Image.open(io.BytesIO(content)) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation not in EXIF_TRANSPOSITIONS:
        return b""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def _keep_jpeg(content: bytes) -> bytes:
    """Keeps the segments that the pixels need, and the orientation."""
    exif = _orientation(content)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif if exif else b""
    return JPEG_START + segment + b"".join(part for _, part, is_kept in _jpeg_segments(content) if is_kept)


def _keep_png(content: bytes) -> bytes:
    """Keeps the chunks that the pixels need, and the orientation."""
    header, *chunks = [part for _, part, is_kept in _png_chunks(content) if is_kept]
    exif = _orientation(content).removeprefix(b"Exif\0\0")
    kind = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + kind + struct.pack(">I", zlib.crc32(kind)) if exif else b""
    return PNG_START + header + chunk + b"".join(chunks)


def _jpeg_segments(content: bytes) -> Iterator[tuple[str, bytes, bool]]:
    """Yields the name and bytes of each segment after the start marker, and whether the pixels need it."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == JPEG_END:
            break
        end = position + 2 + struct.unpack_from(">H", content, position + 2)[0]
        payload = content[position + 4 : end]
        if marker == JPEG_SCAN:  # the compressed data ends at the next marker
            found = JPEG_MARKER.search(content, end)
            end = found.start() if found else len(content)
        is_kept = payload.startswith(JPEG_KEPT_APPS) if marker in JPEG_APPS else marker != JPEG_COMMENT
        name = payload[:16].split(b"\0")[0].decode("latin-1") if marker in JPEG_APPS else "comment"
        yield name, content[position:end], is_kept
        position = end
    yield "end", bytes((0xFF, JPEG_END)), True
    if len(content) > position + 2:
        yield AFTER_IMAGE, content[position + 2 :], False


def _png_chunks(content: bytes) -> Iterator[tuple[str, bytes, bool]]:
    """Yields the name and bytes of each chunk, and whether the pixels need it."""
    position = len(PNG_START)
    while position + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        yield kind.decode("latin-1"), content[position : position + 12 + size], kind in PNG_KEPT
        position += 12 + size
        if kind == b"IEND":
            break
    if position < len(content):
        yield AFTER_IMAGE, content[position:], False
