"""Finished runs, as they are read back: the folders of `finetune`, `crossval` and `evaluate`."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.benchmarks import find_benchmark_or_none
from ..data.class_map import read_class_map
from ..errors import UsageError
from ..evaluation.calibration import Temperature
from ..evaluation.confusion import headline_metrics
from ..evaluation.intervals import Rate, estimate_rates_by_class, headline_metric_intervals
from ..evaluation.prediction_table import Predictions
from ..evaluation.scores import softmax
from ..models.ensemble import read_ensemble_members
from .predictions import read_predictions
from .record import ALL_RESULTS, CROSSVAL, CrossvalRun, DataSource, RunRecord, run_name
from .record_io import read_record

SELECTED_ON_EVAL_NOTE = "The epoch was chosen on the images that are evaluated: an optimistic figure."


@dataclass
class FinishedRun:
    """A row of the report: one run, or the folds and seeds of a cross-validation.

    Args:
        data: the benchmark, or the name of the user's own data set.
        split: that is evaluated.
        protocol: of the published rows that it may stand beside (`Benchmark.protocol`); None: of none.
        folds: the predictions, one entry for each fold.
        file_names: of each fold.
        selected_on_eval_split: whether the best epoch was chosen on the images that are evaluated.
        label_efficiency: points of `crossval`, where there are several.
        num_training_images: images of a fold that are trained on, of a cross-validation.
        threshold_predictions: predictions of the split on which operating points are chosen, for each fold, or for each run where
            these have images of their own; None: there is none.
        threshold_split: its name.
        no_threshold_reason: where there is none.
        source: where the images are from.
        record: of the run (of a cross-validation: of its first).
    """

    name: str
    folder: Path
    data: str
    split: str
    protocol: str | None
    initialisation: str
    names: list[str]
    folds: list[Predictions]
    file_names: list[list[str]]
    selected_on_eval_split: bool
    notes: list[str] = field(default_factory=list)
    label_efficiency: list[dict[str, Any]] | None = None
    num_training_images: int | None = None
    threshold_predictions: list[Predictions] | None = None
    threshold_split: str | None = None
    no_threshold_reason: str = "there are no predictions of another split than the one that is evaluated"
    source: DataSource | None = None
    record: RunRecord | None = None

    @property
    def ordered(self) -> bool:
        """Whether the classes are grades, in the order of their ids."""
        return self.folds[0].ordered

    @property
    def is_cross_validated(self) -> bool:
        """Whether it has several folds, which share training images."""
        return len(self.folds) > 1

    @property
    def has_repeated_images(self) -> bool:
        """Whether an image is evaluated in several folds, so that their predictions are no sample of images."""
        names = [name for fold in self.file_names for name in fold]
        return len(set(names)) < len(names)

    def scores(self) -> dict[str, dict[str, Any]]:
        """By headline score: `mean`, `std` (None for one run), `values` and the 95 % `interval` of the mean (None where
        there are too few patients or images for one)."""
        by_fold = [headline_metrics(fold.confusion_matrices(), fold.ordered) for fold in self.folds]
        intervals = headline_metric_intervals(self.folds)
        result = {}
        for name in intervals:
            values = np.concatenate([scores[name] for scores in by_fold])
            std = float(values.std()) if len(values) > 1 else None
            result[name] = {"mean": float(values.mean()), "std": std, "values": values.tolist()}
            result[name]["interval"] = intervals[name]
        return result

    def class_rates(self) -> dict[str, dict[str, Rate]]:
        """Sensitivity, specificity and predictive values of each class against the rest, with 95 % intervals."""
        return dict(zip(self.names, estimate_rates_by_class(self.folds)))


def load_run(path: str | Path, split: str | None = None) -> FinishedRun:
    """A finished run from its folder.

    Args:
        split: to report; None: the test split where there is one, else validation.

    Raises:
        UsageError: the folder holds no finished run, or not that split.
    """
    folder = Path(path)
    if (folder / CROSSVAL).is_file():
        return _load_crossval(folder, read_record(folder, CROSSVAL), split)
    if (folder / ALL_RESULTS).is_file():
        return _load_finetune(folder, split)
    if found := sorted(folder.glob("results_*.json")):
        return _load_evaluate(folder, split, found)
    raise UsageError(
        f"{folder} holds no finished run: pass an output folder of hf-mae finetune, crossval or evaluate --output_dir."
    )


def _resolve_data_and_protocol(
    source: DataSource, counts: list[dict[str, int]], folds: list[int]
) -> tuple[str, str | None, list[str]]:
    """The name of the data, the protocol that all folds follow, and what else is to be said of them."""
    entry, notes = find_benchmark_or_none(source.benchmark), []
    if not source.benchmark or entry is None:
        return source.name, None, []
    whole = [_merge_selection_into_train(count) for count in counts]
    protocols = {entry.match_protocol(fold, count) for fold, count in zip(folds, whole)}
    protocol = protocols.pop() if len(protocols) == 1 else None
    if protocol is None:
        notes.append("The images are not those of the published split.")
    elif entry.folds and len(set(folds)) < entry.folds:
        notes.append(f"Fold {folds[0]} alone.")
    return source.benchmark, protocol, notes


def _merge_selection_into_train(counts: dict[str, int]) -> dict[str, int]:
    """Images by split, as they were before a selection part was taken out of the training part."""
    counts = dict(counts)
    counts["train"] = counts.get("train", 0) + counts.pop("selection", 0)
    return counts


def _contamination_note(record: RunRecord, split: str) -> list[str]:
    """What is to be said where evaluated images were pre-trained on."""
    count = (record.leakage or {}).get(split, 0)
    return [f"{count} of the {record.images[split]} images were in the pre-training."] if count else []


def _load_crossval(folder: Path, record: RunRecord, split: str | None) -> FinishedRun:
    summary = record.crossval
    assert summary is not None, "a record of crossval has its summary"
    largest = max(run.fraction for run, _, _ in summary.runs)
    runs = [(run, chosen_on) for run, _, chosen_on in summary.runs if run.fraction == largest]
    numbers = sorted({run.fold for run, _ in runs})
    if (on_test := _load_shared_test_split(folder, record, [run for run, _ in runs], split)) is not None:
        return on_test
    folds, file_names, records, chosen = [], [], [], []
    names: list[str] = []
    for number in numbers:
        same = [folder / run.folder for run, _ in runs if run.fold == number]
        predictions, files, names = read_predictions([path / "predictions_validation.csv" for path in same])
        file_names.append(files)
        records.append(read_record(same[0]))
        folds.append(replace(predictions, ordered=records[-1].ordered))
        chosen.append(_read_split_predictions(same, "selection"))
    data, protocol, notes = record.data.name, None, [f"{len(numbers)} folds of our own."]
    if summary.folds == "official":
        data, protocol, notes = _resolve_data_and_protocol(record.data, [one.images for one in records], numbers)
        entry = find_benchmark_or_none(data)
        if entry and entry.eval_split != "validation":
            protocol = None  # its published rows are of the test split
    if largest < 1.0:
        protocol = None
        notes.append(f"Trained on {100 * largest:g} % of the labels.")
    seeds = len({run.seed for run, _ in runs})
    notes += _contamination_note(records[0], "validation")
    notes.append(f"Mean of {len(runs)} runs ({len(numbers)} folds, {seeds} seed{'s' if seeds > 1 else ''}).")
    return FinishedRun(
        name=run_name(folder),
        folder=folder,
        data=data,
        split="validation",
        protocol=protocol,
        initialisation=_base_name(record.base),
        names=names,
        folds=folds,
        file_names=file_names,
        selected_on_eval_split=any(chosen_on == "validation" for _, chosen_on in runs),
        notes=notes,
        label_efficiency=summary.label_efficiency if len(summary.label_efficiency) > 1 else None,
        num_training_images=round(float(np.mean([one.images["train"] for one in records]))),
        threshold_predictions=_list_if_complete(chosen),
        threshold_split="selection",
        no_threshold_reason="these folds have no images beside those that are trained on and those that are evaluated "
        "(train with --selection_fraction 0.1 to have some)",
        source=record.data,
        record=records[0],
    )


def _load_shared_test_split(
    folder: Path, record: RunRecord, runs: list[CrossvalRun], split: str | None
) -> FinishedRun | None:
    """A cross-validation over the official splits of a benchmark that has one test split for all of them (LIMUC): every
    run's predictions of it. None: it is another one, or its validation parts are asked for."""
    entry = find_benchmark_or_none(record.data.benchmark)
    paths = [folder / run.folder / "predictions_test.csv" for run in runs]
    if not (entry and entry.folds and entry.eval_split == "test" and split in (None, "test")):
        return None
    if not all(path.is_file() for path in paths):
        return None
    records = [read_record(path.parent) for path in paths]
    predictions, files, names = read_predictions(paths)
    data, protocol, notes = _resolve_data_and_protocol(
        record.data, [one.images for one in records], [run.fold for run in runs]
    )
    chosen = [_read_split_predictions([path.parent], "validation") for path in paths]
    notes.append(
        f"Mean of {len(runs)} runs of the {len({run.fold for run in runs})} official splits, on one test split."
    )
    return FinishedRun(
        name=run_name(folder),
        folder=folder,
        data=data,
        split="test",
        protocol=protocol,
        initialisation=_base_name(record.base),
        names=names,
        folds=[replace(predictions, ordered=record.ordered)],
        file_names=[files],
        selected_on_eval_split=False,
        notes=notes,
        threshold_predictions=_list_if_complete(chosen),
        threshold_split="validation",
        source=record.data,
        record=records[0],
    )


def _list_if_complete(predictions: list[Predictions | None]) -> list[Predictions] | None:
    known = [one for one in predictions if one is not None]
    return known if len(known) == len(predictions) else None


def _read_split_predictions(folders: list[Path], split: str) -> Predictions | None:
    """The predictions of a split by runs of one fold; None where one has none."""
    paths = [folder / f"predictions_{split}.csv" for folder in folders]
    return read_predictions(paths)[0] if all(path.is_file() for path in paths) else None


def _load_finetune(folder: Path, split: str | None) -> FinishedRun:
    record = read_record(folder)
    present: list[str] = [name for name in ("test", "validation", "selection") if name in record.scores]
    if not present:
        raise UsageError(f"{folder} was never evaluated: it has no validation and no test split.")
    return _load_single(folder, _choose_split(folder, split, present), record, training_record=record)


def _load_evaluate(folder: Path, split: str | None, result_files: list[Path]) -> FinishedRun:
    present = [path.stem.removeprefix("results_") for path in result_files]
    present.sort(key=lambda name: {"test": 0, "validation": 1}.get(name, 2))
    split = _choose_split(folder, split, present)
    record = read_record(folder, f"results_{split}.json")
    folders = [os.path.join(record.base, member.folder) for member in read_ensemble_members(record.base)] or [
        record.base
    ]
    known = all(os.path.isfile(os.path.join(path, ALL_RESULTS)) for path in folders)  # False for what can be no path
    run = _load_single(
        folder, split, record, _find_training_record([read_record(path) for path in folders] if known else [], split)
    )
    if len(folders) > 1:
        run.notes.append(f"Mean of the scores of {len(folders)} models.")
    return run


def _find_training_record(records: list[RunRecord], split: str) -> RunRecord | None:
    """The run that trained a model; of an ensemble the first, or one whose epoch was chosen on the split."""
    chosen = [one for one in records if one.selection and one.selection.selection_split == split]
    return next(iter(chosen or records), None)


def _choose_split(folder: Path, split: str | None, available: list[str]) -> str:
    """The split that is asked for, or the first of those there are."""
    if split and split not in available:
        raise UsageError(f"{folder} has no scores of the split {split}; it has {', '.join(available)}.")
    return split or available[0]


def _load_single(folder: Path, split: str, record: RunRecord, training_record: RunRecord | None) -> FinishedRun:
    """One run's predictions of one split.

    Args:
        record: of what was evaluated.
        training_record: of the model; None: not known.
    """
    predictions, files, names = read_predictions([folder / f"predictions_{split}.csv"])
    predictions = replace(predictions, ordered=record.ordered)
    chosen, chosen_split, why = _load_threshold_predictions(folder, split, record, training_record, names)
    source, chosen_on_evaluated = record.data, False
    data, protocol, notes = _resolve_data_and_protocol(source, [record.images], [source.fold])
    if training_record is None:
        notes.append("How the epoch was chosen is not known.")
    else:
        trained = training_record.data
        same_data = trained.data_dir == source.data_dir
        if same_data:
            notes += _contamination_note(training_record, split)
        chosen_on = training_record.selection.selection_split if training_record.selection else None
        chosen_on_evaluated = chosen_on == split and same_data
        if trained.train_fraction < 1.0:
            notes.append(f"Trained on {100 * trained.train_fraction:g} % of the labels.")
            protocol = None
        if source.benchmark and trained.benchmark == source.benchmark and trained.fold != source.fold:
            notes.append(f"The model was trained on fold {trained.fold}, so on the images that are evaluated.")
            protocol = None
    entry = find_benchmark_or_none(source.benchmark)
    if entry and split != entry.eval_split:
        protocol = None
    return FinishedRun(
        name=run_name(folder),
        folder=folder,
        data=data,
        split=split,
        protocol=protocol,
        initialisation=_base_name(training_record.base if training_record else record.base),
        names=names,
        folds=[predictions],
        file_names=[files],
        selected_on_eval_split=chosen_on_evaluated,
        notes=[*notes, *_unmapped_note(record)],
        threshold_predictions=chosen,
        threshold_split=chosen_split,
        no_threshold_reason=why,
        source=source,
        record=training_record or record,
    )


def _unmapped_note(record: RunRecord) -> list[str]:
    """What is to be said of an evaluation on another data set's classes."""
    if not record.data.class_map:
        return []
    counts = ", ".join(f"{count} of {name}" for name, count in record.unmapped_images.items()) or "none"
    return [
        f"External: classes joined by {Path(record.data.class_map).name}; images of other classes left out: {counts}."
    ]


def _load_threshold_predictions(
    folder: Path, split: str, record: RunRecord, training_record: RunRecord | None, names: list[str]
) -> tuple[list[Predictions] | None, str | None, str]:
    """Predictions of the split on which operating points are chosen, its name, and why there are none.

    Of a run that is its validation split where the test split is evaluated, else its selection split; of an evaluation
    that of the run that trained the model, with the same temperature.
    """
    own = folder if record.kind == "finetune" else Path(record.base)
    same_data = training_record is not None and training_record.data.data_dir == record.data.data_dir
    splits = ["validation", "selection"] if not (same_data and split == "validation") else ["selection"]
    found = [one for one in splits if (own / f"predictions_{one}.csv").is_file() and not (same_data and one == split)]
    if not found or training_record is None:
        return None, None, f"{own} has no predictions of another split than {split}"
    if record.averaged_views:
        return None, None, "scores are averaged over views, and those that thresholds would be chosen on are not"
    predictions, _, own_names = read_predictions([own / f"predictions_{found[0]}.csv"])
    assert predictions.class_scores is not None, "a file has them"
    with np.errstate(divide="ignore"):
        logits = np.log(predictions.class_scores)
    if record.kind == "evaluate" and record.calibration:
        logits = Temperature.from_dict(record.calibration, own_names).scale_logits(logits)
    if record.data.class_map:
        joined = read_class_map(record.data.class_map, own_names)
        kept = np.isin(
            predictions.labels, [i for i, name in enumerate(own_names) if joined.map_class(name).data_classes]
        )
        labels = [
            joined.class_names.index(joined.map_class(own_names[label]).name) for label in predictions.labels[kept]
        ]
        logits, own_names = joined.merge_logits(logits[:, kept]), joined.class_names
        groups = None if predictions.groups is None else predictions.groups[kept]
        predictions = Predictions(np.array(labels), logits.argmax(-1), len(own_names), groups)
    if own_names != names:
        return None, None, f"{own} has other classes"
    return [replace(predictions, class_scores=softmax(logits), ordered=record.ordered)], found[0], ""


def _base_name(base: str) -> str:
    return Path(base).name or base
