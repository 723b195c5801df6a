"""Reporting checklists, filled in from the record of a run.

The topics of the items are paraphrased, with the item numbers of the guidelines (published/checklists.csv): CLAIM, 2024
update (Tejani et al., Radiology: Artificial Intelligence 6:e240300); TRIPOD+AI (Collins et al., BMJ 385:e078378, 2024);
STARD-AI (Sounderajah et al., Nature Medicine, 2025), whose items beyond STARD 2015 are called `AI ...`. Journals
require the original forms; copy the answers into them.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.exclusion_log import ExclusionReason
from ..errors import UsageError, pluralize
from ..evaluation.metrics import summary_metric_names
from ..runs.completed_run import CompletedRun
from ..runs.record import FIGURES_DIR, RunRecord
from ..settings.metrics import METRICS
from .document import Block, Heading, Paragraph
from .headline import run_scores
from .messages import ReportingMessage
from .renderers.files import write_document
from .study_description import study_facts
from .table import Column, Table
from .text_templates import load_templates, render_text

CHECKLISTS_CSV = Path(__file__).parents[1] / "published" / "checklists.csv"
CHECKLIST_TITLES = {"claim": "CLAIM (2024)", "tripod-ai": "TRIPOD+AI", "stard-ai": "STARD-AI"}
COLUMNS = [Column("item"), Column("section"), Column("topic", "p"), Column("answer", "p"), Column("source")]
AUTHOR_ITEM_TEXT = "To be completed by the authors."


@dataclass(frozen=True)
class ChecklistItem:
    """An item of a checklist.

    Args:
        number: its number in the guideline.
        topic: paraphrase of the item.
        answer: text from the record; None: the authors have to answer.
        source: file or field that the answer comes from.
    """

    number: str
    section: str
    topic: str
    answer: str | None
    source: str | None


def build_checklist(run: CompletedRun, name: str) -> list[ChecklistItem]:
    """Fills in a checklist (one of `CHECKLIST_TITLES`) from the record of a run.

    Raises:
        UsageError: If the checklist is unknown, or the record does not describe the images.
    """
    if name not in CHECKLIST_TITLES:
        raise UsageError(ReportingMessage.UNKNOWN_CHECKLIST, name=name, names=list(CHECKLIST_TITLES))
    record = run.record
    if record is None or record.study is None:
        raise UsageError(ReportingMessage.NO_COHORT_IN_RECORD, folder=run.folder)
    with open(CHECKLISTS_CSV, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["checklist"] == name]
    templates, facts = load_templates("checklist_answers"), _collect_facts(run, record)
    items = []
    for row in rows:
        texts = [render_text(template, facts) for template in templates.get(row["answer"], [])]
        answer, source = texts if texts and texts[0] else (None, None)
        items.append(ChecklistItem(row["item"], row["section"], row["topic"], answer, source))
    return items


def write_checklist(run: CompletedRun, name: str, folder: Path, suffix: str = "") -> list[str]:
    """Writes `checklist_<name>.md`, `.tex` (and `.docx`); returns their names."""
    items = build_checklist(run, name)
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


def _collect_facts(run: CompletedRun, record: RunRecord) -> dict[str, Any]:
    """Returns the variables of the templates of the answers."""
    facts, scores = study_facts(run, record), run_scores(run.scores())
    # The networks of timm store the preprocessing in their configuration.
    has_processor = (run.folder / "preprocessor_config.json").is_file() or not (run.folder / "config.json").is_file()
    return facts | {
        "confusion_matrix": f"{FIGURES_DIR}/confusion_matrix_{run.split}.png",
        "explanations": sorted(path.name for path in run.folder.glob("*explanation*")),
        "figures": FIGURES_DIR,
        "num_unreadable": sum(
            step.images for step in facts["study"].excluded if step.reason is ExclusionReason.UNREADABLE
        ),
        "pluralize": pluralize,
        "predictions": f"predictions_{run.split}.csv",
        "processor_file": "preprocessor_config.json" if has_processor else "config.json",
        "scores": [f"{METRICS[name].title} {scores[name].format()}" for name in summary_metric_names()],
        "split_sizes": ", ".join(f"{split} {images}" for split, images in facts["images_by_split"].items()),
    }
