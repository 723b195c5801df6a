"""Frames of videos, at a given rate, through OpenCV."""

import glob
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
from PIL import Image

from .image_io import ImageError, check_pixel_count, check_regular_file

PLAYLIST_SIGNATURES = (b"#EXTM3U", b"ffconcat")  # which would open other files, or addresses
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".m4v", ".wmv")


def is_video(path: str) -> bool:
    """Whether a file is a video, by its name."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def find_videos(folder: str) -> list[str]:
    """Every video file of a folder tree, sorted."""
    return sorted(str(path) for path in Path(glob.escape(folder)).rglob("*") if is_video(path.name) and path.is_file())


def frame_name(path: str, seconds: float) -> str:
    """What a frame is called: the video and, as a media fragment, the time."""
    return f"{path}#t={seconds:.3f}"


def estimate_num_frames(path: str, fps: float) -> int:
    """About how many frames `frames` gives; 0 for a file that cannot be read."""
    if not Path(path).is_file():
        return 0
    video = cv2.VideoCapture(path)
    try:
        rate, count = video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)
        return math.ceil(count * fps / rate) if rate > 0 and count > 0 else 0
    finally:
        video.release()


def iter_frames(path: str, fps: float) -> Iterator[tuple[float, Image.Image]]:
    """The first frame, and then the first of every 1 / fps seconds: (seconds, RGB image).

    Raises:
        OSError: the file is no video that can be read, or its frames are larger than `max_pixels()`.
    """
    check_regular_file(path)
    with open(path, "rb") as file:
        if file.read(16).lstrip(b"\xef\xbb\xbf \r\n").startswith(PLAYLIST_SIGNATURES):
            raise ImageError("it is a list of videos, not a video")
    video = cv2.VideoCapture(path)
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
        check_pixel_count(int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        if not video.isOpened() or not rate > 0:
            raise OSError("no video that can be read")
        number, due, before = 0, 0, -1 / rate
        while video.grab():
            shown = video.get(cv2.CAP_PROP_POS_MSEC) / 1000  # true where the rate changes; 0 where nobody knows
            seconds = shown if shown > 0 or number == 0 else number / rate
            half = 0.5 * (seconds - before) + 1e-6  # of a frame: the nearest one counts
            if seconds + half >= due / fps:
                good, pixels = video.retrieve()
                if good:
                    yield seconds, Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
                due = math.floor((seconds + half) * fps) + 1
            number, before = number + 1, seconds
        if number == 0:
            raise OSError("it holds no frame")
    finally:
        video.release()
