"""A study writes itself down: the flow of its images, a table of them, and its methods in plain words with citations.

Everything is of the run's record; what that does not know is not said.
"""

import json
from pathlib import Path
from typing import Any

from ..data.benchmarks import find_benchmark_or_none
from ..files.atomic import write_text
from ..runs.load_run import FinishedRun
from ..runs.record import RunRecord
from ..settings.commands import command_options
from ..settings.models import RANDOM_WEIGHTS
from ..settings.training import INSTANCE_BALANCED, SUPPORTS_LABEL_SMOOTHING
from . import figures
from .bibliography import format_bibtex
from .render import Block, Heading, Paragraph, TableBlock, write_document

SPLIT_TITLES = {
    "train": "training",
    "selection": "selection of the epoch",
    "validation": "validation",
    "test": "test",
}


def write_study_description(run: FinishedRun, folder: Path, suffix: str = "") -> list[str]:
    """Writes `study.md`, `.tex` (and `.docx`), `study.bib` and the figure `flow`; returns the names.

    Args:
        suffix: goes into the names, where there are several runs.
    """
    if run.record is None or run.record.study is None:
        return []
    blocks, cited = build_study_description(run)
    text = format_bibtex(cited, _data_citation(run.record))
    write_text(folder / f"study{suffix}.bib", text)
    figures.plot_flow_diagram(run.record.study, folder / f"flow{suffix}")
    names = write_document(blocks, folder / f"study{suffix}", [folder / f"flow{suffix}.png"])
    return [*names, f"study{suffix}.bib", f"flow{suffix}.png"]


def build_study_description(run: FinishedRun) -> tuple[list[Block], list[str]]:
    """The document, and the keys of what it cites."""
    record = run.record
    assert record is not None and record.study is not None, "a study has its record"
    methods, cited = _describe_methods(run, record)
    blocks: list[Block] = [
        Heading(f"The study of {run.name}", 1),
        Heading("Images"),
        _flow_table(record.study),
        *_table_one(record.study),
        Heading("Methods"),
        *[Paragraph(text) for text in methods],
        Heading("References"),
        Paragraph(f"In the .bib file beside this one: {', '.join(cited)}{', data' if _data_citation(record) else ''}."),
    ]
    return blocks, cited


# Images


def _flow_table(cohort: dict[str, Any]) -> TableBlock:
    rows: list[list[str]] = [["found", str(cohort["total"] if cohort["total"] is not None else "not known"), ""]]
    rows += [
        [f"left out: {step['reason']}", str(step["images"]), ", ".join(step["examples"])] for step in cohort["excluded"]
    ]
    if relabelled := cohort.get("relabelled"):
        rows.append(["another label", str(relabelled["images"]), f"as {relabelled['source_file']} says"])
    for split, held in cohort["splits"].items():
        groups = f"{held['groups']} patients or videos" if held["groups"] else "patients not known"
        rows.append([SPLIT_TITLES.get(split, split), str(held["images"]), groups])
    return TableBlock(["images", "number", "remarks"], rows, "lrl", "What became of the images that were found:")


def _table_one(cohort: dict[str, Any]) -> list[Block]:
    splits = cohort["splits"]
    rows = [["images", *(str(held["images"]) for held in splits.values())]]
    if any(held["groups"] for held in splits.values()):
        rows.append(["patients or videos", *(str(held["groups"] or "not known") for held in splits.values())])
    for name in next(iter(splits.values()))["classes"]:
        rows.append(
            [f"class: {name}", *(_format_count(held["classes"][name], held["images"]) for held in splits.values())]
        )
    for column, by_split in cohort["columns"].items():
        for value in next(iter(by_split.values())):
            cells = [_format_count(by_split[split].get(value, 0), held["images"]) for split, held in splits.items()]
            rows.append([f"{column}: {value}", *cells])
    head = ["", *(SPLIT_TITLES.get(split, split) for split in splits)]
    return [TableBlock(head, rows, "l" + "r" * len(splits), "The images by split: number (per cent).")]


def _format_count(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f})" if total else "0"


# Methods


def _describe_methods(run: FinishedRun, record: RunRecord) -> tuple[list[str], list[str]]:
    """Paragraphs, and what they cite."""
    cited: list[str] = []

    def cite(*keys: str) -> str:
        cited.extend(key for key in keys if key not in cited)
        return f"[{'; '.join(f'@{key}' for key in keys)}]"

    return [
        _describe_data(record),
        _describe_model(run, record, cite),
        _describe_training(record, cite),
        _describe_evaluation(run, record, cite),
        f"Software: hf_mae, {record.environment.versions} {cite('wolf2020transformers', 'paszke2019pytorch')}. "
        f"Hardware: {record.environment.hardware}.",
    ], cited


def get_setting(record: RunRecord, name: str) -> Any:
    """A setting as the run had it: given, or the default."""
    if name in record.settings:
        return record.settings[name]
    options = command_options(record.kind if record.kind != "evaluate" else "finetune")
    return options[name].default if name in options else None


def _describe_data(record: RunRecord) -> str:
    study: dict[str, Any] = record.study or {}
    held = ", ".join(f"{one['images']} for {SPLIT_TITLES.get(split, split)}" for split, one in study["splits"].items())
    groups = all(one["groups"] for one in study["splits"].values())
    kind = "patient or video" if groups else "image"
    source = f"the benchmark {record.data.benchmark}" if record.data.benchmark else record.data.name
    text = f"Images of {source} in {len(record.classes)} classes were used: {held}."
    entry = find_benchmark_or_none(record.data.benchmark)
    if entry and entry.has_split:
        text += " The split is the official one."
    elif record.data.val_fraction:
        text += (
            f" {100 * record.data.val_fraction:g} % of the training images were held out for validation, stratified by "
            f"class, by {kind} (seed {record.data.seed})."
        )
    if record.data.selection_fraction:
        text += (
            f" {100 * record.data.selection_fraction:g} % of the training images, held out by {kind}, chose the epoch, so that "
            "the validation images were not looked at before the end."
        )
    left_out = [f"{step['images']} ({step['reason']})" for step in study["excluded"]]
    relabelled = study.get("relabelled")
    if relabelled:
        text += f" {relabelled['images']} labels were corrected after a review ({relabelled['source_file']})."
    return text + (f" Left out were {', '.join(left_out)}." if left_out else "")


def _describe_model(run: FinishedRun, record: RunRecord, cite: Any) -> str:
    pooling, size = _get_pooling_and_size(run, record)
    other = record.network
    text = f"The network {other} " if other else f"A vision transformer {cite('dosovitskiy2021vit')} "
    if record.base == RANDOM_WEIGHTS:
        text += "was trained from random weights"
    elif other:
        text += f"was fine-tuned from {Path(record.base).name}"
    else:
        text += f"was fine-tuned from {Path(record.base).name}, pre-trained as a masked autoencoder {cite('he2022mae')}"
    text += f"; it classifies from {pooling}" if pooling else ""
    text += f", at {size} x {size} pixels." if size else "."
    if record.leakage is not None:
        seen = sum(record.leakage.values())
        text += f" Of the evaluated images {seen or 'none'} were found in the pre-training."
    return text


def _get_pooling_and_size(run: FinishedRun, record: RunRecord) -> tuple[str, int | None]:
    """What the class is told from, and pixels: by the run's own configuration where it has one."""
    words = {"mean": "the mean of the patch tokens", "cls": "the class token"}
    if record.network:
        return "", get_setting(record, "image_size")
    try:
        config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
        mean = "BeitForImageClassification" in config["architectures"]
        return words["mean" if mean else "cls"], int(config["image_size"])
    except (OSError, ValueError, KeyError, TypeError):  # a cross-validation has none of its own
        return words.get(str(get_setting(record, "pooling")), ""), get_setting(record, "image_size")


def _describe_training(record: RunRecord, cite: Any) -> str:
    training = record.training
    epochs = get_setting(record, "num_train_epochs")
    text = f"Training took {float(epochs):g} epochs of AdamW {cite('loshchilov2019adamw')}"
    if training and training.learning_rate is not None:
        text += (
            f" with {training.effective_batch_size} images per update and a learning rate of "
            f"{training.learning_rate:.3g}"
        )
        if get_setting(record, "learning_rate") is None:
            text += f" (linear scaling {cite('goyal2017accurate')})"
    text += (
        f", warm-up over {float(get_setting(record, 'warmup_epochs')):g} epochs and a cosine to "
        f"{float(get_setting(record, 'min_learning_rate')):g}, weight decay {float(get_setting(record, 'weight_decay')):g}"
    )
    if (decay := float(get_setting(record, "layer_decay"))) != 1:
        text += f", layer-wise learning rate decay of {decay:g} {cite('clark2020electra')}"
    if (drop := float(get_setting(record, "drop_path"))) > 0:
        text += f", stochastic depth of {drop:g} {cite('huang2016stochastic')}"
    text += _describe_loss(record, cite)
    text += f" (seed {get_setting(record, 'seed')})."
    return text + (f" {record.selection.sentence}" if record.selection else "")


def _describe_loss(record: RunRecord, cite: Any) -> str:
    """The loss, and what was done to it."""
    loss, smoothing = get_setting(record, "loss"), float(get_setting(record, "smoothing"))
    smoothed = f" with label smoothing of {smoothing:g}" if smoothing and loss in SUPPORTS_LABEL_SMOOTHING else ""
    text = ""
    if loss == "cdw":
        text = f"; the loss was class distance weighted cross-entropy {cite('polat2022cdw')}"
    elif loss == "emd":
        text = f"; the loss was the squared earth mover's distance {cite('hou2016emd')}"
    elif loss == "focal":
        gamma = float(get_setting(record, "focal_gamma"))
        text = f"; the loss was the focal loss {cite('lin2017focal')} with a gamma of {gamma:g}{smoothed}"
    elif smoothed:
        text = f"; the loss was cross-entropy{smoothed}"
    return text + _describe_rebalancing(record, cite)


def _describe_rebalancing(record: RunRecord, cite: Any) -> str:
    """What made rare classes count more."""
    text = ""
    if (weights := get_setting(record, "class_weights")) not in (None, "none", ["none"]):
        text = f", with class weights ({' '.join(map(str, weights)) if isinstance(weights, list) else weights})"
    if (tau := float(get_setting(record, "logit_adjustment"))) > 0:
        text += f", with logits adjusted by the classes' shares {cite('menon2021logit')} (tau {tau:g})"
    if (sampling := get_setting(record, "sampling")) != INSTANCE_BALANCED:
        text += f", in epochs of {sampling.replace('_', '-')} sampling {cite('kang2020decoupling')}"
    return text


def _describe_evaluation(run: FinishedRun, record: RunRecord, cite: Any) -> str:
    grouped = all(fold.groups is not None for fold in run.folds)
    text = (
        "Macro precision, recall and F1 (means over classes), accuracy and Matthews' correlation coefficient are "
        f"reported with 95 % intervals by the jackknife {cite('efron1981jackknife')} over "
        f"{'patients or videos' if grouped else 'images'}, of the logit of the score"
    )
    text += "" if grouped else f"; rates of a class have Wilson's {cite('wilson1927probable')}"
    if run.ordered:
        text += f"; so are quadratic weighted kappa {cite('cohen1968kappa')}, mean absolute error and one-off accuracy"
    text += (
        f". Models were compared by exchanging their predictions within {'patients' if grouped else 'images'} at "
        f"random (permutation test), with p values adjusted for their number {cite('holm1979simple')}."
    )
    if run.is_cross_validated:
        text += (
            f" Folds share training images: the resampled t test is corrected for that {cite('nadeau2003inference')}."
        )
    if record.calibration:
        fitted_on = record.calibration.get("fitted_on")
        text += f" A temperature was fitted on the {fitted_on} split {cite('guo2017calibration')}"
        by_class = record.calibration.get("class_temperatures")
        text += f", for each class by its number of images {cite('islam2021class')}." if by_class else "."
    text += f" Where one positive side is reported, net benefit is too {cite('vickers2006decision')}."
    return text


def _data_citation(record: RunRecord) -> str:
    entry = find_benchmark_or_none(record.data.benchmark)
    return entry.citation if entry else ""
