"""Frames of videos at a given rate, decoded with OpenCV.

Programs that are exported contain this module, like `decoding`.
"""

import math
import os
import stat
import struct
import threading
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import Image

from .decoding import HEAD_SIZE, PLAYLIST, detect_format
from .frame_reader import check_pixel_count
from .image_error import ImageError
from .messages import ImageMessage
from .video_size import EBML_START, FLV_START, MP4_BOXES, is_cut, iter_boxes

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".m4v", ".wmv")
MAX_FPS = 1e6  # selects every frame
NUM_RECENT = 8  # frames that stay in memory, because threads read them in slightly different order
MISSING_FRACTION = 0.02  # of the declared frames that may be missing; counts in headers are often estimates
CONTAINERS = "gif,mov,matroska,webm,avi,asf,mpeg,mpegvideo,mpegts,flv,ogg,h264,hevc,m4v,mjpeg,dv,ivf,mxf,obu,wtv"
CAPTURE_OPTIONS = f"protocol_whitelist;file|format_whitelist;{CONTAINERS}"  # of FFmpeg
WITHOUT_FRAME_COUNT = (EBML_START, FLV_START)  # containers that declare a duration; OpenCV estimates the count


def is_video(path: str) -> bool:
    """Whether a file name has a video suffix."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def _open(path: str) -> Any:
    """Opens a video. OpenCV would read a relative name with a colon as a URL, and one with `%` as a list of images.

    FFmpeg decides the format by the content; `CAPTURE_OPTIONS` exclude formats that open other files or URLs.
    """
    import cv2

    options = os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS", "")
    if not options.endswith(CAPTURE_OPTIONS):
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"{options}|{CAPTURE_OPTIONS}".lstrip("|")
    return cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)


def estimate_num_frames(path: str, fps: float) -> int:
    """Estimates the number of frames that `iter_frames` yields; 0 if the file cannot be read."""
    import cv2

    if not os.path.isfile(path):
        return 0
    video = _open(path)
    try:
        rate, count = video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)
        return math.ceil(count * fps / rate) if rate > 0 and count > 0 else 0
    finally:
        video.release()


class FrameSampler:
    """Selects the frames that are nearest to each multiple of 1 / fps seconds."""

    def __init__(self, fps: float):
        self.fps, self._due, self._previous = fps, 0, 0.0

    def is_due(self, seconds: float) -> bool:
        """Whether the next frame, which starts at this time, is selected."""
        half = 0.5 * min(seconds - self._previous, 1 / self.fps) + 1e-6  # half of a frame; the next may be shorter
        self._previous = seconds
        if seconds + half < self._due / self.fps:
            return False
        self._due = math.floor((seconds + half) * self.fps) + 1
        return True


def iter_frames(path: str, fps: float) -> Iterator[tuple[float, Image.Image]]:
    """Yields the first frame, and then one frame per 1 / fps seconds: (seconds, RGB image).

    Raises:
        ImageError: If the file is not a readable video, its frames are larger than `max_pixels()`, or it breaks off
            (after the frames that can be read).
    """
    import cv2

    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError(ImageMessage.NOT_REGULAR_FILE)
    with open(path, "rb") as file:
        head = file.read(HEAD_SIZE)
        duration = _mp4_duration(file) if head[4:8] in MP4_BOXES else math.inf
        breaks_off = is_cut(file)
    if detect_format(head) == PLAYLIST:  # it would open other files or URLs
        raise ImageError(ImageMessage.VIDEO_PLAYLIST)
    video = _open(path)
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
        check_pixel_count(int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        if not video.isOpened() or not rate > 0:
            raise ImageError(ImageMessage.UNREADABLE_VIDEO)
        sampler, count, previous, longest = FrameSampler(fps), 0, 0.0, 1 / rate
        while video.grab():
            timestamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1000  # also correct at a variable rate; 0 if unknown
            seconds = timestamp if timestamp > 0 or count == 0 else count / rate
            if sampler.is_due(seconds):
                success, pixels = video.retrieve()
                if success:
                    yield seconds, Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
            count, previous, longest = count + 1, seconds, max(longest, seconds - previous)
        read = (previous + longest) * rate if count and head.startswith(WITHOUT_FRAME_COUNT) else count
        declared = math.inf if breaks_off else min(video.get(cv2.CAP_PROP_FRAME_COUNT), duration * rate)
        _check_complete(count, read, declared)
    finally:
        video.release()


class VideoFrames:
    """The frames of a video by their number. Reading them in order is fast; going back decodes the video again.

    Attributes:
        times: start of each frame in seconds, found by reading the video once.
        num_frames: number of frames.

    Raises:
        ImageError: As `iter_frames`.
    """

    def __init__(self, path: str):
        self.path, self._lock = path, threading.Lock()
        self.times = [seconds for seconds, _ in iter_frames(path, MAX_FPS)]
        self.num_frames = len(self.times)
        self._restart()

    def _restart(self) -> None:
        self._frames = enumerate(image for _, image in iter_frames(self.path, MAX_FPS))
        self._recent: dict[int, Image.Image] = {}

    def read(self, index: int, draft_size: tuple[int, int] | None = None) -> Image.Image:
        """Decodes a frame, counted from 0; `draft_size` is ignored.

        Raises:
            ImageError: If the frame does not exist.
        """
        if not 0 <= index < self.num_frames:
            raise ImageError(ImageMessage.NO_SUCH_FRAME, index=index, count=self.num_frames)
        with self._lock:
            if self._recent and index < min(self._recent):
                self._restart()
            while index not in self._recent:
                number, image = next(self._frames)
                self._recent[number] = image
                self._recent.pop(number - NUM_RECENT, None)
            return self._recent[index]


def _mp4_duration(file: IO[bytes]) -> float:
    """Returns the duration of an MP4 file in seconds, without the parts that its edit list removes (a clip that was
    trimmed by a phone contains all frames); infinity if it is not declared."""
    index = next((start for name, start, _ in iter_boxes(file) if name == b"moov"), None)
    if index is None or (movie := next(iter_boxes(file, index), None)) is None or movie[0] != b"mvhd":
        return math.inf
    file.seek(movie[1])
    header = file.read(32)
    scale, duration = struct.unpack_from(">IQ", header, 20) if header[0] else struct.unpack_from(">II", header, 12)
    return duration / scale if scale and duration else math.inf


def _check_complete(count: int, read: float, declared: float) -> None:
    """Raises `ImageError` if a video has no frames, or fewer than its header declares.

    Args:
        count: number of frames that were read.
        read: the same, or the time that they last in frames of the declared rate.
        declared: number of frames in the header, or its duration in the same unit; infinity if the end of the file is
            missing.
    """
    if count == 0:
        raise ImageError(ImageMessage.VIDEO_WITHOUT_FRAMES)
    if read < declared * (1 - MISSING_FRACTION) - 1:
        raise ImageError(ImageMessage.TRUNCATED_VIDEO, found=count)
