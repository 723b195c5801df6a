"""`prepare`: checks a dataset, and decodes its images once into the cache."""

from dataclasses import dataclass

from datasets import DatasetDict

from ..data.images.cache_eviction import CacheFullError
from ..data.images.image_check import ImageCheck, hash_image_files
from ..data.images.torch_datasets import CachedPixelReader, ResizeAndCrop, cache_pixels
from ..data.images.transforms import image_processor, parse_mean_std, training_transform
from ..data.sources.samples import ImageCheckFn
from ..data.sources.split_loading import load_splits
from ..errors import UsageError
from ..reporting.console import class_table
from ..reporting.renderers import html
from ..settings.data import PreparationArguments
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage


@dataclass(frozen=True)
class PreparedData:
    """A checked and cached dataset: its splits, and the mean and standard deviation of each channel."""

    splits: DatasetDict
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def _repr_html_(self) -> str:
        """The table of classes and splits, for notebooks."""
        return html.render([class_table(self.splits)])


@command("prepare")
def prepare(settings: Settings) -> PreparedData:
    """Checks and caches a dataset for `finetune`."""
    options = settings.options
    try:
        return _prepare(options)
    except CacheFullError as error:
        raise UsageError(WorkflowMessage.PREPARED_CACHE_FULL, reason=error) from None


def _prepare(options: PreparationArguments) -> PreparedData:
    splits = load_splits(options, options.seed, check=make_caching_check(options) if options.cache else None)
    mean, std = parse_mean_std(options.mean_std, options.transforms, splits.get("train"), options.image_size)
    if options.cache:
        edge = options.resolve_cache_shortest_edge(options.image_size)
        transform = training_transform(options.transforms, options.image_size, mean, std, cache_shortest_edge=edge)
        processor = image_processor(options.transforms, options.image_size, mean, std)
        for split, dataset in splits.items():
            resize = transform.resize if split == "train" else ResizeAndCrop(processor)
            if resize is not None:
                quality = options.cache_quality if split == "train" else None
                CachedPixelReader(dataset, resize, options.preprocessing_num_workers, quality)
    return PreparedData(splits, mean, std)


def make_caching_check(options: PreparationArguments) -> ImageCheckFn:
    """Makes a check of the files that caches the decoded images, so that each file is decoded once.

    The splits of the dataset decide whether an image is cached for training or for evaluation. The cached pixels do not
    depend on mean and std.
    """
    workers, size = options.preprocessing_num_workers, options.image_size
    edge = options.resolve_cache_shortest_edge(size)
    for_training = training_transform(options.transforms, size, cache_shortest_edge=edge).resize
    for_evaluation = ResizeAndCrop(image_processor(options.transforms, size))

    def check(paths: list[str], splits: list[str]) -> ImageCheck:
        eval_rows = [row for row, split in enumerate(splits) if split != "train"]
        train_rows = [row for row, split in enumerate(splits) if split == "train"]
        eval_check = cache_pixels([paths[row] for row in eval_rows], for_evaluation, workers)
        train_paths = [paths[row] for row in train_rows]
        if for_training is None:
            train_check = hash_image_files(train_paths, workers)
        else:
            train_check = cache_pixels(train_paths, for_training, workers, options.cache_quality)
        bad: dict[int, str] = {}
        digests = [""] * len(paths)
        for rows, checked in ((train_rows, train_check), (eval_rows, eval_check)):
            bad |= {rows[index]: reason for index, reason in checked.bad.items()}
            for row, digest in zip(rows, checked.digests):
                digests[row] = digest
        return ImageCheck(dict(sorted(bad.items())), digests)

    return check
