"""Loads benchmarks as the commands do."""

import logging
from dataclasses import dataclass
from functools import cached_property

from datasets import DatasetDict

from hf_mae.data.exclusion_log import ExclusionLog, track_exclusions
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.split_loading import read_splits
from hf_mae.settings.data import DataSourceArguments


@dataclass
class LoadedBenchmark:
    """The splits, the exclusion log, and the log records of a benchmark."""

    splits: DatasetDict
    exclusion_log: ExclusionLog
    records: list[logging.LogRecord]

    @property
    def counts(self):
        return {split: len(dataset) for split, dataset in self.splits.items()}

    @property
    def groups(self):
        return {split: set(dataset["group"][:]) for split, dataset in self.splits.items()}

    @cached_property
    def protocol(self):
        """The published split with these numbers of images."""
        published = self.attributes(DataMessage.BENCHMARK_LOADED)["published"]
        return published.removeprefix("as published: ") if published.startswith("as ") else None

    @property
    def excluded(self):
        """Images by reason."""
        return {step.reason.value: step.images for step in self.exclusion_log.excluded}

    @property
    def ignored(self):
        """Counts and reasons of the ignored files, as text."""
        return self.attributes(DataMessage.FILES_IGNORED)["ignored"]

    def attributes(self, message):
        """Attributes of a logged message."""
        return next(record.attributes for record in self.records if getattr(record, "code", None) is message)


def load_benchmark(name, data_dir, *, check=None, split_files=None, **options):
    """Loads the complete splits of a benchmark; `options` are those of `DataSourceArguments`."""
    arguments = DataSourceArguments(data_dir=str(data_dir), benchmark=name, split_file=split_files, **options)
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("hf_mae")
    handler.emit = records.append
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with track_exclusions() as exclusion_log:
            return LoadedBenchmark(read_splits(arguments, check=check), exclusion_log, records)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
