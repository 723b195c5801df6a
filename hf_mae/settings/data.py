"""Which images a verb reads, and how they are prepared."""

import re
from dataclasses import dataclass

from ..errors import CommandLineError, UsageError
from .options import option

MAX_PIXELS = 89_478_485  # of an image: where Pillow begins to warn of a decompression bomb
MAX_PIXELS_ENV = "HF_MAE_MAX_PIXELS"  # of the environment: the bound for every process that reads images
CACHE_LIMIT_ENV = "HF_MAE_CACHE_LIMIT"  # of the environment: what prepared images may take on the disk
TRANSFORM_FAMILIES = ("endoscopy", "imagenet")  # of image transforms
ON_BAD_IMAGE_CHOICES = ("error", "skip")
ON_MISSING_CLASS_CHOICES = ("error", "keep")


def parse_byte_size(size: str, flag: str = "--cache_limit") -> int | None:
    """`200GB` in bytes (units of 1000); None: no size is given.

    Raises:
        CommandLineError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", size.strip(), flags=re.IGNORECASE)
    if not size.strip():
        return None
    if not found:
        raise CommandLineError(f"{flag} is a size, as 200GB or 500MB, not {size}.")
    return round(float(found[1]) * float(1000 ** " KMGT".index(found[2].upper() or " ")))


def check_jpeg_quality(quality: int | None) -> None:
    """Raises CommandLineError for a number that is no quality of a JPEG."""
    if quality is not None and not 1 <= quality <= 100:
        raise CommandLineError(f"--cache_quality is from 1 to 100, not {quality}.")


@dataclass
class ImageLimitsArguments:
    """What is read as an image."""

    max_pixels: int = option(
        MAX_PIXELS,
        f"Larger images are not decoded. ({MAX_PIXELS_ENV} in the environment says the same.)",
        group="Data",
        ge=1,
    )


@dataclass
class DataSourceArguments(ImageLimitsArguments):
    """Where labelled images are."""

    data_dir: str | None = option(
        None,
        "Folder of class folders (with train/ val/ test/ or without), a CSV/TSV/JSONL manifest, tar or zip archives "
        "(or a URL of them), or a Hub id.",
        show_in_help=True,
        group="Data",
    )
    manifest: str | None = option(
        None, "CSV, TSV or JSONL with file_name,label[,split]; names are relative to data_dir.", group="Data"
    )
    benchmark: str | None = option(
        None,
        "A benchmark (hf-mae benchmarks lists them), or a YAML file of your own; data_dir is its archive.",
        show_in_help=True,
        group="Data",
    )
    fold: int = option(1, "Official fold of a benchmark that has them, from 1.", group="Data", ge=1)
    agreement: str | None = option(
        None, "Of a benchmark with several annotators, which of them agree: complete, triple, ...", group="Data"
    )
    split_file: list[str] | None = option(
        None, "Copies of the benchmark's official CSVs; not given: downloaded once.", group="Data"
    )
    exclude_pairs: str | None = option(
        None, "CSV of image pairs (of hf-mae audit, or published); both images of each are left out.", group="Data"
    )
    corrections: str | None = option(
        None,
        "CSV of labels that were looked through (of hf-mae audit --labels, with the column decision filled).",
        group="Data",
        metavar="FILE",
    )
    group_column: str | None = option(
        None,
        "Manifest column with the patient or video of an image. Not given: group, if there is one.",
        group="Data",
    )
    group_pattern: str | None = option(
        None, "Or a regular expression on file_name, whose first group is the patient or video.", group="Data"
    )
    val_fraction: float = option(
        0.0,
        "Held-out share of the training images (stratified by class, whole groups, seeded).",
        show_in_help=True,
        group="Data",
        ge=0,
        lt=1,
    )
    train_fraction: float = option(
        1.0,
        "Share of the training images to use (stratified, seeded; a smaller share lies within a larger).",
        group="Data",
        gt=0,
        le=1,
    )
    selection_fraction: float = option(
        0.0,
        "Share of the training images that chooses the epoch, in place of the validation split.",
        group="Data",
        ge=0,
        lt=1,
    )
    on_bad_image: str = option(
        "error",
        "Stop at unreadable or duplicated files, or leave them out.",
        choices=ON_BAD_IMAGE_CHOICES,
        group="Data",
    )
    class_level: int | None = option(
        None,
        "Which folder is the class, from 1 below the splits. Not given: an image's own, or the one above patients.",
        group="Data",
        ge=1,
    )
    class_order: list[str] | None = option(
        None,
        "The classes are grades (Mayo score, ...), in this order; `sorted`: as their names sort. QWK, MAE and one-off "
        "accuracy join the scores.",
        group="Data",
    )
    on_missing_class: str = option(
        "error",
        "Stop at a class that has images in one split only, or keep it.",
        choices=ON_MISSING_CLASS_CHOICES,
        group="Data",
    )
    preprocessing_num_workers: int | None = option(
        None, "Threads that decode images. Not given: one for each core.", group="Data", ge=0
    )


@dataclass
class DataArguments(DataSourceArguments):
    """Where the images are and how they are prepared."""

    transforms: str = option(
        "endoscopy", "Family of image transforms.", choices=TRANSFORM_FAMILIES, show_in_help=True, group="Data"
    )
    mean_std: list[str] | None = option(
        None, "auto (of the training images), imagenet, endoscopy, or six numbers: mean then std.", group="Data"
    )
    auto_augment: str = option(
        "rand-m9-mstd0.5-inc1", "imagenet family: timm's RandAugment policy; none: off.", group="Data"
    )
    random_erasing: float = option(0.25, "imagenet family: probability of random erasing.", group="Data", ge=0, le=1)
    cache: bool = option(True, "Keep decoded and resized images on disk, so that each is decoded once.", group="Data")
    cache_limit: str | None = option(
        None,
        f"What all prepared images may take, as 200GB ({CACHE_LIMIT_ENV} says the same): those used longest ago "
        "go. Not given: what the disk has.",
        group="Data",
    )
    cache_quality: int | None = option(
        None,
        "Keep training images as JPEG of this quality (95, say), in about a fifth of the room; what is evaluated "
        "stays exact. Not given: their pixels.",
        group="Data",
    )
    cache_shortest_edge: int | None = option(
        None,
        "imagenet family, whose crop comes first: images are kept with their shorter side at most this, "
        "and crops are cut from those. Not given: twice the image size; 0: crops are cut from the files themselves.",
        group="Data",
        ge=0,
    )

    def __post_init__(self) -> None:
        check_jpeg_quality(self.cache_quality)

    def resolve_cache_shortest_edge(self, image_size: int) -> int | None:
        """`cache_shortest_edge` for images of a size; None: no image of the `imagenet` family is kept."""
        if not self.cache:
            return None
        return (2 * image_size if self.cache_shortest_edge is None else self.cache_shortest_edge) or None


@dataclass
class PreparationArguments(DataArguments):
    """The data arguments of `finetune`, and the two of its others that the cache depends on."""

    image_size: int = option(224, "Pixels.", show_in_help=True, group="Data", ge=1)
    seed: int = option(0, "Of held-out shares, as in training.", group="Data", ge=0, le=2**32 - 1)


@dataclass
class PretrainingDataArguments(ImageLimitsArguments):
    """Where the unlabelled images are."""

    data_dir: str | None = option(
        None,
        "A folder tree of images, tar or zip archives, parquet files (or a URL of these), or a Hub id; labels are not "
        "needed.",
        show_in_help=True,
        group="Data",
    )
    transforms: str = option(
        "endoscopy", "Family of transforms.", choices=TRANSFORM_FAMILIES, show_in_help=True, group="Data"
    )
    mean_std: list[str] | None = option(None, "As for finetune.", group="Data")
    exclude: list[str] | None = option(
        None,
        "What will be evaluated later, and so is left out: image files, folders, globs, and lists of file "
        "names (CSV, JSONL, TXT; LIST:SPLIT for one split, as in 2_fold_split.csv:1).",
        show_in_help=True,
        group="Data",
    )
    exclude_by: list[str] = option(
        ["name", "hash"],
        "How those are told: by file name, by perceptual hash.",
        choices=("name", "hash"),
        group="Data",
    )
    on_bad_image: str = option("error", "error or skip.", choices=ON_BAD_IMAGE_CHOICES, group="Data")
    streaming: bool = option(
        False,
        "Read tar or parquet files (a folder, a URL, a Hub id) one after the other as they come, without an index: for "
        "what no disk holds.",
        group="Data",
    )
    cache_quality: int | None = option(None, "Of the cache, as for finetune.", group="Data")
    cache_shortest_edge: int | None = option(
        None, "Keep images decoded on disk, their shorter side at most this; not given: no cache.", group="Data", ge=0
    )
    preprocessing_num_workers: int | None = option(None, "Threads that check the images.", group="Data", ge=0)
    reconstruction_steps: int = option(
        500, "Updates between sheets of reconstructions in the output folder; 0: none.", group="Output", ge=0
    )

    def __post_init__(self) -> None:
        check_jpeg_quality(self.cache_quality)
        if self.streaming and self.cache_shortest_edge is not None:
            raise UsageError("--streaming keeps nothing: leave out --cache_shortest_edge.")
        if self.streaming and self.mean_std == ["auto"]:
            raise UsageError("--mean_std auto looks at all images first, and --streaming at none: give six numbers.")
        if self.streaming and self.exclude and "hash" in self.exclude_by:
            raise UsageError(
                "--exclude looks at all images first, and --streaming at none: pass --exclude_by name, or pack the "
                "images with hf-mae shard and leave out --streaming."
            )
