"""Frames of videos at a given rate, decoded with OpenCV."""

import glob
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
from PIL import Image

from .image_io import ImageError, check_pixel_count, check_regular_file
from .messages import ImageMessage

PLAYLIST_SIGNATURES = (b"#EXTM3U", b"ffconcat")  # a playlist would open other files or URLs
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".m4v", ".wmv")


def is_video(path: str) -> bool:
    """Whether a file name has a video suffix."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def find_videos(folder: str) -> list[str]:
    """Lists the video files of a folder tree, sorted."""
    return sorted(str(path) for path in Path(glob.escape(folder)).rglob("*") if is_video(path.name) and path.is_file())


def frame_name(path: str, seconds: float) -> str:
    """Returns the name of a frame: the video, and the time as a media fragment."""
    return f"{path}#t={seconds:.3f}"


def estimate_num_frames(path: str, fps: float) -> int:
    """Estimates the number of frames that `iter_frames` yields; 0 if the file cannot be read."""
    if not Path(path).is_file():
        return 0
    video = cv2.VideoCapture(path)
    try:
        rate, count = video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)
        return math.ceil(count * fps / rate) if rate > 0 and count > 0 else 0
    finally:
        video.release()


def iter_frames(path: str, fps: float) -> Iterator[tuple[float, Image.Image]]:
    """Yields the first frame, and then one frame per 1 / fps seconds: (seconds, RGB image).

    Raises:
        OSError: If the file is not a readable video, or its frames are larger than `max_pixels()`.
    """
    check_regular_file(path)
    with open(path, "rb") as file:
        if file.read(16).lstrip(b"\xef\xbb\xbf \r\n").startswith(PLAYLIST_SIGNATURES):
            raise ImageError(ImageMessage.VIDEO_PLAYLIST)
    video = cv2.VideoCapture(path)
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
        check_pixel_count(int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        if not video.isOpened() or not rate > 0:
            raise ImageError(ImageMessage.UNREADABLE_VIDEO)
        frame_index, due, previous = 0, 0, -1 / rate
        while video.grab():
            timestamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1000  # also correct at a variable rate; 0 if unknown
            seconds = timestamp if timestamp > 0 or frame_index == 0 else frame_index / rate
            half = 0.5 * (seconds - previous) + 1e-6  # half a frame: the nearest frame is selected
            if seconds + half >= due / fps:
                success, pixels = video.retrieve()
                if success:
                    yield seconds, Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
                due = math.floor((seconds + half) * fps) + 1
            frame_index, previous = frame_index + 1, seconds
        if frame_index == 0:
            raise ImageError(ImageMessage.VIDEO_WITHOUT_FRAMES)
    finally:
        video.release()
