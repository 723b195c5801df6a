"""Frames of videos have the right times, and other files are rejected."""

import os
import struct

import cv2
import numpy as np
import pytest
from support.frame_files import boxes, move_index_to_front
from support.messages import raises

from hf_mae.data.images.image_error import ImageError
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.images.videos import MAX_FPS, FrameSampler, VideoFrames, estimate_num_frames, iter_frames
from hf_mae.settings.limits import MAX_PIXELS_ENV


def write_video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 1, (64, 64))
    writer.write(np.zeros((64, 64, 3), dtype=np.uint8))
    writer.release()
    return path


def test_the_pixel_limit_applies_to_videos(monkeypatch, tmp_path):
    monkeypatch.setenv(MAX_PIXELS_ENV, "99")
    with raises(ImageMessage.TOO_MANY_PIXELS, ImageError, limit=99):
        list(iter_frames(str(write_video(tmp_path / "x.mp4")), 1))


def test_pipes_and_playlists_are_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with raises(ImageMessage.NOT_REGULAR_FILE, ImageError):
        list(iter_frames(str(tmp_path / "pipe.mp4"), 1))
    for text in (
        "#EXTM3U\nfile:///etc/passwd\n",
        "\ufeff\n  #extm3u\nhttp://127.0.0.1/x.ts\n",
        "ffconcat version 1.0\nfile x.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\n",
        "[playlist]\nFile1=x.mp4\n",
        "<ASX version='3.0'><entry><ref href='http://127.0.0.1/x'/></entry></ASX>",
    ):
        (tmp_path / "list.mp4").write_text(text)
        with raises(ImageMessage.VIDEO_PLAYLIST, ImageError):
            list(iter_frames(str(tmp_path / "list.mp4"), 1))


def test_the_decoder_opens_no_other_file(tmp_path, monkeypatch):
    """Lists that the first bytes do not show, but that FFmpeg recognizes: behind an ID3 tag, or as XML."""
    target = write_video(tmp_path / "x.mp4")
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n".encode()
    concat = b"ffconcat version 1.0\nfile x.mp4\n"
    dash = b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation>'
    tag = b"ID3\x04\0\0\0\0\0\0"
    for options in ("", "rtsp_transport;tcp", "protocol_whitelist;file,http,tcp|format_whitelist;hls,concat"):
        monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", options)
        assert len(list(iter_frames(str(target), 1))) == 1
        for content in (tag + hls, tag + concat, dash):
            (tmp_path / "list.mp4").write_bytes(content)
            with raises(ImageMessage.UNREADABLE_VIDEO, ImageError):
                list(iter_frames(str(tmp_path / "list.mp4"), 1))
            assert estimate_num_frames(str(tmp_path / "list.mp4"), 1) == 0
        for name, content in (("list.mp4", concat), ("list.m3u8", hls)):  # FFmpeg would open these two
            (tmp_path / name).write_bytes(content)
            assert estimate_num_frames(str(tmp_path / name), 1) == 0


def test_frames_at_a_constant_rate_have_their_times(tmp_path):
    path = str(tmp_path / "x.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    for number in range(60):
        writer.write(np.full((32, 32, 3), number, dtype=np.uint8))
    writer.release()
    assert [round(seconds, 3) for seconds, _ in iter_frames(path, 2.0)] == [0.0, 0.48, 1.0, 1.48, 2.0]


def with_durations(
    data: bytes, runs: list[tuple[int, int]], path=(b"moov", b"trak", b"mdia", b"minf", b"stbl")
) -> bytes:
    """Changes the frame durations of an MP4 file: `runs` of (frames, multiple of the first duration)."""
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


@pytest.mark.parametrize("start, seconds, count", [(1, 5, 50), (0, 3, 30), (2, 2, 20), (0, 6, 60)])
@pytest.mark.parametrize("has_index_first", [False, True])
def test_a_trimmed_mp4_is_complete(tmp_path, start, seconds, count, has_index_first):
    """Phones trim a video with an edit list; the frames stay in the file."""
    path = tmp_path / "x.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for number in range(60):
        writer.write(np.full((64, 64, 3), 4 * number, dtype=np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    edits, movie, media = (content.find(name) for name in (b"elst", b"mvhd", b"mdhd"))
    movie_scale, media_scale = (struct.unpack_from(">I", content, offset + 16)[0] for offset in (movie, media))
    content[edits + 4 : edits + 24] = struct.pack(">IIIiI", 0, 1, seconds * movie_scale, start * media_scale, 1 << 16)
    content[movie + 20 : movie + 24] = struct.pack(">I", seconds * movie_scale)
    path.write_bytes(move_index_to_front(bytes(content)) if has_index_first else content)
    assert len(list(iter_frames(str(path), MAX_FPS))) == VideoFrames(str(path)).num_frames == count
    if has_index_first:
        path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
        with raises(ImageMessage.TRUNCATED_VIDEO, ImageError):
            list(iter_frames(str(path), MAX_FPS))


@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("steps", [[1.0] * 10 + [0.04] * 100, [0.04] * 100 + [1.0] * 10, [0.7, 0.1, 0.3] * 20])
def test_no_time_is_without_its_frame_when_durations_change(steps, fps):
    times = np.cumsum([0.0, *steps[:-1]])
    sampler = FrameSampler(fps)
    selected = np.array([seconds for seconds in times if sampler.is_due(seconds)])
    for due in np.arange(0, times[-1], 1 / fps):
        if np.abs(times - due).min() <= 0.1 / fps:
            assert np.abs(selected - due).min() <= 0.5 / fps + 1e-6
    assert all(np.array([sampler.is_due(seconds) for sampler in [FrameSampler(MAX_FPS)] for seconds in times]))


def test_frames_at_a_variable_rate_have_their_times(tmp_path):
    path = tmp_path / "x.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for number in range(30):
        writer.write(np.full((64, 64, 3), 8 * number, dtype=np.uint8))
    writer.release()
    path.write_bytes(with_durations(path.read_bytes(), [(20, 1), (10, 10)]))  # 2 s with 10 frames/s, then 1 frame/s
    times = [round(seconds, 2) for seconds, _ in iter_frames(str(path), 1.0)]
    assert times == [float(second) for second in range(12)]
