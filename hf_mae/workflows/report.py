"""`report`: runs beside the published rows, with intervals and tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.benchmarks import BENCHMARKS
from ..errors import CommandLineError, nearest
from ..reporting.report import write_report
from ..settings.fill import fill


@dataclass(frozen=True)
class Report:
    """A report: its text as Markdown, and the folder that holds it in all forms."""

    text: str
    folder: Path


def report(**flags: Any) -> Report:
    """Writes `report.md`, `report.tex` and `report.json`; `flags` are those of `hf-mae report`."""
    (options,) = fill("report", None, **flags).parts
    runs = options.runs or []
    if not runs and not options.benchmark:
        raise CommandLineError("pass the folders of finished runs, or --benchmark for the published rows alone.")
    known = sorted({*BENCHMARKS, "imagenet-1k"})
    if options.benchmark and options.benchmark not in known:
        raise CommandLineError(
            f"there is no benchmark {options.benchmark}{nearest(options.benchmark, known)}: choose one of "
            f"{', '.join(known)}."
        )
    folder = Path(options.output_dir or (runs[0] if len(runs) == 1 else "report"))
    return Report(write_report(runs, folder, options.benchmark, options.split), folder)
