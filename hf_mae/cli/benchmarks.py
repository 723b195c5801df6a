"""`hf-mae benchmarks`: the benchmarks that there are, and what one expects."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("benchmarks")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..data.benchmarks import find_benchmark
    from ..reporting.benchmark_tables import format_benchmark, format_benchmark_list

    name = asked.flags.get("name")
    print(format_benchmark(name, find_benchmark(name)) if name else format_benchmark_list())
    return 0
