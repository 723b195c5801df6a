"""Results of a run: predictions, figures, recipe, model card and record."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from ..data.images.torch_datasets import EvalDataset
from ..files.atomic import write_text
from ..runs.record import FIGURES_DIR, RunRecord
from ..runs.record_io import write_record
from ..settings.recipes import render_recipe
from ..training.finetuner import MaeFinetuner
from ..training.pretrainer import MaePretrainer
from ..training.trackers import log_image, log_record
from .figures.training import plot_learning_curves
from .model_card import write_model_card, write_pretraining_card
from .run_sentences import describe_calibration_gain, describe_versions
from .split_results import write_split_results

logger = logging.getLogger(__name__)


def write_run_results(
    trainer: MaeFinetuner, record: RunRecord, logits: Mapping[str, np.ndarray], eval_datasets: Mapping[str, EvalDataset]
) -> RunRecord:
    """Writes the results of a run, and logs them to the trackers; the record is written last.

    Args:
        trainer: after training.
        record: of the run, without scores.
        logits: (images, classes) by split.
        eval_datasets: the images, by split.

    Returns:
        The record with the scores.
    """
    folder, step = trainer.args.folder, trainer.state.global_step
    scores = {
        split: write_split_results(
            folder,
            split,
            images,
            logits[split],
            images.labels,
            record.classes,
            record.ordered,
            trainer.args,
        )
        for split, images in eval_datasets.items()
    }
    record = replace(record, scores=scores)
    if record.calibration:
        gain = describe_calibration_gain(record.calibration, str(record.calibration.fitted_on))
        logger.info("For calibrated scores, pass --temperature %s: %s", folder, gain)
    _draw_figures(trainer, step)
    _write_recipe_and_card(trainer, record)
    write_record(record, folder)
    log_record(trainer, folder / record.file_name, record.trainer_metrics(), step)
    return record


def write_pretraining_results(trainer: MaePretrainer, record: RunRecord) -> RunRecord:
    """Writes the results of a pre-training, and logs them to the trackers; the record is written last."""
    folder, step = trainer.args.folder, trainer.state.global_step
    recipe = _render_run_recipe(record, {"effective batch": trainer.args.images_per_update})
    write_text(folder / "recipe.yaml", recipe)
    write_pretraining_card(folder, record, trainer.accelerator.unwrap_model(trainer.model), recipe)
    write_record(record, folder)
    log_record(trainer, folder / record.file_name, record.trainer_metrics(), step)
    return record


def _draw_figures(trainer: MaeFinetuner, step: int) -> None:
    """Plots the learning curves, and logs every figure to the trackers."""
    folder = trainer.args.folder / FIGURES_DIR
    plot_learning_curves(trainer.state.log_history, folder / "learning_curves")
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            log_image(trainer, path.stem, image.convert("RGB"), step)


def _render_run_recipe(record: RunRecord, comments: dict[str, object]) -> str:
    """Renders the recipe of a run, with the fingerprint of its data, so that changed data are found."""
    fingerprint = {"data_fingerprint": record.data.fingerprint} if record.data.fingerprint else {}
    return render_recipe(record.settings | fingerprint, comments)


def _write_recipe_and_card(trainer: MaeFinetuner, record: RunRecord) -> None:
    comments = {
        "effective batch": trainer.args.images_per_update,
        "processes": trainer.args.world_size,
        "versions": describe_versions(record.environment),
    }
    recipe = _render_run_recipe(record, comments)
    write_text(trainer.args.folder / "recipe.yaml", recipe)
    model = trainer.accelerator.unwrap_model(trainer.model)
    write_model_card(trainer.args.folder, record, type(model).__name__, recipe)
