"""`report`: comparison of runs and published rows, with intervals and tests, and a description of the study."""

from pathlib import Path

from ..reporting.checklists import write_checklist
from ..reporting.pdf_summary import write_pdf_summary
from ..reporting.report import Report, compare, write_report
from ..reporting.study_description import write_study_description
from ..settings.benchmarks import find_benchmark
from ..settings.parse import Settings
from .command import command

PUBLISHED_ONLY_TABLES = ("imagenet-1k",)  # published rows without a benchmark


@command("report")
def report(settings: Settings) -> Report:
    """Writes a report, and for each run a description of its images and methods."""
    options = settings.options
    runs = options.runs or []
    if options.benchmark and options.benchmark not in PUBLISHED_ONLY_TABLES:
        find_benchmark(options.benchmark)
    comparison = compare(
        runs,
        benchmark=options.benchmark,
        split=options.split,
        positive=options.positive,
        operating_points=options.operating_point,
        ppv_at_recall=options.ppv_at_recall,
        prevalence=options.prevalence,
        subgroups=options.subgroups,
        manifest=options.manifest,
        min_subgroup=options.min_subgroup,
        costs=options.costs,
        non_inferiority=options.non_inferiority,
        equivalence=options.equivalence,
        annotators=options.annotators,
    )
    is_single_folder = len(runs) == 1 and Path(runs[0]).is_dir()
    folder = Path(options.output_dir or (runs[0] if is_single_folder else "report"))
    files = write_report(comparison, folder)
    for number, run in enumerate(comparison.runs, 1):
        suffix = "" if len(comparison.runs) == 1 else f"_{number}"
        files += write_study_description(run, folder, suffix, comparison.tables)
        if options.pdf:
            files.append(f"page{suffix}.pdf")
            write_pdf_summary(run, folder / files[-1])
        if options.checklist:
            files += write_checklist(run, options.checklist, folder, suffix, comparison.tables)
    return Report(comparison, folder, files)
