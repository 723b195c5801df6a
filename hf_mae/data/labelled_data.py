"""Labelled data of a run: its splits, classes, and excluded images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from datasets import DatasetDict

from ..errors import UsageError
from ..settings.data import DataSourceArguments
from .exclusion_log import ExclusionLog, track_exclusions
from .fingerprint import data_fingerprint
from .messages import DataMessage
from .sources.class_order import has_ordered_classes
from .sources.split_loading import load_splits
from .splits import selection_split


@dataclass(frozen=True)
class LabelledData:
    """Labelled data of a run.

    Args:
        splits: `train`, and optionally `selection`, `validation` and `test`.
        exclusion_log: log of the excluded images.
        options: the source of the images.
    """

    splits: DatasetDict
    exclusion_log: ExclusionLog
    options: DataSourceArguments

    @property
    def class_names(self) -> list[str]:
        """Class names by class id.

        Raises:
            UsageError: If the data lacks a training split.
        """
        if "train" not in self.splits:
            path, splits = self.options.data_dir, list(self.splits)
            raise UsageError(DataMessage.TRAINING_SPLIT_MISSING, path=path, splits=splits)
        names: list[str] = self.splits["train"].features["labels"].names
        return names

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the images and labels."""
        return data_fingerprint(self.splits)

    @property
    def ordered(self) -> bool:
        """Whether the classes are grades, in the order of their ids."""
        return has_ordered_classes(self.options)

    @property
    def selection_split(self) -> str | None:
        """Split whose scores select the epoch; None: the last epoch is kept."""
        return selection_split(self.splits)


def load_labelled_data(
    options: DataSourceArguments, seed: int, model_class_names: Sequence[str] | None = None
) -> LabelledData:
    """Loads the splits of a run, and logs the excluded images.

    Args:
        options: the source of the images.
        seed: seed of the held-out splits.
        model_class_names: class names of a checkpoint, by id; their order is used if the data has the same classes.
    """
    with track_exclusions() as exclusion_log:
        names = None if model_class_names is None else list(model_class_names)
        return LabelledData(load_splits(options, seed, names), exclusion_log, options)
