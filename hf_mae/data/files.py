"""Which files are images."""

import os
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")


def image_files_below(folder: str | Path) -> list[str]:
    """Every image file of a folder tree, sorted."""
    return sorted(
        os.path.join(where, name)
        for where, _, files in os.walk(folder, followlinks=True)
        for name in files
        if name.lower().endswith(IMAGE_SUFFIXES)
    )
