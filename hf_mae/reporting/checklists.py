"""Reporting checklists, filled in from the record of a run.

The topics of the items are paraphrased, with the item numbers of the guidelines (published/checklists.csv): CLAIM, 2024
update (Tejani et al., Radiology: Artificial Intelligence 6:e240300); TRIPOD+AI (Collins et al., BMJ 385:e078378, 2024);
STARD-AI (Sounderajah et al., Nature Medicine, 2025), whose items beyond STARD 2015 are called `AI ...`. Journals
require the original forms; copy the answers into them.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.exclusion_log import ExclusionReason
from ..errors import UsageError
from ..evaluation.metrics import summary_metric_names
from ..runs.completed_run import CompletedRun
from ..runs.record import FIGURES_DIR
from ..settings.metrics import METRICS, MetricKind
from .document import Block, Heading, Paragraph
from .headline import run_scores
from .messages import ReportingMessage
from .renderers.files import write_document
from .results_tables import ResultsTable
from .study_description import list_cohorts, list_metrics
from .study_facts import StudyAnalysis, Trainings, study_facts
from .table import Column, Table
from .text_templates import load_templates, render_text

CHECKLISTS_CSV = Path(__file__).parents[1] / "published" / "checklists.csv"
CHECKLIST_TITLES = {"claim": "CLAIM (2024)", "tripod-ai": "TRIPOD+AI", "stard-ai": "STARD-AI"}
COLUMNS = [Column("item"), Column("section"), Column("topic", "p"), Column("answer", "p"), Column("source")]
RECORD_NAMES = {
    "trained": ["record of the training"],
    "evaluated": ["record of the evaluation"],
    "both": ["record of the training", "record of the evaluation"],
    "report": [],
}
AUTHOR_ITEM_TEXT = "To be completed by the authors."


@dataclass(frozen=True)
class ChecklistItem:
    """An item of a checklist.

    Args:
        number: its number in the guideline.
        topic: paraphrase of the item.
        answer: text from the record; None: the authors have to answer.
        source: record that the answer reads, and file or field in it.
    """

    number: str
    section: str
    topic: str
    answer: str | None
    source: str | None


def build_checklist(run: CompletedRun, name: str, tables: Sequence[ResultsTable] = ()) -> list[ChecklistItem]:
    """Fills in a checklist (one of `CHECKLIST_TITLES`) from the records of a run.

    Args:
        tables: of the report, which contain the tests between runs.

    Raises:
        UsageError: If the checklist is unknown, or the record does not describe the images.
    """
    if name not in CHECKLIST_TITLES:
        raise UsageError(ReportingMessage.UNKNOWN_CHECKLIST, name=name, names=list(CHECKLIST_TITLES))
    if not list_cohorts(run):
        raise UsageError(ReportingMessage.NO_COHORT_IN_RECORD, folder=run.folder)
    with open(CHECKLISTS_CSV, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["checklist"] == name]
    templates, facts = load_templates("checklist_answers"), _collect_facts(run, tables)
    items = []
    for row in rows:
        answer, source = _answer(run, templates.get(row["answer"]), facts)
        items.append(ChecklistItem(row["item"], row["section"], row["topic"], answer, source))
    return items


def _answer(run: CompletedRun, templates: list[Any] | None, facts: dict[str, Any]) -> tuple[str | None, str | None]:
    """Returns the answer of an item and its source; None if the records do not have it."""
    if templates is None:
        return None, None
    text, source, which = templates
    record_key = render_text(which, {})
    is_missing = record_key == "trained" and not run.trained
    record_names = RECORD_NAMES["evaluated" if record_key == "both" and not run.trained else record_key]
    if is_missing or not (answer := render_text(text, facts)):
        return None, None
    is_split = run.evaluated is not None and run.evaluated.kind == "evaluate"
    prefix = f"{' and '.join(record_names)}: " if is_split and record_names else ""
    return answer, prefix + render_text(source, facts)


def write_checklist(
    run: CompletedRun, name: str, folder: Path, suffix: str = "", tables: Sequence[ResultsTable] = ()
) -> list[str]:
    """Writes `checklist_<name>.md`, `.tex` (and `.docx`); returns their names."""
    items = build_checklist(run, name, tables)
    answered = sum(item.answer is not None for item in items)
    rows = [
        [item.number, item.section, item.topic, item.answer or AUTHOR_ITEM_TEXT, item.source or ""] for item in items
    ]
    blocks: list[Block] = [
        Heading(f"{CHECKLIST_TITLES[name]} for {run.name}", 1),
        Paragraph(
            f"{answered} of {len(items)} items are answered from the record of the run, each with its source. The "
            "authors have to complete the others. The topics are paraphrased; the guideline has the official wording."
        ),
        Table(COLUMNS, rows),
    ]
    return write_document(blocks, folder / f"checklist_{name}{suffix}")


def _collect_facts(run: CompletedRun, tables: Sequence[ResultsTable]) -> dict[str, Any]:
    """Returns the variables of the templates of the answers."""
    analysis = StudyAnalysis.from_tables(run, tables)
    facts, scores = study_facts(run, analysis), run_scores(run.scores())
    diagnostic = analysis.diagnostic_accuracy
    excluded = [step for cohort in list_cohorts(run).values() for step in cohort.excluded]
    # The networks of timm store the preprocessing in their configuration.
    has_processor = (run.folder / "preprocessor_config.json").is_file() or not (run.folder / "config.json").is_file()
    return facts | {
        "averaged_weights": bool(Trainings(run.trained).values("selection.ema_decay")),
        "confusion_matrix": f"{FIGURES_DIR}/confusion_matrix_{run.split}.png",
        "explanations": sorted(path.name for path in run.folder.glob("*explanation*")),
        "figures": FIGURES_DIR,
        "list_metrics": list_metrics,
        "MetricKind": MetricKind,
        "num_unreadable": sum(step.images for step in excluded if step.reason is ExclusionReason.UNREADABLE),
        "predictions": f"predictions_{run.split}.csv",
        "probabilities": [METRICS[name].title for name in diagnostic.probabilities] if diagnostic else [],
        "processor_file": "preprocessor_config.json" if has_processor else "config.json",
        "scores": [f"{METRICS[name].title} {scores[name].format()}" for name in summary_metric_names()],
        "split_sizes": ", ".join(f"{split} {images}" for split, images in facts["images_by_split"].items()),
        "subgroups": [subgroups.column for subgroups in diagnostic.subgroups] if diagnostic else [],
    }
