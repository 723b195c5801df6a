"""Settings of datasets: source, splits, checks, transforms and pixel cache."""

import re
from dataclasses import dataclass

from ..errors import CommandLineError, UsageError
from .limits import CACHE_LIMIT_ENV, MAX_PIXELS, MAX_PIXELS_ENV
from .messages import SettingsMessage
from .options import option
from .sources import describe_sources

TRANSFORM_FAMILIES = ("endoscopy", "imagenet")
ON_BAD_IMAGE_CHOICES = ("error", "skip")
FRAMES_CHOICES = ("all", "first", "middle")
ON_MISSING_CLASS_CHOICES = ("error", "keep")
SPLIT_READINGS = ("column", "path", "archive", "none")
DATA_FINGERPRINT_HELP = (
    "Fingerprint of the images, labels and splits. The recipe.yaml of a run contains it, and a run with other data "
    "stops. A flag for other data overrides it."
)
MEAN_STD_HELP = (
    "Normalization: auto (computed from the training images), imagenet, endoscopy, or six numbers (three means, "
    "three standard deviations). Default: that of --transforms."
)


def parse_byte_size(size: str, flag: str = "--cache_limit") -> int | None:
    """Converts a size such as `200GB` to bytes (units of 1000); None for empty text.

    Raises:
        CommandLineError: If the text is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", size.strip(), flags=re.IGNORECASE)
    if not size.strip():
        return None
    if not match:
        raise CommandLineError(SettingsMessage.INVALID_SIZE, value=size, flag=flag)
    return round(float(match[1]) * float(1000 ** " KMGT".index(match[2].upper() or " ")))


@dataclass
class ImageLimitsArguments:
    """Limits of the images that are read."""

    option_group = "Data"

    max_pixels: int = option(
        MAX_PIXELS,
        f"Maximum number of pixels of an image; larger ones are rejected. Can also be set with {MAX_PIXELS_ENV} in the "
        "environment.",
        ge=1,
        hidden=True,
    )


@dataclass
class DataSourceArguments(ImageLimitsArguments):
    """The source of labelled images, their splits, and checks."""

    option_group = "Data"

    data_dir: str | None = option(None, f"The dataset: {describe_sources()}.")
    manifest: str | None = option(
        None,
        "CSV, TSV or JSONL file with the columns file_name, label and optionally split; file names are relative to "
        "DATA.",
        metavar="FILE",
        hidden=True,
    )
    benchmark: str | None = option(
        None,
        "Benchmark: a name listed by hf-mae benchmarks, or a YAML file; DATA is its archive or extracted folder.",
        metavar="NAME",
    )
    fold: int = option(1, "Official fold of the benchmark, from 1.", ge=1, hidden=True)
    agreement: str | None = option(
        None,
        "Level of annotator agreement, for a benchmark with several annotators: complete, triple, ...",
        metavar="NAME",
        hidden=True,
    )
    split_file: list[str] | None = option(
        None,
        "Local copies of the official split files (CSV) of the benchmark. Default: download them once.",
        metavar="FILE",
        hidden=True,
    )
    exclude_pairs: str | None = option(
        None,
        "CSV file of image pairs (from hf-mae audit, or published); both images of each pair are excluded.",
        metavar="FILE",
        hidden=True,
    )
    corrections: str | None = option(
        None,
        "CSV file of reviewed labels (from hf-mae audit --runs, with the column decision filled in).",
        metavar="FILE",
        hidden=True,
    )
    group_column: str | None = option(
        None,
        "Manifest column with the patient or video of an image; splits keep groups together. Default: group, if it "
        "exists.",
        metavar="COLUMN",
        hidden=True,
    )
    group_pattern: str | None = option(
        None,
        "Regular expression on file_name whose first capture group is the patient or video.",
        metavar="REGEX",
        hidden=True,
    )
    val_fraction: float = option(
        0.0,
        "Fraction of the training set held out for validation (stratified by class, grouped by patient, seeded).",
        metavar="FRACTION",
        ge=0,
        lt=1,
    )
    train_fraction: float = option(
        1.0,
        "Fraction of the training set to use (stratified, seeded; smaller fractions are subsets of larger ones).",
        metavar="FRACTION",
        gt=0,
        le=1,
        hidden=True,
    )
    selection_fraction: float = option(
        0.0,
        "Fraction of the training set held out to select the best epoch, so that the validation split is only used "
        "for evaluation.",
        metavar="FRACTION",
        ge=0,
        lt=1,
        hidden=True,
    )
    on_bad_image: str = option(
        "error",
        "error: stop at unreadable images and at images that are in two splits, and list them. skip: exclude them.",
        choices=ON_BAD_IMAGE_CHOICES,
        hidden=True,
    )
    frames: str | None = option(
        None,
        "Frames of a file with several of them (TIFF, GIF, WebP, APNG, DICOM, MetaImage, video) that become images. "
        "The file is their group. Default: such files are rejected.",
        choices=FRAMES_CHOICES,
        hidden=True,
    )
    split_from: str | None = option(
        None,
        "What states the split of an image, if several things do and they contradict each other. column: the column "
        "split. path: folders named like splits. archive: the name of the archive or table file. none: nothing; all "
        "images are training images. Default: all of them, which must agree.",
        choices=SPLIT_READINGS,
        hidden=True,
    )
    class_level: int | None = option(
        None,
        "Level of the class folders, counted from 1 below the split folders. Default: the folder of the image, or the "
        "folder above patient folders.",
        ge=1,
        hidden=True,
    )
    class_order: list[str] | None = option(
        None,
        "All classes in order, for ordinal classes (grades such as the Mayo score); sorted: alphabetical order. Adds "
        "quadratic weighted kappa, mean absolute error and one-off accuracy to the scores.",
        metavar="CLASS",
        hidden=True,
    )
    on_missing_class: str = option(
        "error",
        "error: stop if all images of a class are in one split. keep: keep such classes.",
        choices=ON_MISSING_CLASS_CHOICES,
        hidden=True,
    )
    preprocessing_num_workers: int | None = option(
        None, "Number of threads that check and decode images. Default: one per core.", ge=0, hidden=True
    )


@dataclass
class DataArguments(DataSourceArguments):
    """The source of labelled images, their transforms, and the pixel cache."""

    option_group = "Data"

    data_fingerprint: str | None = option(None, DATA_FINGERPRINT_HELP, metavar="HASH", hidden=True)
    transforms: str = option(
        "endoscopy",
        "Image transforms. endoscopy: resize to a square, flip and rotate. imagenet: random resized crops, RandAugment "
        "and random erasing, as in the original MAE code.",
        choices=TRANSFORM_FAMILIES,
    )
    mean_std: list[str] | None = option(None, MEAN_STD_HELP, metavar="VALUE", hidden=True)
    auto_augment: str = option(
        "rand-m9-mstd0.5-inc1",
        "RandAugment policy of timm, for --transforms imagenet; none turns it off.",
        metavar="POLICY",
        hidden=True,
    )
    random_erasing: float = option(
        0.25, "Probability of random erasing, for --transforms imagenet.", metavar="FRACTION", ge=0, le=1, hidden=True
    )
    cache: bool = option(
        True,
        "Cache decoded and resized images on disk, so that each image is decoded once; --no_cache turns it off.",
        hidden=True,
    )
    cache_limit: str | None = option(
        None,
        "Maximum cache size, e.g. 200GB; least recently used images are evicted. Can also be set with "
        f"{CACHE_LIMIT_ENV} in the environment. Default: free disk space.",
        metavar="SIZE",
        hidden=True,
    )
    cache_quality: int | None = option(
        None,
        "Cache training images as JPEG of this quality (e.g. 95), in about a fifth of the space; images for evaluation "
        "stay lossless. Default: lossless.",
        hidden=True,
        ge=1,
        le=100,
    )
    cache_shortest_edge: int | None = option(
        None,
        "Maximum shorter side of cached images, for --transforms imagenet, which crops before it resizes. Default: "
        "twice the image size. 0: crop from the original files.",
        ge=0,
        hidden=True,
    )

    def __post_init__(self) -> None:
        parse_byte_size(self.cache_limit or "")

    def resolve_cache_shortest_edge(self, image_size: int) -> int | None:
        """Returns `cache_shortest_edge` for an image size; None if images of the `imagenet` family are not cached."""
        if not self.cache:
            return None
        return (2 * image_size if self.cache_shortest_edge is None else self.cache_shortest_edge) or None


@dataclass
class PreparationArguments(DataArguments):
    """The data arguments of `finetune`, and the two other arguments that the cache depends on."""

    option_group = "Data"

    image_size: int = option(224, "Image size in pixels.", ge=1)
    seed: int = option(
        0, "Seed of the held-out splits; use the seed of the training run.", ge=0, le=2**32 - 1, hidden=True
    )


@dataclass
class PretrainingDataArguments(ImageLimitsArguments):
    """The source of unlabelled images."""

    option_group = "Data"

    data_dir: str | None = option(
        None, f"The images; labels are ignored: any folder of images; {describe_sources(labelled=False)}."
    )
    data_fingerprint: str | None = option(None, DATA_FINGERPRINT_HELP, metavar="HASH", hidden=True)
    transforms: str = option(
        "endoscopy",
        "Image transforms. endoscopy: crops of at least 80 % of the image and small rotations. imagenet: crops of at "
        "least 20 % and flips, as in the original MAE code.",
        choices=TRANSFORM_FAMILIES,
    )
    mean_std: list[str] | None = option(None, MEAN_STD_HELP, metavar="VALUE", hidden=True)
    exclude: list[str] | None = option(
        None,
        "Images of later evaluations, excluded to prevent train-test contamination: image files, folders, globs, or "
        "lists of file names (CSV, JSONL, TXT; LIST:SPLIT for one split, e.g. 2_fold_split.csv:1).",
        metavar="PATH",
    )
    exclude_by: list[str] = option(
        ["name", "hash"],
        "Compare excluded images by file name, by perceptual hash, or both.",
        choices=("name", "hash"),
        hidden=True,
    )
    on_bad_image: str = option(
        "error",
        "error: stop at unreadable images, and list them. skip: exclude them.",
        choices=ON_BAD_IMAGE_CHOICES,
        hidden=True,
    )
    frames: str | None = option(
        None,
        "Frames of a file with several of them (TIFF, GIF, WebP, APNG, DICOM, MetaImage, video) that become images. "
        "The file is their group. Default: such files are rejected.",
        choices=FRAMES_CHOICES,
        hidden=True,
    )
    streaming: bool = option(
        False,
        "Read archives or parquet files (folder, URL, Hub id) sequentially, without an index; for datasets larger than "
        "the disk.",
        hidden=True,
    )
    cache_quality: int | None = option(
        None, "Cache images as JPEG of this quality (e.g. 95). Default: lossless.", hidden=True, ge=1, le=100
    )
    cache_shortest_edge: int | None = option(
        None, "Cache decoded images on disk, with at most this shorter side. Default: no cache.", ge=0, hidden=True
    )
    preprocessing_num_workers: int | None = option(
        None, "Number of threads that check images. Default: one per core.", ge=0, hidden=True
    )
    reconstruction_steps: int = option(
        500, "Updates between figures of reconstructions; 0: none.", group="Output", ge=0, hidden=True
    )

    def __post_init__(self) -> None:
        if self.streaming and self.cache_shortest_edge is not None:
            raise UsageError(SettingsMessage.STREAMING_WITH_CACHE)
        if self.streaming and self.mean_std == ["auto"]:
            raise UsageError(SettingsMessage.STREAMING_WITH_AUTO_MEAN_STD)
        if self.streaming and self.exclude and "hash" in self.exclude_by:
            raise UsageError(SettingsMessage.STREAMING_WITH_HASHES)
