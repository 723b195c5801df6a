"""Lines that several verbs print."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any


def print_report_of_benchmark(benchmark: str | None, folder: str) -> None:
    """The report beside the published rows, which a run on a benchmark leaves in its folder."""
    report = Path(folder) / "report.md"
    if benchmark and report.is_file():
        print(f"\n{report.read_text(encoding='utf-8')}")


def print_json(values: Any) -> None:
    """A result for scripts: one JSON document."""
    print(json.dumps(values, indent=2, default=str))


def print_plan(made: Any, as_json: bool) -> None:
    """A plan, for people or for scripts."""
    print_json(made.to_dict()) if as_json else print("\n".join(made.lines()))


def width() -> int | None:
    """Columns of the terminal; None: the output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
