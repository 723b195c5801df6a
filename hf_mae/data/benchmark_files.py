"""The file of a benchmark (YAML) -> `Benchmark`, with a sentence for each mistake."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError, nearest, one_line, shown
from .benchmarks import BY_CLASS_AND_NAME, BY_NAME, Benchmark, Counts, Published, SplitFile, SplitTable
from .splits import SPLITS

SCORE = re.compile(r"-?\d+(\.\d+)?(±\d+(\.\d+)?)?")
SHA256 = re.compile(r"[0-9a-f]{64}")


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
        raise UsageError(f"The benchmark {path} is no YAML ({one_line(error)}).") from None
    benchmark: Benchmark = _filled(Benchmark, values, f"The benchmark {path}")
    for check in (_words, _classes, _counts, _tables):
        for mistake in check(benchmark):
            raise UsageError(f"The benchmark {path}: {mistake}.")
    return benchmark


def _filled(kind: Any, values: Any, where: str) -> Any:
    """A dataclass from a mapping."""
    if not isinstance(values, dict):
        raise UsageError(f"{where} has {shown(values)} where there should be settings.")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise UsageError(f"{where} has the setting {name}, which is none{nearest(str(name), fields)}.")
    for name, item in fields.items():
        if item.default is MISSING and item.default_factory is MISSING and name not in values:
            raise UsageError(f"{where} lacks {name}.")
    return kind(**{name: _part(name, value, where) for name, value in values.items()})


def _part(name: str, value: Any, where: str) -> Any:
    if name == "split_table":
        return _filled(SplitTable, value, f"{where}, {name},")
    try:
        if name in PARTS:
            return tuple(_filled(PARTS[name], part, f"{where}, {name},") for part in _list(value))
        return KINDS.get(name, _text)(value)
    except UsageError:  # a part's own
        raise
    except ValueError as error:
        raise UsageError(f"{where} has {shown(value)} for {name}, which is {error}.") from None


# What a setting may be: each takes a value and returns it as its field has it, or raises what it should be.


def _text(value: Any) -> str:
    if isinstance(value, (list, dict, bool)) or value is None:
        raise ValueError("text")
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number of at least 0")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list")
    return value


def _names(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(value)))


def _groups(value: Any) -> tuple[tuple[str, ...], ...]:
    return tuple(map(_names, _list(value)))


def _mapping(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("a mapping")
    return {str(key): _text(part) for key, part in value.items()}


def _text_or_mapping(value: Any) -> str | dict[str, str]:
    return _mapping(value) if isinstance(value, dict) else _text(value)


def _split_or_half(value: Any) -> str | int:
    if value not in (*SPLITS, 1, 2):
        raise ValueError(f"one of {', '.join(SPLITS)}, or the number of a half (1 or 2)")
    return value if isinstance(value, int) else str(value)


def _splits(value: Any) -> dict[str, str | int]:
    if not isinstance(value, dict):
        raise ValueError("a mapping")
    return {str(key): _split_or_half(part) for key, part in value.items()}


def _scores(value: Any) -> dict[str, str]:
    found = _mapping(value)
    if wrong := next((score for score in found.values() if not SCORE.fullmatch(score)), None):
        raise ValueError(f"numbers in per cent, as 86.20±0.20 ({wrong} is none)")
    return found


def _protocols(value: Any) -> dict[str, list[Counts]]:
    if not isinstance(value, dict) or not value:
        raise ValueError("a mapping of names to numbers of images by split")
    return {
        str(name): [_one_count(one) for one in (of if isinstance(of, list) else [of])] for name, of in value.items()
    }


def _one_count(value: Any) -> Counts:
    if not isinstance(value, dict) or any(split not in (*SPLITS, "all") for split in value):
        raise ValueError(f"numbers of images by split ({', '.join(SPLITS)}, or all)")
    return {str(split): _number(count) for split, count in value.items()}


PARTS: dict[str, type] = {"split_files": SplitFile, "published": Published}
KINDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("classes", "folders_of_images", "positive"), _names),
    **dict.fromkeys(("ordered", "ranked", "chosen_on_evaluated", "patients_apart"), _flag),
    **dict.fromkeys(("images", "folds", "fold"), _number),
    **dict.fromkeys(("folders", "columns"), _mapping),
    **dict.fromkeys(("split_folders", "splits"), _splits),
    "fold_of_group": _groups,
    "label": _text_or_mapping,
    "protocols": _protocols,
    "scores": _scores,
}


# What contradicts itself.


def _words(benchmark: Benchmark) -> Iterator[str]:
    for name, value, known in (
        ("key", benchmark.key, (BY_NAME, BY_CLASS_AND_NAME)),
        ("two_labels", benchmark.two_labels, ("refused", "left out")),
        ("format", benchmark.split_table.format, ("csv", "json by class")),
    ):
        if value not in known:
            yield f"{name} is `{'` or `'.join(known)}`, not {value}"


def _classes(benchmark: Benchmark) -> Iterator[str]:
    if len(set(benchmark.classes)) < max(2, len(benchmark.classes)):
        yield "it needs two classes or more, each once"
    for name in (*benchmark.folders, *benchmark.positive):
        if name not in benchmark.classes:
            yield f"{name} is none of its classes{nearest(name, benchmark.classes)}"


def _counts(benchmark: Benchmark) -> Iterator[str]:
    for name, counts in benchmark.protocols.items():
        if len(counts) not in (1, benchmark.folds):
            yield f"the protocol {name} has counts of {len(counts)} folds, and there are {benchmark.folds}"
    for row in benchmark.published:
        if row.ranked and row.protocol not in benchmark.protocols:
            yield f"the row {row.method} is ranked, and its protocol, {row.protocol}, is none of the benchmark's"


def _tables(benchmark: Benchmark) -> Iterator[str]:
    for split_file in benchmark.split_files:
        if not SHA256.fullmatch(split_file.sha256):
            yield f"{split_file.name} has no SHA-256 (64 digits)"
        if split_file.split is not None and split_file.split not in (*SPLITS, "1", "2"):
            yield f"{split_file.name} is of the split {split_file.split}, which is none"
    if benchmark.group_pattern is not None:
        try:
            if re.compile(benchmark.group_pattern).groups < 1:
                yield f"group_pattern has no group in brackets: {benchmark.group_pattern}"
        except re.error as error:
            yield f"group_pattern is no regular expression ({error})"
