"""Loads completed runs: the output folders of `finetune`, `crossval` and `evaluate`, and prediction tables."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.class_map import read_class_map
from ..errors import UsageError
from ..evaluation.metrics import softmax
from ..evaluation.prediction_table import Predictions
from ..inference.tta import NUM_VIEWS
from ..models.ensemble import read_ensemble_members
from ..settings.benchmarks import find_benchmark_or_none
from .completed_run import CompletedRun, Note, NoteCode
from .external_tables import load_table, load_table_folder
from .messages import RunMessage
from .predictions import find_predictions, list_predicted_splits, read_prediction_table, read_predictions
from .record import ALL_RESULTS, CROSSVAL, DataSource, RunRecord, run_name
from .record_io import read_record
from .split_consistency import have_disjoint_manifests, is_same_data

_SPLIT_ORDER = {"test": 0, "validation": 1, "selection": 2}


def load_run(path: str | Path, split: str | None = None) -> CompletedRun:
    """Loads a completed run from its folder, or a prediction table of any program.

    Args:
        path: output folder of a run, a prediction table (CSV file of any program, parquet file of a run), or a folder
            with files `predictions_<split>.csv` only.
        split: split to report; None: the test split if available, otherwise validation.

    Raises:
        UsageError: If there is neither a completed run nor a prediction table, or it has no scores of the split.
    """
    folder = Path(path)
    if folder.is_file():
        return load_table(folder, split)
    if (folder / CROSSVAL).is_file():
        return _load_crossval(folder, read_record(folder, CROSSVAL), split)
    if (folder / ALL_RESULTS).is_file():
        return _load_finetune(folder, split)
    if result_files := sorted(folder.glob("results_*.json")):
        return _load_evaluate(folder, split, result_files)
    if available := list_predicted_splits(folder):
        return load_table_folder(folder, _choose_split(folder, split, available))
    raise UsageError(RunMessage.NOT_A_COMPLETED_RUN, path=folder)


def _resolve_data_and_protocol(
    source: DataSource, counts: list[dict[str, int]], folds: list[int]
) -> tuple[str, str | None, list[Note]]:
    """Returns the name of the data, the protocol that all folds follow (or None), and notes for the report."""
    benchmark = find_benchmark_or_none(source.benchmark)
    notes: list[Note] = []
    if not source.benchmark or benchmark is None:
        return source.name, None, []
    merged = [_merge_selection_into_train(count) for count in counts]
    protocols = {benchmark.match_protocol(fold, count) for fold, count in zip(folds, merged)}
    protocol = protocols.pop() if len(protocols) == 1 else None
    if protocol is None:
        notes.append(Note(NoteCode.OTHER_IMAGES_THAN_PUBLISHED))
    elif benchmark.folds and len(set(folds)) < benchmark.folds:
        notes.append(Note(NoteCode.ONE_FOLD, {"fold": folds[0]}))
    return source.benchmark, protocol, notes


def _merge_selection_into_train(counts: dict[str, int]) -> dict[str, int]:
    """Counts images by split, with the selection split counted as training images."""
    counts = dict(counts)
    counts["train"] = counts.get("train", 0) + counts.pop("selection", 0)
    return counts


def _contamination_note(record: RunRecord, split: str) -> list[Note]:
    """Returns a note about evaluated images that were in the pre-training data."""
    count = (record.seen_in_pretraining or {}).get(split, 0)
    values = {"count": count, "images": record.images[split]} if count else {}
    return [Note(NoteCode.SEEN_IN_PRETRAINING, values)] if count else []


def _load_crossval(folder: Path, record: RunRecord, split: str | None) -> CompletedRun:
    """Loads the runs of a cross-validation with the largest fraction of the labels: the validation images of each fold,
    or the test images that all official splits share (LIMUC)."""
    summary = record.crossval
    assert summary is not None, "the record of a cross-validation has a summary"
    fraction = max(result.run.fraction for result in summary.runs)
    results = [result for result in summary.runs if result.run.fraction == fraction]
    runs = [result.run for result in results]
    folders, fold_ids = [folder / run.folder for run in runs], sorted({run.fold for run in runs})
    has_test = _share_test_split(record) and all(find_predictions(run_dir, "test") for run_dir in folders)
    split = _choose_split(folder, split, ["validation", "test"] if has_test else ["validation"])
    counts = {"runs": len(runs), "folds": len(fold_ids), "seeds": len({run.seed for run in runs})}
    if split == "test":
        by_images, by_fold, fold_ids = [folders], [[run_dir] for run_dir in folders], [run.fold for run in runs]
        threshold_split, mean = "validation", Note(NoteCode.MEAN_OF_OFFICIAL_SPLITS, counts)
    else:
        by_images = by_fold = [[folder / run.folder for run in runs if run.fold == fold] for fold in fold_ids]
        threshold_split, mean = "selection", Note(NoteCode.MEAN_OF_FOLDS, counts)
    records = [read_record(run_dirs[0]) for run_dirs in by_fold]
    predictions, file_names, class_names = zip(*(read_predictions(run_dirs, split) for run_dirs in by_images))
    data, protocol, notes = record.data.name, None, [Note(NoteCode.RANDOM_FOLDS, {"folds": len(fold_ids)})]
    if centres := summary.by_centre:
        notes = [Note(NoteCode.CENTRES_LEFT_OUT, {"centres": len(centres.centres), "column": centres.column})]
    if summary.folds == "official":
        data, protocol, notes = _resolve_data_and_protocol(record.data, [one.images for one in records], fold_ids)
    benchmark = find_benchmark_or_none(data)
    if fraction < 1.0:
        notes.append(Note(NoteCode.FRACTION_OF_LABELS, {"fraction": fraction}))
    return CompletedRun(
        name=run_name(folder),
        folder=folder,
        data=data,
        split=split,
        # Published results are on the evaluated split of the benchmark.
        protocol=None if fraction < 1.0 or (benchmark and benchmark.eval_split != split) else protocol,
        initialisation=_base_name(record.base),
        class_names=class_names[-1],
        folds=[
            replace(fold, ordered=records[0].ordered, macro_over_labels=centres is not None) for fold in predictions
        ],
        file_names=list(file_names),
        selected_on_eval_split=any(result.selection_split == split for result in results),
        notes=[*notes, *_contamination_note(records[0], split), mean],
        label_efficiency=summary.label_efficiency
        if split == "validation" and len(summary.label_efficiency) > 1
        else None,
        num_training_images=round(float(np.mean([one.images["train"] for one in records]))),
        threshold_predictions=_read_threshold_predictions(by_fold, threshold_split),
        threshold_split=threshold_split,
        no_threshold_reason=Note(NoteCode.NO_SPLIT_OF_FOLDS),
        source=record.data,
        trained=[read_record(run_dir) for run_dir in folders],
        is_external=False,
        evaluated=record,
        centres=centres,
    )


def _share_test_split(record: RunRecord) -> bool:
    """Whether a cross-validation uses the official folds of a benchmark, which share one test split."""
    benchmark = find_benchmark_or_none(record.data.benchmark)
    is_official = record.crossval is not None and record.crossval.folds == "official"
    return bool(is_official and benchmark and benchmark.folds and benchmark.eval_split == "test")


def _read_threshold_predictions(by_fold: list[list[Path]], split: str) -> list[Predictions] | None:
    """Reads the predictions of a split by run, because its images depend on the seed; None if a run has none."""
    folders = [run_dir for run_dirs in by_fold for run_dir in run_dirs]
    if not all(find_predictions(run_dir, split) for run_dir in folders):
        return None
    return [read_predictions([run_dir], split)[0] for run_dir in folders]


def _load_finetune(folder: Path, split: str | None) -> CompletedRun:
    record = read_record(folder)
    if not record.scores:
        raise UsageError(RunMessage.RUN_WITHOUT_EVALUATION, path=folder)
    return _load_single_run(folder, _choose_split(folder, split, list(record.scores)), record, training_record=record)


def _load_evaluate(folder: Path, split: str | None, result_files: list[Path]) -> CompletedRun:
    available = [path.stem.removeprefix("results_") for path in result_files]
    split = _choose_split(folder, split, available)
    record = read_record(folder, f"results_{split}.json")
    folders = [os.path.join(record.base, member.folder) for member in read_ensemble_members(record.base)] or [
        record.base
    ]
    # `os.path.isfile` returns False for names that are not valid paths.
    has_records = all(os.path.isfile(os.path.join(path, ALL_RESULTS)) for path in folders)
    training_records = [read_record(path) for path in folders] if has_records else []
    run = _load_single_run(folder, split, record, _find_training_record(training_records, split))
    run.trained = training_records
    same_data = [_is_training_data(record, training) for training in training_records]
    run.is_external = not any(same_data) if same_data else None
    if record.averaged_views:
        run.notes.append(Note(NoteCode.MEAN_OF_VIEWS, {"views": NUM_VIEWS}))
    if len(folders) > 1:
        run.notes.append(Note(NoteCode.MEAN_OF_MODELS, {"models": len(folders)}))
    return run


def _find_training_record(records: list[RunRecord], split: str) -> RunRecord | None:
    """Record of the training run; for an ensemble, of a member that selected its epoch on the split, or the first."""
    selected_on_split = [record for record in records if record.selection and record.selection.selection_split == split]
    return next(iter(selected_on_split or records), None)


def _choose_split(folder: Path, split: str | None, available: list[str]) -> str:
    """Returns the requested split, or the first available one: test, validation, selection, or another."""
    if split and split not in available:
        raise UsageError(RunMessage.SPLIT_NOT_EVALUATED, path=folder, split=split, available=available)
    return split or min(available, key=lambda name: (_SPLIT_ORDER.get(name, len(_SPLIT_ORDER)), name))


def _load_single_run(folder: Path, split: str, record: RunRecord, training_record: RunRecord | None) -> CompletedRun:
    """Loads one run with its predictions on one split; the record of its training is None if it is unknown."""
    predictions, file_names, class_names = read_predictions([folder], split)
    predictions = replace(predictions, ordered=record.ordered)
    threshold_predictions, threshold_split, no_threshold_reason = _load_threshold_predictions(
        folder, split, record, training_record, class_names
    )
    source, selected_on_eval_split = record.data, False
    data, protocol, notes = _resolve_data_and_protocol(source, [record.images], [source.fold])
    if training_record is None:
        notes.append(Note(NoteCode.SELECTION_UNKNOWN))
    else:
        training_source = training_record.data
        same_data = _is_training_data(record, training_record)
        if same_data:
            notes += _contamination_note(training_record, split)
        selected_on = training_record.selection.selection_split if training_record.selection else None
        selected_on_eval_split = selected_on == split and same_data
        if training_source.train_fraction < 1.0:
            notes.append(Note(NoteCode.FRACTION_OF_LABELS, {"fraction": training_source.train_fraction}))
            protocol = None
        if source.benchmark and training_source.benchmark == source.benchmark and training_source.fold != source.fold:
            notes.append(Note(NoteCode.TRAINED_ON_OTHER_FOLD, {"fold": training_source.fold}))
            protocol = None
    benchmark = find_benchmark_or_none(source.benchmark)
    if benchmark and split != benchmark.eval_split:
        protocol = None
    return CompletedRun(
        name=run_name(folder),
        folder=folder,
        data=data,
        split=split,
        protocol=protocol,
        initialisation=_base_name(training_record.base if training_record else record.base),
        class_names=class_names,
        folds=[predictions],
        file_names=[file_names],
        selected_on_eval_split=selected_on_eval_split,
        notes=[*notes, *_class_map_note(record)],
        threshold_predictions=threshold_predictions,
        threshold_split=threshold_split,
        no_threshold_reason=no_threshold_reason,
        source=source,
        trained=[training_record] if training_record else [],
        is_external=False,
        evaluated=record,
    )


def _is_training_data(record: RunRecord, training_record: RunRecord | None) -> bool:
    """Whether a model was evaluated on the data that it was trained on, in any split."""
    if training_record is None:
        return False
    evaluated, trained = record.data, training_record.data
    if have_disjoint_manifests(evaluated, trained):
        return False
    return evaluated.data_dir == trained.data_dir or is_same_data(evaluated, trained)


def _class_map_note(record: RunRecord) -> list[Note]:
    """Returns a note about an evaluation on the classes of another dataset."""
    if not record.data.class_map:
        return []
    values = {"class_map": Path(record.data.class_map).name, "unmapped_images": record.unmapped_images}
    return [Note(NoteCode.EXTERNAL_CLASSES, values)]


def _load_threshold_predictions(
    folder: Path, split: str, record: RunRecord, training_record: RunRecord | None, expected_class_names: list[str]
) -> tuple[list[Predictions] | None, str | None, Note]:
    """Loads the predictions that select operating points; returns them, their split, and the reason if there are none.

    A run uses its validation split if the test split is evaluated, otherwise its selection split. An evaluation uses
    the predictions of the run that trained the model, with the same temperature.
    """
    run_dir = folder if record.kind == "finetune" else Path(record.base)
    same_data = _is_training_data(record, training_record)
    candidates = ["validation", "selection"] if not (same_data and split == "validation") else ["selection"]
    splits = [name for name in candidates if find_predictions(run_dir, name) and not (same_data and name == split)]
    if not splits or training_record is None:
        return None, None, Note(NoteCode.NO_PREDICTIONS_OF_SPLIT, {"path": str(run_dir), "split": split})
    if record.averaged_views:
        return None, None, Note(NoteCode.AVERAGED_VIEWS)
    table = read_prediction_table(run_dir, splits[0], need_scores=True)
    logits, labels, groups, class_names = table.logits, table.labels, table.groups, table.class_names
    assert logits is not None, "the scores were required"
    if record.data.class_map:
        class_map = read_class_map(record.data.class_map, class_names)
        mapped_ids = [i for i, name in enumerate(class_names) if class_map.map_class(name).data_classes]
        mask = np.isin(labels, mapped_ids)
        new_ids = [class_map.class_names.index(class_map.map_class(name).name) for name in class_names]
        labels, groups = np.array(new_ids)[labels[mask]], None if groups is None else groups[mask]
        logits, class_names = class_map.merge_logits(logits[mask]), class_map.class_names
    if class_names != expected_class_names:
        return None, None, Note(NoteCode.OTHER_CLASSES, {"path": str(run_dir)})
    if record.kind == "evaluate" and record.calibration:
        logits = record.calibration.get_temperature(class_names).scale_logits(logits)
    predictions = Predictions(
        labels, logits.argmax(-1)[None], len(class_names), groups, softmax(logits)[None], record.ordered
    )
    return [predictions], splits[0], Note(NoteCode.NO_OTHER_SPLIT)


def _base_name(base: str) -> str:
    return Path(base).name or base
