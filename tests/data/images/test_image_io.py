"""Images are converted to upright 8-bit RGB, and unreadable files are rejected with a reason."""

import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.messages import raises

from hf_mae.data.images.decoding import to_rgb
from hf_mae.data.images.image_check import check_image_files, hash_image_files
from hf_mae.data.images.image_error import ImageError, summarize_image_error
from hf_mae.data.images.image_io import open_image, read_rgb
from hf_mae.data.images.levels import scale_to_uint8
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.sources.predict_inputs import iter_pixel_values
from hf_mae.errors import CommandLineError
from hf_mae.settings import limits
from hf_mae.settings.limits import MAX_PIXELS_ENV
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.parse import parse_settings


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "levels, kind, low, high",
    [
        (np.linspace(0, 65535, 64), "uint16", 0, 255),
        (np.linspace(0, 4095, 64), "uint16", 0, 255),
        (np.linspace(260, 4095, 64), "int32", 16, 255),
        (np.linspace(0, 255, 64), "int32", 0, 255),
        (np.linspace(0, 100, 64), "int32", 0, 100),
        (np.linspace(0, 1, 64), "float32", 0, 255),
        (np.linspace(0.2, 0.4, 64), "float32", 51, 102),
        (np.linspace(0, 4095, 64).round(), "float32", 0, 255),
    ],
)
def test_levels_are_scaled_to_eight_bits(levels, kind, low, high):
    """A ramp stays monotonic, in a file and in memory."""
    levels = np.tile(levels.astype(kind), (8, 1))
    pixels = np.asarray(to_rgb(Image.fromarray(levels)))
    assert pixels.shape == (8, 64, 3) and (pixels.min(), pixels.max()) == (low, high)
    assert (np.diff(pixels[..., 0].astype(int), axis=1) >= 0).all() and np.array_equal(pixels[..., 0], pixels[..., 2])
    if kind != "uint16" or levels.max() > 255:
        assert np.array_equal(np.asarray(read_rgb(encoded(Image.fromarray(levels), "TIFF"))), pixels)


@given(st.lists(st.integers(0, 65535), min_size=2, max_size=30))
def test_scaling_is_monotonic(levels):
    scaled = scale_to_uint8(np.array(levels, dtype=np.uint16)).astype(int)
    for one, a in zip(levels, scaled):
        for other, b in zip(levels, scaled):
            assert (one <= other) <= (a <= b)


@given(st.integers(-1000, 1000), st.integers(1, 5000), st.lists(st.integers(-2000, 9000), min_size=1, max_size=20))
def test_a_declared_range_does_not_depend_on_the_other_pixels(low, width, levels):
    together = scale_to_uint8(np.array(levels), low, low + width)
    assert together.tolist() == [int(scale_to_uint8(np.array([level]), low, low + width)[0]) for level in levels]
    assert [value == 0 for value in together] == [255 * (level - low) <= 0.5 * width for level in levels]


@pytest.mark.parametrize(
    "levels, message",
    [
        ([0.0, np.nan], ImageMessage.NON_FINITE_LEVELS),
        ([0.0, np.inf], ImageMessage.NON_FINITE_LEVELS),
        ([-1.0, 1.0], ImageMessage.UNKNOWN_RANGE_OF_LEVELS),
        ([5.5, 99.25], ImageMessage.UNKNOWN_RANGE_OF_LEVELS),
        ([0.0, 70000.0], ImageMessage.UNKNOWN_RANGE_OF_LEVELS),
    ],
)
def test_levels_of_an_unknown_range_are_rejected(levels, message):
    with raises(message, ImageError):
        to_rgb(Image.fromarray(np.array([levels], dtype=np.float32)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "RGB"])
def test_other_modes_are_converted_like_in_pipeline(mode):
    from transformers.image_utils import load_image

    pixels = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L" if mode in ("LA", "PA") else "RGB").convert(mode)
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(load_image(image)))


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"),
            ImageMessage.UNSUPPORTED_FORMAT,
        ),
        (lambda path: path.write_bytes(b""), ImageMessage.UNSUPPORTED_FORMAT),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), ImageMessage.DAMAGED_FILE),
        (lambda path: os.mkfifo(path), ImageMessage.NOT_REGULAR_FILE),
        (lambda path: path.mkdir(), ImageMessage.NOT_REGULAR_FILE),
    ],
)
def test_files_that_are_not_images_are_rejected(tmp_path, make, message):
    make(tmp_path / "x.jpg")
    with pytest.raises(OSError) as caught:
        read_rgb(tmp_path / "x.jpg")
    assert summarize_image_error(caught.value) == message.render()


def drop_half(content):
    return content[: len(content) // 2]


def keep_header(content):
    return content[:20]


def overwrite_middle(content):
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


@pytest.mark.parametrize("damage", [drop_half, overwrite_middle, keep_header])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "MISSING"])
def test_predict_and_prepare_give_the_same_reason_for_a_damaged_image(tmp_path, kind, damage):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    path = str(tmp_path / "x.bin")
    if kind != "MISSING":
        (tmp_path / "x.bin").write_bytes(damage(encoded(Image.fromarray(pixels), kind)))
    prepared = check_image_files([path]).bad.get(0)
    decoded = hash_image_files([path]).bad.get(0)
    ((_, predicted),) = iter_pixel_values([(path, path)], lambda *_, **__: {"pixel_values": [0]}, 1, 1)
    assert prepared == decoded == (predicted or None)
    assert prepared or damage is overwrite_middle
    assert path not in str(prepared)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_images_are_turned_like_in_pipeline(tmp_path, kind, orientation):
    from transformers.image_utils import load_image

    exif = Image.Exif()
    exif[274] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x", kind, exif=exif)
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "x")), np.asarray(load_image(str(tmp_path / "x"))))


@pytest.mark.parametrize("kind", ["PNG", "PNG text", "JPEG", "WEBP"])
def test_damaged_exif_data_does_not_change_the_pixels(kind):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    if kind == "PNG text":
        info = PngInfo()
        info.add_text("Raw profile type exif", "\nexif\n      20\n4578696600004d4d00zz\n")
        content = encoded(Image.fromarray(pixels), "PNG", pnginfo=info)
    else:
        content = encoded(Image.fromarray(pixels), kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x99\x01\x12")
    plain = encoded(Image.fromarray(pixels), kind.split()[0])
    assert np.array_equal(np.asarray(read_rgb(content)), np.asarray(read_rgb(plain)))


def test_the_first_bytes_decide_the_format_not_the_suffix(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    for number, name in enumerate(("a.jpg", "b.dcm", "c.heic", "d.tif", "IM0001", "e.mp4", "f.mha")):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(pixels), ("PNG", "BMP")[number % 2]))
        assert np.array_equal(np.asarray(read_rgb(tmp_path / name)), pixels)


def test_the_pixel_limit_is_checked_before_decoding(monkeypatch, tmp_path):
    """The limit of a command takes precedence over the environment; cached checks with another limit are not used."""
    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.new("RGB", (10, 10))))
    monkeypatch.setattr(limits, "_limits", {})
    monkeypatch.setenv(MAX_PIXELS_ENV, "5000")
    limits.apply_limits(max_pixels=99)
    with raises(ImageMessage.TOO_MANY_PIXELS, ImageError, width=10, height=10, limit=99):
        read_rgb(path)
    assert "more than 99" in check_image_files([str(path)]).bad[0]
    limits.apply_limits(max_pixels=100)
    assert read_rgb(path).size == (10, 10) and not check_image_files([str(path)]).bad
    with raises(SettingsMessage.OUT_OF_BOUNDS, CommandLineError, name="max_pixels"):
        parse_settings("predict", None, model_name_or_path="m", images=["x"], max_pixels=0)


def test_the_pixel_limit_can_be_raised_above_that_of_pillow(monkeypatch, tmp_path):
    """A PNG of a bilevel image: 200 million pixels in a small file."""
    Image.new("1", (20_000, 10_000)).save(tmp_path / "x.png")
    with raises(ImageMessage.PIXEL_LIMIT_EXCEEDED, ImageError, limit=89_478_485):
        open_image(tmp_path / "x.png")
    monkeypatch.setenv(MAX_PIXELS_ENV, "200000000")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with open_image(tmp_path / "x.png") as frames:
        assert frames.size == (20_000, 10_000)
