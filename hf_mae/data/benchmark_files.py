"""The file of a benchmark (YAML) -> `Benchmark`, with a sentence for each mistake."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError, did_you_mean, short_repr, summarize_exception
from .benchmarks import (
    KEY_BY_CLASS_AND_NAME,
    KEY_BY_NAME,
    Benchmark,
    PublishedResult,
    SplitCounts,
    SplitFile,
    SplitTable,
)
from .splits import SPLITS

SCORE_PATTERN = re.compile(r"-?\d+(\.\d+)?(±\d+(\.\d+)?)?")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")


def read_benchmark(path: Path) -> Benchmark:
    """A benchmark from its file.

    Raises:
        UsageError: it cannot be read, has settings that are none or of another kind, or contradicts itself.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UsageError(f"The benchmark {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"The benchmark {path} is no YAML ({summarize_exception(error)}).") from None
    benchmark: Benchmark = _build_dataclass(Benchmark, values, f"The benchmark {path}")
    for check in (_check_choices, _check_classes, _check_counts, _check_split_files):
        for mistake in check(benchmark):
            raise UsageError(f"The benchmark {path}: {mistake}.")
    return benchmark


def _build_dataclass(cls: Any, values: Any, location: str) -> Any:
    """A dataclass from a mapping."""
    if not isinstance(values, dict):
        raise UsageError(f"{location} has {short_repr(values)} where there should be settings.")
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise UsageError(f"{location} has the setting {name}, which is none{did_you_mean(str(name), fields)}.")
    for name, item in fields.items():
        if item.default is MISSING and item.default_factory is MISSING and name not in values:
            raise UsageError(f"{location} lacks {name}.")
    return cls(**{name: _parse_setting(name, value, location) for name, value in values.items()})


def _parse_setting(name: str, value: Any, location: str) -> Any:
    if name == "split_table":
        return _build_dataclass(SplitTable, value, f"{location}, {name},")
    try:
        if name in NESTED_CLASSES:
            return tuple(
                _build_dataclass(NESTED_CLASSES[name], part, f"{location}, {name},") for part in _parse_list(value)
            )
        return SETTING_PARSERS.get(name, _parse_text)(value)
    except UsageError:  # a part's own
        raise
    except ValueError as error:
        raise UsageError(f"{location} has {short_repr(value)} for {name}, which is {error}.") from None


# What a setting may be: each takes a value and returns it as its field has it, or raises what it should be.


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
        raise ValueError("a whole number of at least 0")
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
    return {str(key): _parse_text(part) for key, part in value.items()}


def _parse_text_or_mapping(value: Any) -> str | dict[str, str]:
    return _parse_mapping(value) if isinstance(value, dict) else _parse_text(value)


def _parse_split_or_half(value: Any) -> str | int:
    if value not in (*SPLITS, 1, 2):
        raise ValueError(f"one of {', '.join(SPLITS)}, or the number of a half (1 or 2)")
    return value if isinstance(value, int) else str(value)


def _parse_splits(value: Any) -> dict[str, str | int]:
    if not isinstance(value, dict):
        raise ValueError("a mapping")
    return {str(key): _parse_split_or_half(part) for key, part in value.items()}


def _parse_scores(value: Any) -> dict[str, str]:
    found = _parse_mapping(value)
    if wrong := next((score for score in found.values() if not SCORE_PATTERN.fullmatch(score)), None):
        raise ValueError(f"numbers in per cent, as 86.20±0.20 ({wrong} is none)")
    return found


def _parse_protocols(value: Any) -> dict[str, list[SplitCounts]]:
    if not isinstance(value, dict) or not value:
        raise ValueError("a mapping of names to numbers of images by split")
    return {
        str(name): [_parse_split_counts(one) for one in (of if isinstance(of, list) else [of])]
        for name, of in value.items()
    }


def _parse_split_counts(value: Any) -> SplitCounts:
    if not isinstance(value, dict) or any(split not in (*SPLITS, "all") for split in value):
        raise ValueError(f"numbers of images by split ({', '.join(SPLITS)}, or all)")
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


# What contradicts itself.


def _check_choices(benchmark: Benchmark) -> Iterator[str]:
    for name, value, known in (
        ("key", benchmark.key, (KEY_BY_NAME, KEY_BY_CLASS_AND_NAME)),
        ("conflicting_labels", benchmark.conflicting_labels, ("error", "exclude")),
        ("format", benchmark.split_table.format, ("csv", "json by class")),
    ):
        if value not in known:
            yield f"{name} is `{'` or `'.join(known)}`, not {value}"


def _check_classes(benchmark: Benchmark) -> Iterator[str]:
    if len(set(benchmark.classes)) < max(2, len(benchmark.classes)):
        yield "it needs two classes or more, each once"
    for name in (*benchmark.folders, *benchmark.positive):
        if name not in benchmark.classes:
            yield f"{name} is none of its classes{did_you_mean(name, benchmark.classes)}"


def _check_counts(benchmark: Benchmark) -> Iterator[str]:
    for name, counts in benchmark.protocols.items():
        if len(counts) not in (1, benchmark.folds):
            yield f"the protocol {name} has counts of {len(counts)} folds, and there are {benchmark.folds}"
    for row in benchmark.published_results:
        if row.ranked and row.protocol not in benchmark.protocols:
            yield f"the row {row.method} is ranked, and its protocol, {row.protocol}, is none of the benchmark's"


def _check_split_files(benchmark: Benchmark) -> Iterator[str]:
    for split_file in benchmark.split_files:
        if not SHA256_PATTERN.fullmatch(split_file.sha256):
            yield f"{split_file.name} has no SHA-256 (64 digits)"
        if split_file.split is not None and split_file.split not in (*SPLITS, "1", "2"):
            yield f"{split_file.name} is of the split {split_file.split}, which is none"
    if benchmark.group_pattern is not None:
        try:
            if re.compile(benchmark.group_pattern).groups < 1:
                yield f"group_pattern has no group in brackets: {benchmark.group_pattern}"
        except re.error as error:
            yield f"group_pattern is no regular expression ({error})"
