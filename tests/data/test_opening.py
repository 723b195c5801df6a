"""Every image becomes upright 8-bit RGB by one rule, and what is no image is named."""

import io
import os
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_mae.data import image_io
from hf_mae.data.image_check import check_image_files
from hf_mae.data.image_io import ImageError, read_rgb, scale_to_uint8, to_rgb
from hf_mae.data.videos import iter_frames
from hf_mae.errors import UsageError
from hf_mae.settings.data import MAX_PIXELS_ENV
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
def test_levels_of_any_range_become_eight_bits(levels, kind, low, high):
    """A ramp stays a ramp, in a file as in memory."""
    levels = np.tile(levels.astype(kind), (8, 1))
    seen = np.asarray(to_rgb(Image.fromarray(levels)))
    assert seen.shape == (8, 64, 3) and (seen.min(), seen.max()) == (low, high)
    assert (np.diff(seen[..., 0].astype(int), axis=1) >= 0).all() and np.array_equal(seen[..., 0], seen[..., 2])
    if kind != "uint16" or levels.max() > 255:
        assert np.array_equal(np.asarray(read_rgb(encoded(Image.fromarray(levels), "TIFF"))), seen)


@given(st.lists(st.integers(0, 65535), min_size=2, max_size=30))
def test_the_order_of_levels_is_kept(levels):
    seen = scale_to_uint8(np.array(levels, dtype=np.uint16)).astype(int)
    for one, a in zip(levels, seen):
        for other, b in zip(levels, seen):
            assert (one <= other) <= (a <= b)


def test_levels_that_are_not_finite_are_no_image():
    with pytest.raises(ImageError, match="not finite"):
        to_rgb(Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "RGB"])
def test_other_modes_are_as_in_pipeline(mode):
    from transformers.image_utils import load_image

    pixels = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L" if mode in ("LA", "PA") else "RGB").convert(mode)
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(load_image(image)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"), "no image of a format"),
        (lambda path: path.write_bytes(b""), "no image of a format"),
        (lambda path: os.mkfifo(path), "no regular file"),
        (lambda path: path.mkdir(), "no regular file"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, make, message):
    make(tmp_path / "x.jpg")
    with pytest.raises(OSError) as caught:
        read_rgb(tmp_path / "x.jpg")
    assert message in image_io.summarize_image_error(caught.value)


def test_a_bound_on_pixels_comes_before_decoding(monkeypatch, tmp_path):
    """A flag sets it for this process and those that it starts, and a verdict of another bound counts no more."""
    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.new("RGB", (10, 10))))
    monkeypatch.setenv(MAX_PIXELS_ENV, "")
    parse_settings("predict", None, model_name_or_path="m", images=["x"], max_pixels=99)
    with pytest.raises(ImageError, match="10 x 10 pixels, more than 99: --max_pixels raises that"):
        read_rgb(path)
    assert "more than 99" in check_image_files([str(path)]).bad[0]
    with pytest.raises(ImageError, match="more than 99"):
        list(iter_frames(str(a_video(tmp_path / "x.mp4")), 1))
    parse_settings("predict", None, model_name_or_path="m", images=["x"], max_pixels=100)
    assert read_rgb(path).size == (10, 10) and not check_image_files([str(path)]).bad
    with pytest.raises(UsageError, match="--max_pixels must be at least 1"):
        parse_settings("predict", None, model_name_or_path="m", images=["x"], max_pixels=0)


def test_the_bound_can_be_raised_above_pillows(monkeypatch, tmp_path):
    """A PNG of a bilevel image: 200 million pixels in few bytes; the bound of this process alone."""
    Image.new("1", (20_000, 10_000)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match="more than 89,478,485"):
        image_io.open_image(tmp_path / "x.png")
    monkeypatch.setenv(MAX_PIXELS_ENV, "200000000")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with image_io.open_image(tmp_path / "x.png") as image:
        assert image.size == (20_000, 10_000)


def a_video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 1, (64, 64))
    writer.write(np.zeros((64, 64, 3), dtype=np.uint8))
    writer.release()
    return path


def test_a_video_is_a_regular_file_and_no_list_of_others(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ImageError, match="no regular file"):
        list(iter_frames(str(tmp_path / "pipe.mp4"), 1))
    for text in ("#EXTM3U\nfile:///etc/passwd\n", "ffconcat version 1.0\nfile x.mp4\n"):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(ImageError, match="a list of videos, not a video"):
            list(iter_frames(str(tmp_path / "list.mp4"), 1))


def test_heic_and_dicom(tmp_path):
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
        seen = np.asarray(read_rgb(tmp_path / "x.dcm"))
        assert np.array_equal(seen[..., 1], scale_to_uint8(expected))


def test_frames_of_a_steady_video_have_their_times(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = str(tmp_path / "x.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    for number in range(60):
        writer.write(np.full((32, 32, 3), number, dtype=np.uint8))
    writer.release()
    assert [round(seconds, 3) for seconds, _ in iter_frames(path, 2.0)] == [0.0, 0.48, 1.0, 1.48, 2.0]


def boxes(data: bytes):
    """The boxes of an MP4: name, start, end and where the content starts."""
    at = 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        yield name, at, at + size
        at += size


def with_durations(
    data: bytes, runs: list[tuple[int, int]], path=(b"moov", b"trak", b"mdia", b"minf", b"stbl")
) -> bytes:
    """An MP4 whose frames last other times: `runs` of (frames, factor of the first duration)."""
    out = b""
    for name, start, end in boxes(data):
        body = data[start + 8 : end]
        if path and name == path[0]:
            body = with_durations(body, runs, path[1:])
        elif not path and name == b"stts":
            ticks = struct.unpack(">I", body[12:16])[0]
            entries = b"".join(struct.pack(">II", frames, factor * ticks) for frames, factor in runs)
            body = struct.pack(">II", 0, len(runs)) + entries
        elif name == b"edts":
            name = b"free"
        out += struct.pack(">I4s", 8 + len(body), name) + body
    return out


def test_frames_of_changing_durations_have_their_true_times(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "x.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for number in range(30):
        writer.write(np.full((64, 64, 3), 8 * number, dtype=np.uint8))
    writer.release()
    path.write_bytes(with_durations(path.read_bytes(), [(20, 1), (10, 10)]))  # 2 s of ten a second, then one a second
    times = [round(seconds, 2) for seconds, _ in iter_frames(str(path), 1.0)]
    assert times == [float(second) for second in range(12)]
