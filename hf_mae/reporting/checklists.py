"""Reporting checklists, filled in from the record of a run.

The topics of the items are paraphrased, with the item numbers of the guidelines (published/checklists.csv): CLAIM, 2024
update (Tejani et al., Radiology: Artificial Intelligence 6:e240300); TRIPOD+AI (Collins et al., BMJ 385:e078378, 2024);
STARD-AI (Sounderajah et al., Nature Medicine, 2025), whose items beyond STARD 2015 are called `AI ...`. Journals
require the original forms; copy the answers into them.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.exclusion_log import ExclusionReason
from ..data.sources.benchmarks import find_benchmark_or_none
from ..errors import UsageError, pluralize
from ..evaluation.metrics import summary_metric_names
from ..runs.completed_run import CompletedRun
from ..runs.record import FIGURES_DIR, RunRecord
from ..settings.metrics import METRICS
from .document import Block, Heading, Paragraph
from .headline import run_scores
from .messages import ReportingMessage
from .renderers.files import write_document
from .run_sentences import (
    describe_exclusion,
    describe_hardware,
    describe_selection,
    describe_temperature,
    describe_versions,
)
from .study_description import SPLIT_TITLES, get_setting
from .table import Column, Table

CHECKLISTS_CSV = Path(__file__).parents[1] / "published" / "checklists.csv"
CHECKLIST_TITLES = {"claim": "CLAIM (2024)", "tripod-ai": "TRIPOD+AI", "stard-ai": "STARD-AI"}
COLUMNS = [Column("item"), Column("section"), Column("topic", "p"), Column("answer", "p"), Column("source")]
AUTHOR_ITEM_TEXT = "To be completed by the authors."


@dataclass(frozen=True)
class ChecklistItem:
    """An item of a checklist.

    Args:
        number: its number in the guideline.
        section: section of the paper.
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
    items = []
    for row in rows:
        answer = _fill_in(row["answer"], run, record) if row["answer"] != "author" else None
        items.append(ChecklistItem(row["item"], row["section"], row["topic"], *(answer or (None, None))))
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


Answer = tuple[str, str] | None

# Answers with facts of the run (see `_fill_in`), and their sources.
ANSWER_TEXTS = {
    "availability": (
        "Weights, configuration and recipe of the run; state the place of publication (hf-mae push).",
        "output folder",
    ),
    "crosstab": ("Confusion matrix of the predicted class.", "{confusion_matrix}"),
    "failures": ("Confusion matrix; hf-mae explain shows the most confident errors.", "{confusion_matrix}"),
    "initialisation": ("{base}; the head was initialised randomly.", "all_results.json: base"),
    "inputs": ("The image only.", "{processor_file}"),
    "model": ("A stock transformers classifier; its dimensions are in its configuration.", "config.json"),
    "output": (
        "A score for each class (softmax), and the class with the highest score; hf-mae report --operating_point "
        "chooses thresholds on a split other than the reported one.",
        "{predictions}",
    ),
    "predictions": (
        "The only input of the model was the image, through the saved image processor.",
        "{predictions}",
    ),
    "preprocessing": (
        "Transforms: {transforms}; evaluation and deployment use the saved image processor.",
        "{processor_file}",
    ),
    "rates": ("Sensitivity, specificity, PPV and NPV of each class, with intervals.", "report.md"),
}


def _fill_in(name: str, run: CompletedRun, record: RunRecord) -> Answer:
    """Returns the answer `name` of `published/checklists.csv`."""
    if name in ANSWER_FUNCTIONS:
        return ANSWER_FUNCTIONS[name](run, record)
    text, source = ANSWER_TEXTS[name]
    facts = {
        "base": record.base,
        "confusion_matrix": f"{FIGURES_DIR}/confusion_matrix_{run.split}.png",
        "predictions": f"predictions_{run.split}.csv",
        "processor_file": _processor_file(run),
        "transforms": get_setting(record, "transforms"),
    }
    return text.format(**facts), source.format(**facts)


def _data(run: CompletedRun, record: RunRecord) -> Answer:
    if entry := find_benchmark_or_none(record.data.benchmark):
        return f"{entry.title}; {entry.homepage}; licence: {entry.licence}.", "all_results.json: data"
    return f"Images of {record.data.name} (add their origin).", "all_results.json: data"


def _exclusion_steps(record: RunRecord) -> list[dict[str, Any]]:
    study: dict[str, Any] = record.study or {}
    steps: list[dict[str, Any]] = study["excluded"]
    return steps


def _exclusions(run: CompletedRun, record: RunRecord) -> Answer:
    steps = [f"{pluralize(step['images'], 'image')}: {describe_exclusion(step)}" for step in _exclusion_steps(record)]
    return (
        f"Excluded by hf_mae: {'; '.join(steps) or 'none'}. The authors add the criteria that were applied before.",
        "study.md",
    )


def _processor_file(run: CompletedRun) -> str:
    """Returns the file with the preprocessing of a run; timm networks store it in their configuration."""
    name = "preprocessor_config.json"
    return name if (run.folder / name).is_file() or not (run.folder / "config.json").is_file() else "config.json"


def _subsets(run: CompletedRun, record: RunRecord) -> Answer:
    fraction = record.data.train_fraction
    if fraction == 1:
        return None
    return f"{100 * fraction:g} % of the training images, stratified by class.", "recipe.yaml"


def _missing_data(run: CompletedRun, record: RunRecord) -> Answer:
    count = sum(step["images"] for step in _exclusion_steps(record) if step["reason"] == ExclusionReason.UNREADABLE)
    result = f"{count} unreadable images were excluded" if count else "no image was unreadable"
    return f"Every image was decoded before training: {result}. There are no other inputs.", "study.md"


def _devices(run: CompletedRun, record: RunRecord) -> Answer:
    columns = list((record.study or {}).get("columns", {}))
    return (f"Recorded per image: {', '.join(columns)}.", "study.md: images by split") if columns else None


def _classes(run: CompletedRun, record: RunRecord) -> Answer:
    order = " (grades, in this order)" if record.ordered else ""
    return f"One of {len(record.classes)} classes{order}: {', '.join(record.classes)}.", "config.json: id2label"


def _split_sizes(record: RunRecord) -> str:
    study: dict[str, Any] = record.study or {}
    return ", ".join(f"{SPLIT_TITLES.get(name, name)} {entry['images']}" for name, entry in study["splits"].items())


def _split(run: CompletedRun, record: RunRecord) -> Answer:
    val_fraction = record.data.val_fraction
    entry = find_benchmark_or_none(record.data.benchmark)
    if entry and entry.has_split:
        how = "The official split of the benchmark"
    elif val_fraction:
        how = f"{100 * val_fraction:g} % held out, stratified by class (seed {record.data.seed})"
    else:
        how = "The splits of the data source"
    return f"{how}: {_split_sizes(record)}.", "all_results.json: data, images"


def _split_level(run: CompletedRun, record: RunRecord) -> Answer:
    study: dict[str, Any] = record.study or {}
    if all(entry["groups"] for entry in study["splits"].values()):
        return (
            "Patients or videos are known: fractions were held out by patient or video, and a warning lists those in "
            "several splits.",
            "log",
        )
    return "No patients are known to hf_mae: the splits have no image with identical pixels in common.", "study.md"


def _software(run: CompletedRun, record: RunRecord) -> Answer:
    environment = record.environment
    text = f"hf_mae, {describe_versions(environment)}; {describe_hardware(environment.hardware)}."
    return text, "all_results.json: environment"


def _training(run: CompletedRun, record: RunRecord) -> Answer:
    if record.train is None:
        return None
    return (
        f"{get_setting(record, 'num_train_epochs')} epochs, {record.train.updates} updates of "
        f"{record.train.effective_batch_size} images, learning rate {record.train.learning_rate}; all "
        "settings are in the recipe, which reproduces the run.",
        "recipe.yaml",
    )


def _selection(run: CompletedRun, record: RunRecord) -> Answer:
    return (describe_selection(record.selection), "all_results.json: selection") if record.selection else None


def _ensemble(run: CompletedRun, record: RunRecord) -> Answer:
    if record.averaged_views:
        return "Scores are means over eight rotated and mirrored views (test-time augmentation).", "results"
    return "None: one model.", "model.safetensors"


def _metrics(run: CompletedRun, record: RunRecord) -> Answer:
    return (
        "Macro precision, recall and F1, accuracy, MCC; AUROC, Brier score, log loss and calibration errors; "
        "sensitivity, specificity and predictive values by class"
        + ("; quadratic weighted kappa, mean absolute error, one-off accuracy." if run.ordered else "."),
        "report.md",
    )


def _uncertainty(run: CompletedRun, record: RunRecord) -> Answer:
    grouped = all(fold.groups is not None for fold in run.folds)
    unit = "patients or videos" if grouped else "images (no patients are known)"
    return f"95 % intervals (jackknife) and permutation tests over {unit}; p values adjusted (Holm).", "report.md"


def _subgroups(run: CompletedRun, record: RunRecord) -> Answer:
    columns = list((record.study or {}).get("columns", {}))
    if not columns:
        return None
    return f"Scores and tests of interaction (hf-mae report --subgroups) by: {', '.join(columns)}.", "report.md"


def _explanations(run: CompletedRun, record: RunRecord) -> Answer:
    files = sorted(path.name for path in run.folder.glob("*explanation*"))
    return (f"Saliency maps: {', '.join(files)}.", "hf-mae explain") if files else None


def _internal(run: CompletedRun, record: RunRecord) -> Answer:
    return f"Scores of the {run.split} split: {sum(len(fold.labels) for fold in run.folds)} images.", "report.md"


def _external(run: CompletedRun, record: RunRecord) -> Answer:
    if run.source is None or run.source.data_dir == record.data.data_dir:
        return None
    return f"Evaluated on {run.source.name}, trained on {record.data.name}.", "report.md"


def _flow(run: CompletedRun, record: RunRecord) -> Answer:
    study: dict[str, Any] = record.study or {}
    total = "not known" if study["total"] is None else study["total"]
    return f"Images found: {total}; {_split_sizes(record)}.", f"study.md, {FIGURES_DIR}/flow.png"


def _table_one(run: CompletedRun, record: RunRecord) -> Answer:
    return f"Images by split and class: {_split_sizes(record)}.", "study.md"


def _performance(run: CompletedRun, record: RunRecord) -> Answer:
    scores = run_scores(run)
    parts = [f"{METRICS[name].title} {scores[name].format()}" for name in summary_metric_names()]
    return f"{run.split}: {', '.join(parts)} (per cent).", "report.md"


def _imbalance(run: CompletedRun, record: RunRecord) -> Answer:
    weights, sampling, tau = (get_setting(record, name) for name in ("class_weights", "sampling", "logit_adjustment"))
    return (
        f"Class weights: {weights or 'none'}; sampling: {sampling}; logit adjustment: {float(tau):g}; macro "
        "averages weight all classes equally.",
        "recipe.yaml",
    )


def _calibration(run: CompletedRun, record: RunRecord) -> Answer:
    if not record.calibration:
        return None
    values = record.calibration
    return (
        f"{describe_temperature(values).capitalize()}: calibration error {values['ece_before']:.4f} before, "
        f"{values['ece_after']:.4f} after.",
        "temperature.json",
    )


ANSWER_FUNCTIONS: dict[str, Callable[[CompletedRun, RunRecord], Answer]] = {
    "calibration": _calibration,
    "classes": _classes,
    "data": _data,
    "devices": _devices,
    "ensemble": _ensemble,
    "excluded": _exclusions,
    "explanations": _explanations,
    "external": _external,
    "flow": _flow,
    "imbalance": _imbalance,
    "internal": _internal,
    "level": _split_level,
    "metrics": _metrics,
    "missing": _missing_data,
    "performance": _performance,
    "selection": _selection,
    "software": _software,
    "split": _split,
    "subgroups": _subgroups,
    "subsets": _subsets,
    "table_one": _table_one,
    "training": _training,
    "uncertainty": _uncertainty,
}
