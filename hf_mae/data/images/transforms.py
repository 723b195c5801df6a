"""Two families of image transforms, each identical to its source, and the image processors with the same evaluation.

`imagenet`: `build_transform` in util/datasets.py of facebookresearch/mae (timm's `create_transform`; evaluation:
Resize(256) + CenterCrop(224), bicubic). `endoscopy`: the transforms of the published endoscopy fine-tuning
(torchvision's Resize to a square, bilinear; both flips; rotation by up to 90 degrees; evaluation: resize only).
The processor's pixels equal those of the source, except for differences of one grey level in some pixels (the processor
resizes a tensor, the sources a PIL image). If half the margin of the centre crop is not an integer, the crop may be
shifted by one pixel. A transform has a deterministic part (`resize`, cached as uint8) and a random part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ...compat.timm import patch_posterize
from ...conversion.preprocessing import BILINEAR, IMAGENET_MEAN, IMAGENET_STD, mae_image_processor
from ...errors import UsageError
from .gpu_augment import FlipsAndRotation
from .image_io import read_rgb
from .messages import ImageMessage
from .processors import get_processor_settings

ENDOSCOPY_MEAN, ENDOSCOPY_STD = (0.5575, 0.3902, 0.3250), (0.2522, 0.1944, 0.1745)
STATISTICS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "endoscopy": (ENDOSCOPY_MEAN, ENDOSCOPY_STD)}
FAMILIES = tuple(STATISTICS)


@dataclass(frozen=True)
class TrainingTransform:
    """`augment(resize(image))` is the training transform; without a deterministic first step, `resize=None`."""

    name: str
    resize: Any  # PIL image -> PIL image, or None
    augment: Callable[[Image.Image], Any]  # -> float32 (3, size, size)
    batch_augment: FlipsAndRotation | None = None  # the same as `augment`, for uint8 batches


@dataclass(frozen=True)
class SquareResize:
    """torchvision's `Resize((size, size))` on a PIL image: bilinear. A class can be pickled for worker processes."""

    size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resizes a PIL image."""
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class BoundedResize:
    """Shrinks an image so that its shorter side is `shortest_edge` (bicubic); does not change smaller images."""

    shortest_edge: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resizes a PIL image."""
        if min(image.size) <= self.shortest_edge:
            return image
        scale = self.shortest_edge / min(image.size)
        width, height = (max(round(side * scale), self.shortest_edge) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)


def training_transform(
    family: str,
    image_size: int,
    mean=None,
    std=None,
    *,
    auto_augment: str | None = "rand-m9-mstd0.5-inc1",
    random_erasing: float = 0.25,
    cache_shortest_edge: int | None = None,
) -> TrainingTransform:
    """Builds the training transform of a family: PIL RGB image -> normalised float32 (3, image_size, image_size).

    Args:
        family: `endoscopy` or `imagenet`.
        image_size: side of the square output.
        mean, std: of the channels; default: those of the family.
        auto_augment, random_erasing: only for `imagenet`.
        cache_shortest_edge: as in `pretraining_transform`; only for `imagenet`.
    """
    from torchvision import transforms

    mean, std = (mean, std) if mean is not None else STATISTICS[_check_family(family)]
    if family == "endoscopy":
        augment = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomRotation(90),
                transforms.ToTensor(),
                transforms.Normalize(list(mean), list(std)),
            ]
        )
        batch = FlipsAndRotation(tuple(mean), tuple(std), degrees=90)
        return TrainingTransform(family, SquareResize(image_size), augment, batch)
    from timm.data import create_transform

    augment = create_transform(
        input_size=image_size,
        is_training=True,
        color_jitter=None,  # type: ignore[arg-type]  # as in the original code
        auto_augment=None if auto_augment in (None, "none") else auto_augment,
        interpolation="bicubic",
        re_prob=random_erasing,
        re_mode="pixel",
        re_count=1,
        mean=tuple(mean),
        std=tuple(std),
    )
    patch_posterize(augment)
    return TrainingTransform(family, BoundedResize(cache_shortest_edge) if cache_shortest_edge else None, augment)


def pretraining_transform(
    family: str, image_size: int, mean=None, std=None, *, cache_shortest_edge: int | None = None
) -> TrainingTransform:
    """Builds the transform of masked pre-training: RandomResizedCrop(0.2, 1.0) and a flip for `imagenet`
    (main_pretrain.py), a crop of at least 0.8 and a rotation by up to 10 degrees for `endoscopy`.

    Args:
        family: `endoscopy` or `imagenet`.
        image_size: side of the square output.
        mean, std: of the channels; default: those of the family.
        cache_shortest_edge: cache decoded images, shrunk so that the shorter side is at most this. Larger images lose
            resolution. None: the crops are computed from the original image.
    """
    from torchvision import transforms

    mean, std = (mean, std) if mean is not None else STATISTICS[_check_family(family)]
    bicubic = transforms.InterpolationMode.BICUBIC
    if family == "endoscopy":
        steps = [
            transforms.RandomResizedCrop(image_size, scale=(0.8, 1.0), interpolation=bicubic),
            transforms.RandomRotation(10),
        ]
    else:
        steps = [
            transforms.RandomResizedCrop(image_size, scale=(0.2, 1.0), interpolation=bicubic),
            transforms.RandomHorizontalFlip(),
        ]
    steps += [transforms.ToTensor(), transforms.Normalize(list(mean), list(std))]
    resize = BoundedResize(cache_shortest_edge) if cache_shortest_edge else None
    return TrainingTransform(f"{family}-pretraining", resize, transforms.Compose(steps))


def image_processor(family: str, image_size: int, mean=None, std=None):
    """Builds the image processor with the evaluation preprocessing of a family, which `pipeline()` applies, too."""
    from transformers import ViTImageProcessor

    mean, std = (mean, std) if mean is not None else STATISTICS[_check_family(family)]
    if family == "imagenet":
        return mae_image_processor(image_size, mean, std)
    return ViTImageProcessor(
        do_convert_rgb=True,
        do_resize=True,
        size={"height": image_size, "width": image_size},
        resample=BILINEAR,
        do_center_crop=False,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(mean),
        image_std=list(std),
    )


def training_transform_from_processor(processor: Any) -> TrainingTransform:
    """Builds the training transform that matches an image processor: `imagenet` if it has a centre crop, otherwise
    `endoscopy`; with the size, mean and standard deviation of the processor."""
    settings = get_processor_settings(processor)
    family = "imagenet" if settings.get("do_center_crop") else "endoscopy"
    size = settings["crop_size"]["height"] if family == "imagenet" else settings["size"]["height"]
    return training_transform(family, size, settings["image_mean"], settings["image_std"])


def _check_family(family: str) -> str:
    if family not in FAMILIES:
        raise UsageError(ImageMessage.UNKNOWN_TRANSFORMS, family=family, families=FAMILIES)
    return family


def parse_mean_std(value: list[str] | str | None, family: str, dataset: Any, image_size: int):
    """Parses `--mean_std` into mean and standard deviation of the channels; `auto` measures the training images.

    Args:
        value: None (those of the family), `auto`, `imagenet`, `endoscopy`, or six numbers.
        family: `endoscopy` or `imagenet`.
        dataset: the training images, with an `image` column.
        image_size: size of the images for `auto`.
    """
    words = [value] if isinstance(value, str) else list(value or [family])
    if words == ["auto"]:
        return measure_mean_std(dataset, image_size)
    if len(words) == 1 and words[0] in STATISTICS:
        return STATISTICS[words[0]]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 6 or min(numbers[3:]) <= 0:
        raise UsageError(ImageMessage.INVALID_MEAN_STD, value=" ".join(map(str, words)))
    return tuple(numbers[:3]), tuple(numbers[3:])


def measure_mean_std(dataset: Any, image_size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measures mean and standard deviation of each channel in [0, 1], over all pixels of the resized images."""
    from datasets import Image as ImageColumn

    resize, count = SquareResize(image_size), 0
    total, squares = np.zeros(3), np.zeros(3)
    undecoded = dataset.select_columns(["image"]).cast_column("image", ImageColumn(decode=False))
    for row in tqdm(undecoded, desc="Measuring mean and std", unit="image", delay=1):
        pixels = np.asarray(resize(read_rgb(row["image"])), dtype=np.float64).reshape(-1, 3) / 255
        total, squares, count = total + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
    if count == 0:
        raise UsageError(ImageMessage.MEAN_STD_WITHOUT_IMAGES)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return tuple(np.round(mean, 4).tolist()), tuple(np.round(std, 4).tolist())
