"""`pretrain`: masked pre-training on unlabelled images, from scratch or from a checkpoint."""

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from datasets import Dataset
from transformers import set_seed
from transformers.trainer_utils import SaveStrategy

from ..compat.transformers import StockModel
from ..data.checks.contamination import (
    ImageMatch,
    exclude_images,
    record_hashes,
    resolve_exclude_patterns,
    write_image_list,
)
from ..data.fingerprint import data_fingerprint
from ..data.images.streaming import (
    ImageStream,
    check_enough_stream_files,
    find_stream_files,
    load_first_images,
    stream_fingerprint,
)
from ..data.images.torch_datasets import EvalDataset, TrainDataset
from ..data.images.transforms import TrainingTransform, image_processor, parse_mean_std, pretraining_transform
from ..data.sources.unlabelled import load_unlabelled
from ..errors import UsageError, pluralize, warn
from ..files.atomic import write_text
from ..models.building import build_pretrainer
from ..models.model_zoo import resolve_checkpoint
from ..reporting.conversion_summary import format_conversion
from ..reporting.model_card import write_pretraining_card
from ..reporting.reconstructions import ReconstructionCallback
from ..runs.environment import get_environment
from ..runs.output_dir import check_same_run, lock_output_dir, remove_old_run, resolve_resume_checkpoint
from ..runs.record import DataSource, RunRecord, Training
from ..runs.record_io import write_record, write_started_record
from ..settings.arguments import PretrainingArguments
from ..settings.data import PretrainingDataArguments
from ..settings.models import PretrainingModelArguments
from ..settings.parse import Settings
from ..settings.recipes import render_recipe
from ..sharing.hub import schedule_push
from ..training.pretrainer import MaePretrainer
from ..training.run_trainer import run_training
from ..training.trackers import defer_tracker_close, log_record
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)

WARMUP_FRACTION = 0.05  # of the updates of a stream of unknown length (40 of 800 epochs in the original code)
NUM_RECONSTRUCTIONS = 8  # images per figure of reconstructions


@command("pretrain")
def pretrain(settings: Settings) -> RunRecord | None:
    """Pre-trains a masked autoencoder on unlabelled images.

    Args:
        recipe: a recipe of the package, or a YAML file; `flags` override it.
        flags: the flags of `hf-mae pretrain`.

    Returns:
        The record of the run; None on processes other than the main one.
    """
    push = schedule_push(settings.training)
    with lock_output_dir(settings.training):
        record = _pretrain(settings)
    if record is not None:
        push()
    return record


def _pretrain(settings: Settings) -> RunRecord | None:
    """Runs `pretrain` in a locked output folder."""
    model_args, data_args, args = settings.model, settings.data, settings.training
    checkpoint = resolve_resume_checkpoint(args)
    data = _find_stream(data_args, args) if data_args.streaming else _find_images(data_args, args)
    source = DataSource(str(data_args.data_dir), seed=args.seed, fingerprint=data.fingerprint)
    model = _build_model(model_args, args)
    if checkpoint:
        check_same_run(checkpoint, model.config, source)
    report = model.conversion_report
    logger.info("%s; %s", data.summary, format_conversion(report) if report else "training from scratch")
    trainer = _build_trainer(model, data, data_args, args)
    started_record = RunRecord(
        kind="pretrain",
        base=model_args.base,
        data=source,
        images={"train": data.count},
        environment=get_environment(),
        settings=settings.overrides,
        excluded=len(data.excluded),
    )
    if trainer.is_world_process_zero():
        if not checkpoint:
            remove_old_run(args)
        write_started_record(started_record, args.folder)
        if data.images is not None:
            write_image_list(args.folder, data.images, list(data.excluded))
    with defer_tracker_close(trainer):
        result, seconds = run_training(trainer, checkpoint)
        trainer.save_model()
        trainer.save_state()
        if not trainer.is_world_process_zero():
            return None
        workers = data_args.preprocessing_num_workers
        return _write_results(trainer, data.images, started_record, result, seconds, workers)


@dataclass(frozen=True)
class _TrainingData:
    """Training data.

    Args:
        summary: description for the log.
        count: number of images; 0: unknown.
        fingerprint: fingerprint of the images.
        images: the images; None for a stream.
        files: files of the stream.
        excluded: excluded images.
        excluded_stems: stems of the file names that a stream skips.
    """

    summary: str
    count: int
    fingerprint: str
    images: Dataset | None = None
    files: tuple[str, ...] = ()
    excluded: tuple[ImageMatch, ...] = ()
    excluded_stems: frozenset[str] = frozenset()


def _find_images(data_args: PretrainingDataArguments, args: PretrainingArguments) -> _TrainingData:
    with args.main_process_first(desc="reading the images"):
        images, excluded = _read_images(data_args)
        fingerprint = data_fingerprint({"train": images})
    return _TrainingData(pluralize(len(images), "image"), len(images), fingerprint, images, excluded=tuple(excluded))


def _find_stream(data_args: PretrainingDataArguments, args: PretrainingArguments) -> _TrainingData:
    """Finds the files of a stream, and sets the length of training and warm-up in updates."""
    source = str(data_args.data_dir)
    files, count = find_stream_files(source)
    check_enough_stream_files(files, args.world_size * max(args.dataloader_num_workers, 1), source)
    if len(files) % args.world_size:
        warn(logger, WorkflowMessage.STREAM_FILES_UNEVEN, files=len(files), processes=args.world_size)
    if args.max_steps <= 0 and not count:
        raise UsageError(WorkflowMessage.STREAM_LENGTH_UNKNOWN, source=source)
    if count and args.max_steps <= 0:
        args.max_steps = math.ceil(args.num_train_epochs * count / args.images_per_update)
    if args.warmup_steps is None:
        default = WARMUP_FRACTION * args.max_steps if args.warmup_epochs else 0.0
        args.warmup_steps = round(args.warmup_epochs * count / args.images_per_update if count else default)
    args.ignore_data_skip = True  # the checkpoint has the state of each loader
    if args.save_strategy == "epoch":
        args.save_strategy, args.save_steps = SaveStrategy.STEPS, max(1, args.max_steps // 20)
    updates = f"{args.max_steps} updates, {args.warmup_steps} of them warm-up"
    summary = f"stream of {pluralize(len(files), 'file')}; {updates}"
    stems = frozenset(resolve_exclude_patterns(data_args.exclude)[0]) if data_args.exclude else frozenset()
    return _TrainingData(summary, count or 0, stream_fingerprint(files), files=tuple(files), excluded_stems=stems)


def _read_images(data_args: PretrainingDataArguments) -> tuple[Dataset, list[ImageMatch]]:
    """Reads the training images; returns them and the excluded images."""
    workers = data_args.preprocessing_num_workers
    # Decode all images now if they are cached anyway. Otherwise damaged pixel data is detected during training.
    decode = data_args.cache_shortest_edge is not None
    images = load_unlabelled(
        str(data_args.data_dir), data_args.on_bad_image, workers, decode=decode, frames=data_args.frames
    )
    if not data_args.exclude:
        return images, []
    return exclude_images(images, data_args.exclude, data_args.exclude_by, workers)


def _build_model(model_args: PretrainingModelArguments, args: PretrainingArguments) -> StockModel:
    set_seed(args.seed)  # for random weights
    return build_pretrainer(
        model_args.model_name_or_path and resolve_checkpoint(model_args.model_name_or_path),
        size=model_args.size,
        image_size=model_args.image_size,
        mask_ratio=args.mask_ratio,
        norm_pix_loss=args.norm_pix_loss,
        num_attention_heads=model_args.num_attention_heads,
        decoder_num_attention_heads=model_args.decoder_num_attention_heads,
        **model_args.from_scratch_sizes(),
    )


def _build_trainer(
    model: StockModel, data: _TrainingData, data_args: PretrainingDataArguments, args: PretrainingArguments
) -> MaePretrainer:
    size, family = model.config.image_size, data_args.transforms
    mean, std = parse_mean_std(data_args.mean_std, family, data.images, size)
    transform = pretraining_transform(family, size, mean, std, cache_shortest_edge=data_args.cache_shortest_edge)
    train_dataset = _build_train_dataset(data, transform, data_args, args)
    processor = image_processor(family, size, mean, std)
    trainer = MaePretrainer(model=model, args=args, train_dataset=train_dataset, processing_class=processor)
    if data_args.reconstruction_steps > 0:
        images = load_first_images(list(data.files), NUM_RECONSTRUCTIONS) if data.images is None else data.images
        dataset = EvalDataset(images.select(range(min(NUM_RECONSTRUCTIONS, len(images)))), processor, cache=False)
        pixel_values = torch.stack([dataset[index]["pixel_values"] for index in range(len(dataset))])
        trainer.add_callback(
            ReconstructionCallback(trainer, pixel_values, data_args.reconstruction_steps, mean=mean, std=std)
        )
    return trainer


def _build_train_dataset(
    data: _TrainingData, transform: TrainingTransform, data_args: PretrainingDataArguments, args: PretrainingArguments
) -> TrainDataset | ImageStream:
    if data.images is None:
        return ImageStream(
            list(data.files),
            transform,
            args.seed,
            args.process_index,
            args.world_size,
            data_args.on_bad_image,
            data.excluded_stems,
        )
    with args.main_process_first(desc="preparing the images"):
        return TrainDataset(
            data.images,
            transform,
            args.seed,
            num_workers=data_args.preprocessing_num_workers,
            on_bad_image=data_args.on_bad_image,
            quality=data_args.cache_quality,
        )


def _write_results(
    trainer: MaePretrainer,
    images: Dataset | None,
    started_record: RunRecord,
    result: Any,
    seconds: float,
    workers: int | None,
) -> RunRecord:
    """Writes the results of a pre-training; the record is written last."""
    folder, args = trainer.args.folder, trainer.args
    if images is not None:
        record_hashes(folder, images, workers)
    recipe = render_recipe(started_record.settings, {"effective batch": args.images_per_update})
    write_text(folder / "recipe.yaml", recipe)
    training = Training(
        seconds=round(seconds, 1),
        updates=result.global_step,
        learning_rate=args.learning_rate,
        effective_batch_size=args.images_per_update,
        metrics=result.metrics,
    )
    record = replace(started_record, train=training)
    write_pretraining_card(folder, record, trainer.accelerator.unwrap_model(trainer.model), recipe)
    write_record(record, folder)
    log_record(trainer, folder / record.file_name, record.trainer_metrics(), result.global_step)
    return record
