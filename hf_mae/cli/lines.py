"""Lines that several verbs print."""

from pathlib import Path


def print_report_of_benchmark(benchmark: str | None, folder: str) -> None:
    """The report beside the published rows, which a run on a benchmark leaves in its folder."""
    report = Path(folder) / "report.md"
    if benchmark and report.is_file():
        print(f"\n{report.read_text(encoding='utf-8')}")
