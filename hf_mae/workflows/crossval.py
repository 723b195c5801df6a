"""`crossval`: trains and evaluates each fold, seed and fraction of the labels; mean and standard deviation."""

import dataclasses
import logging
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from ..data.cohort import Cohort, describe_folds
from ..data.exclusion_log import ExclusionLog, track_exclusions
from ..data.fingerprint import data_fingerprint
from ..data.labelled_data import LabelledData
from ..data.sources.split_loading import load_official_folds, read_centres, read_splits, reduce_training
from ..data.splits import check_folds, check_groups_suffice, make_centre_folds, make_stratified_folds
from ..errors import UsageError, warn
from ..files.atomic import write_csv
from ..models.loading import read_class_names
from ..reporting.figures.evaluation import plot_confusion_matrix
from ..reporting.figures.study import plot_centres
from ..reporting.figures.training import plot_label_efficiency
from ..reporting.report import write_single_run_report
from ..runs.crossval import label_efficiency_curve, pool_predictions, summarize_centres
from ..runs.environment import get_environment
from ..runs.output_dir import check_same_data, lock_output_dir
from ..runs.record import (
    ALL_RESULTS,
    FIGURES_DIR,
    CentreSummary,
    CrossvalResult,
    CrossvalRun,
    CrossvalSummary,
    DataSource,
    RunRecord,
    Scores,
)
from ..runs.record_io import read_record, write_record
from ..settings.crossval import CrossvalArguments
from ..settings.parse import Settings
from ..settings.recipes import WITHOUT_EFFECT_ON_RESULTS, render_recipe
from ..settings.yaml_files import parse_yaml, read_yaml
from .command import command
from .finetune import finetune_splits
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)

SELECTION_FRACTION = 0.1  # of the training images, with one fold per centre; at least one patient
RANDOM_FOLDS_DIR = "random_folds"  # subfolder of the cross-validation of `--random_folds`


@command("crossval")
def crossval(settings: Settings) -> RunRecord | None:
    """Trains and evaluates each fold and seed. Completed runs are skipped; interrupted runs are resumed.

    Returns:
        The record of the cross-validation; None on processes other than the main one.
    """
    options, args = settings.options, settings.training
    with track_exclusions() as exclusion_log:
        centres, folds = _load_folds(settings)
    check_folds(folds, centres)
    if centres:
        settings = _add_selection_split(settings, folds)
    if options.random_folds:  # the other folds are checked before training, too
        random_fold_settings = _get_random_fold_settings(settings, len(folds))
        with track_exclusions():
            check_folds(_load_folds(random_fold_settings)[1])
    fractions = sorted(set(options.train_fractions or [settings.data.train_fraction]))
    runs = [
        CrossvalRun(fraction, seed, fold, options.train_fractions is not None)
        for fraction, seed, fold in product(fractions, options.seeds, range(1, len(folds) + 1))
    ]
    _run_all(runs, folds, settings, exclusion_log)
    if options.random_folds:
        crossval.run(random_fold_settings)
    if args.process_index != 0:
        return None
    record = _summarize(args.folder, runs, describe_folds(exclusion_log, folds), settings, centres)
    if settings.data.benchmark:
        write_single_run_report(args.folder)
    return record


def _add_selection_split(settings: Settings, folds: list[DatasetDict]) -> Settings:
    """Selects the epoch on images (complete patients) of the training centres, never on the centre that is left out."""
    training = [fold["train"] for fold in folds if "group" in fold["train"].column_names]
    patients = [len(set(images["group"][:])) for images in training]
    fraction = settings.data.selection_fraction
    if not fraction:
        fraction = min(max([SELECTION_FRACTION, *(1 / count for count in patients)]), 0.5)
    for count in patients:
        check_groups_suffice(count, fraction)
    return settings.replace(selection_fraction=fraction)


def _get_random_fold_settings(settings: Settings, num_folds: int) -> Settings:
    """Returns the settings of a cross-validation with as many random folds, in a subfolder."""
    folder = str(settings.training.folder / RANDOM_FOLDS_DIR)
    return settings.replace(folds=str(num_folds), random_folds=False, output_dir=folder)


def _load_folds(settings: Settings) -> tuple[list[str], list[DatasetDict]]:
    """Loads the folds; returns them with the names of the centres (empty for other folds)."""
    class_names, seed = read_class_names(settings.model.model_name_or_path), settings.training.seed
    with settings.training.main_process_first(desc="reading the images"):
        if settings.options.folds == "official":
            return [], load_official_folds(settings.data, seed, class_names)
        splits = read_splits(settings.data, seed, class_names)
        if (column := settings.options.centre_column) is None:
            return [], make_stratified_folds(splits, int(settings.options.folds))
        with track_exclusions():  # the images are already counted
            centre_by_file = read_centres(settings.data, column)
        folds = make_centre_folds(splits, centre_by_file, column)
        return list(folds), list(folds.values())


def _run_all(
    runs: list[CrossvalRun], folds: list[DatasetDict], settings: Settings, exclusion_log: ExclusionLog
) -> None:
    """Trains the runs that are not completed, and logs progress and remaining time before each run."""
    seconds: list[float] = []
    for number, run in enumerate(runs, 1):
        folder = settings.training.folder / run.folder
        run_settings = _get_run_settings(run, settings, folder)
        splits = reduce_training(folds[run.fold - 1], run_settings.data, run.seed)
        if (folder / ALL_RESULTS).is_file():
            _check_same_settings(folder, run_settings.overrides)
            check_same_data(folder, DataSource.from_settings(run_settings.data, run.seed, data_fingerprint(splits)))
            logger.info("Run %d of %d (%s) is already completed: %s", number, len(runs), run, folder)
            continue
        left = f", about {np.mean(seconds) * (len(runs) - number + 1) / 60:.0f} minutes left" if seconds else ""
        logger.info("Run %d of %d: %s -> %s%s", number, len(runs), run, folder, left)
        started = time.monotonic()
        with lock_output_dir(run_settings.training):
            finetune_splits(LabelledData(splits, exclusion_log, run_settings.data), run_settings)
        seconds.append(time.monotonic() - started)


def _get_run_settings(run: CrossvalRun, settings: Settings, folder: Path) -> Settings:
    """Returns the settings of a run, as if it were trained separately with `finetune`."""
    crossval_only = {item.name for item in dataclasses.fields(CrossvalArguments)}
    overrides = {name: value for name, value in settings.overrides.items() if name not in crossval_only}
    overrides |= {"seed": run.seed, "output_dir": str(folder)}
    overrides |= {"fold": run.fold} if settings.data.benchmark else {}
    overrides |= {"train_fraction": run.fraction} if run.fraction < 1.0 else {}
    return dataclasses.replace(
        settings,
        overrides=overrides,
        data=dataclasses.replace(settings.data, train_fraction=run.fraction, fold=run.fold),
        training=dataclasses.replace(
            settings.training, output_dir=str(folder), seed=run.seed, resume_from_checkpoint="last"
        ),
    )


def _check_same_settings(folder: Path, run_settings: dict[str, Any]) -> None:
    """Checks that a completed run has the settings of this cross-validation."""
    path = folder / "recipe.yaml"
    before, now = read_yaml(path), parse_yaml(render_recipe(run_settings, {}).encode(), path)
    differences = [
        f"{name}: {before.get(name, 'default')} then, {now.get(name, 'default')} now"
        for name in sorted((before.keys() | now.keys()) - WITHOUT_EFFECT_ON_RESULTS)
        if before.get(name) != now.get(name)
    ]
    if differences:
        raise UsageError(WorkflowMessage.CROSSVAL_SETTINGS_DIFFER, folder=folder, differences="; ".join(differences))


def _summarize(
    root: Path, runs: list[CrossvalRun], cohort: Cohort, settings: Settings, centres: list[str]
) -> RunRecord:
    """Writes `crossval.json`, and the pooled predictions and confusion matrix of each seed."""
    records = [read_record(root / run.folder) for run in runs]
    names = records[0].classes
    results = [record.scores["validation"] | {"training_images": record.images["train"]} for record in records]
    points = label_efficiency_curve(runs, results)
    headline = {name: value for name, value in points[-1].items() if name not in ("fraction", "images")}
    selection_splits = [record.selection.selection_split if record.selection else None for record in records]
    summary = CrossvalSummary(
        folds=settings.options.folds,
        runs=[
            CrossvalResult(run, run.folder, {name: result.get(name) for name in headline}, split)
            for run, result, split in zip(runs, results, selection_splits)
        ],
        mean_and_std=headline,
        label_efficiency=points,
        pooled=_write_pooled_predictions(root, runs, names),
        by_centre=_summarize_centres(root, runs, settings, centres, records[0].ordered) if centres else None,
    )
    record = RunRecord(
        kind="crossval",
        base=settings.model.base,
        data=DataSource.from_settings(settings.data, settings.training.seed),
        images={split: entry.images for split, entry in cohort.splits.items()},
        environment=get_environment(),
        settings=settings.overrides,
        classes=names,
        crossval=summary,
        ordered=records[0].ordered,
        study=cohort,
        network=records[0].network,
    )
    write_record(record, root)
    if len(points) > 1:
        plot_label_efficiency({Path(settings.model.base).name: points}, root / FIGURES_DIR / "label_efficiency")
    return record


def _summarize_centres(
    root: Path, runs: list[CrossvalRun], settings: Settings, centres: list[str], ordered: bool
) -> CentreSummary:
    """Summarizes the centres, and plots their scores."""
    options = settings.options
    summary = summarize_centres(
        root,
        options.centre_column,
        centres,
        [run for run in runs if run.fraction == runs[-1].fraction],
        ordered,
        settings.data.selection_fraction,
        root / RANDOM_FOLDS_DIR if options.random_folds else None,
    )
    plot_centres(summary, "macro_f1", root / FIGURES_DIR / "centres")
    return summary


def _write_pooled_predictions(root: Path, runs: list[CrossvalRun], names: list[str]) -> dict[str, Scores]:
    """Writes the pooled predictions of all folds of each seed, and their confusion matrix; returns their scores."""
    scores_by_seed = {}
    for fraction, seed in dict.fromkeys((run.fraction, run.seed) for run in runs):
        folds = [run for run in runs if (run.fraction, run.seed) == (fraction, seed)]
        rows, scores = pool_predictions([root / run.folder for run in folds], names)
        name = folds[0].folder.removesuffix(f"_fold-{folds[0].fold}")
        write_csv(root / f"predictions_pooled_{name}.csv", ["file_name", "label", "prediction", "score"], rows)
        if scores is None:
            warn(logger, WorkflowMessage.PREDICTIONS_NOT_POOLED, folder=root)
            continue
        title = f"out of fold, {name}: macro F1 {100 * scores['macro_f1']:.1f} %"
        path = root / FIGURES_DIR / f"confusion_matrix_{name}"
        plot_confusion_matrix(scores["confusion_matrix"], names, path, title)
        scores_by_seed[name] = scores
    return scores_by_seed
