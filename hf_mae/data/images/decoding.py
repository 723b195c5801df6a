"""Image files -> upright 8-bit RGB, frame by frame. The first bytes of a file decide its format, not its suffix.

8-bit files give the pixels of transformers' `load_image`: `exif_transpose` and `convert("RGB")` of Pillow. An alpha
channel is dropped; the colours of transparent pixels stay. ICC profiles are not applied. Levels of more than 8 bits are
scaled by `levels`. None of the formats starts another program (as PostScript does). DICOM, HEIC and MetaImage require
the packages of the extra `formats`.

Programs that are exported (`hf-mae export-onnx`, `hf-mae push --demo`) contain this module. It imports only its
neighbours, numpy and Pillow, and other decoders when a file needs them.
"""

import io
import struct
import warnings
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ...settings.limits import MAX_PIXELS, max_pixels
from .frame_reader import Frames, check_pixel_count
from .image_error import UNCONVERTED_ERRORS, ImageError, convert_decoder_error
from .levels import scale_to_uint8
from .messages import ImageMessage
from .tiff import TiffPage, interpret_tiff_levels, read_tiff_levels, read_tiff_pages
from .video_size import QUICKTIME_BOXES

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_pixel_count` raises instead

HEAD_SIZE = 192  # bytes that decide the format
VIDEO, DICOM, HEIF, META_IMAGE, PLAYLIST = "VIDEO", "DICOM", "HEIF", "METAIMAGE", "PLAYLIST"
SIGNATURES = (  # first bytes -> format; the names of image formats are those of Pillow
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"BM", "BMP"),
    (b"\x1a\x45\xdf\xa3", VIDEO),  # Matroska, WebM
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", VIDEO),  # Windows Media
    (b"\0\0\x01\xba", VIDEO),  # MPEG program stream
    (b"\0\0\x01\xb3", VIDEO),  # MPEG video
    (b"OggS", VIDEO),
    (b"FLV\x01", VIDEO),
)
PLAYLISTS = (  # first letters, in lower case
    *(b"#extm3u", b"ffconcat", b"[playlist]", b"[reference]", b"<asx", b"<smil", b"<mpd", b"v=0"),
    *(b"rtsptext", b"smiltext"),
)
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
UNREAD_BRANDS = (b"avif", b"avis", b"crx ", b"M4A ")  # like MP4, but neither HEIF nor video
DICOM_FIRST_ELEMENTS = (b"\0\0", b"\1\0", b"\5\0", b"\x08\0", b"\x12\0", b"\x16\0", b"\x18\0")  # without a preamble
META_IMAGE_KEYS = (b"ObjectType", b"NDims", b"Comment", b"TransformType")
EXIF_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
INFERRED, FULL_RANGE = None, 65535.0  # white of 16-bit levels: by `BIT_DEPTHS`; already scaled to 16 bits


def detect_format(head: bytes) -> str | None:
    """Returns the format of a file by its first `HEAD_SIZE` bytes; None if it is not supported."""
    if head[128:132] == b"DICM":
        return DICOM
    if head[4:8] == b"ftyp":
        return HEIF if head[8:12] in HEIF_BRANDS else None if head[8:12] in UNREAD_BRANDS else VIDEO
    for signature, name in SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": VIDEO}.get(head[8:12])
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(PLAYLISTS):
        return PLAYLIST
    if head[:1] == b"P" and head[1:2] in b"123456fF" and head[2:3].isspace():
        return "PPM"
    if head.startswith(META_IMAGE_KEYS) and b"=" in head:
        return META_IMAGE
    if head[:2] in (b"\x02\0", b"\x08\0") and head[2:4] in DICOM_FIRST_ELEMENTS:
        return DICOM
    is_transport_stream = head[:1] == head[188:189] == b"G"
    return VIDEO if head[4:8] in QUICKTIME_BOXES or is_transport_stream else None


def open_frames(source: str | bytes) -> Frames:
    """Opens an image, given as a path or as encoded bytes, without decoding it.

    Raises:
        ImageError: If its format is not supported, it is damaged, or it has more pixels than `max_pixels()`.
        FileNotFoundError: If the file does not exist.
    """
    file: IO[bytes] = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
    try:
        head = file.read(HEAD_SIZE)
        file.seek(0)
        return _open_format(detect_format(head), file)
    except BaseException as error:
        file.close()
        if isinstance(error, UNCONVERTED_ERRORS) or not isinstance(error, Exception):
            raise
        raise convert_decoder_error(error) from error


def _open_format(name: str | None, file: IO[bytes]) -> Frames:
    if name is None:
        raise ImageError(ImageMessage.UNSUPPORTED_FORMAT)
    if name in (VIDEO, PLAYLIST):
        raise ImageError(ImageMessage.VIDEO_IS_NOT_AN_IMAGE if name == VIDEO else ImageMessage.VIDEO_PLAYLIST)
    if name == DICOM:
        from .dicom import DicomFrames

        return DicomFrames(file)
    if name == META_IMAGE:
        from .meta_image import MetaImageFrames

        return MetaImageFrames(file)
    if name == HEIF:
        _register_heif()
    return TiffFrames(file) if name == "TIFF" else PillowFrames(file, name)


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ImageError(ImageMessage.HEIC_REQUIRES_PACKAGE) from None
    register_heif_opener()


def _open_with_pillow(file: IO[bytes], name: str) -> Image.Image:
    if (limit := max_pixels()) > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = None  # the user raised the limit
    try:
        image = Image.open(file, formats=(name,))
    except Image.DecompressionBombError:
        raise ImageError(ImageMessage.PIXEL_LIMIT_EXCEEDED, limit=limit) from None
    if image.width * image.height > limit:
        check_pixel_count(image.width, image.height)
    return image


class PillowFrames(Frames):
    """The frames of a file that Pillow reads: GIF, WebP, APNG and HEIC have several; JPEG can have previews (MPO)."""

    def __init__(self, file: IO[bytes], name: str):
        super().__init__(file)
        self.name = name
        bits, self.significant_bits = _read_bits(file, name)
        self.image = _open_with_pillow(file, name)
        self.size = self.image.size
        count = getattr(self.image, "n_frames", 1)
        self.num_previews = count - 1 if name == "JPEG" else int(self.image.info.get("default_image", False))
        self.num_frames = count - self.num_previews
        self.first = self.num_previews if name == "PNG" else 0  # the image for programs that cannot read APNG
        has_deep_levels = has_high_bit_depth(self.image)
        self.has_deep_colours = bits == 16 and not has_deep_levels
        self.is_deep = has_deep_levels or self.has_deep_colours
        if bits == 16 and self.num_frames > 1:
            raise ImageError(ImageMessage.DEEP_ANIMATION)
        is_scaled = name in ("PPM", "JPEG2000") and bits != 16 and self.image.mode != "F"
        self.white = FULL_RANGE if is_scaled else INFERRED  # Pillow scales by the maximum in the header

    def _decode(self, index: int, draft_size: tuple[int, int] | None) -> Image.Image:
        if draft_size is not None and self.image.format in ("JPEG", "MPO"):
            self.image.draft("RGB", draft_size)
        if self.num_frames > 1:
            index += self.first
            if index < self.image.tell():  # going back in a sequence of differences fails in Pillow for some APNG files
                self.file.seek(0)
                self.image = _open_with_pillow(self.file, self.name)
            self.image.seek(index)
            return to_rgb(self.image).copy()  # the next `seek` changes the image
        if not self.is_deep:
            return to_rgb(self.image)
        self.image.load()  # reports damaged files
        levels = _decode_with_opencv(self.file) if self.has_deep_colours else np.asarray(self.image)
        white = self.white
        if self.significant_bits is not None:
            white = white_of_png(levels, self.significant_bits)
        return transpose_by_exif(Image.fromarray(scale_to_uint8(levels, high=white)), self.image).convert("RGB")


def has_high_bit_depth(image: Image.Image) -> bool:
    """Whether an image has grey levels of more than 8 bits, or floating-point levels."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image (grey, palette, RGBA, CMYK, EXIF rotation) to upright 8-bit RGB, like transformers'
    `load_image` for `pipeline()`.

    Levels of more than 8 bits are scaled by `scale_to_uint8`; `pipeline()` clips them at 255. An upright RGB image is
    returned without a copy: copying in Pillow takes as long as decoding a JPEG.
    """
    image.load()
    image = transpose_by_exif(image, image)
    if image.mode == "RGB":
        return image
    if has_high_bit_depth(image):
        image = Image.fromarray(scale_to_uint8(np.asarray(image)))
    return image.convert("RGB")


def transpose_by_exif(image: Image.Image, opened: Image.Image) -> Image.Image:
    """Turns and flips an image by the EXIF orientation of `opened`; damaged EXIF data is ignored."""
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises many types for damaged EXIF data
        return image
    method = EXIF_TRANSPOSITIONS.get(orientation)
    return image if method is None else image.transpose(method)


def _decode_with_opencv(file: IO[bytes]) -> np.ndarray:
    """Decodes 16-bit colours (Pillow keeps 8 bits of them): (height, width, 3)."""
    try:
        import cv2
    except ImportError:
        raise ImageError(ImageMessage.DEEP_COLOURS_REQUIRE_PACKAGE) from None
    file.seek(0)
    pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise ImageError(ImageMessage.DAMAGED_FILE)
    return np.ascontiguousarray(pixels[..., 2::-1])


def _read_bits(file: IO[bytes], name: str) -> tuple[int, int | None]:
    """Reads the bits per sample of a PNG or JPEG 2000 file (8 for other formats), and the significant bits of a PNG."""
    if name == "PNG":
        return read_png_bits(file)
    if name != "JPEG2000":
        return 8, None
    head = file.read(65536)
    size_marker = head.find(b"\xff\x4f\xff\x51")
    return (head[size_marker + 42] & 0x7F) + 1 if 0 <= size_marker < len(head) - 42 else 8, None


def read_png_bits(file: IO[bytes]) -> tuple[int, int | None]:
    """Reads the bits per sample of a PNG, and its significant bits (the chunk `sBIT`, without alpha) if it has them."""
    file.seek(8)
    bits, significant, has_alpha = 8, None, False
    while len(header := file.read(8)) == 8 and header[4:] != b"IDAT":
        length, name = struct.unpack(">I4s", header)
        start = file.tell()
        content = file.read(min(length, 32))
        if name == b"IHDR" and len(content) >= 10:
            bits, has_alpha = content[8], content[9] in (4, 6)
        elif name == b"sBIT" and content:
            significant = max(content[: len(content) - has_alpha] or content)
        file.seek(start + length + 4)
    return bits, significant if significant is not None and 0 < significant <= bits else None


def white_of_png(levels: np.ndarray, significant_bits: int) -> float:
    """Returns the white level of 16-bit samples whose header declares how many of their bits are significant.

    The PNG specification says that samples are scaled to 16 bits, by a shift or by repeating the leading bits. Some
    programs store them unscaled, which is certain if a sample is neither.
    """
    shift, unscaled_white = 16 - significant_bits, 2**significant_bits - 1
    leading = (levels >> shift).astype(np.int64)
    is_shifted = levels == leading << shift
    is_repeated = np.abs(levels - leading * FULL_RANGE / unscaled_white) <= 1
    return FULL_RANGE if (is_shifted | is_repeated).all() or levels.max() > unscaled_white else float(unscaled_white)


class TiffFrames(Frames):
    """The pages of a TIFF file. Thumbnails and masks (`NewSubfileType`, `SubIFDs`) are previews."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        pages = read_tiff_pages(file)
        self.pages = [page for page in pages if not page.is_preview] or pages[:1]
        self.num_frames = len(self.pages)
        size = file.seek(0, io.SEEK_END)
        if len(pages) == 1 and (count := pages[0].declared_images(size)) > 1:
            raise ImageError(ImageMessage.FRAMES_WITHOUT_PAGES, count=count)
        self.num_previews = len(pages) - len(self.pages) + sum(page.num_subpages for page in pages)
        self.size = max(page.size for page in self.pages)
        for page in self.pages:
            check_pixel_count(*page.size)
        self.image: Image.Image | None = None

    def _decode(self, index: int, draft_size: tuple[int, int] | None) -> Image.Image:
        page = self.pages[index]
        image = self._seek(page)
        if page.bits <= 8 and image is not None:
            rgb = to_rgb(image)
            return rgb if self.num_frames == 1 else rgb.copy()  # the next `seek` changes the image
        try:
            levels, low, high = read_tiff_levels(self.file, page)
        except ImageError as error:
            if error.code is not ImageMessage.TIFF_REQUIRES_PACKAGE or image is None or not has_high_bit_depth(image):
                raise
            levels, low, high = interpret_tiff_levels(np.asarray(image), page)
        pixels = Image.fromarray(scale_to_uint8(levels, low, high))
        method = EXIF_TRANSPOSITIONS.get(page.orientation)
        return (pixels if method is None else pixels.transpose(method)).convert("RGB")

    def _seek(self, page: TiffPage) -> Image.Image | None:
        """Returns Pillow's image at a page; None if Pillow does not support its layout."""
        try:
            if self.image is None:
                self.file.seek(0)
                self.image = _open_with_pillow(self.file, "TIFF")
            self.image.seek(page.number)
        except (UnidentifiedImageError, SyntaxError, KeyError, EOFError):
            return None
        return self.image
