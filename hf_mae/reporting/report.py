"""A report: what finished runs come to beside each other, as attributes, and on disk (`report.md`, `.tex`, `.json`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.writing import write_json, write_text
from ..runs.finished import FinishedRun, read_run
from . import figures
from .tables import Table, as_json, tables
from .text import latex, markdown


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Args:
        runs: as they were read.
        tables: one for each data set, split and protocol among them. Of a table, `rows` have scores with intervals in
            per cent, `comparisons` the differences and tests between its runs (see `reporting.tables.Table`).
    """

    runs: list[FinishedRun]
    tables: list[Table]

    def summary(self) -> str:
        """The report as Markdown."""
        return markdown(self.tables)

    def to_latex(self) -> str:
        """The report as LaTeX tables, which need booktabs."""
        return latex(self.tables)

    def to_dict(self) -> dict[str, Any]:
        """What `report.json` holds."""
        return as_json(self.tables)


def compare(runs: Sequence[str | Path], *, benchmark: str | None = None, split: str | None = None) -> Comparison:
    """Sets finished runs beside each other and beside the published rows, with intervals and tests.

    docs/statistics.md tells what these are worth.

    Args:
        runs: output folders of finetune, crossval or evaluate.
        benchmark: whose published rows to show even where no run is of it.
        split: to compare on; None: test where a run has it, else validation.

    Raises:
        UsageError: a folder holds no finished run.
    """
    read = [read_run(path, split) for path in runs]
    for run in read:  # several folders of one name are told apart by their parents
        if sum(other.name == run.name for other in read) > 1:
            run.name = str(run.folder)
    return Comparison(read, tables(read, benchmark))


def write_report(
    paths: Sequence[str | Path], folder: Path, benchmark: str | None = None, split: str | None = None
) -> str:
    """Writes `report.md`, `report.tex` and `report.json` (and a label-efficiency figure); returns the Markdown.

    Args:
        folder: where the report goes.
        paths, benchmark, split: as of `compare`.

    Raises:
        UsageError: a folder holds no finished run.
    """
    found = compare(paths, benchmark=benchmark, split=split)
    text = found.summary()
    write_text(folder / "report.md", text)
    write_text(folder / "report.tex", found.to_latex())
    write_json(folder / "report.json", found.to_dict())
    curves = {run.name: run.label_efficiency for run in found.runs if run.label_efficiency}
    if curves:
        figures.label_efficiency(curves, folder / "label_efficiency")
    return text
