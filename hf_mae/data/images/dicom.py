"""Frames of DICOM files -> 8-bit RGB, by their header alone.

Grey levels pass through the modality lookup table or rescaling, then the VOI lookup table or the (first) window, as in
DICOM PS3.3 C.11. Without these, the range of `BitsStored` and `PixelRepresentation` is scaled to 8 bits. Levels of
`MONOCHROME1` are inverted, and those of `PALETTE COLOR` get their colours. pydicom decodes the pixels; JPEG Lossless
and JPEG-LS require python-gdcm.
"""

import struct
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np
from PIL import Image

from .frame_reader import Frames, check_pixel_count
from .image_error import ImageError
from .levels import scale_to_uint8
from .messages import ImageMessage

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"  # of files without a header
FUNCTIONAL_GROUPS = {  # attribute -> sequence in the functional groups of an enhanced multi-frame image
    **dict.fromkeys(("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"), "FrameVOILUTSequence"),
    **dict.fromkeys(("RescaleSlope", "RescaleIntercept"), "PixelValueTransformationSequence"),
}
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422")
GREYS = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"


class DicomFrames(Frames):
    """The frames of a DICOM file; they have times if the file declares a frame time."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        try:
            from pydicom import dcmread
            from pydicom.uid import UID
        except ImportError:
            raise ImageError(ImageMessage.DICOM_REQUIRES_PACKAGE) from None
        self.header = dcmread(file, force=True, stop_before_pixels=True)
        if "Rows" not in self.header or "Columns" not in self.header:
            raise ImageError(ImageMessage.DICOM_WITHOUT_PIXELS)
        self.size = int(self.header.Columns), int(self.header.Rows)
        check_pixel_count(*self.size)
        self.num_frames = int(self.header.get("NumberOfFrames", 1) or 1)
        self.times = _frame_times(self.header, self.num_frames)
        meta = getattr(self.header, "file_meta", {})
        self.transfer_syntax = UID(meta.get("TransferSyntaxUID", None) or IMPLICIT_VR_LITTLE_ENDIAN)
        if "MPEG" in self.transfer_syntax.name or "HEVC" in self.transfer_syntax.name:
            raise ImageError(ImageMessage.VIDEO_IN_DICOM, compression=self.transfer_syntax.name)
        self.kind = str(self.header.get("PhotometricInterpretation", ""))
        if self.kind not in (*COLOURS, *GREYS, PALETTE):
            raise ImageError(
                ImageMessage.UNSUPPORTED_DICOM, name="PhotometricInterpretation", value=self.kind or "missing"
            )

    def _decode(self, index: int, draft_size: tuple[int, int] | None) -> Image.Image:
        levels = self._read_levels(index)
        if self.kind in COLOURS:
            bits = int(self.header.get("BitsStored", 8))
            return Image.fromarray(scale_to_uint8(levels, high=2**bits - 1))
        if self.kind == PALETTE:
            return Image.fromarray(_apply_palette(levels, self.header))
        grey = _window_levels(levels, lambda name: _attribute(self.header, name, index), self.header)
        if self.kind == "MONOCHROME1" or self.header.get("PresentationLUTShape") == "INVERSE":
            grey = 1 - grey
        return Image.fromarray(scale_to_uint8(grey, high=1)).convert("RGB")

    def _read_levels(self, index: int) -> np.ndarray:
        """Decodes the stored levels of a frame: (height, width), or (height, width, 3) as RGB."""
        from pydicom import dcmread
        from pydicom.pixels import pixel_array

        syntax = self.transfer_syntax
        self.file.seek(0)
        source: Any = dcmread(self.file, force=True) if syntax.is_deflated else self.file
        options: dict[str, Any] = {"correct_unused_bits": False}  # `_stored_bits` also handles `HighBit`
        if not syntax.is_deflated:
            options["transfer_syntax_uid"] = syntax
        try:
            levels = pixel_array(source, index=index, **options)
        except (NotImplementedError, RuntimeError) as error:
            if "plugin" in str(error) or "dependencies" in str(error) or isinstance(error, NotImplementedError):
                raise ImageError(ImageMessage.DICOM_DECODER_MISSING, compression=syntax.name) from None
            raise
        is_converted = self.kind not in (*GREYS, PALETTE, "RGB")  # from YCbCr
        return levels if is_converted else _stored_bits(levels, self.header)


def _frame_times(header: Any, num_frames: int) -> list[float] | None:
    """Returns the start of each frame in seconds, from `FrameTimeVector` or `FrameTime` (milliseconds)."""
    if num_frames < 2:
        return None
    vector = header.get("FrameTimeVector")
    if vector is not None and len(vector) == num_frames:
        return (np.cumsum([float(step) for step in vector]) / 1000).tolist()
    if header.get("FrameTime"):
        return [index * float(header.FrameTime) / 1000 for index in range(num_frames)]
    return None


def _attribute(header: Any, name: str, index: int) -> Any:
    """Returns an attribute of a frame: from its functional groups, from the shared ones, or from the header."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*frames[index : index + 1], *(header.get("SharedFunctionalGroupsSequence") or [])]
    for group in groups:
        for item in group.get(FUNCTIONAL_GROUPS.get(name, ""), None) or []:
            if name in item:
                return item.get(name)
    return header.get(name)


def is_signed(header: Any) -> bool:
    """Whether the stored levels can be negative."""
    return bool(header.get("PixelRepresentation", 0))


def _stored_bits(levels: np.ndarray, header: Any) -> np.ndarray:
    """Extracts the `BitsStored` bits below `HighBit`; the others can contain overlays."""
    if not np.issubdtype(levels.dtype, np.integer):
        return levels
    stored = int(header.get("BitsStored", 8 * levels.itemsize))
    shift = int(header.get("HighBit", stored - 1)) + 1 - stored
    if stored >= 8 * levels.itemsize or shift < 0:
        return levels
    unsigned = (levels.astype(np.int64) >> shift) & (2**stored - 1)
    if not is_signed(header):
        return unsigned
    return np.where(unsigned >= 2 ** (stored - 1), unsigned - 2**stored, unsigned)


def _window_levels(levels: np.ndarray, attribute: Callable[[str], Any], header: Any) -> np.ndarray:
    """Applies the modality and VOI transforms. Returns brightness between 0 (black) and 1."""
    values, low, high = _apply_modality(levels, attribute, header)
    if table := attribute("VOILUTSequence"):
        return _look_up(values, table[0], header)
    center, width = (_first(attribute(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        if not np.issubdtype(levels.dtype, np.integer):
            return scale_to_uint8(values) / 255.0
        return np.clip((values - low) / ((high - low) or 1), 0, 1)
    return _apply_window(values, float(center), float(width), str(attribute("VOILUTFunction") or "LINEAR").upper())


def _apply_modality(
    levels: np.ndarray, attribute: Callable[[str], Any], header: Any
) -> tuple[np.ndarray, float, float]:
    """Returns the values after the modality transform, and the smallest and largest that are possible."""
    stored = int(header.get("BitsStored", 8 * levels.itemsize))
    low, high = (
        (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if header.get("PixelRepresentation", 0) else (0, 2**stored - 1)
    )
    if table := attribute("ModalityLUTSequence"):
        bits = _lut_descriptor(table[0].LUTDescriptor, header)[2]
        return _look_up(levels, table[0], header) * (2**bits - 1), 0, 2**bits - 1
    slope, intercept = attribute("RescaleSlope"), attribute("RescaleIntercept")
    if slope is None or intercept is None:
        return levels.astype(np.float64), low, high
    slope, intercept = float(slope), float(intercept)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return levels * slope + intercept, ends[0], ends[1]


def _first(value: Any) -> Any:
    """Returns the first of several values."""
    return value[0] if isinstance(value, Sequence) and not isinstance(value, str) and len(value) else value


def _apply_window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Applies a window as in DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function not in ("LINEAR", "LINEAR_EXACT") or width < 0:
        raise ImageError(
            ImageMessage.UNSUPPORTED_DICOM, name="VOILUTFunction or WindowWidth", value=f"{function}, {width:g}"
        )
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _lut_descriptor(descriptor: Sequence[int], header: Any) -> tuple[int, int, int]:
    """Returns the number of entries of a lookup table, the first level that it maps, and the bits of an entry."""
    entries, first, bits = (int(value) for value in descriptor)
    if is_signed(header) and first >= 2**15:
        first -= 2**16
    return entries or 2**16, first, bits


def _look_up(values: np.ndarray, item: Any, header: Any) -> np.ndarray:
    """Applies a lookup table. Returns its entries, divided by their maximum."""
    entries, first, bits = _lut_descriptor(item.LUTDescriptor, header)
    table = _lut_data(item.LUTData, entries, item["LUTData"].VR, header)
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
    return table[index] / (2**bits - 1)


def _lut_data(data: Any, entries: int, vr: str, header: Any) -> np.ndarray:
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, dtype=np.int64))
    order = "<" if header.original_encoding[1] in (True, None) else ">"
    if len(data) < 2 * entries:  # entries of 8 bits
        return np.frombuffer(data, np.uint8)[:entries].astype(np.int64)
    return np.asarray(struct.unpack_from(f"{order}{entries}H", data), dtype=np.int64)


def _apply_palette(levels: np.ndarray, header: Any) -> np.ndarray:
    """Returns the colours (height, width, 3) of a palette as uint8."""
    from pydicom.pixels import apply_color_lut

    bits = int(header.RedPaletteColorLookupTableDescriptor[2])
    colours = apply_color_lut(levels.astype(np.int32 if is_signed(header) else np.uint16), header)
    return scale_to_uint8(colours[..., :3], high=2**bits - 1)
