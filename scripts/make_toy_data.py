"""Makes a small synthetic data set: `python scripts/make_toy_data.py FOLDER [--images 60] [--size 64] [--seed 0]`.

Three classes of drawings (blob, ring, folds) on a mucosa-coloured background in train/, validation/ and test/, and
unlabelled/ for pre-training. The quickstart and the tests use it; it needs no download.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("blob", "folds", "ring")


def make_texture(size: int, generator: np.random.Generator) -> np.ndarray:
    """Random shading (size, size, 1), so that two drawings of a class are not near-duplicates."""
    shade = np.zeros((size, size))
    for cells, strength in ((5, 14.0), (16, 12.0)):
        field = Image.fromarray(generator.normal(0, strength, (cells, cells)).astype(np.float32))
        shade += np.asarray(field.resize((size, size), Image.Resampling.BICUBIC))
    return shade[..., None]


def draw_image(kind: str, size: int, generator: np.random.Generator) -> Image.Image:
    """Draws an RGB image of a class with random position, scale, angle and brightness."""
    ground = np.array([190, 105, 85]) + generator.normal(0, 12, 3)
    pixels = ground + make_texture(size, generator) + generator.normal(0, 6, (size, size, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    colour = tuple(int(c) for c in (np.array([120, 40, 45]) + generator.normal(0, 10, 3)).clip(0, 255))
    centre = generator.uniform(0.35, 0.65, 2) * size
    radius = (generator.uniform(0.22, 0.34) if kind == "ring" else generator.uniform(0.12, 0.22)) * size
    box = [*(centre - radius), *(centre + radius)]
    if kind == "blob":
        pen.ellipse(box, fill=colour)
    elif kind == "ring":
        pen.ellipse(box, outline=colour, width=max(size // 12, 2))
    else:
        for offset in np.arange(-1, 2, 0.25) * size:
            pen.line(
                [(offset, 0), (offset + size * generator.uniform(0.3, 0.5), size)],
                fill=colour,
                width=max(size // 16, 1),
            )
    return image.rotate(generator.uniform(-30, 30), fillcolor=tuple(int(c) for c in ground.clip(0, 255))).filter(
        ImageFilter.GaussianBlur(size / 64)
    )


def make_toy_data(folder: Path, images: int = 60, size: int = 64, seed: int = 0) -> None:
    """Writes `images` training images per class, a third as many for validation and test, and `images` unlabelled
    ones.
    """
    generator = np.random.default_rng(seed)
    for split, count in (("train", images), ("validation", images // 3), ("test", images // 3)):
        for kind in CLASSES:
            target = folder / "labelled" / split / kind
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw_image(kind, size, generator).save(target / f"{kind}_{number:03d}.jpg", quality=90)
    target = folder / "unlabelled"
    target.mkdir(parents=True, exist_ok=True)
    for number in range(3 * images):
        draw_image(CLASSES[number % 3], size, generator).save(target / f"frame_{number:04d}.jpg", quality=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60, help="training images per class")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make_toy_data(options.folder, options.images, options.size, options.seed)
