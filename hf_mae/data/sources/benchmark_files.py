"""Benchmarks: classes, official splits, published counts and results, licences and citations; and the parser of their
files (YAML -> `Benchmark`), with one message per mistake."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...errors import UsageError, did_you_mean, summarize_exception
from ..messages import DataMessage
from ..splits import SPLITS

SCORE_PATTERN = re.compile(r"-?\d+(\.\d+)?(±\d+(\.\d+)?)?")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
KEY_BY_NAME, KEY_BY_CLASS_AND_NAME = "name", "class and name"
SplitCounts = dict[str, int]


@dataclass(frozen=True)
class SplitFile:
    """A table of the official split, with its address and SHA-256.

    Args:
        split: the split of all its images, or the number of their half (fold 1 trains on half 1 and validates on half
            2); None if a column has it.
        fold: the fold of the file; None if it is used by all folds.
    """

    name: str
    url: str
    sha256: str
    split: str | None = None
    fold: int | None = None

    @property
    def split_or_half(self) -> str | int:
        """The split, or the number of the half."""
        return int(self.split) if self.split and self.split.isdigit() else self.split or "train"


@dataclass(frozen=True)
class SplitTable:
    """Format and columns of the split files.

    Args:
        format: `csv`, or `json by class` ({class: [file names]}).
        delimiter: delimiter of a CSV.
        name, label, split, group: column names. `label` may be a mapping from `--agreement` to a column; the default is
            its first. Rows without a label are skipped.
        splits: value of the split column -> split, or number of a half.
        columns: other columns that are kept: new name -> column.
    """

    format: str = "csv"
    delimiter: str = ","
    name: str = "file_name"
    label: str | dict[str, str] = "label"
    split: str | None = None
    splits: dict[str, str | int] = field(default_factory=dict)
    group: str | None = None
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def agreements(self) -> list[str]:
        """The valid values of `--agreement`."""
        return list(self.label) if isinstance(self.label, dict) else []

    def label_column(self, agreement: str | None) -> str:
        """Returns the column with the class of an image."""
        return self.label if isinstance(self.label, str) else self.label[agreement or self.agreements[0]]


@dataclass(frozen=True)
class PublishedResult:
    """A published row.

    Args:
        protocol: the split. The protocol of a `ranked` row is one of the benchmark's own.
        scores: score name -> percentage as printed (`86.20±0.20`).
        selected_on_eval_split: whether the epoch was selected on the evaluated images; None if not stated.
        patients_disjoint: whether no patient is in both training and evaluation; None if not stated.
    """

    method: str
    protocol: str
    scores: dict[str, str]
    source: str
    ranked: bool = False
    initialisation: str = ""
    selected_on_eval_split: bool | None = None
    patients_disjoint: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Benchmark:
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
    protocols: dict[str, list[SplitCounts]]
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    images: int = 0
    folders: dict[str, str] = field(default_factory=dict)
    image_folders: tuple[str, ...] = ()
    key: str = KEY_BY_NAME
    split_files: tuple[SplitFile, ...] = ()
    split_table: SplitTable = SplitTable()
    split_folders: dict[str, str] = field(default_factory=dict)
    test_folder: str | None = None
    folds: int = 0
    group_pattern: str | None = None
    groups_by_half: tuple[tuple[str, ...], ...] = ()
    conflicting_labels: str = "error"
    ordered: bool = False
    positive: tuple[str, ...] = ()
    guarantees: str = ""
    limitations: str = ""
    see_also: str | None = None
    published_results: tuple[PublishedResult, ...] = ()

    @property
    def keyed_by_class(self) -> bool:
        """Whether a file name alone does not identify an image."""
        return self.key == KEY_BY_CLASS_AND_NAME

    @property
    def has_split(self) -> bool:
        """Whether there is an official split."""
        return bool(self.split_files or self.split_folders)

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

    def match_protocol(self, fold: int, counts: SplitCounts) -> str | None:
        """Returns the published split with a run's numbers of images, or None.

        Args:
            fold: the fold of the run.
            counts: images per split, with the complete `train`.
        """
        names = (name for name in self.protocols if self.split_counts(fold, name) == counts)
        return next((name for name in names if "all" not in counts), None)

    def split_counts(self, fold: int, protocol: str | None = None) -> SplitCounts:
        """Returns the published numbers of images per split, for a fold."""
        counts = self.protocols[protocol or self.main_protocol]
        return counts[fold - 1 if len(counts) > 1 else 0]


def read_benchmark(path: Path) -> Benchmark:
    """Reads a benchmark from its file.

    Raises:
        UsageError: If it cannot be read, has unknown settings or values of the wrong type, or is inconsistent.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UsageError(DataMessage.BENCHMARK_UNREADABLE, path=path, reason=error.strerror) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(DataMessage.BENCHMARK_NOT_YAML, path=path, reason=summarize_exception(error)) from None
    benchmark: Benchmark = _build_dataclass(Benchmark, values, str(path))
    for check in (_check_choices, _check_classes, _check_counts, _check_split_files):
        check(benchmark, path)
    return benchmark


def _build_dataclass(cls: Any, values: Any, location: str) -> Any:
    if not isinstance(values, dict):
        raise UsageError(DataMessage.BENCHMARK_NOT_A_MAPPING, location=location, value=values)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            suggestion = did_you_mean(str(name), fields)
            raise UsageError(DataMessage.BENCHMARK_UNKNOWN_SETTING, location=location, name=name, suggestion=suggestion)
    for name, item in fields.items():
        if item.default is MISSING and item.default_factory is MISSING and name not in values:
            raise UsageError(DataMessage.BENCHMARK_MISSING_SETTING, location=location, name=name)
    return cls(**{name: _parse_setting(name, value, location) for name, value in values.items()})


def _parse_setting(name: str, value: Any, location: str) -> Any:
    if name == "split_table":
        return _build_dataclass(SplitTable, value, f"{location}, {name}")
    try:
        if name in NESTED_CLASSES:
            return tuple(
                _build_dataclass(NESTED_CLASSES[name], item, f"{location}, {name}") for item in _parse_list(value)
            )
        return SETTING_PARSERS.get(name, _parse_text)(value)
    except UsageError:  # of a nested dataclass
        raise
    except ValueError as error:
        raise UsageError(
            DataMessage.BENCHMARK_INVALID_VALUE, location=location, name=name, value=value, expected=error
        ) from None


# Parsers of settings. Each returns the value for the field, or raises ValueError with a description of valid values.


def _parse_text(value: Any) -> str:
    if isinstance(value, (list, dict, bool)) or value is None:
        raise ValueError("text")
    return str(value)


def _parse_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _parse_count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("an integer of at least 0")
    return value


def _parse_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list")
    return value


def _parse_names(value: Any) -> tuple[str, ...]:
    return tuple(map(_parse_text, _parse_list(value)))


def _parse_groups(value: Any) -> tuple[tuple[str, ...], ...]:
    return tuple(map(_parse_names, _parse_list(value)))


def _parse_mapping(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("a mapping")
    return {str(key): _parse_text(item) for key, item in value.items()}


def _parse_text_or_mapping(value: Any) -> str | dict[str, str]:
    return _parse_mapping(value) if isinstance(value, dict) else _parse_text(value)


def _parse_split_or_half(value: Any) -> str | int:
    if value not in (*SPLITS, 1, 2):
        raise ValueError(f"one of {', '.join(SPLITS)}, or the number of a half (1 or 2)")
    return value if isinstance(value, int) else str(value)


def _parse_splits(value: Any) -> dict[str, str | int]:
    if not isinstance(value, dict):
        raise ValueError("a mapping")
    return {str(key): _parse_split_or_half(item) for key, item in value.items()}


def _parse_scores(value: Any) -> dict[str, str]:
    scores = _parse_mapping(value)
    if invalid := next((score for score in scores.values() if not SCORE_PATTERN.fullmatch(score)), None):
        raise ValueError(f"percentages such as 86.20±0.20, not {invalid}")
    return scores


def _parse_protocols(value: Any) -> dict[str, list[SplitCounts]]:
    if not isinstance(value, dict) or not value:
        raise ValueError("a mapping from protocol names to numbers of images per split")
    return {
        str(name): [_parse_split_counts(item) for item in (counts if isinstance(counts, list) else [counts])]
        for name, counts in value.items()
    }


def _parse_split_counts(value: Any) -> SplitCounts:
    if not isinstance(value, dict) or any(split not in (*SPLITS, "all") for split in value):
        raise ValueError(f"numbers of images per split ({', '.join(SPLITS)}, or all)")
    return {str(split): _parse_count(count) for split, count in value.items()}


NESTED_CLASSES: dict[str, type] = {"split_files": SplitFile, "published_results": PublishedResult}
SETTING_PARSERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("classes", "image_folders", "positive"), _parse_names),
    **dict.fromkeys(("ordered", "ranked", "selected_on_eval_split", "patients_disjoint"), _parse_bool),
    **dict.fromkeys(("images", "folds", "fold"), _parse_count),
    **dict.fromkeys(("folders", "columns"), _parse_mapping),
    **dict.fromkeys(("split_folders", "splits"), _parse_splits),
    "groups_by_half": _parse_groups,
    "label": _parse_text_or_mapping,
    "protocols": _parse_protocols,
    "scores": _parse_scores,
}


# Consistency checks


def _check_choices(benchmark: Benchmark, path: Path) -> None:
    for name, value, choices in (
        ("key", benchmark.key, (KEY_BY_NAME, KEY_BY_CLASS_AND_NAME)),
        ("conflicting_labels", benchmark.conflicting_labels, ("error", "exclude")),
        ("format", benchmark.split_table.format, ("csv", "json by class")),
    ):
        if value not in choices:
            raise UsageError(
                DataMessage.BENCHMARK_INVALID_CHOICE, path=path, name=name, value=value, choices=" or ".join(choices)
            )


def _check_classes(benchmark: Benchmark, path: Path) -> None:
    if len(set(benchmark.classes)) < max(2, len(benchmark.classes)):
        raise UsageError(DataMessage.BENCHMARK_DUPLICATE_CLASSES, path=path)
    for name in (*benchmark.folders, *benchmark.positive):
        if name not in benchmark.classes:
            suggestion = did_you_mean(name, benchmark.classes)
            raise UsageError(DataMessage.BENCHMARK_UNKNOWN_CLASS, path=path, name=name, suggestion=suggestion)


def _check_counts(benchmark: Benchmark, path: Path) -> None:
    for name, counts in benchmark.protocols.items():
        if len(counts) not in (1, benchmark.folds):
            raise UsageError(
                DataMessage.BENCHMARK_FOLD_COUNTS, path=path, protocol=name, count=len(counts), folds=benchmark.folds
            )
    for row in benchmark.published_results:
        if row.ranked and row.protocol not in benchmark.protocols:
            raise UsageError(
                DataMessage.BENCHMARK_UNKNOWN_PROTOCOL, path=path, method=row.method, protocol=row.protocol
            )


def _check_split_files(benchmark: Benchmark, path: Path) -> None:
    for split_file in benchmark.split_files:
        if not SHA256_PATTERN.fullmatch(split_file.sha256):
            raise UsageError(DataMessage.BENCHMARK_INVALID_SHA256, path=path, name=split_file.name)
        if split_file.split is not None and split_file.split not in (*SPLITS, "1", "2"):
            raise UsageError(
                DataMessage.BENCHMARK_INVALID_SPLIT, path=path, name=split_file.name, split=split_file.split
            )
    if benchmark.group_pattern is not None:
        try:
            num_groups = re.compile(benchmark.group_pattern).groups
        except re.error as error:
            raise UsageError(DataMessage.BENCHMARK_INVALID_GROUP_PATTERN, path=path, reason=error) from None
        if num_groups < 1:
            raise UsageError(DataMessage.BENCHMARK_PATTERN_WITHOUT_GROUP, path=path, pattern=benchmark.group_pattern)
