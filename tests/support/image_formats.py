"""A table of real format variants, each with the pixels that an independent decoder gives.

`VARIANTS`: name -> function that returns the file content, the expected pixels (height, width, 3) or (height, width),
and the largest difference that is allowed.
"""

import io
import struct
import zlib
from functools import cache

import imagecodecs
import numpy as np
import pyvips
import tifffile
from PIL import Image

from support.frame_files import encode, write_dicom

HEIGHT, WIDTH = 29, 37
VARIANTS = {}


def variant(name, *args, **options):
    """Registers a variant: a function that returns content, expected pixels and tolerance."""

    def register(make):
        VARIANTS[name] = lambda path: make(path, *args, **options)
        return make

    return register


@cache
def colours():
    """Smooth colours with noise, so that lossy formats work on them."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = np.stack([128 + 100 * np.sin(x / 5), 128 + 100 * np.cos(y / 4), 128 + 90 * np.sin((x + y) / 6)], -1)
    return (waves + np.random.default_rng(0).normal(0, 5, waves.shape)).clip(0, 255).astype(np.uint8)


def grey(bits):
    """Levels of all values up to `bits` bits, uint8 or uint16."""
    levels = np.linspace(0, 2**bits - 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    return levels.round().astype(np.uint8 if bits <= 8 else np.uint16)


def deep(bits):
    """Colours of more than 8 bits: (height, width, 3) uint16."""
    return (colours().astype(float) / 255 * (2**bits - 1)).round().astype(np.uint16)


def scaled(levels, white):
    """Levels as 8-bit pixels."""
    return np.rint(255 * np.clip(levels.astype(float) / white, 0, 1)).astype(np.uint8)


def vips(content, autorotate=False):
    """Decodes with libvips: (height, width) or (height, width, channels) of the type of the file."""
    image = pyvips.Image.new_from_buffer(content, "")
    pixels = (image.autorot() if autorotate else image).numpy()
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def png(levels, bits, colour_type, interlaced=False, chunks=()):
    """Writes a PNG file of samples (height, width) or (height, width, channels), without filters."""

    def rows(part):
        part = part.reshape(part.shape[0], -1)
        if bits == 16:
            return b"".join(b"\0" + row.astype(">u2").tobytes() for row in part)
        if bits == 8:
            return b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in part)
        packed = np.unpackbits(part.astype(np.uint8)[..., None], axis=-1)[..., -bits:].reshape(len(part), -1)
        return b"".join(b"\0" + row.tobytes() for row in np.packbits(packed, axis=-1))

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [levels[top::down, left::right] for top, left, down, right in passes] if interlaced else [levels]
    data = b"".join(rows(part) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], bits, colour_type, 0, 0, int(interlaced))
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return content


GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
ALPHA = np.tile(np.arange(WIDTH, dtype=np.uint16) * 6, (HEIGHT, 1))

for bits in (1, 2, 4, 8, 16):
    for interlaced in (False, True):

        @variant(f"png grey {bits} bits{' interlaced' * interlaced}", bits, interlaced)
        def _png_grey(path, bits, interlaced):
            content = png(grey(bits), bits, GREY, interlaced)
            return content, scaled(vips(content), 2 ** max(bits, 8) - 1), 0


for bits in (1, 2, 4, 8):

    @variant(f"png palette {bits} bits", bits)
    def _png_palette(path, bits):
        table = np.random.default_rng(bits).integers(0, 255, (2**bits, 3), dtype=np.uint8)
        content = png(grey(bits), bits, PALETTE, chunks=[(b"PLTE", table.tobytes())])
        return content, vips(content)[..., :3], 0


for bits in (8, 16):
    for interlaced in (False, True):

        @variant(f"png rgb {bits} bits{' interlaced' * interlaced}", bits, interlaced)
        def _png_rgb(path, bits, interlaced):
            content = png(deep(bits), bits, RGB, interlaced)
            return content, scaled(vips(content), 2**bits - 1), 0

    @variant(f"png rgba {bits} bits", bits)
    def _png_rgba(path, bits):
        content = png(np.dstack([deep(bits), ALPHA]), bits, RGBA)
        return content, scaled(vips(content)[..., :3], 2**bits - 1), 0

    @variant(f"png grey and alpha {bits} bits", bits)
    def _png_grey_alpha(path, bits):
        content = png(np.dstack([grey(bits), ALPHA]), bits, GREY_ALPHA)
        return content, scaled(vips(content)[..., 0], 2**bits - 1), 0


@variant("png grey with a transparent level")
def _png_transparent(path):
    content = png(grey(8), 8, GREY, chunks=[(b"tRNS", struct.pack(">H", 200))])
    return content, vips(content)[..., 0], 0


for kind, channels in (("grey", 1), ("rgb", 3)):
    for bits in (10, 12, 14, 16):
        for way in ("shifted", "repeated", "unscaled"):

            @variant(f"png {kind} 16 bits, {bits} significant, {way}", channels, bits, way)
            def _png_significant(path, channels, bits, way):
                levels = deep(bits)[..., :channels] // 3
                stored = levels << (0 if way == "unscaled" else 16 - bits)
                if way == "repeated":
                    stored |= levels >> (2 * bits - 16)
                colour_type = GREY if channels == 1 else RGB
                content = png(stored, 16, colour_type, chunks=[(b"sBIT", bytes([bits] * channels))])
                white = 2**bits - 1 if way == "unscaled" else 65535
                return content, scaled(vips(content), white), 0


for orientation in range(1, 9):

    @variant(f"jpeg orientation {orientation}", orientation)
    def _jpeg_orientation(path, orientation):
        exif = Image.Exif()
        exif[274] = orientation
        content = encode(Image.fromarray(colours()), "JPEG", quality=95, subsampling=0, exif=exif)
        return content, vips(content, autorotate=True), 2


for name, options in {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "progressive": {"progressive": True, "subsampling": 0},
    "optimized": {"optimize": True, "subsampling": 0},
    "restart markers": {"restart_marker_rows": 1, "subsampling": 0},
}.items():

    @variant(f"jpeg {name}", options)
    def _jpeg(path, options):
        content = encode(Image.fromarray(colours()), "JPEG", quality=95, **options)
        return content, imagecodecs.jpeg8_decode(content), 3


@variant("jpeg grey")
def _jpeg_grey(path):
    content = encode(Image.fromarray(grey(8)), "JPEG", quality=95)
    return content, imagecodecs.jpeg8_decode(content), 2


@variant("jpeg cmyk")
def _jpeg_cmyk(path):
    content = encode(Image.fromarray(colours()).convert("CMYK"), "JPEG", quality=98)
    return content, colours(), 20  # no two decoders agree on the colours of CMYK


def tiff(array, **options):
    """Writes a TIFF file."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


for name, options in {
    "uncompressed": {},
    "lzw": {"compression": "lzw"},
    "lzw predictor": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib"},
    "packbits": {"compression": "packbits"},
    "tiled": {"tile": (16, 16)},
    "tiled deflate predictor": {"tile": (16, 16), "compression": "zlib", "predictor": True},
    "big-endian": {"byteorder": ">"},
    "bigtiff": {"bigtiff": True},
    "strips": {"rowsperstrip": 5},
}.items():

    @variant(f"tiff rgb 8 bits {name}", options)
    def _tiff_rgb(path, options):
        content = tiff(colours(), photometric="rgb", **options)
        return content, tifffile.imread(io.BytesIO(content)), 0

    @variant(f"tiff grey 16 bits {name}", options)
    def _tiff_grey_16(path, options):
        content = tiff(grey(16), photometric="minisblack", **options)
        return content, scaled(vips(content), 65535), 0

    @variant(f"tiff rgb 16 bits {name}", options)
    def _tiff_rgb_16(path, options):
        content = tiff(deep(16), photometric="rgb", **options)
        return content, scaled(vips(content), 65535), 0


for bits in (8, 16):

    @variant(f"tiff rgb {bits} bits in planes", bits)
    def _tiff_planes(path, bits):
        levels = deep(bits).astype(np.uint8 if bits == 8 else np.uint16)
        content = tiff(np.moveaxis(levels, -1, 0), photometric="rgb", planarconfig="separate")
        return content, scaled(vips(content), 2**bits - 1), 0

    @variant(f"tiff grey {bits} bits, white is zero", bits)
    def _tiff_white_is_zero(path, bits):
        content = tiff(grey(bits), photometric="miniswhite")
        return content, scaled(2**bits - 1 - tifffile.imread(io.BytesIO(content)).astype(int), 2**bits - 1), 0


for name, levels, white in (
    ("grey 16 bits with 12", grey(12), 4095),
    ("rgb 16 bits with 12", deep(12), 4095),
    ("32-bit integers with 12", grey(12).astype(np.int32), 4095),
    ("32-bit unsigned integers with 16", grey(16).astype(np.uint32), 65535),
    ("floats between 0 and 1", (grey(8) / 255).astype(np.float32), 1),
    ("doubles between 0 and 1", (grey(8) / 255).astype(np.float64), 1),
    ("floats that are integers", grey(12).astype(np.float32), 4095),
):

    @variant(f"tiff {name}", levels, white)
    def _tiff_levels(path, levels, white):
        content = tiff(levels, photometric="rgb" if levels.ndim == 3 else "minisblack")
        return content, scaled(tifffile.imread(io.BytesIO(content)), white), 0


# The maximum of the pixels decides the depth, if it is not that of another file.
for declared, white in ((1023, 1023), (700, 1023), (5000, 16383), (255, 1023), (511, 1023)):

    @variant(f"tiff grey with a maximum of {declared}", declared, white)
    def _tiff_maximum(path, declared, white):
        tags = [(280, "H", 1, 200, True), (281, "H", 1, declared, True)]
        content = tiff(grey(12) // 5, photometric="minisblack", extratags=tags)
        return content, scaled(vips(content), white), 0


@variant("tiff grey 12 bits with a maximum")
def _tiff_twelve_bits(path):
    levels = (grey(12) // 2).astype(np.uint16)
    bits = np.unpackbits(levels.astype(">u2").view(np.uint8)).reshape(*levels.shape, 16)[..., 4:]
    packed = np.packbits(bits.reshape(len(levels), -1), axis=1).tobytes()
    height, width = levels.shape
    entries = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 150), (277, 1), (278, height)]
    entries += [(279, len(packed)), (281, 2047)]
    header = b"II*\0" + struct.pack("<IH", 8, len(entries))
    header += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + bytes(4)
    content = header.ljust(150, b"\0") + packed
    return content, scaled(levels, 4095), 0


for mode in ("1", "P", "RGBA", "LA"):

    @variant(f"tiff {mode}", mode)
    def _tiff_mode(path, mode):
        content = encode(Image.fromarray(colours()).convert("L" if mode == "LA" else "RGB").convert(mode), "TIFF")
        pixels = tifffile.imread(io.BytesIO(content)) if mode == "1" else vips(content)
        if mode == "1":
            pixels = pixels.astype(np.uint8) * 255
        return content, pixels[..., :3] if mode in ("RGBA", "P") else pixels[..., 0] if mode == "LA" else pixels, 0


for mode in ("L", "P", "RGB", "1"):

    @variant(f"bmp {mode}", mode)
    def _bmp(path, mode):
        content = encode(Image.fromarray(colours()).convert(mode), "BMP")
        return content, np.asarray(imagecodecs.bmp_decode(content)) if mode in ("RGB", "L") else _opencv(content), 0


def _opencv(content):
    import cv2

    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@variant("gif")
def _gif(path):
    content = encode(Image.fromarray(colours()), "GIF")
    return content, vips(content)[..., :3], 0


for name, options in {"lossless": {"lossless": True}, "lossy": {"quality": 90}}.items():

    @variant(f"webp {name}", options)
    def _webp(path, options):
        content = encode(Image.fromarray(colours()), "WEBP", **options)
        return content, imagecodecs.webp_decode(content)[..., :3], 1


for bits in (8, 12, 16):

    @variant(f"jpeg 2000 rgb {bits} bits", bits)
    def _jpeg2000_rgb(path, bits):
        levels = deep(bits).astype(np.uint8 if bits == 8 else np.uint16)
        content = imagecodecs.jpeg2k_encode(levels, level=0, reversible=True, bitspersample=bits)
        return content, scaled(imagecodecs.jpeg2k_decode(content), 2**bits - 1), 1

    @variant(f"jpeg 2000 grey {bits} bits", bits)
    def _jpeg2000_grey(path, bits):
        content = imagecodecs.jpeg2k_encode(grey(bits) // 3, level=0, reversible=True, bitspersample=bits)
        white = 2**bits - 1 if bits < 16 else 32767 // 2  # 16 bits: the smallest depth that contains the levels
        return content, scaled(imagecodecs.jpeg2k_decode(content), 65535 if bits == 16 else white), 1


for white in (255, 1023, 4095, 65535):

    @variant(f"pgm with the maximum {white}", white)
    def _pgm(path, white):
        levels = (grey(16).astype(float) / 65535 * white / 2).astype(">u2" if white > 255 else np.uint8)
        content = b"P5 %d %d %d\n" % (WIDTH, HEIGHT, white) + levels.tobytes()
        return content, scaled(levels.astype(int), white), 1

    @variant(f"ppm with the maximum {white}", white)
    def _ppm(path, white):
        levels = (colours().astype(float) / 255 * white).astype(">u2" if white > 255 else np.uint8)
        content = b"P6 %d %d %d\n" % (WIDTH, HEIGHT, white) + levels.tobytes()
        return content, scaled(levels.astype(int), white), 1


def pydicom_levels(path):
    """Decodes with pydicom's own transforms, and scales the range of its window to 8 bits."""
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    dataset = dcmread(path)
    levels = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(float)
    ends = (-(2 ** (dataset.BitsStored - 1)), 2 ** (dataset.BitsStored - 1) - 1)
    low, high = ends if dataset.PixelRepresentation else (0, 2**dataset.BitsStored - 1)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    low, high = low * slope + intercept, high * slope + intercept
    brightness = np.clip((levels - low) / (high - low), 0, 1)
    is_inverted = dataset.PhotometricInterpretation == "MONOCHROME1" or "PresentationLUTShape" in dataset
    return scaled(1 - brightness if is_inverted else brightness, 1)


WINDOW = {"WindowCenter": 700, "WindowWidth": 900}
for name, bits, signed, attributes in (
    ("8 bits", 8, False, {}),
    ("10 bits", 10, False, {}),
    ("12 bits", 12, False, {}),
    ("16 bits", 16, False, {}),
    ("12 bits signed", 12, True, {}),
    ("16 bits signed", 16, True, {}),
    ("inverse", 12, False, {"PresentationLUTShape": "INVERSE"}),
    ("rescaled", 12, False, {"RescaleSlope": 2.5, "RescaleIntercept": -1024}),
    ("window", 12, False, WINDOW),
    ("several windows", 12, False, {"WindowCenter": [700, 50], "WindowWidth": [900, 20]}),
    ("exact window", 12, False, WINDOW | {"VOILUTFunction": "LINEAR_EXACT"}),
    ("sigmoid window", 12, False, WINDOW | {"VOILUTFunction": "SIGMOID"}),
    ("rescaled window", 12, True, WINDOW | {"RescaleSlope": 1.5, "RescaleIntercept": -200}),
):
    for kind in ("MONOCHROME2", "MONOCHROME1"):

        @variant(f"dicom {kind} {name}", kind, bits, signed, attributes)
        def _dicom_grey(path, kind, bits, signed, attributes):
            levels = grey(bits) // 2
            if signed:
                levels = (levels.astype(int) - 2 ** (bits - 2)).astype(np.int16)
            write_dicom(path, levels, kind, stored=bits, **attributes)
            return path.read_bytes(), pydicom_levels(path), 1


@variant("dicom rgb, 12 high bits of 16")
def _dicom_high_bits(path):
    write_dicom(path, deep(12) << 4, "RGB", stored=12, HighBit=15)
    return path.read_bytes(), scaled(deep(12), 4095), 0


@variant("dicom big-endian")
def _dicom_big_endian(path):
    from pydicom.uid import ExplicitVRBigEndian

    write_dicom(path, grey(12).astype(">u2"), stored=12, syntax=ExplicitVRBigEndian)
    return path.read_bytes(), scaled(grey(12), 4095), 0


@variant("dicom deflated")
def _dicom_deflated(path):
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    write_dicom(path, grey(12), stored=12, syntax=DeflatedExplicitVRLittleEndian)
    return path.read_bytes(), scaled(grey(12), 4095), 0


@variant("dicom with levels in the high bits")
def _dicom_high_bits(path):
    write_dicom(path, grey(12) << 4 | 7, stored=12, HighBit=15)
    return path.read_bytes(), scaled(grey(12), 4095), 0


@variant("dicom with an overlay in the unused bits")
def _dicom_overlay(path):
    write_dicom(path, grey(12) | 0x8000, stored=12)
    return path.read_bytes(), scaled(grey(12), 4095), 0


@variant("dicom with a voi table")
def _dicom_voi_table(path):
    from pydicom.dataset import Dataset

    item, table = Dataset(), (4095 * (np.arange(4096) / 4095) ** 2).astype(np.uint16)
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], table.tolist()
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    write_dicom(path, grey(12), stored=12, VOILUTSequence=[item])
    return path.read_bytes(), pydicom_levels(path), 1


@variant("dicom with a modality table")
def _dicom_modality_table(path):
    from pydicom.dataset import Dataset

    item, table = Dataset(), (65535 * (np.arange(4096) / 4095) ** 0.5).astype(np.uint16)
    item.LUTDescriptor, item.LUTData, item.ModalityLUTType = [4096, 0, 16], table.tolist(), "US"
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    write_dicom(path, grey(12), stored=12, ModalityLUTSequence=[item])
    return path.read_bytes(), scaled(table[grey(12)], 65535), 1


@variant("dicom with a window per frame")
def _dicom_functional_groups(path):
    from pydicom.dataset import Dataset

    window, groups = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 700, 900
    groups.FrameVOILUTSequence = [window]
    write_dicom(path, grey(12), stored=12, PerFrameFunctionalGroupsSequence=[groups])
    content = path.read_bytes()
    write_dicom(path, grey(12), stored=12, **WINDOW)
    return content, pydicom_levels(path), 1


@variant("dicom palette")
def _dicom_palette(path):
    from pydicom import dcmread
    from pydicom.pixels import apply_color_lut

    table = np.random.default_rng(0).integers(0, 65535, (256, 3), dtype=np.uint16)
    attributes = {}
    for place, name in enumerate(("Red", "Green", "Blue")):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        attributes[f"{name}PaletteColorLookupTableData"] = table[:, place].tobytes()
    write_dicom(path, grey(8), "PALETTE COLOR", **attributes)
    dataset = dcmread(path)
    return path.read_bytes(), scaled(apply_color_lut(dataset.pixel_array, dataset), 65535), 1


@variant("dicom rgb")
def _dicom_rgb(path):
    write_dicom(path, colours(), "RGB")
    return path.read_bytes(), colours(), 0


@variant("dicom rgb in planes")
def _dicom_planes(path):
    write_dicom(path, colours(), "RGB")
    from pydicom import dcmread

    dataset = dcmread(path)
    dataset.PlanarConfiguration, dataset.PixelData = 1, np.moveaxis(colours(), -1, 0).tobytes() + b"\0"
    dataset.save_as(path)
    return path.read_bytes(), colours(), 0


@variant("dicom ybr")
def _dicom_ybr(path):
    write_dicom(path, np.asarray(Image.fromarray(colours()).convert("YCbCr")), "YBR_FULL")
    return path.read_bytes(), colours(), 3


def compressed_dicom(path, levels, kind, stored, frame, syntax):
    """Writes a DICOM file with one compressed frame."""
    from pydicom import dcmread
    from pydicom.encaps import encapsulate

    write_dicom(path, levels, kind, stored=stored)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    return path.read_bytes()


for bits in (8, 12, 16):

    @variant(f"dicom jpeg lossless {bits} bits", bits)
    def _dicom_jpeg_lossless(path, bits):
        frame = imagecodecs.ljpeg_encode(grey(bits), bitspersample=bits)
        content = compressed_dicom(path, grey(bits), "MONOCHROME2", bits, frame, "1.2.840.10008.1.2.4.70")
        return content, scaled(imagecodecs.ljpeg_decode(frame), 2**bits - 1), 0

    @variant(f"dicom jpeg-ls {bits} bits", bits)
    def _dicom_jpeg_ls(path, bits):
        frame = imagecodecs.jpegls_encode(grey(bits))
        content = compressed_dicom(path, grey(bits), "MONOCHROME2", bits, frame, "1.2.840.10008.1.2.4.80")
        return content, scaled(imagecodecs.jpegls_decode(frame), 2**bits - 1), 0

    @variant(f"dicom jpeg 2000 {bits} bits", bits)
    def _dicom_jpeg2000(path, bits):
        frame = imagecodecs.jpeg2k_encode(grey(bits), level=0, reversible=True, codecformat="j2k", bitspersample=bits)
        content = compressed_dicom(path, grey(bits), "MONOCHROME2", bits, frame, "1.2.840.10008.1.2.4.90")
        return content, scaled(imagecodecs.jpeg2k_decode(frame), 2**bits - 1), 0


@variant("dicom jpeg-ls rgb")
def _dicom_jpeg_ls_rgb(path):
    frame = imagecodecs.jpegls_encode(colours())
    return compressed_dicom(path, colours(), "RGB", 8, frame, "1.2.840.10008.1.2.4.80"), colours(), 0


@variant("dicom jpeg baseline")
def _dicom_jpeg(path):
    frame = encode(Image.fromarray(colours()), "JPEG", quality=95, subsampling=0)
    content = compressed_dicom(path, colours(), "YBR_FULL", 8, frame, "1.2.840.10008.1.2.4.50")
    return content, imagecodecs.jpeg8_decode(frame), 3


@variant("dicom rle")
def _dicom_rle(path):
    from pydicom import dcmread
    from pydicom.uid import RLELossless

    write_dicom(path, grey(12), stored=12)
    dataset = dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    return path.read_bytes(), scaled(grey(12), 4095), 0


@variant("dicom without a preamble")
def _dicom_without_preamble(path):
    from pydicom import dcmread
    from pydicom.uid import ImplicitVRLittleEndian

    write_dicom(path, grey(12), stored=12, syntax=ImplicitVRLittleEndian)
    dataset = dcmread(path)
    del dataset.file_meta
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=True, little_endian=True)
    return buffer.getvalue(), scaled(grey(12), 4095), 0


@variant("heic")
def _heic(path):
    from pillow_heif import from_pillow

    buffer = io.BytesIO()
    from_pillow(Image.fromarray(colours())).save(buffer, format="HEIF", quality=95, chroma=444)
    return buffer.getvalue(), colours(), 30


for levels, white in ((colours(), 255), (grey(12), 4095)):

    @variant(f"metaimage {levels.dtype}", levels, white)
    def _meta_image(path, levels, white):
        header = (
            f"ObjectType = Image\nNDims = 2\nDimSize = {WIDTH} {HEIGHT}\n"
            f"ElementType = {'MET_UCHAR' if white == 255 else 'MET_USHORT'}\n"
            f"ElementNumberOfChannels = {3 if levels.ndim == 3 else 1}\nElementDataFile = LOCAL\n"
        )
        return header.encode() + levels.tobytes(), scaled(levels, white), 0
