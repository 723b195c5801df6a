"""`benchmarks`: looks up the benchmarks."""

from ..settings.benchmarks import BENCHMARKS, Benchmark, find_benchmark
from ..settings.parse import Settings
from .command import command


@command("benchmarks")
def benchmarks(settings: Settings) -> dict[str, Benchmark]:
    """Looks up the benchmarks by name, or the one of a name or YAML file."""
    name = settings.options.name
    return {name: find_benchmark(name)} if name else dict(BENCHMARKS.items())
