"""`finetune`: loads data and model, trains, evaluates, and writes the output folder."""

import copy
import logging
import os
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from PIL import Image
from transformers import set_seed

from ..compat.deepspeed import disable_zero3_init
from ..compat.transformers import StockModel
from ..conversion.safety import is_timm
from ..data.checks.contamination import find_pretraining_image_list, find_seen_in_pretraining, warn_about_contamination
from ..data.cohort import describe_cohort
from ..data.exclusion_log import ExclusionLog
from ..data.fingerprint import data_fingerprint
from ..data.images.processors import to_timm_processor
from ..data.images.torch_datasets import EvalDataset, TrainDataset
from ..data.images.transforms import image_processor, parse_mean_std, training_transform
from ..data.sources.manifests import resolve_manifest
from ..data.sources.split_loading import has_ordered_classes
from ..data.splits import EVAL_SPLITS, selection_split
from ..errors import CommandLineError, UsageError, raise_on_stop_signal, warn
from ..evaluation.conformal import evaluate_coverage
from ..files.atomic import atomic_write_file, write_text
from ..inference.uncertainty import fit_uncertainty
from ..models.building import build_classifier
from ..models.introspection import get_non_mae_network, head_in_features, input_size
from ..models.loading import load_classifier
from ..models.model_zoo import resolve_checkpoint
from ..reporting import figures
from ..reporting.model_card import write_model_card
from ..reporting.report import write_single_run_report
from ..reporting.run_sentences import describe_calibration_gain, describe_versions
from ..reporting.split_results import write_split_results
from ..runs.environment import get_environment
from ..runs.output_dir import check_same_data, lock_output_dir, remove_old_run, resolve_resume_checkpoint
from ..runs.record import FIGURES_DIR, DataSource, RunRecord, Training
from ..runs.record_io import find_run_record, write_record, write_started_record
from ..runs.selection import get_selection
from ..runs.split_consistency import holdout_differs
from ..runs.temperature import fit_and_write_temperature
from ..runs.uncertainty_io import write_uncertainty
from ..settings.arguments import FinetuningArguments
from ..settings.data import DataArguments
from ..settings.models import ModelArguments
from ..settings.parse import Settings, read_values
from ..settings.recipes import render_recipe
from ..sharing.hub import schedule_push
from ..training.distillation import Teacher
from ..training.finetuner import MaeFinetuner
from ..training.preemption import NOT_TRAINING_HINT
from ..training.resume import check_model_matches_checkpoint
from ..training.run_trainer import run_training
from ..training.trackers import defer_tracker_close, log_image, log_record
from ..training.training_plan import Plan, build_plan
from .autoconfig import AutoSetting, format_auto_recipe
from .messages import WorkflowMessage
from .plan import load_data, plan, resolve_settings

logger = logging.getLogger(__name__)

VIT_HUGE_WIDTH = 1280
CORRECTIONS_FILE = "corrections.csv"  # copy of the label corrections in the output folder


def finetune(*, recipe: str | None = None, **flags: Any) -> RunRecord | Plan | None:
    """Fine-tunes a checkpoint on labelled images.

    Args:
        recipe: a recipe of the package, or a YAML file; `flags` override it.
        flags: the flags of `hf-mae finetune`.

    Returns:
        The record of the run; None on processes other than the main one; the plan with `dry_run`.

    Raises:
        UsageError: If a flag, the data or the checkpoint is invalid.
    """
    if read_values("finetune", recipe, flags).get("dry_run"):
        return plan(recipe=recipe, **flags)
    with raise_on_stop_signal(NOT_TRAINING_HINT):
        return _finetune(*resolve_settings(recipe, add_default_output_dir(flags, recipe)))


def add_default_output_dir(flags: dict[str, Any], recipe: str | None) -> dict[str, Any]:
    """Adds a default output folder to the flags: runs/NAME of the data, or the first unused of runs/NAME-2, ...

    Raises:
        CommandLineError: If there are several processes, which cannot agree on a folder.
    """
    values = read_values("finetune", recipe, flags)
    if values.get("output_dir"):
        return flags
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CommandLineError(WorkflowMessage.OUTPUT_DIR_REQUIRED)
    name = values.get("benchmark") or Path(str(values["data_dir"])).resolve().name or "run"
    candidates = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return flags | {"output_dir": str(next(folder for folder in candidates if not folder.exists()))}


def _finetune(settings: Settings, auto_settings: list[AutoSetting]) -> RunRecord | None:
    """Loads the data, locks the output folder, and runs `finetune_splits`."""
    model_args, data_args, args, _ = settings.arguments
    push = schedule_push(args)
    with args.main_process_first(desc="reading the images"):
        splits, exclusion_log = load_data(model_args, data_args, args.seed)
    with lock_output_dir(args):
        if auto_settings and args.process_index == 0:
            write_text(args.folder / "auto.yaml", format_auto_recipe(auto_settings))
        record = finetune_splits(splits, model_args, data_args, args, settings.overrides, exclusion_log)
    if record is not None and record.scores and data_args.benchmark:
        write_single_run_report(args.folder)
    push()
    return record


def finetune_splits(
    splits: DatasetDict,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: FinetuningArguments,
    explicit_settings: dict[str, Any],
    exclusion_log: ExclusionLog,
) -> RunRecord | None:
    """Runs the fine-tuning of loaded splits; the caller has locked the output folder.

    Args:
        splits: `train`, and optionally `selection`, `validation` and `test`. `selection`, or else `validation`, selects
            the epoch.
        explicit_settings: settings of recipe and flags, for `recipe.yaml`.
        exclusion_log: log of the excluded images.

    Returns:
        The record; None on processes other than the main one.
    """
    folder, checkpoint = args.folder, resolve_resume_checkpoint(args)
    class_names = _get_class_names(splits, data_args)
    source = DataSource.from_settings(data_args, args.seed, data_fingerprint(splits))
    args = _disable_eval_without_validation(args, selection_split(splits))
    model = build_model(model_args, args, class_names, checkpoint)
    if checkpoint:
        check_same_data(Path(checkpoint).parent, source)
    with args.main_process_first(desc="preparing the images"):
        train_dataset, eval_datasets, processor = prepare_images(splits, data_args, model, args)
    trainer = MaeFinetuner(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_datasets.get(selection_split(splits) or ""),
        processing_class=processor,
        ordered=has_ordered_classes(data_args),
        teacher=_load_teacher(args, model, processor),
    )
    can_profile = args.device.type == "cuda" and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
    run_plan = build_plan(splits, exclusion_log, model, data_args, args, measure=can_profile)
    if args.process_index == 0:
        logger.info("Plan:\n%s", "\n".join(run_plan.lines()))
    if not checkpoint:
        remove_old_run(args)
    started_record = RunRecord(
        kind="finetune",
        base=model_args.base,
        data=source,
        images={split: len(dataset) for split, dataset in splits.items()},
        environment=get_environment(),
        settings=explicit_settings,
        classes=class_names,
        ordered=has_ordered_classes(data_args),
        study=describe_cohort(exclusion_log, splits, resolve_manifest(data_args)),
        seen_in_pretraining=_count_seen_in_pretraining(model_args, data_args, args, splits),
        network=get_non_mae_network(model),
    )
    if args.teacher:
        _warn_if_teacher_saw_eval_data(args.teacher, started_record)
    if args.process_index == 0:
        write_started_record(started_record, folder)
        _copy_corrections(data_args.corrections, folder)
    with defer_tracker_close(trainer):
        return _train_and_evaluate(trainer, checkpoint, splits, eval_datasets, started_record)


def _copy_corrections(path: str | None, folder: Path) -> None:
    """Copies the label corrections into the output folder; `path` may be that copy."""
    if path:
        with atomic_write_file(folder / CORRECTIONS_FILE) as temporary:
            shutil.copyfile(path, temporary)


def _get_class_names(splits: DatasetDict, data_args: DataArguments) -> list[str]:
    if "train" not in splits:
        raise UsageError(WorkflowMessage.TRAINING_SPLIT_MISSING, path=data_args.data_dir, splits=list(splits))
    class_names: list[str] = splits["train"].features["labels"].names
    return class_names


def _disable_eval_without_validation(args: FinetuningArguments, split: str | None) -> FinetuningArguments:
    """Returns a copy of the arguments, without evaluation if no split selects the epoch."""
    args = copy.copy(args)
    if split is not None:
        return args
    warn(logger, WorkflowMessage.NO_VALIDATION_SPLIT)
    args.eval_strategy, args.load_best_model_at_end = type(args.eval_strategy)("no"), False
    args.early_stopping_patience = None
    return args


def build_model(
    model_args: ModelArguments,
    args: FinetuningArguments,
    class_names: list[str],
    checkpoint: str | None = None,
    quiet: bool = False,
) -> StockModel:
    """Builds the model to train.

    Args:
        checkpoint: checkpoint to resume from.
        quiet: whether to skip the log of the conversion.
    """
    set_seed(args.seed)  # for the new head
    model = build_classifier(
        resolve_checkpoint(model_args.model_name_or_path or ""),
        pooling=model_args.pooling,
        num_labels=len(class_names),
        id2label=dict(enumerate(class_names)),
        image_size=model_args.image_size,
        drop_path=0.0 if args.freeze_backbone else args.drop_path,
        num_attention_heads=model_args.num_attention_heads,
        random_weights=model_args.random_weights,
    )
    if not quiet:
        logger.info(model.conversion_report.summary())
    if checkpoint:
        check_model_matches_checkpoint(checkpoint, model.config)
    warn_about_fp16(args.fp16, head_in_features(model))
    return model


def _load_teacher(args: FinetuningArguments, model: StockModel, processor: Any) -> Teacher | None:
    """Loads the teacher for knowledge distillation."""
    if not args.teacher:
        return None
    with disable_zero3_init():
        teacher, teacher_processor = load_classifier(args.teacher)
    return Teacher(teacher, teacher_processor, model, processor, args.teacher_temperature)


def warn_about_fp16(fp16: bool, hidden_size: int) -> None:
    """Warns if a ViT-H is trained with fp16."""
    if fp16 and hidden_size >= VIT_HUGE_WIDTH:
        warn(logger, WorkflowMessage.FP16_WITH_VIT_HUGE)


def _warn_if_teacher_saw_eval_data(teacher: str, started_record: RunRecord) -> None:
    """Warns if the teacher was trained on images that evaluate the student."""
    if holdout_differs(teacher, started_record):
        warn(logger, WorkflowMessage.TEACHER_SAW_EVAL_DATA, teacher=teacher)


def _count_seen_in_pretraining(
    model_args: ModelArguments, data_args: DataArguments, args: FinetuningArguments, splits: DatasetDict
) -> dict[str, int] | None:
    """Counts the evaluated images in the pre-training data of the checkpoint, by split; None if unknown."""
    if model_args.random_weights or args.process_index != 0:
        return None
    base = resolve_checkpoint(model_args.model_name_or_path or "")
    image_list = find_pretraining_image_list(base)
    if image_list is None:
        return None
    pretraining_record = find_run_record(image_list.parent)
    root = Path(pretraining_record.data.data_dir) if pretraining_record and pretraining_record.data.data_dir else None
    eval_splits = DatasetDict({split: splits[split] for split in EVAL_SPLITS if split in splits})
    matches = find_seen_in_pretraining(image_list, root, eval_splits, data_args.preprocessing_num_workers)
    return warn_about_contamination(base, matches, eval_splits, args.folder)


def prepare_images(
    splits: DatasetDict, data_args: DataArguments, model: StockModel, args: FinetuningArguments
) -> tuple[TrainDataset, dict[str, EvalDataset], Any]:
    """Builds the training set, the evaluation sets by split, and the image processor of the model."""
    size = input_size(model)
    mean, std = parse_mean_std(data_args.mean_std, data_args.transforms, splits["train"], size)
    processor = image_processor(data_args.transforms, size, mean, std)
    if is_timm(model.config):
        processor = to_timm_processor(processor, model.config)
    transform = training_transform(
        data_args.transforms,
        size,
        mean,
        std,
        auto_augment=data_args.auto_augment,
        random_erasing=data_args.random_erasing,
        cache_shortest_edge=data_args.resolve_cache_shortest_edge(size),
    )
    if data_args.transforms == "imagenet" and transform.resize is not None:
        logger.info(
            "Random crops are taken from cached images with a shortest edge of at most %d pixels. To crop the original "
            "images (slower), pass --cache_shortest_edge 0.",
            transform.resize.shortest_edge,
        )
    workers = data_args.preprocessing_num_workers
    train_dataset = TrainDataset(
        splits["train"],
        transform,
        args.seed,
        data_args.cache,
        workers,
        batched=torch.cuda.is_available(),
        quality=data_args.cache_quality,
        sampling=args.sampling,
    )
    eval_datasets: dict[str, EvalDataset] = {
        split: EvalDataset(splits[split], processor, data_args.cache, workers)
        for split in EVAL_SPLITS
        if split in splits
    }
    return train_dataset, eval_datasets, processor


def _train_and_evaluate(
    trainer: MaeFinetuner,
    checkpoint: str | None,
    splits: DatasetDict,
    eval_datasets: dict[str, EvalDataset],
    started_record: RunRecord,
) -> RunRecord | None:
    """Trains, evaluates every split, and writes the results; the record is written last."""
    folder = trainer.args.folder
    with trainer.configure_model():  # as for evaluations during training
        train_output, seconds = run_training(trainer, checkpoint)
        trainer.save_model()
        trainer.save_state()
        outputs: dict[str, Any] = {
            split: trainer.predict(dataset, metric_key_prefix=split) for split, dataset in eval_datasets.items()
        }
    if not trainer.is_world_process_zero():
        return None
    scores = {
        split: write_split_results(
            folder,
            split,
            eval_datasets[split],
            output.predictions,
            output.label_ids,
            started_record.classes,
            started_record.ordered,
        )
        for split, output in outputs.items()
    }
    _draw_figures(trainer, folder, train_output.global_step)
    split = selection_split(outputs)
    calibration = None
    if split:
        logits, labels = outputs[split].predictions, outputs[split].label_ids
        calibration = fit_and_write_temperature(
            folder, logits, labels, split, False, started_record.classes, started_record.training_counts()
        )
        if calibration:
            logger.info(
                "For calibrated scores, pass --temperature %s: %s",
                folder,
                describe_calibration_gain(calibration, split),
            )
    uncertainty = _fit_uncertainty(trainer, splits["train"], eval_datasets, outputs, started_record.classes)
    training = Training(
        seconds=round(seconds, 1),
        updates=train_output.global_step,
        learning_rate=trainer.args.learning_rate,
        effective_batch_size=trainer.args.images_per_update,
        metrics=train_output.metrics,
    )
    record = replace(
        started_record,
        scores=scores,
        selection=get_selection(trainer, split),
        train=training,
        calibration=calibration,
        uncertainty=uncertainty,
    )
    _write_recipe_and_card(folder, trainer, record)
    write_record(record, folder)
    log_record(trainer, folder / record.file_name, record.trainer_metrics(), train_output.global_step)
    return record


def _fit_uncertainty(
    trainer: MaeFinetuner,
    train_dataset: Dataset,
    eval_datasets: dict[str, EvalDataset],
    outputs: dict[str, Any],
    classes: list[str],
) -> dict[str, Any] | None:
    """Fits and writes prediction sets and out-of-distribution detector; returns the coverage on the test split."""
    split, folder = selection_split(outputs), trainer.args.folder
    if split is None:
        return None
    with disable_zero3_init():
        model, processor = load_classifier(str(folder))  # the saved model, independent of the engine
    model.to(trainer.args.device)
    logits, labels = outputs[split].predictions, outputs[split].label_ids
    uncertainty = fit_uncertainty(
        model,
        processor,
        train_dataset,
        eval_datasets[split],
        logits,
        labels,
        classes,
        split,
        batch_size=trainer.args.per_device_eval_batch_size,
    )
    write_uncertainty(folder, uncertainty)
    if "test" not in outputs:
        return None
    test = outputs["test"]
    return evaluate_coverage(
        uncertainty.conformal_sets, test.predictions, test.label_ids, "test", uncertainty.fitted_on
    )


def _draw_figures(trainer: MaeFinetuner, folder: Path, step: int) -> None:
    """Plots the learning curves, and logs every figure to the trackers."""
    figures.plot_learning_curves(trainer.state.log_history, folder / FIGURES_DIR / "learning_curves")
    for path in sorted((folder / FIGURES_DIR).glob("*.png")):
        with Image.open(path) as image:
            log_image(trainer, path.stem, image.convert("RGB"), step)


def _write_recipe_and_card(folder: Path, trainer: MaeFinetuner, record: RunRecord) -> None:
    comments = {
        "effective batch": trainer.args.images_per_update,
        "processes": trainer.args.world_size,
        "versions": describe_versions(record.environment),
    }
    recipe = render_recipe(record.settings, comments)
    write_text(folder / "recipe.yaml", recipe)
    write_model_card(folder, record, type(trainer.accelerator.unwrap_model(trainer.model)).__name__, recipe)
