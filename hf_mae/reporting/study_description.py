"""Description of a study from the record of its run: flow of the images, images by split, and methods with citations.

Facts that the record does not contain are omitted.
"""

import json
from pathlib import Path
from typing import Any

from ..data.sources.benchmarks import find_benchmark_or_none
from ..files.atomic import write_text
from ..runs.completed_run import CompletedRun
from ..runs.record import FIGURES_DIR, RunRecord
from ..settings.commands import command_options
from ..settings.losses import LOSSES, SMOOTHING
from ..settings.metrics import METRICS, MetricKind, metric_names
from ..settings.models import RANDOM_WEIGHTS
from ..settings.training import INSTANCE_BALANCED
from .bibliography import format_bibtex
from .document import Block, Heading, Paragraph
from .figures.study import plot_flow_diagram
from .renderers.files import write_document
from .run_sentences import describe_exclusion, describe_hardware, describe_selection, describe_versions
from .table import Column, Table, number_columns

SPLIT_TITLES = {
    "train": "training",
    "selection": "selection of the epoch",
    "validation": "validation",
    "test": "test",
}


def write_study_description(run: CompletedRun, folder: Path, suffix: str = "") -> list[str]:
    """Writes `study.md`, `.tex` (and `.docx`), `study.bib` and the figure `figures/flow`.

    Args:
        run: the run.
        folder: the output folder.
        suffix: part of the file names, to distinguish several runs.

    Returns:
        The names of the files; none if the record does not describe the images.
    """
    if run.record is None or run.record.study is None:
        return []
    blocks, keys = build_study_description(run)
    write_text(folder / f"study{suffix}.bib", format_bibtex(keys, _data_citation(run.record)))
    figure = f"{FIGURES_DIR}/flow{suffix}"
    plot_flow_diagram(run.record.study, folder / figure)
    names = write_document(blocks, folder / f"study{suffix}", [folder / f"{figure}.png"])
    return [*names, f"study{suffix}.bib", f"{figure}.png"]


def build_study_description(run: CompletedRun) -> tuple[list[Block], list[str]]:
    """Builds the document; returns it with the keys of its references."""
    record = run.record
    assert record is not None and record.study is not None, "the caller checks this"
    methods, keys = _describe_methods(run, record)
    references = ", ".join([*keys, *(["data"] if _data_citation(record) else [])])
    blocks: list[Block] = [
        Heading(f"The study of {run.name}", 1),
        Heading("Images"),
        _flow_table(record.study),
        _table_one(record.study),
        Heading("Methods"),
        *[Paragraph(text) for text in methods],
        Heading("References"),
        Paragraph(f"BibTeX entries are in the accompanying .bib file: {references}."),
    ]
    return blocks, keys


# Images


def _flow_table(cohort: dict[str, Any]) -> Table:
    rows: list[list[str]] = [["found", str(cohort["total"] if cohort["total"] is not None else "not known"), ""]]
    for step in cohort["excluded"]:
        rows.append([f"excluded: {describe_exclusion(step)}", str(step["images"]), ", ".join(step["examples"])])
    if relabelled := cohort.get("relabelled"):
        rows.append(["label corrected", str(relabelled["images"]), f"according to {relabelled['source_file']}"])
    for split, entry in cohort["splits"].items():
        groups = f"{entry['groups']} patients or videos" if entry["groups"] else "patients not known"
        rows.append([SPLIT_TITLES.get(split, split), str(entry["images"]), groups])
    columns = [Column("images"), Column("number", "r"), Column("remarks")]
    return Table(columns, rows, "Flow of the images:")


def _table_one(cohort: dict[str, Any]) -> Table:
    """Builds the table of images by split, class and column of the manifest ("Table 1")."""
    splits = cohort["splits"]
    totals = [entry["images"] for entry in splits.values()]
    rows = [["images", *map(str, totals)]]
    if any(entry["groups"] for entry in splits.values()):
        rows.append(["patients or videos", *(str(entry["groups"] or "not known") for entry in splits.values())])
    for name in next(iter(splits.values()))["classes"]:
        counts = [entry["classes"][name] for entry in splits.values()]
        rows.append([f"class: {name}", *map(_format_count, counts, totals)])
    for column, by_split in cohort["columns"].items():
        for value in next(iter(by_split.values())):
            counts = [by_split[split].get(value, 0) for split in splits]
            rows.append([f"{column}: {value}", *map(_format_count, counts, totals)])
    columns = [Column(""), *number_columns([SPLIT_TITLES.get(split, split) for split in splits])]
    return Table(columns, rows, "Images by split, number (per cent):")


def _format_count(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f})" if total else "0"


# Methods


def _describe_methods(run: CompletedRun, record: RunRecord) -> tuple[list[str], list[str]]:
    """Describes the methods in paragraphs; returns them with the keys of their references."""
    references: list[str] = []

    def cite(*keys: str) -> str:
        references.extend(key for key in keys if key not in references)
        return f"[{'; '.join(f'@{key}' for key in keys)}]"

    return [
        _describe_data(record),
        _describe_model(run, record, cite),
        _describe_training(record, cite),
        _describe_evaluation(run, record, cite),
        f"Software: hf_mae, {describe_versions(record.environment)} "
        f"{cite('wolf2020transformers', 'paszke2019pytorch')}. "
        f"Hardware: {describe_hardware(record.environment.hardware)}.",
    ], references


def get_setting(record: RunRecord, name: str) -> Any:
    """Returns a setting of the run, or its default."""
    if name in record.settings:
        return record.settings[name]
    options = command_options(record.kind if record.kind != "evaluate" else "finetune")
    return options[name].default if name in options else None


def _describe_data(record: RunRecord) -> str:
    study: dict[str, Any] = record.study or {}
    splits: dict[str, Any] = study["splits"]
    counts = ", ".join(f"{entry['images']} for {SPLIT_TITLES.get(split, split)}" for split, entry in splits.items())
    unit = "patient or video" if all(entry["groups"] for entry in splits.values()) else "image"
    source = f"the benchmark {record.data.benchmark}" if record.data.benchmark else record.data.name
    text = f"Images of {source} in {len(record.classes)} classes were used: {counts}."
    entry = find_benchmark_or_none(record.data.benchmark)
    if entry and entry.has_split:
        text += " The split is the official one."
    elif record.data.val_fraction:
        text += (
            f" {100 * record.data.val_fraction:g} % of the training images were held out for validation, stratified by "
            f"class and grouped by {unit} (seed {record.data.seed})."
        )
    if record.data.selection_fraction:
        text += (
            f" {100 * record.data.selection_fraction:g} % of the training images, grouped by {unit}, were held out to "
            "select the epoch, so that the validation images were not used before the final evaluation."
        )
    if relabelled := study.get("relabelled"):
        text += f" {relabelled['images']} labels were corrected after a review ({relabelled['source_file']})."
    excluded = [f"{step['images']} ({describe_exclusion(step)})" for step in study["excluded"]]
    return text + (f" Excluded images: {', '.join(excluded)}." if excluded else "")


def _describe_model(run: CompletedRun, record: RunRecord, cite: Any) -> str:
    pooling, size = _get_pooling_and_size(run, record)
    network = record.network
    text = f"The network {network} " if network else f"A vision transformer {cite('dosovitskiy2021vit')} "
    if record.base == RANDOM_WEIGHTS:
        text += "was trained from random initial weights"
    elif network:
        text += f"was fine-tuned from {Path(record.base).name}"
    else:
        text += f"was fine-tuned from {Path(record.base).name}, pre-trained as a masked autoencoder {cite('he2022mae')}"
    text += f"; it classifies from {pooling}" if pooling else ""
    text += f", at {size} x {size} pixels." if size else "."
    if record.seen_in_pretraining is not None:
        count = sum(record.seen_in_pretraining.values())
        text += (
            f" Of the evaluated images, {count or 'none'} {'was' if count == 1 else 'were'} in the pre-training set."
        )
    return text


def _get_pooling_and_size(run: CompletedRun, record: RunRecord) -> tuple[str, int | None]:
    """Returns the features that the head classifies, and the image size, from the configuration of the run if it has
    one."""
    titles = {"mean": "the mean of the patch tokens", "cls": "the class token"}
    if record.network:
        return "", get_setting(record, "image_size")
    try:
        config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
        mean = "BeitForImageClassification" in config["architectures"]
        return titles["mean" if mean else "cls"], int(config["image_size"])
    except (OSError, ValueError, KeyError, TypeError):  # a cross-validation has no configuration
        return titles.get(str(get_setting(record, "pooling")), ""), get_setting(record, "image_size")


def _describe_training(record: RunRecord, cite: Any) -> str:
    training = record.train
    epochs = float(get_setting(record, "num_train_epochs"))
    text = f"The model was trained for {epochs:g} epochs with AdamW {cite('loshchilov2019adamw')}"
    if training and training.learning_rate is not None:
        text += f", {training.effective_batch_size} images per update, a learning rate of {training.learning_rate:.3g}"
        if get_setting(record, "learning_rate") is None:
            text += f" (linear scaling rule {cite('goyal2017accurate')})"
    warmup, minimum, decay = (
        float(get_setting(record, name)) for name in ("warmup_epochs", "min_learning_rate", "weight_decay")
    )
    text += f", warm-up over {warmup:g} epochs and cosine decay to {minimum:g}, weight decay {decay:g}"
    if (layer_decay := float(get_setting(record, "layer_decay"))) != 1:
        text += f", layer-wise learning-rate decay of {layer_decay:g} {cite('clark2020electra')}"
    if (drop_path := float(get_setting(record, "drop_path"))) > 0:
        text += f", stochastic depth of {drop_path:g} {cite('huang2016stochastic')}"
    text += f"{_describe_loss(record, cite)} (seed {get_setting(record, 'seed')})."
    return f"{text} {describe_selection(record.selection)}".rstrip()


def _describe_loss(record: RunRecord, cite: Any) -> str:
    loss, smoothing = LOSSES[get_setting(record, "loss")], float(get_setting(record, "smoothing"))
    parameters = {name: float(get_setting(record, name)) for name in loss.parameters}
    text = loss.methods.format(cite=cite(loss.citation.key) if loss.citation else "", **parameters)
    smoothed = f" with label smoothing of {smoothing:g}" if smoothing and SMOOTHING in loss.supports else ""
    return f"; the loss was {text}{smoothed}{_describe_rebalancing(record, cite)}"


def _describe_rebalancing(record: RunRecord, cite: Any) -> str:
    """Describes measures against class imbalance."""
    text = ""
    if (weights := get_setting(record, "class_weights")) not in (None, "none", ["none"]):
        text = f", with class weights ({' '.join(map(str, weights)) if isinstance(weights, list) else weights})"
    if (tau := float(get_setting(record, "logit_adjustment"))) > 0:
        text += f", with logit adjustment by class frequency {cite('menon2021logit')} (tau {tau:g})"
    if (sampling := get_setting(record, "sampling")) != INSTANCE_BALANCED:
        text += f", with {sampling.replace('_', '-')} sampling {cite('kang2020decoupling')}"
    return text


def _describe_evaluation(run: CompletedRun, record: RunRecord, cite: Any) -> str:
    grouped = all(fold.groups is not None for fold in run.folds)
    unit = "patients or videos" if grouped else "images"
    headline = _list_metrics(MetricKind.HEADLINE, cite)
    text = (
        f"{headline[0].upper()}{headline[1:]} are reported with 95 % intervals (jackknife {cite('efron1981jackknife')} "
        f"over {unit}, on the logit of the score)"
    )
    text += "" if grouped else f"; rates of a class have Wilson intervals {cite('wilson1927probable')}"
    if run.ordered:
        text += f"; {_list_metrics(MetricKind.ORDINAL, cite)} are reported in the same way"
    text += (
        f". Models were compared by permutation tests that exchange their predictions within "
        f"{'patients or videos' if grouped else 'images'}, with p values adjusted for multiple comparisons "
        f"{cite('holm1979simple')}."
    )
    if run.is_cross_validated:
        text += (
            " As folds share training images, the corrected resampled t test is given in addition "
            f"{cite('nadeau2003inference')}."
        )
    if record.calibration:
        fitted_on = record.calibration.get("fitted_on")
        text += f" A temperature was fitted on the {fitted_on} split {cite('guo2017calibration')}"
        by_class = record.calibration.get("class_temperatures")
        text += f", for each class by its number of images {cite('islam2021class')}." if by_class else "."
    return text + (
        " If results are reported for positive classes against the rest, net benefit is reported, too "
        f"{cite('vickers2006decision')}."
    )


def _list_metrics(kind: MetricKind, cite: Any) -> str:
    """Lists the metrics of a kind with their references."""
    metrics = [METRICS[name] for name in metric_names(kind)]
    texts = [
        (metric.methods or metric.title) + (f" {cite(metric.citation.key)}" if metric.citation else "")
        for metric in metrics
    ]
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _data_citation(record: RunRecord) -> str:
    entry = find_benchmark_or_none(record.data.benchmark)
    return entry.citation if entry else ""
