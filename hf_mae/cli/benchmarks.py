"""`hf-mae benchmarks`: the benchmarks that there are, and what one expects."""

from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("benchmarks")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..data.benchmarks import find_benchmark
    from ..reporting.benchmarks import benchmark_table, catalogue

    name = asked.flags.get("name")
    print(benchmark_table(name, find_benchmark(name)) if name else catalogue())
    return 0
