"""Files with several frames: each frame is an image of its own."""

import logging
import multiprocessing
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.frame_files import (
    KINDS,
    change_matroska_times,
    encode,
    make_frames,
    move_index_to_front,
    write_dicom,
    write_frames,
)
from support.messages import raises

from hf_mae.data.images.frames import iter_named_frames, read_single_image
from hf_mae.data.images.image_check import check_image_files
from hf_mae.data.images.image_error import ImageError
from hf_mae.data.images.image_io import count_frames, open_image, read_rgb
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.images.videos import VideoFrames, iter_frames
from hf_mae.data.sources.predict_inputs import iter_inputs, iter_pixel_values
from hf_mae.files.frame_names import parse_frame_name


def read_all(paths, fps=1.0, completed_names=()):
    """The names and pixels (or errors) that `predict` reads."""
    values = iter_pixel_values(
        iter_inputs([str(path) for path in paths]),
        lambda image, return_tensors: {"pixel_values": [np.asarray(image)]},
        fps,
        2,
        completed_names=completed_names,
        lookahead=3,
    )
    return dict(values)


@pytest.mark.parametrize("suffix", KINDS)
def test_predict_reads_each_frame_as_if_it_was_a_png(tmp_path, suffix):
    frames = make_frames(5)
    path = write_frames(tmp_path / f"stack.{suffix}", frames)
    single = tmp_path / "single.png"
    single.write_bytes(encode(Image.fromarray(frames[0])))
    rows = read_all([single, path, single])
    assert list(rows) == [str(single), *(f"{path}#frame={index}" for index in range(5))]
    for index, frame in enumerate(frames):
        name = f"{path}#frame={index}"
        if suffix == "gif":  # a palette per frame
            with Image.open(path) as image:
                image.seek(index)
                frame = np.asarray(image.convert("RGB"))
        assert np.array_equal(rows[name], frame) and np.array_equal(np.asarray(read_rgb(name)), frame)
    done = {f"{path}#frame={index}" for index in range(4)}
    assert list(read_all([path], completed_names=done)) == [f"{path}#frame=4"]


@pytest.mark.parametrize("suffix", KINDS)
def test_files_with_several_frames_are_rejected_as_one_image(tmp_path, suffix):
    path = write_frames(tmp_path / f"stack.{suffix}", make_frames(3))
    assert count_frames(path) == 3
    with raises(ImageMessage.SEVERAL_FRAMES, ImageError, count=3):
        read_rgb(path)
    expected = ImageMessage.SEVERAL_FRAMES.render(count=3)
    for decode in (True, False):
        assert check_image_files([str(path)], decode=decode).bad == {0: expected}
    with raises(ImageMessage.NO_SUCH_FRAME, ImageError, index=3, count=3):
        read_rgb(f"{path}#frame=3")


@pytest.mark.parametrize("suffix", KINDS)
def test_frames_are_read_in_any_order_from_files_and_bytes(tmp_path, suffix):
    frames = make_frames(6)
    path = write_frames(tmp_path / f"stack.{suffix}", frames)
    content = path.read_bytes()
    expected = [np.asarray(read_rgb(f"{path}#frame={index}")) for index in range(6)]
    for index in (4, 1, 5, 0, 0, 3):
        assert np.array_equal(np.asarray(read_rgb(f"{path}#frame={index}")), expected[index])
        row = {"bytes": content, "path": f"stack.{suffix}#frame={index}"}
        assert np.array_equal(np.asarray(read_rgb(row)), expected[index])


@pytest.mark.parametrize("fps, indices", [(1, [0, 5]), (2.5, [0, 2, 4, 6, 8]), (100, range(10)), (0.1, [0])])
def test_dicom_with_a_frame_time_is_read_at_the_given_rate(tmp_path, fps, indices):
    frames = make_frames(10)
    path = write_dicom(tmp_path / "x.dcm", frames, "RGB", frames=10, FrameTime=200.0)
    rows = read_all([path], fps=fps)
    assert list(rows) == [f"{path}#t={index / 5:.3f}" for index in indices]
    for index, pixels in zip(indices, rows.values()):
        assert np.array_equal(pixels, frames[index])
        assert np.array_equal(np.asarray(read_rgb(f"{path}#t={index / 5:.3f}")), frames[index])


def test_frame_times_can_be_a_vector(tmp_path):
    vector = [0, 100, 900, 1000, 100]
    path = write_dicom(tmp_path / "x.dcm", make_frames(5), "RGB", frames=5, FrameTimeVector=vector)
    with open_image(path) as frames:
        assert frames.times == pytest.approx([0, 0.1, 1.0, 2.0, 2.1])
    assert list(read_all([path])) == [f"{path}#t={seconds}" for seconds in ("0.000", "1.000", "2.000")]


@pytest.mark.parametrize(
    "name", ["a#frame=3.png", "a.png#frame=3", "a.tif#t=1.5", "#frame=0", "a:b.png", "50%.png", "a[1].png", "{0}?.png"]
)
def test_existing_files_are_not_names_of_frames(tmp_path, name):
    pixels = make_frames(1)[0]
    (tmp_path / name).write_bytes(encode(Image.fromarray(pixels)))
    assert parse_frame_name(str(tmp_path / name)) is None
    assert np.array_equal(np.asarray(read_rgb(tmp_path / name)), pixels)
    assert list(read_all([tmp_path / name])) == [str(tmp_path / name)]
    stack = write_frames(tmp_path / f"{name}.tif", make_frames(2))
    assert np.array_equal(np.asarray(read_rgb(f"{stack}#frame=1")), make_frames(2)[1])


def test_previews_are_skipped_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hf_mae")
    frames = make_frames(2, (40, 60))
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=images[1:])
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        writer.write(frames[1][::4, ::4], photometric="rgb", subfiletype=1)
        writer.write(frames[0], photometric="rgb", subifds=1)
        writer.write(frames[0][::2, ::2], photometric="rgb", subfiletype=1)
    for name, count in (("x.jpg", 1), ("x.tif", 2)):
        caplog.clear()
        with open_image(tmp_path / name) as opened:
            assert (opened.num_frames, opened.num_previews) == (1, count)
        (record,) = [record for record in caplog.records if getattr(record, "code", None)]
        assert record.code is ImageMessage.PREVIEWS_SKIPPED and record.attributes["count"] == count
        pixels = np.asarray(read_rgb(tmp_path / name)).astype(int)
        assert np.abs(pixels - frames[0]).mean() < (60 if name == "x.jpg" else 1)


def write_video(path, count=60, rate=10.0, codec="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, (64, 64))
    for frame in make_frames(count, (64, 64)):
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize("count", [2, 3])
def test_the_image_before_an_apng_animation_is_a_preview(tmp_path, count):
    default, *frames = make_frames(count + 1)
    images = [Image.fromarray(frame) for frame in frames]
    Image.fromarray(default).save(tmp_path / "x.png", save_all=True, append_images=images, default_image=True)
    with open_image(tmp_path / "x.png") as file:
        assert (file.num_frames, file.num_previews) == (count, 1)
        for index in (1, 0):
            assert np.array_equal(np.asarray(file.read(index)), frames[index])


@pytest.mark.parametrize(
    "options", [{"truncate": True}, {"truncate": True, "imagej": True}, {"volumetric": True, "tile": (4, 16, 16)}]
)
def test_tiff_stacks_with_one_page_are_rejected(tmp_path, options):
    """Otherwise only the first image is read."""
    stack = np.ascontiguousarray(make_frames(12)[..., 0])
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack", **options)
    with raises(ImageMessage.FRAMES_WITHOUT_PAGES, ImageError, count=12):
        read_rgb(tmp_path / "x.tif")


def test_a_page_of_a_stack_that_kept_its_description_is_read(tmp_path):
    page = np.ascontiguousarray(make_frames(1)[0, ..., 0])
    tifffile.imwrite(tmp_path / "x.tif", page, description="ImageJ=1.53t\nimages=12\nslices=12\n", metadata=None)
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "x.tif"))[..., 0], page)


@pytest.mark.parametrize(
    "suffix, codec, has_index_last",
    [
        *(("mp4", "mp4v", True), ("mov", "mp4v", True), ("mp4", "mp4v", False), ("mov", "mp4v", False)),
        *(("mkv", "MJPG", False), ("mkv", "mp4v", False), ("webm", "VP80", False), ("avi", "MJPG", False)),
        *(("avi", "XVID", False), ("mpg", "PIM1", False), ("ts", "mp4v", False), ("ts", "MPG2", False)),
        *(("wmv", "WMV2", False), ("flv", "FLV1", False)),
    ],
)
def test_only_a_truncated_video_is_reported_after_its_frames(tmp_path, suffix, codec, has_index_last):
    content = write_video(tmp_path / f"a.{suffix}", 75, 25.0, codec).read_bytes()
    if suffix in ("mp4", "mov") and not has_index_last:
        content = move_index_to_front(content)
    path = tmp_path / "video"  # the first bytes decide
    for fraction in (1, 0.99, 0.9, 0.5, 0.2):
        path.write_bytes(content[: int(len(content) * fraction) - (fraction < 1)])
        rows = read_all([path])
        reason = rows.pop(str(path), "")
        assert all("#t=" in name for name in rows) and len(rows) <= 3 * fraction + 2
        if fraction == 1:
            assert len(rows) == 3 and not reason
        elif has_index_last:
            assert reason == ImageMessage.UNREADABLE_VIDEO.render()
        else:
            assert "breaks off" in reason


@pytest.mark.parametrize("suffix, codec", [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "MJPG"), ("flv", "FLV1")])
def test_a_video_whose_end_is_not_written_yet_is_reported(tmp_path, suffix, codec):
    """A copy that reserves the space of the file first was interrupted."""
    path = write_video(tmp_path / f"a.{suffix}", codec=codec)
    content = move_index_to_front(path.read_bytes()) if suffix == "mp4" else path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    assert "breaks off" in read_all([path])[str(path)]


@pytest.mark.parametrize("suffix, codec", [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "MJPG"), ("wmv", "WMV2")])
def test_other_data_behind_a_video_is_ignored(tmp_path, suffix, codec):
    path = write_video(tmp_path / f"a.{suffix}", codec=codec)
    path.write_bytes(path.read_bytes() + b"abcdefgh" * 10)
    assert len(read_all([path])) == 6 and str(path) not in read_all([path])


@pytest.mark.parametrize("steps", [[100] * 20 + [1000] * 20, [1000] * 10 + [40] * 30, [33, 34] * 20])
def test_a_complete_matroska_video_of_variable_rate_is_not_reported(tmp_path, steps):
    path = write_video(tmp_path / "a.mkv", 40)
    starts = np.cumsum([0, *steps])
    content = change_matroska_times(path.read_bytes(), starts[:-1].tolist(), float(starts[-1]))
    path.write_bytes(content)
    rows = read_all([path], fps=1e6)
    assert list(rows) == [f"{path}#t={start / 1000:.3f}" for start in starts[:-1]]
    path.write_bytes(content[: int(0.2 * len(content))])
    assert "breaks off" in read_all([path])[str(path)]


def test_frames_of_videos_are_read_by_the_names_of_predict(tmp_path):
    path = write_video(tmp_path / "x.avi", 30)
    rows = read_all([path], fps=4)
    assert len(rows) == 12
    for name, pixels in rows.items():
        assert np.array_equal(np.asarray(read_rgb(name)), pixels)


def test_frames_are_checked_without_decoding_the_others(tmp_path):
    """The check of `pretrain`; a frame of a video is an image, too."""
    files = [write_video(tmp_path / "x.avi", 12), write_frames(tmp_path / "x.tif", make_frames(12))]
    names = [f"{file}#frame={index}" for file in files for index in (0, 11, 12)]
    for decode in (True, False):
        assert sorted(check_image_files(names, 2, decode=decode).bad) == [2, 5]


def test_frames_of_videos_are_read_by_number(tmp_path):
    path = write_video(tmp_path / "x.avi", 30)
    expected = [np.asarray(image) for _, image in iter_frames(str(path), 1e6)]
    frames = VideoFrames(str(path))
    assert frames.num_frames == count_frames(path) == len(expected) == 30
    for index in (0, 1, 5, 4, 29, 2):
        assert np.array_equal(np.asarray(frames.read(index)), expected[index])
        assert np.array_equal(np.asarray(read_rgb(f"{path}#frame={index}")), expected[index])


def test_a_worker_starts_while_the_program_has_a_video_open(tmp_path):
    """Closing the video in the forked process waited forever for the threads of the decoder."""
    path = write_video(tmp_path / "x.avi", 12)
    expected = np.asarray(read_rgb(f"{path}#frame=3"))
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(
        target=lambda: sender.send(np.asarray(read_rgb(f"{path}#frame=3"))), daemon=True
    )
    worker.start()
    try:
        assert receiver.poll(30), "The worker hangs."
        assert np.array_equal(receiver.recv(), expected)
    finally:
        worker.kill()
    assert np.array_equal(np.asarray(read_rgb(f"{path}#frame=3")), expected)


def test_a_video_without_a_suffix_is_recognized(tmp_path):
    path = write_video(tmp_path / "x.avi", 20)
    path.rename(tmp_path / "0001")
    assert list(read_all([tmp_path / "0001"])) == [f"{tmp_path / '0001'}#t={seconds}.000" for seconds in (0, 1)]


MEASURE = """
import sys
from hf_mae.data.sources.predict_inputs import iter_inputs, iter_pixel_values
values = iter_pixel_values(
    iter_inputs(sys.argv[1:]), lambda image, return_tensors: {"pixel_values": [image.resize((32, 32))]}, 1.0, 2
)
count = sum(1 for _ in values)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(count, peak.split()[1])
"""


@pytest.mark.parametrize("suffix", ["tif", "dcm", "gif", "png"])
def test_500_frames_need_no_more_memory_than_10(tmp_path, suffix):
    """As RGB, 490 more frames would need 176 MB."""
    peaks = []
    for count in (10, 500):
        grey = np.zeros((count, 300, 400), dtype=np.uint8)
        grey += np.arange(count, dtype=np.uint8)[:, None, None]
        path = tmp_path / f"{count}.{suffix}"
        if suffix == "dcm":
            write_dicom(path, grey, frames=count)
        else:
            write_frames(path, grey)
        done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
        read, peak = map(int, done.stdout.split())
        assert read == count
        peaks.append(peak / 1024)  # MB
    assert peaks[1] < peaks[0] + 20, peaks


def test_frames_before_the_damage_are_read(tmp_path):
    path = write_frames(tmp_path / "x.gif", make_frames(6))
    path.write_bytes(path.read_bytes()[:-700])
    names = []
    with pytest.raises(ImageError):
        names += [name for name, _ in iter_named_frames("x", str(path), 1.0)]
    rows = read_all([path])
    assert isinstance(rows.get(str(path)), str) or any(isinstance(value, str) for value in rows.values())


def test_videos_in_archives_and_in_dicom_files_are_rejected_by_name(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    content = write_video(tmp_path / "a.mp4", codec="mp4v").read_bytes()
    (tmp_path / "x.tar").write_bytes(b"\0" * 512 + content)
    member = f"{tmp_path}/x.tar::512+{len(content)}"
    for read in (read_rgb, count_frames, read_single_image, lambda source: read_rgb(f"{source}#frame=1")):
        with raises(ImageMessage.VIDEO_IN_ARCHIVE, ImageError):
            read(member)
    file = pydicom.dcmread(write_dicom(tmp_path / "x.dcm", make_frames(2), "RGB", frames=2))
    file.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    file.PixelData = pydicom.encaps.encapsulate([content])
    file.save_as(tmp_path / "x.dcm")
    with raises(ImageMessage.VIDEO_IN_DICOM, ImageError):
        count_frames(str(tmp_path / "x.dcm"))
