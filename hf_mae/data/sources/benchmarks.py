"""The catalogue of benchmarks, and benchmarks in files of the user.

A benchmark is a YAML file (published/benchmarks/NAME.yaml, or a user's file). `benchmark_loading` loads its images.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from ...errors import UsageError, did_you_mean
from ..messages import DataMessage
from .benchmark_files import Benchmark, read_benchmark

BENCHMARKS_DIR = Path(__file__).parents[2] / "published" / "benchmarks"


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


def find_benchmark(name: str) -> Benchmark:
    """Finds a benchmark from the catalogue or from a YAML file.

    Raises:
        UsageError: If the name is unknown or the file is invalid.
    """
    if name.endswith((".yaml", ".yml")):
        return _read_file(Path(name))
    if name not in BENCHMARKS:
        suggestion = did_you_mean(name, BENCHMARKS)
        raise UsageError(DataMessage.UNKNOWN_BENCHMARK, name=name, suggestion=suggestion, known=list(BENCHMARKS))
    return BENCHMARKS[name]


def find_benchmark_or_none(name: str | None) -> Benchmark | None:
    """Finds the benchmark of a run; None if it had none or if the file no longer exists."""
    try:
        return find_benchmark(name) if name else None
    except UsageError:
        return None


@cache
def _read_packaged(name: str) -> Benchmark:
    return _read_file(BENCHMARKS_DIR / f"{name}.yaml")


def _read_file(path: Path) -> Benchmark:
    return read_benchmark(path)
