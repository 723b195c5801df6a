"""Comparison of completed runs: results as attributes, and reports on disk (`report.md`, `.tex`, `.json`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CommandLineError
from ..evaluation.differences import BINARY_SCORES, Margin
from ..evaluation.operating_points import ThresholdRule
from ..evaluation.recalibration import CalibrationCurve
from ..files.atomic import write_json
from ..runs.completed_run import CompletedRun
from ..runs.cost_table import read_costs
from ..runs.external_tables import align_tables
from ..runs.load_run import load_run
from ..runs.record import FIGURES_DIR
from ..settings.one_vs_rest import ONE_VS_REST_OPTIONS
from . import notebook  # noqa: F401 (records as HTML)
from .build_report import build_report_document
from .diagnostic_accuracy import MIN_SUBGROUP_IMAGES, ReportOptions
from .figures.study import plot_benefit_differences, plot_calibration, plot_centres, plot_decision_curves
from .figures.training import plot_label_efficiency
from .messages import ReportingMessage
from .renderers import html, latex, markdown
from .renderers.files import write_document
from .results_tables import ResultsTable, build_results_tables, report_to_dict


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`.

    Args:
        tables: one table for each dataset, split and protocol (`reporting.results_tables.ResultsTable`). Its `rows`
            have scores with intervals in per cent, and `diagnostic_accuracy`; its `comparisons` have the differences
            and tests between its runs.
    """

    runs: list[CompletedRun]
    tables: list[ResultsTable]

    def summary(self, details: bool = True) -> str:
        """Renders the report as Markdown, with or without the details of each run (classes, patients...)."""
        return markdown.render(build_report_document(self.tables, details))

    def to_latex(self) -> str:
        """Renders the report as LaTeX tables, which need booktabs and longtable."""
        return latex.render(build_report_document(self.tables))

    def to_dict(self) -> dict[str, Any]:
        """Converts the report to the values of `report.json`."""
        return report_to_dict(self.tables)

    def to_html(self) -> str:
        """Renders the report as HTML."""
        return html.render(build_report_document(self.tables))

    def _repr_html_(self) -> str:
        """Renders the report for a notebook."""
        return self.to_html()


@dataclass(frozen=True)
class Report:
    """Result of `report`.

    Args:
        comparison: all results.
        files: names of its files.
    """

    comparison: Comparison
    folder: Path
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Converts the report to the values of `report.json`."""
        return self.comparison.to_dict()

    def __str__(self) -> str:
        """Renders the report as Markdown, of several runs without details, and the names of its files."""
        written = f"Written to {self.folder}: {', '.join(self.files)}\n"
        if len(self.comparison.runs) == 1:
            return f"{self.comparison.summary()}\n{written}"
        details = "For the details of each run (classes, patients, operating points, subgroups), see report.md.\n"
        return f"{self.comparison.summary(details=False)}\n{details}\n{written}"

    def _repr_html_(self) -> str:
        """Renders the report for a notebook."""
        return self.comparison.to_html()


def compare(
    runs: str | Path | Sequence[str | Path],
    *,
    benchmark: str | None = None,
    split: str | None = None,
    positive: str | Sequence[str] | None = None,
    operating_points: str | Sequence[str] | None = None,
    ppv_at_recall: float | None = None,
    prevalence: float | str | None = None,
    subgroups: str | Sequence[str] | None = None,
    manifest: str | Path | None = None,
    min_subgroup: int = MIN_SUBGROUP_IMAGES,
    costs: str | Path | None = None,
    non_inferiority: str | Sequence[str] | None = None,
    equivalence: str | Sequence[str] | None = None,
    annotators: Sequence[str] = (),
) -> Comparison:
    """Compares completed runs, and prediction tables of any program, with intervals and tests, and with published rows.

    See docs/statistics.md for the methods. A single value stands for a list of one.

    Args:
        runs: output folders of finetune, crossval or evaluate; or prediction tables: CSV files, or folders with files
            `predictions_<split>.csv` (`runs.predictions.read_prediction_csv` lists their columns).
        benchmark: benchmark whose published rows are shown even without a run.
        split: split to compare on; None: test if a run has it, otherwise validation.
        positive: classes that are positive together, against the others.
        operating_points: `sensitivity=0.95`, `specificity=0.9`, `threshold=0.5` or `youden`; thresholds are chosen on
            the validation split and applied to the compared split. Without `positive`, each class against the rest.
        ppv_at_recall: report the PPV at the highest threshold that reaches this recall, also as in the RARE challenge.
        prevalence: prevalence for PPV and NPV: 0.01, `1%`, `1/101` or `1:100`; None: that of the images.
        subgroups: columns of the manifest; `age:50,65` divides numbers into bands.
        manifest: file with these columns and `file_name`; None: the manifest of the runs, or the official split.
        min_subgroup: minimum size of a subgroup with scores.
        costs: table of the costs of decisions (`runs.cost_table.read_costs`), for the expected cost.
        non_inferiority, equivalence: `SCORE=MARGIN`, such as `accuracy=0.02`: tests whether the other runs are not
            worse than the first run by the margin, or do not differ by it. Rates such as `sensitivity` are of
            `positive`.
        annotators: columns of the manifest with the labels of annotators; without runs, of the manifest or benchmark.

    Raises:
        CommandLineError: If an option is not valid.
        UsageError: If a path is not a completed run or a valid prediction table, or an option does not fit the runs.
    """
    rules = tuple(ThresholdRule.parse(text) for text in _as_tuple(operating_points))
    if prevalence is not None and not (positive or rules or ppv_at_recall):
        raise CommandLineError(ReportingMessage.PREVALENCE_NOT_USED)
    texts_by_kind = {"non_inferiority": non_inferiority, "equivalence": equivalence}
    margins = tuple(Margin.parse(kind, text) for kind, texts in texts_by_kind.items() for text in _as_tuple(texts))
    if margins and len(_as_tuple(runs)) < 2:
        raise CommandLineError(ReportingMessage.MARGIN_WITHOUT_RUNS)
    if not positive and (rates := [margin.score for margin in margins if margin.score in BINARY_SCORES]):
        raise CommandLineError(ReportingMessage.MARGIN_NEEDS_POSITIVE, score=rates[0])
    options = ReportOptions(
        _as_tuple(positive) or None,
        rules,
        ONE_VS_REST_OPTIONS["ppv_at_recall"].read(ppv_at_recall),
        ONE_VS_REST_OPTIONS["prevalence"].read(prevalence),
        _as_tuple(subgroups),
        Path(manifest) if manifest else None,
        min_subgroup,
        read_costs(Path(costs)) if costs else None,
        margins,
        _as_tuple(annotators),
    )
    if len(options.annotators) == 1:
        raise CommandLineError(ReportingMessage.TOO_FEW_ANNOTATORS, columns=options.annotators)
    loaded = [load_run(path, split) for path in _as_tuple(runs)]
    align_tables(loaded)
    for run in loaded:  # folders with the same name are distinguished by their paths
        if sum(other.name == run.name for other in loaded) > 1:
            run.name = str(run.folder)
    return Comparison(loaded, build_results_tables(loaded, benchmark, options))


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return (values,) if isinstance(values, str | Path) else tuple(values or ())


def write_report(comparison: Comparison, folder: Path, with_calibration: bool = True) -> list[str]:
    """Writes `report.md`, `.tex` and `.json`, with python-docx also `.docx`, and the figures, also of the calibration.

    Returns:
        The names of the files.
    """
    blocks = build_report_document(comparison.tables)
    write_json(folder / "report.json", comparison.to_dict())
    images = _plot_figures(comparison, folder, with_calibration)
    names = write_document(blocks, folder / "report", [folder / name for name in images])
    return [*names, "report.json", *images]


def _plot_figures(comparison: Comparison, folder: Path, with_calibration: bool) -> list[str]:
    """Plots the figures of a report; returns the names of the PNG files relative to `folder`."""
    names = []
    curves = {run.name: run.label_efficiency for run in comparison.runs if run.label_efficiency}
    if curves:
        names.append("label_efficiency")
        plot_label_efficiency(curves, folder / FIGURES_DIR / names[-1])
    summaries = [run.centres for run in comparison.runs if run.centres is not None]
    for number, summary in enumerate(summaries, 1):
        names.append("centres" if len(summaries) == 1 else f"centres_{number}")
        plot_centres(summary, "macro_f1", folder / FIGURES_DIR / names[-1])
    for number, table in enumerate(comparison.tables):
        suffix = "" if len(comparison.tables) == 1 else f"_{number + 1}"
        curves_by_classes: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in [*table.rows, *table.not_comparable]:
            for result in row.diagnostic_accuracy.one_vs_rest if row.diagnostic_accuracy else []:
                curves_by_classes.setdefault(tuple(result.classes), {})[row.method] = result.decision_curve
        if len(curves_by_classes) == 1:  # the curves of each class in turn are only in report.json
            ((classes, decision_curves),) = curves_by_classes.items()
            names.append(f"decision_curve{suffix}")
            title = f"{' or '.join(classes)} against the rest"
            plot_decision_curves(decision_curves, folder / FIGURES_DIR / names[-1], title)
            if differences := _benefit_differences(table):
                names.append(names[-1].replace("decision_curve", "net_benefit_difference"))
                plot_benefit_differences(differences, folder / FIGURES_DIR / names[-1], title)
        if with_calibration and (calibration := _calibration_curves(table)):
            names.append(f"calibration{suffix}")
            plot_calibration(calibration, folder / FIGURES_DIR / names[-1])
    return [path for name in names if (folder / (path := f"{FIGURES_DIR}/{name}.png")).is_file()]


def _calibration_curves(table: ResultsTable) -> dict[str, dict[str, CalibrationCurve]]:
    """Returns the calibration curves by class and method."""
    curves: dict[str, dict[str, CalibrationCurve]] = {}
    for row in [*table.rows, *table.not_comparable]:
        for title, fit in (row.diagnostic_accuracy.calibration if row.diagnostic_accuracy else {}).items():
            if fit is not None:
                curves.setdefault(title, {})[row.method] = fit.curve
    return curves


def _benefit_differences(table: ResultsTable) -> dict[str, dict[str, Any]]:
    return {
        f"{comparison['second']} minus {comparison['first']}": comparison["net_benefit"]
        for comparison in table.rate_comparisons
        if comparison["net_benefit"]
    }


def write_single_run_report(folder: Path) -> None:
    """Writes the report of a run into its output folder."""
    write_report(compare([folder]), folder, with_calibration=False)
