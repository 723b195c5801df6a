"""Parser of benchmark files (YAML -> `Benchmark`), with one message per mistake."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml

from ...errors import UsageError, did_you_mean, summarize_exception
from ..messages import DataMessage
from ..splits import SPLITS
from .benchmarks import (
    KEY_BY_CLASS_AND_NAME,
    KEY_BY_NAME,
    Benchmark,
    PublishedResult,
    SplitCounts,
    SplitFile,
    SplitTable,
)

SCORE_PATTERN = re.compile(r"-?\d+(\.\d+)?(±\d+(\.\d+)?)?")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")


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
