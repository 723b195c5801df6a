"""Benchmarks: classes, official splits, published counts and results, licences and citations.

A benchmark is a YAML file (published/benchmarks/NAME.yaml, or a file of the user). `data.sources.benchmark` reads its
images.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ..errors import CommandLineError, did_you_mean, summarize_exception
from .messages import SettingsMessage
from .yaml_files import TEXT_LOADER, read_yaml

BENCHMARKS_DIR = Path(__file__).parents[1] / "published" / "benchmarks"
Split = Literal["train", "validation", "test"]
SplitOrHalf = Literal["train", "validation", "test", "1", "2"]  # fold 1 trains on half 1 and validates on half 2
SplitCounts = dict[Annotated[str, Meta(pattern="^(train|validation|test|all)$")], Annotated[int, Meta(ge=0)]]
Score = Annotated[str, Meta(pattern=r"^-?\d+(\.\d+)?(±\d+(\.\d+)?)?$")]


class SplitFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the official split, with its address and SHA-256.

    Args:
        split: the split of all its images, or the number of their half; None if a column has it.
        fold: the fold of the file; None if it is used by all folds.
    """

    name: str
    url: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    split: SplitOrHalf | None = None
    fold: int | None = None


class SplitTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Format and columns of the split files.

    Args:
        format: `csv`, or `json by class` ({class: [file names]}).
        delimiter: delimiter of a CSV.
        name, label, split, group: column names. `label` may be a mapping from `--agreement` to a column; the default is
            its first. Rows without a label are skipped.
        splits: value of the split column -> split, or number of a half.
        columns: other columns that are kept: new name -> column.
    """

    format: Literal["csv", "json by class"] = "csv"
    delimiter: str = ","
    name: str = "file_name"
    label: str | dict[str, str] = "label"
    split: str | None = None
    splits: dict[str, SplitOrHalf] = {}
    group: str | None = None
    columns: dict[str, str] = {}

    @property
    def agreements(self) -> list[str]:
        """The valid values of `--agreement`."""
        return list(self.label) if isinstance(self.label, dict) else []

    def label_column(self, agreement: str | None) -> str:
        """Returns the column with the class of an image."""
        return self.label if isinstance(self.label, str) else self.label[agreement or self.agreements[0]]


class PublishedResult(Struct, frozen=True, forbid_unknown_fields=True):
    """A published row.

    Args:
        protocol: the split. The protocol of a `ranked` row is one of the benchmark's own.
        scores: score name -> percentage as printed (`86.20±0.20`).
        selected_on_eval_split: whether the epoch was selected on the evaluated images; None if not stated.
        patients_disjoint: whether no patient is in both training and evaluation; None if not stated.
    """

    method: str
    protocol: str
    scores: dict[str, Score]
    source: str
    ranked: bool = False
    initialisation: str = ""
    selected_on_eval_split: bool | None = None
    patients_disjoint: bool | None = None
    note: str = ""


class Benchmark(Struct, frozen=True, forbid_unknown_fields=True):
    """One classification task on one archive.

    Args:
        title: one line for tables.
        classes: in the order of their ids; grades from the lowest to the highest.
        protocols: name of a split -> numbers of images per split (`all` without an official split), for each fold.
        homepage, licence, citation: of the dataset.
        images: number of images in the complete archive.
        folders: class -> folder of the archive, if they differ.
        image_folders: names of folders; if the archive has any of them, images elsewhere are ignored.
        key: what identifies an image: its file name, or its class folder and file name.
        split_files, split_table: the official split, if it is published as tables.
        split_folders: folder -> split, if the folders define the split.
        test_folder: folder whose class folders are the test split.
        folds: number of official folds; 0 for a single split or none.
        group_pattern: regular expression on the file stem; its first group is the patient or video.
        groups_by_half: patients or videos of each half, in place of the official halves.
        conflicting_labels: for images with two labels in the split files: `error`, or `exclude`.
        ordered: whether the classes are grades.
        positive: positive classes of the published binary task.
        guarantees, limitations: properties of the split.
        see_also: another benchmark with the same images, for comparison.
        published_results: published scores.
    """

    title: str
    classes: tuple[str, ...]
    protocols: Annotated[dict[str, list[SplitCounts] | SplitCounts], Meta(min_length=1)]
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    images: int = 0
    folders: dict[str, str] = {}
    image_folders: tuple[str, ...] = ()
    key: Literal["name", "class and name"] = "name"
    split_files: tuple[SplitFile, ...] = ()
    split_table: SplitTable = SplitTable()
    split_folders: dict[str, Split] = {}
    test_folder: str | None = None
    folds: Annotated[int, Meta(ge=0)] = 0
    group_pattern: str | None = None
    groups_by_half: tuple[tuple[str, ...], ...] = ()
    conflicting_labels: Literal["error", "exclude"] = "error"
    ordered: bool = False
    positive: tuple[str, ...] = ()
    guarantees: str = ""
    limitations: str = ""
    see_also: str | None = None
    published_results: tuple[PublishedResult, ...] = ()

    @property
    def keyed_by_class(self) -> bool:
        """Whether a file name alone does not identify an image."""
        return self.key == "class and name"

    @property
    def has_split(self) -> bool:
        """Whether there is an official split."""
        return bool(self.split_files or self.split_folders)

    @property
    def has_groups(self) -> bool:
        """Whether it states the patients or videos."""
        return bool(self.group_pattern or self.split_table.group)

    @property
    def main_protocol(self) -> str:
        """The first protocol."""
        return next(iter(self.protocols))

    @property
    def eval_split(self) -> str:
        """The split of published results: the test split if there is one, otherwise the validation split."""
        return "test" if "test" in self.split_counts(1) else "validation"

    def class_folder(self, class_name: str) -> str:
        """Returns the folder of a class in the archive."""
        return self.folders.get(class_name, class_name)

    def fold_counts(self, protocol: str) -> list[SplitCounts]:
        """Returns the published numbers of images per split, for each fold (or one for all folds)."""
        counts = self.protocols[protocol]
        return counts if isinstance(counts, list) else [counts]

    def split_counts(self, fold: int, protocol: str | None = None) -> SplitCounts:
        """Returns the published numbers of images per split, for a fold; by default of the first protocol."""
        counts = self.fold_counts(protocol or self.main_protocol)
        return counts[fold - 1 if len(counts) > 1 else 0]

    def match_protocol(self, fold: int, counts: Mapping[str, int]) -> str | None:
        """Returns the published split with a run's numbers of images, or None.

        Args:
            fold: the fold of the run.
            counts: images per split, with the complete `train`; `all` for a benchmark without an official split.
        """
        return next((name for name in self.protocols if self.split_counts(fold, name) == counts), None)


class Catalogue(Mapping[str, Benchmark]):
    """The benchmarks of the package by name; each file is read at its first use."""

    def __getitem__(self, name: str) -> Benchmark:
        if name not in self._names():
            raise KeyError(name)
        return _read_packaged(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    @staticmethod
    @cache
    def _names() -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in BENCHMARKS_DIR.glob("*.yaml")))


BENCHMARKS = Catalogue()


@cache
def _read_packaged(name: str) -> Benchmark:
    return read_benchmark(BENCHMARKS_DIR / f"{name}.yaml")


def find_benchmark(name: str) -> Benchmark:
    """Finds a benchmark from the catalogue or from a YAML file.

    Raises:
        CommandLineError: If the name is unknown or the file is invalid.
    """
    if name.endswith((".yaml", ".yml")):
        return read_benchmark(Path(name))
    if name not in BENCHMARKS:
        suggestion = did_you_mean(name, BENCHMARKS)
        raise CommandLineError(
            SettingsMessage.UNKNOWN_BENCHMARK, name=name, suggestion=suggestion, known=list(BENCHMARKS)
        )
    return BENCHMARKS[name]


def find_benchmark_or_none(name: str | None) -> Benchmark | None:
    """Finds the benchmark of a run; None if it had none or if the file no longer exists."""
    try:
        return find_benchmark(name) if name else None
    except CommandLineError:
        return None


def read_benchmark(path: Path) -> Benchmark:
    """Reads a benchmark from its file.

    Raises:
        CommandLineError: If it cannot be read, has unknown settings or values of the wrong type, or is inconsistent.
    """
    values = read_yaml(path, TEXT_LOADER)  # as printed
    try:
        benchmark = msgspec.convert(values, Benchmark, strict=False)
    except msgspec.ValidationError as error:
        reason = summarize_exception(error)
        raise CommandLineError(SettingsMessage.BENCHMARK_INVALID, path=path, reason=reason) from None
    _check_classes(benchmark, path)
    _check_counts(benchmark, path)
    _check_group_pattern(benchmark, path)
    return benchmark


def _check_classes(benchmark: Benchmark, path: Path) -> None:
    if len(set(benchmark.classes)) < max(2, len(benchmark.classes)):
        raise CommandLineError(SettingsMessage.BENCHMARK_DUPLICATE_CLASSES, path=path)
    for name in (*benchmark.folders, *benchmark.positive):
        if name not in benchmark.classes:
            suggestion = did_you_mean(name, benchmark.classes)
            raise CommandLineError(SettingsMessage.BENCHMARK_UNKNOWN_CLASS, path=path, name=name, suggestion=suggestion)


def _check_counts(benchmark: Benchmark, path: Path) -> None:
    for name in benchmark.protocols:
        if (count := len(benchmark.fold_counts(name))) not in (1, benchmark.folds):
            raise CommandLineError(
                SettingsMessage.BENCHMARK_FOLD_COUNTS, path=path, protocol=name, count=count, folds=benchmark.folds
            )
    for row in benchmark.published_results:
        if row.ranked and row.protocol not in benchmark.protocols:
            raise CommandLineError(
                SettingsMessage.BENCHMARK_UNKNOWN_PROTOCOL, path=path, method=row.method, protocol=row.protocol
            )


def _check_group_pattern(benchmark: Benchmark, path: Path) -> None:
    pattern = benchmark.group_pattern
    try:
        reason = None if pattern is None or re.compile(pattern).groups else "it has no capture group"
    except re.error as error:
        reason = str(error)
    if reason:
        raise CommandLineError(
            SettingsMessage.BENCHMARK_INVALID_GROUP_PATTERN, path=path, pattern=pattern, reason=reason
        )
