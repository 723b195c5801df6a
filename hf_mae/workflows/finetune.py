"""`finetune`: data, model, training, evaluation, and everything that a finished run holds."""

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
from ..data.cohort import describe_cohort
from ..data.contamination import find_pretraining_image_list, find_seen_in_pretraining, warn_about_contamination
from ..data.exclusion_log import ExclusionLog
from ..data.fingerprint import data_fingerprint
from ..data.manifests import resolve_manifest
from ..data.processors import to_timm_processor
from ..data.split_loading import has_ordered_classes
from ..data.splits import EVAL_SPLITS, selection_split
from ..data.torch_datasets import EvalDataset, TrainDataset
from ..data.transforms import image_processor, parse_mean_std, training_transform
from ..errors import CommandLineError, UsageError, raise_on_stop_signal
from ..evaluation.calibration import format_calibration_gain
from ..evaluation.uncertainty import evaluate_coverage, fit_uncertainty
from ..files.atomic import atomic_write_file, write_text
from ..models.building import build_classifier
from ..models.introspection import describe_non_mae_model, head_in_features, input_size
from ..models.loading import load_classifier
from ..models.model_zoo import resolve_checkpoint
from ..reporting import figures
from ..reporting.model_card import write_model_card
from ..reporting.report import write_single_run_report
from ..reporting.split_results import write_split_results
from ..runs.environment import get_environment
from ..runs.output_dir import check_same_data, lock_output_dir, remove_old_run, resolve_resume_checkpoint
from ..runs.record import DataSource, RunRecord, Selection, Training, run_name
from ..runs.record_io import find_run_record, write_record, write_started_record
from ..runs.split_consistency import holdout_differs
from ..runs.temperature import fit_and_write_temperature
from ..runs.uncertainty_io import write_uncertainty
from ..settings.arguments import FinetuningArguments
from ..settings.data import DataArguments
from ..settings.models import ModelArguments
from ..settings.parse import Settings, read_values
from ..settings.recipes import render_recipe
from ..sharing.hub import schedule_push
from ..training.autoconfig import AutoSetting, format_auto_recipe
from ..training.distillation import Teacher
from ..training.finetuner import MaeFinetuner
from ..training.preemption import NOT_TRAINING_HINT
from ..training.resume import check_model_matches_checkpoint
from ..training.run_trainer import run_training
from ..training.trackers import defer_tracker_close, log_image, log_record
from ..training.training_plan import Plan, build_plan
from .plan import load_data, resolve_settings
from .plan import plan as plan_alone

logger = logging.getLogger(__name__)

VIT_HUGE_WIDTH = 1280  # width of a ViT-H
CORRECTIONS_FILE = "corrections.csv"  # a run's own copy of what it was given


def finetune(*, recipe: str | None = None, **flags: Any) -> RunRecord | Plan | None:
    """Fine-tunes a checkpoint on labelled images.

    Args:
        recipe: a recipe of the package, or a YAML file; `flags` win over it.
        flags: the flags of `hf-mae finetune`.

    Returns:
        What was done, as the output folder holds it; None on processes other than the main one; with `dry_run` what
        would be done.

    Raises:
        UsageError: one sentence on what is wrong.
    """
    if read_values("finetune", recipe, flags).get("dry_run"):
        return plan_alone(recipe=recipe, **flags)
    with raise_on_stop_signal(NOT_TRAINING_HINT):
        return _finetune(*resolve_settings(recipe, add_default_output_dir(flags, recipe)))


def add_default_output_dir(flags: dict[str, Any], recipe: str | None) -> dict[str, Any]:
    """The flags with an output folder, where none is given: runs/NAME of the data, or runs/NAME-2, ... that is free.

    Raises:
        CommandLineError: several processes would have to agree on one.
    """
    values = read_values("finetune", recipe, flags)
    if values.get("output_dir"):
        return flags
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CommandLineError("missing: --output_dir (several processes write into one).")
    name = values.get("benchmark") or Path(str(values["data_dir"])).resolve().name or "run"
    free = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return flags | {"output_dir": str(next(folder for folder in free if not folder.exists()))}


def _finetune(settings: Settings, auto_settings: list[AutoSetting]) -> RunRecord | None:
    """The steps of `finetune`."""
    model_args, data_args, args, _ = settings.arguments
    push = schedule_push(args)
    with args.main_process_first(desc="reading the images"):
        splits, ledger = load_data(model_args, data_args, args.seed)
    with lock_output_dir(args):
        if auto_settings and args.process_index == 0:
            write_text(args.folder / "auto.yaml", format_auto_recipe(auto_settings))
        record = finetune_splits(splits, model_args, data_args, args, settings.overrides, ledger)
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
    """One run, from the splits to the output folder, which the caller holds.

    Args:
        splits: `train`, and perhaps `selection` (which chooses the epoch), `validation` (which does where there is no
            `selection`) and `test`.
        explicit_settings: what recipe and flags gave, for `recipe.yaml`.
        exclusion_log: what was found and left out when the splits were read.

    Returns:
        The record; None on processes other than the main one.
    """
    folder, checkpoint = args.folder, resolve_resume_checkpoint(args)
    names = _class_names(splits, data_args)
    source = DataSource.from_settings(data_args, args.seed, data_fingerprint(splits))
    args = _disable_eval_without_validation(args, selection_split(splits), explicit_settings)
    model = build_model(model_args, args, names, checkpoint)
    if checkpoint:
        check_same_data(Path(checkpoint).parent, source)
    with args.main_process_first(desc="preparing the images"):
        training_images, held_out, processor = prepare_images(splits, data_args, model, args)
    trainer = MaeFinetuner(
        model=model,
        args=args,
        train_dataset=training_images,
        eval_dataset=held_out.get(selection_split(splits) or ""),
        processing_class=processor,
        ordered=has_ordered_classes(data_args),
        teacher=_load_teacher(args, model, processor),
    )
    shared = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # of a model no process holds as a whole
    made = build_plan(splits, exclusion_log, model, data_args, args, measure=args.device.type == "cuda" and not shared)
    if args.process_index == 0:
        logger.info("The plan:\n%s", "\n".join(made.lines()))
    if not checkpoint:
        remove_old_run(args)
    begun = RunRecord(
        kind="finetune",
        base=model_args.base,
        data=source,
        images={split: len(dataset) for split, dataset in splits.items()},
        environment=get_environment(),
        settings=explicit_settings,
        classes=names,
        ordered=has_ordered_classes(data_args),
        study=describe_cohort(exclusion_log, splits, resolve_manifest(data_args)),
        leakage=_find_leakage(model_args, data_args, args, splits),
        network=describe_non_mae_model(model),
    )
    if args.teacher:
        _warn_if_teacher_saw_eval_data(args.teacher, begun)
    if args.process_index == 0:
        write_started_record(begun, folder)
        _copy_corrections(data_args.corrections, folder)
    with defer_tracker_close(trainer):
        return _train_and_evaluate(trainer, checkpoint, splits, held_out, begun)


def _copy_corrections(path: str | None, folder: Path) -> None:
    """A run's own copy of the labels that it was trained on, which may be the file itself."""
    if path:
        with atomic_write_file(folder / CORRECTIONS_FILE) as temporary:
            shutil.copyfile(path, temporary)


def _class_names(splits: DatasetDict, data_args: DataArguments) -> list[str]:
    if "train" not in splits:
        raise UsageError(f"{data_args.data_dir} has no training split; it has {', '.join(splits)}.")
    names = splits["train"].features["labels"].names
    return names


def _disable_eval_without_validation(
    args: FinetuningArguments, split: str | None, explicit_settings: dict[str, Any]
) -> FinetuningArguments:
    """The arguments as they are where a split chooses the epoch; without one, the last epoch is kept, and with
    `average_last` the mean of the last ones."""
    args = copy.copy(args)
    if args.average_last is not None and "load_best_model_at_end" not in explicit_settings:
        args.load_best_model_at_end = False
    if split is not None:
        return args
    logger.warning(
        "There is no validation split (pass --val_fraction 0.1 to hold one out): the last epoch is kept, unjudged."
    )
    args.eval_strategy, args.load_best_model_at_end = type(args.eval_strategy)("no"), False
    args.early_stopping_patience = None
    return args


def build_model(
    model_args: ModelArguments,
    args: FinetuningArguments,
    names: list[str],
    checkpoint: str | None = None,
    quiet: bool = False,
) -> StockModel:
    """The model that is trained.

    Args:
        checkpoint: what the run goes on from.
        quiet: nothing is said of it, as it was said before.
    """
    set_seed(args.seed)  # of the fresh head
    model = build_classifier(
        resolve_checkpoint(model_args.model_name_or_path or ""),
        pooling=model_args.pooling,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
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
    """What is learnt from beside the labels."""
    if not args.teacher:
        return None
    with disable_zero3_init():
        theirs, their_processor = load_classifier(args.teacher)
    return Teacher(theirs, their_processor, model, processor, args.teacher_temperature)


def warn_about_fp16(fp16: bool, hidden_size: int) -> None:
    """Says what is known of a ViT-H in fp16."""
    if fp16 and hidden_size >= VIT_HUGE_WIDTH:
        logger.warning("fp16 is known to give NaN with a ViT-H: use --bf16.")


def _warn_if_teacher_saw_eval_data(teacher: str, started_record: RunRecord) -> None:
    """Says so where a teacher was trained on images that judge what it teaches."""
    if holdout_differs(teacher, started_record):
        logger.warning(
            "%s was trained on images that judge this model: its scores on them will be too good. Hold the same images "
            "out for both, or judge it on other data.",
            teacher,
        )


def _find_leakage(
    model_args: ModelArguments, data_args: DataArguments, args: FinetuningArguments, splits: DatasetDict
) -> dict[str, int] | None:
    """Evaluated images that the base was pre-trained on, by split; None where that is not known."""
    if model_args.random_weights or args.process_index != 0:
        return None
    base = resolve_checkpoint(model_args.model_name_or_path or "")
    listed = find_pretraining_image_list(base)
    if listed is None:
        return None
    trained_on = find_run_record(listed.parent)
    root = Path(trained_on.data.data_dir) if trained_on and trained_on.data.data_dir else None
    others = DatasetDict({split: splits[split] for split in EVAL_SPLITS if split in splits})
    found = find_seen_in_pretraining(listed, root, others, data_args.preprocessing_num_workers)
    return warn_about_contamination(base, found, others, args.folder)


def prepare_images(
    splits: DatasetDict, data_args: DataArguments, model: StockModel, args: FinetuningArguments
) -> tuple[TrainDataset, dict[str, EvalDataset], Any]:
    """The training images, the held-out images by split, and the image processor that goes with the model."""
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
            "Crops are cut from images kept with a shorter side of at most %d pixels (--cache_shortest_edge 0: from "
            "the files themselves, slower).",
            transform.resize.shortest_edge,
        )
    workers = data_args.preprocessing_num_workers
    batched = torch.cuda.is_available()
    training_images = TrainDataset(
        splits["train"],
        transform,
        args.seed,
        data_args.cache,
        workers,
        batched=batched,
        quality=data_args.cache_quality,
        sampling=args.sampling,
    )
    held_out: dict[str, EvalDataset] = {
        split: EvalDataset(splits[split], processor, data_args.cache, workers)
        for split in EVAL_SPLITS
        if split in splits
    }
    return training_images, held_out, processor


def _train_and_evaluate(
    trainer: MaeFinetuner,
    checkpoint: str | None,
    splits: DatasetDict,
    held_out: dict[str, EvalDataset],
    started_record: RunRecord,
) -> RunRecord | None:
    """Trains, evaluates every held-out split, and writes what a finished run holds; the record comes last."""
    folder = trainer.args.folder
    with trainer.configure_model():  # as it was judged in training
        result, seconds = run_training(trainer, checkpoint)
        trainer.save_model()
        trainer.save_state()
        outputs: dict[str, Any] = {
            split: trainer.predict(images, metric_key_prefix=split) for split, images in held_out.items()
        }
    if not trainer.is_world_process_zero():
        return None
    scores = {
        split: write_split_results(
            folder,
            split,
            held_out[split],
            output.predictions,
            output.label_ids,
            started_record.classes,
            started_record.ordered,
        )
        for split, output in outputs.items()
    }
    _draw_figures(trainer, folder, result.global_step)
    judge = selection_split(outputs)
    calibration = None
    if judge:
        logits, labels = outputs[judge].predictions, outputs[judge].label_ids
        calibration = fit_and_write_temperature(
            folder, logits, labels, judge, False, started_record.classes, started_record.training_counts()
        )
        if calibration:
            logger.info(
                "For scores that say how often they are right, --temperature %s: %s",
                folder,
                format_calibration_gain(calibration, judge),
            )
    known = _fit_uncertainty(trainer, splits["train"], held_out, outputs, started_record.classes)
    training = Training(
        seconds=round(seconds, 1),
        updates=result.global_step,
        learning_rate=trainer.args.learning_rate,
        effective_batch_size=trainer.args.images_per_update,
        metrics=result.metrics,
    )
    selection = _build_selection(trainer, judge)
    record = replace(
        started_record,
        scores=scores,
        selection=selection,
        training=training,
        calibration=calibration,
        uncertainty=known,
    )
    _write_recipe_and_card(folder, trainer, record)
    write_record(record, folder)
    log_record(trainer, folder / record.file_name, record.trainer_metrics(), result.global_step)
    return record


def _fit_uncertainty(
    trainer: MaeFinetuner,
    training: Dataset,
    held_out: dict[str, EvalDataset],
    outputs: dict[str, Any],
    classes: list[str],
) -> dict[str, Any] | None:
    """Writes what the model does not know; returns how well its sets do on the test split, where there is one."""
    judge, folder = selection_split(outputs), trainer.args.folder
    if judge is None:
        return None
    with disable_zero3_init():
        model, processor = load_classifier(str(folder))  # as it will be used, whatever engine trained it
    model.to(trainer.args.device)
    logits, labels = outputs[judge].predictions, outputs[judge].label_ids
    size = trainer.args.per_device_eval_batch_size
    data = training, held_out[judge], logits, labels
    doubt = fit_uncertainty(model, processor, *data, classes, judge, batch_size=size)
    write_uncertainty(folder, doubt)
    if "test" not in outputs:
        return None
    return evaluate_coverage(doubt, outputs["test"].predictions, outputs["test"].label_ids, "test")


def _draw_figures(trainer: MaeFinetuner, folder: Path, step: int) -> None:
    """The learning curves; and every figure to the tracker."""
    figures.plot_learning_curves(trainer.state.log_history, folder / "learning_curves")
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            log_image(trainer, path.stem, picture.convert("RGB"), step)


def _build_selection(trainer: MaeFinetuner, split: str | None) -> Selection:
    """How the weights were chosen, and what taught them."""
    chosen, args = _build_checkpoint_selection(trainer, split), trainer.args
    if not args.teacher:
        return chosen
    taught = f" It learnt from the scores of {run_name(args.teacher)}, too (weight {args.teacher_weight:g})."
    return replace(chosen, sentence=chosen.sentence + taught)


def _build_checkpoint_selection(trainer: MaeFinetuner, split: str | None) -> Selection:
    best, metric = trainer.state.best_model_checkpoint, trainer.args.metric_for_best_model
    if (last := trainer.args.average_last) is not None:
        epochs = "the last epoch" if last == 1 else f"the last {last} epochs"
        return Selection(f"The weights are the mean of those at the end of {epochs} (--average_last {last}).")
    averaged = (
        ""
        if trainer.args.ema_decay is None
        else f" They are averages over the updates (--ema_decay {trainer.args.ema_decay:g})."
    )
    if not (trainer.args.load_best_model_at_end and best):
        return Selection(f"The weights are those of the last epoch.{averaged}")
    sentence = (
        f"The weights are those of the epoch with the best {metric} on the {split} split ({Path(best).name} of "
        f"{trainer.state.max_steps} updates), so its own figures are optimistic.{averaged}"
    )
    return Selection(sentence, selection_split=split, metric=metric, checkpoint=best)


def _write_recipe_and_card(folder: Path, trainer: MaeFinetuner, record: RunRecord) -> None:
    comments = {
        "effective batch": trainer.args.images_per_update,
        "processes": trainer.args.world_size,
        "versions": record.environment.versions,
    }
    recipe = render_recipe(record.settings, comments)
    write_text(folder / "recipe.yaml", recipe)
    write_model_card(folder, record, type(trainer.accelerator.unwrap_model(trainer.model)).__name__, recipe)
