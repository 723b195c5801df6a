"""A report: what finished runs come to beside each other, as attributes, and on disk (`report.md`, `.tex`, `.json`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..evaluation.operating_points import ThresholdRule
from ..files.atomic import write_json
from ..runs.load_run import FinishedRun, load_run
from . import figures
from .build_report import build_report_document
from .diagnostic_accuracy import MIN_SUBGROUP_IMAGES, ReportOptions
from .render import render_html, render_latex, render_markdown, write_document
from .results_tables import ResultsTable, build_results_tables, report_to_dict


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Args:
        runs: as they were read.
        tables: one for each data set, split and protocol among them. Of a table, `rows` have scores with intervals in
            per cent and what was asked of them beyond (`clinical`), `comparisons` the differences and tests between its
            runs (see `reporting.tables.Table`).
    """

    runs: list[FinishedRun]
    tables: list[ResultsTable]

    def summary(self, details: bool = True) -> str:
        """The report as Markdown.

        Args:
            details: also what is told of each run by itself: classes, patients, operating points, subgroups.
        """
        return render_markdown(build_report_document(self.tables, details))

    def to_latex(self) -> str:
        """The report as LaTeX tables, which need booktabs and longtable."""
        return render_latex(build_report_document(self.tables))

    def to_dict(self) -> dict[str, Any]:
        """What `report.json` holds."""
        return report_to_dict(self.tables)

    def to_html(self) -> str:
        """The report as HTML."""
        return render_html(build_report_document(self.tables))

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return self.to_html()


def compare(
    runs: Sequence[str | Path],
    *,
    benchmark: str | None = None,
    split: str | None = None,
    positive: Sequence[str] | None = None,
    operating_points: Sequence[str] = (),
    prevalence: float | None = None,
    subgroups: Sequence[str] = (),
    manifest: str | Path | None = None,
    min_subgroup: int = MIN_SUBGROUP_IMAGES,
) -> Comparison:
    """Sets finished runs beside each other and beside the published rows, with intervals and tests.

    docs/statistics.md tells what these are worth.

    Args:
        runs: output folders of finetune, crossval or evaluate.
        benchmark: whose published rows to show even where no run is of it.
        split: to compare on; None: test where a run has it, else validation.
        positive: classes that are positive, together, against the others.
        operating_points: `sensitivity=0.95`, `specificity=0.9`, `threshold=0.5`, `youden`: chosen on the validation
            split, applied to the one that is compared on; without `positive`, of each class against the rest.
        prevalence: that PPV and NPV are at; None: that of the images.
        subgroups: columns of the manifest (`age:50,65` makes bands of numbers).
        manifest: with these columns and `file_name`; None: the runs' own.
        min_subgroup: images that a part needs for scores to be shown.

    Raises:
        UsageError: a folder holds no finished run, or what is asked is not in it.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise UsageError(f"prevalence lies between 0 and 1, not {prevalence:g}.")
    asked = ReportOptions(
        tuple(positive) if positive else None,
        tuple(ThresholdRule.parse(text) for text in operating_points),
        prevalence,
        tuple(subgroups),
        Path(manifest) if manifest else None,
        min_subgroup,
    )
    read = [load_run(path, split) for path in runs]
    for run in read:  # several folders of one name are told apart by their parents
        if sum(other.name == run.name for other in read) > 1:
            run.name = str(run.folder)
    return Comparison(read, build_results_tables(read, benchmark, asked))


def write_report(comparison: Comparison, folder: Path) -> list[str]:
    """Writes a report: `report.md`, `.tex`, `.json`, with python-docx also `.docx`, and its figures.

    Args:
        folder: where it goes.

    Returns:
        The names of what was written.
    """
    blocks = build_report_document(comparison.tables)
    write_json(folder / "report.json", comparison.to_dict())
    pictures = [f"{name}.png" for name in _plot_figures(comparison, folder)]
    return [*write_document(blocks, folder / "report", [folder / name for name in pictures]), "report.json", *pictures]


def _plot_figures(comparison: Comparison, folder: Path) -> list[str]:
    """The figures of a report; their names without suffix."""
    names = []
    curves = {run.name: run.label_efficiency for run in comparison.runs if run.label_efficiency}
    if curves:
        figures.plot_label_efficiency(curves, folder / "label_efficiency")
        names.append("label_efficiency")
    for number, table in enumerate(comparison.tables):
        sides: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in [*table.rows, *table.not_comparable]:
            for side in row.diagnostic_accuracy.one_vs_rest if row.diagnostic_accuracy else []:
                sides.setdefault(tuple(side.classes), {})[row.method] = side.decision_curve
        if len(sides) == 1:  # of each class by itself they are in report.json
            ((classes, decisions),) = sides.items()
            name = "decision_curve" if len(comparison.tables) == 1 else f"decision_curve_{number + 1}"
            figures.plot_decision_curves(decisions, folder / name, f"{' or '.join(classes)} against the rest")
            names.append(name)
    return [name for name in names if (folder / f"{name}.png").is_file()]


def write_single_run_report(folder: Path) -> None:
    """The report of a run by itself, in its own folder."""
    write_report(compare([folder]), folder)
