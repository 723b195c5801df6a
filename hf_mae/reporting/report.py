"""A report on disk: `report.md`, `report.tex`, `report.json`."""

from pathlib import Path

from ..files.writing import write_json, write_text
from ..runs.finished import read_run
from . import figures
from .tables import as_json, tables
from .text import latex, markdown


def write_report(paths: list[str | Path], folder: Path, benchmark: str | None = None, split: str | None = None) -> str:
    """Writes `report.md`, `report.tex` and `report.json` (and a label-efficiency figure); returns the Markdown.

    Args:
        paths: folders of finished runs.
        folder: where the report goes.
        benchmark: whose published rows to show even where no run is of it.
        split: to report; None: test where a run has it, else validation.

    Raises:
        UsageError: a folder holds no finished run.
    """
    runs = [read_run(path, split) for path in paths]
    for run in runs:  # several folders of one name are told apart by their parents
        if sum(other.name == run.name for other in runs) > 1:
            run.name = str(run.folder)
    found = tables(runs, benchmark)
    text = markdown(found)
    write_text(folder / "report.md", text)
    write_text(folder / "report.tex", latex(found))
    write_json(folder / "report.json", as_json(found))
    curves = {run.name: run.label_efficiency for run in runs if run.label_efficiency}
    if curves:
        figures.label_efficiency(curves, folder / "label_efficiency")
    return text
