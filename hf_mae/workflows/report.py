"""`report`: runs beside the published rows, with intervals and tests, and the study that they are of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.benchmarks import find_benchmark
from ..errors import CommandLineError
from ..reporting.checklists import write_checklist
from ..reporting.pdf_summary import write_pdf_summary
from ..reporting.report import Comparison, compare, write_report
from ..reporting.study_description import write_study_description
from ..settings.parse import parse_settings

PUBLISHED_ONLY_TABLES = ("imagenet-1k",)  # published rows without a benchmark of their own


@dataclass(frozen=True)
class Report:
    """A report.

    Args:
        comparison: every number of it.
        folder: that holds it in all forms.
        files: names of files there.
    """

    comparison: Comparison
    folder: Path
    files: list[str]

    def summary(self) -> str:
        """What a screen shows: of several runs, the tables and comparisons alone."""
        if len(self.comparison.runs) == 1:
            return self.comparison.summary()
        text = self.comparison.summary(details=False)
        return f"{text}\nEach run by itself (classes, patients, operating points, subgroups): report.md.\n"

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return self.comparison.to_html()


def report(**flags: Any) -> Report:
    """Writes a report, and what a paper says of each run's images and methods; `flags` are those of `hf-mae report`."""
    (options,) = parse_settings("report", None, **flags).arguments
    runs = options.runs or []
    if not runs and not options.benchmark:
        raise CommandLineError("pass the folders of finished runs, or --benchmark for the published rows alone.")
    if options.benchmark and options.benchmark not in PUBLISHED_ONLY_TABLES:
        find_benchmark(options.benchmark)
    if options.checklist and not runs:
        raise CommandLineError("--checklist is of a run: pass its folder.")
    found = compare(
        runs,
        benchmark=options.benchmark,
        split=options.split,
        positive=options.positive,
        operating_points=options.operating_point or (),
        prevalence=options.prevalence,
        subgroups=options.subgroups or (),
        manifest=options.manifest,
        min_subgroup=options.min_subgroup,
    )
    folder = Path(options.output_dir or (runs[0] if len(runs) == 1 else "report"))
    written = write_report(found, folder)
    for number, run in enumerate(found.runs, 1):
        which = "" if len(found.runs) == 1 else f"_{number}"
        written += write_study_description(run, folder, which)
        if options.pdf:
            write_pdf_summary(run, folder / f"page{which}.pdf")
            written.append(f"page{which}.pdf")
        if options.checklist:
            written += write_checklist(run, options.checklist, folder, which)
    return Report(found, folder, written)
