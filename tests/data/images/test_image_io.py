"""Images are converted to upright 8-bit RGB, and unreadable files are rejected with a reason."""

import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.messages import raises

from hf_mae.data.checks.image_check import check_image_files
from hf_mae.data.images import image_io
from hf_mae.data.images.image_io import ImageError, read_rgb, scale_to_uint8, to_rgb
from hf_mae.data.images.messages import ImageMessage
from hf_mae.errors import CommandLineError
from hf_mae.settings.data import MAX_PIXELS_ENV
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.parse import parse_settings


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "levels, kind, low, high",
    [
        (np.linspace(0, 65535, 64), "uint16", 0, 255),
        (np.linspace(0, 4095, 64), "uint16", 0, 255),
        (np.linspace(260, 4095, 64), "int32", 16, 255),
        (np.linspace(0, 255, 64), "int32", 0, 255),
        (np.linspace(0, 100, 64), "int32", 0, 100),
        (np.linspace(0, 70000, 64), "int32", 0, 255),
        (np.linspace(-1000, 3000, 64), "int32", 0, 255),
        (np.linspace(0, 1, 64), "float32", 0, 255),
        (np.linspace(0.2, 0.4, 64), "float32", 51, 102),
        (np.linspace(-1, 1, 64), "float32", 0, 255),
        (np.linspace(5.5, 99.25, 64), "float32", 0, 255),
    ],
)
def test_levels_of_any_range_are_scaled_to_eight_bits(levels, kind, low, high):
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


def test_non_finite_levels_are_rejected():
    with raises(ImageMessage.NON_FINITE_LEVELS, ImageError):
        to_rgb(Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)))


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
        (lambda path: os.mkfifo(path), ImageMessage.NOT_REGULAR_FILE),
        (lambda path: path.mkdir(), ImageMessage.NOT_REGULAR_FILE),
    ],
)
def test_files_that_are_not_images_are_rejected(tmp_path, make, message):
    make(tmp_path / "x.jpg")
    with pytest.raises(OSError) as caught:
        read_rgb(tmp_path / "x.jpg")
    assert image_io.summarize_image_error(caught.value) == message.render()


def test_the_pixel_limit_is_checked_before_decoding(monkeypatch, tmp_path):
    """The flag sets it for this process and its children; cached checks with another limit are not used."""
    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.new("RGB", (10, 10))))
    monkeypatch.setenv(MAX_PIXELS_ENV, "")
    parse_settings("predict", None, model_name_or_path="m", images=["x"], max_pixels=99)
    with raises(ImageMessage.TOO_MANY_PIXELS, ImageError, width=10, height=10, limit=99):
        read_rgb(path)
    assert "more than 99" in check_image_files([str(path)]).bad[0]
    parse_settings("predict", None, model_name_or_path="m", images=["x"], max_pixels=100)
    assert read_rgb(path).size == (10, 10) and not check_image_files([str(path)]).bad
    with raises(SettingsMessage.OUT_OF_BOUNDS, CommandLineError, name="max_pixels"):
        parse_settings("predict", None, model_name_or_path="m", images=["x"], max_pixels=0)


def test_the_pixel_limit_can_be_raised_above_that_of_pillow(monkeypatch, tmp_path):
    """A PNG of a bilevel image: 200 million pixels in a small file."""
    Image.new("1", (20_000, 10_000)).save(tmp_path / "x.png")
    with raises(ImageMessage.PIXEL_LIMIT_EXCEEDED, ImageError, limit=89_478_485):
        image_io.open_image(tmp_path / "x.png")
    monkeypatch.setenv(MAX_PIXELS_ENV, "200000000")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with image_io.open_image(tmp_path / "x.png") as image:
        assert image.size == (20_000, 10_000)


def test_heic_and_dicom_are_read(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    pydicom = pytest.importorskip("pydicom")
    colours = np.zeros((64, 64, 3), dtype=np.uint8)
    colours[:, 32:] = 200
    Image.fromarray(colours).save(tmp_path / "x.heic", quality=90)
    assert abs(np.asarray(read_rgb(tmp_path / "x.heic")).astype(int) - colours).mean() < 4

    ramp = np.tile(np.linspace(0, 4095, 32), (16, 1)).astype(np.uint16)
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PixelRepresentation = 16, 32, 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for kind, expected in (("MONOCHROME2", ramp), ("MONOCHROME1", 4095 - ramp)):
        dataset.PhotometricInterpretation, dataset.PixelData = kind, ramp.tobytes()
        dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
        pixels = np.asarray(read_rgb(tmp_path / "x.dcm"))
        assert np.array_equal(pixels[..., 1], scale_to_uint8(expected))
