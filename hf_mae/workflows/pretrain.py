"""`pretrain`: masked pre-training on unlabelled images, from scratch or from a checkpoint."""

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import set_seed
from transformers.trainer_utils import SaveStrategy

from ..compat.transformers import StockModel
from ..data.contamination import ImageMatch, exclude_images, record_hashes, write_image_list
from ..data.exclude_list import resolve_exclude_patterns
from ..data.fingerprint import data_fingerprint
from ..data.streaming import (
    ImageStream,
    check_enough_stream_files,
    find_stream_files,
    load_first_images,
    stream_fingerprint,
)
from ..data.torch_datasets import EvalDataset, TrainDataset
from ..data.transforms import TrainingTransform, image_processor, parse_mean_std, pretraining_transform
from ..data.unlabelled import load_unlabelled
from ..errors import UsageError, pluralize, raise_on_stop_signal
from ..files.atomic import write_text
from ..models.building import build_pretrainer
from ..models.model_zoo import resolve_checkpoint
from ..reporting.model_card import write_pretraining_card
from ..reporting.reconstructions import ReconstructionCallback
from ..runs.environment import get_environment
from ..runs.output_dir import check_same_data, lock_output_dir, remove_old_run, resolve_resume_checkpoint
from ..runs.record import DataSource, RunRecord, Training
from ..runs.record_io import write_record, write_started_record
from ..settings.arguments import PretrainingArguments
from ..settings.data import PretrainingDataArguments
from ..settings.models import PretrainingModelArguments
from ..settings.parse import Settings, parse_settings
from ..settings.recipes import render_recipe
from ..sharing.hub import schedule_push
from ..training.preemption import NOT_TRAINING_HINT
from ..training.pretrainer import MaePretrainer
from ..training.resume import check_model_matches_checkpoint
from ..training.run_trainer import run_training
from ..training.trackers import defer_tracker_close, log_record

logger = logging.getLogger(__name__)

WARMUP_FRACTION = 0.05  # of the updates, as the reference's 40 of 800 epochs, where nobody knows what an epoch is
NUM_RECONSTRUCTIONS = 8  # images on a sheet of reconstructions


def pretrain(*, recipe: str | None = None, **flags: Any) -> RunRecord | None:
    """Pre-trains a masked autoencoder on unlabelled images.

    Args:
        recipe: a recipe of the package, or a YAML file; `flags` win over it.
        flags: the flags of `hf-mae pretrain`.

    Returns:
        What was done, as the output folder holds it; None on processes other than the main one.
    """
    with raise_on_stop_signal(NOT_TRAINING_HINT):
        settings = parse_settings("pretrain", recipe, **flags)
        args = settings.arguments[-1]
        push = schedule_push(args)
        with lock_output_dir(args):
            record = _pretrain(settings)
    if record is not None:
        push()
    return record


def _pretrain(settings: Settings) -> RunRecord | None:
    """What `pretrain` says, in a folder that nobody else writes."""
    model_args, data_args, args = settings.arguments
    checkpoint = resolve_resume_checkpoint(args)
    found = _find_stream(data_args, args) if data_args.streaming else _find_images(data_args, args)
    source = DataSource(str(data_args.data_dir), seed=args.seed, fingerprint=found.fingerprint)
    if checkpoint:
        check_same_data(Path(checkpoint).parent, source)
    model = _build_model(model_args, args, checkpoint)
    report = model.conversion_report
    logger.info("%s; %s", found.summary, report.summary() if report else "from scratch")
    trainer = _build_trainer(model, found, data_args, args)
    begun = RunRecord(
        kind="pretrain",
        base=model_args.base,
        data=source,
        images={"train": found.count},
        environment=get_environment(),
        settings=settings.overrides,
        excluded=len(found.excluded),
    )
    if trainer.is_world_process_zero():
        if not checkpoint:
            remove_old_run(args)
        write_started_record(begun, args.folder)
        if found.images is not None:
            write_image_list(args.folder, found.images, list(found.excluded))
    with defer_tracker_close(trainer):
        result, seconds = run_training(trainer, checkpoint)
        trainer.save_model()
        trainer.save_state()
        if not trainer.is_world_process_zero():
            return None
        return _write_results(trainer, found.images, begun, result, seconds, data_args.preprocessing_num_workers)


@dataclass(frozen=True)
class _TrainingData:
    """What is trained on.

    Args:
        summary: of it, in words.
        count: its images; 0: nobody knows.
        fingerprint: of them.
        images: all of them; None: they are a stream.
        files: of the stream.
        excluded: what is left out.
        excluded_stems: stems of names that a stream passes over.
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
    """The files of a stream; its length is that of the training, which is counted in updates."""
    source = str(data_args.data_dir)
    files, count = find_stream_files(source)
    check_enough_stream_files(files, args.world_size * max(args.dataloader_num_workers, 1), source)
    if len(files) % args.world_size:
        logger.warning(
            "%d files, %d processes: each reads all files, and keeps its share.", len(files), args.world_size
        )
    if args.max_steps <= 0 and not count:
        raise UsageError(f"{source} does not say how many images it has: tell the updates, --max_steps N.")
    if count and args.max_steps <= 0:
        args.max_steps = math.ceil(args.num_train_epochs * count / args.images_per_update)
    if args.warmup_steps is None:
        share = WARMUP_FRACTION * args.max_steps if args.warmup_epochs else 0.0
        args.warmup_steps = round(args.warmup_epochs * count / args.images_per_update if count else share)
    args.ignore_data_skip = True  # each loader's place is in the checkpoint
    if args.save_strategy == "epoch":
        args.save_strategy, args.save_steps = SaveStrategy.STEPS, max(1, args.max_steps // 20)
    updates = f"{args.max_steps} updates, {args.warmup_steps} of warm-up"
    said = f"{pluralize(len(files), 'file')} of images, as they come; {updates}"
    stems = frozenset(resolve_exclude_patterns(data_args.exclude)[0]) if data_args.exclude else frozenset()
    return _TrainingData(said, count or 0, stream_fingerprint(files), files=tuple(files), excluded_stems=stems)


def _read_images(data_args: PretrainingDataArguments) -> tuple[Dataset, list[ImageMatch]]:
    """The images to train on, and those that are left out."""
    workers = data_args.preprocessing_num_workers
    # With a cache all are decoded now; else what the ends of the files do not tell shows in training.
    decode = data_args.cache_shortest_edge is not None
    images = load_unlabelled(str(data_args.data_dir), data_args.on_bad_image, workers, decode=decode)
    if not data_args.exclude:
        return images, []
    return exclude_images(images, data_args.exclude, data_args.exclude_by, workers)


def _build_model(
    model_args: PretrainingModelArguments, args: PretrainingArguments, checkpoint: str | None
) -> StockModel:
    set_seed(args.seed)  # of a model from scratch
    model = build_pretrainer(
        model_args.model_name_or_path and resolve_checkpoint(model_args.model_name_or_path),
        size=model_args.size,
        image_size=model_args.image_size,
        mask_ratio=args.mask_ratio,
        norm_pix_loss=args.norm_pix_loss,
        num_attention_heads=model_args.num_attention_heads,
        decoder_num_attention_heads=model_args.decoder_num_attention_heads,
        **model_args.from_scratch_sizes(),
    )
    if checkpoint:
        check_model_matches_checkpoint(checkpoint, model.config)
    return model


def _build_trainer(
    model: StockModel, data: _TrainingData, data_args: PretrainingDataArguments, args: PretrainingArguments
) -> MaePretrainer:
    size, family = model.config.image_size, data_args.transforms
    mean, std = parse_mean_std(data_args.mean_std, family, data.images, size)
    transform = pretraining_transform(family, size, mean, std, cache_shortest_edge=data_args.cache_shortest_edge)
    training_images = _build_train_dataset(data, transform, data_args, args)
    processor = image_processor(family, size, mean, std)
    trainer = MaePretrainer(model=model, args=args, train_dataset=training_images, processing_class=processor)
    if data_args.reconstruction_steps > 0:
        shown = load_first_images(list(data.files), NUM_RECONSTRUCTIONS) if data.images is None else data.images
        watched = EvalDataset(shown.select(range(min(NUM_RECONSTRUCTIONS, len(shown)))), processor, cache=False)
        pixel_values = torch.stack([watched[index]["pixel_values"] for index in range(len(watched))])
        sheets = ReconstructionCallback(trainer, pixel_values, data_args.reconstruction_steps, mean=mean, std=std)
        trainer.add_callback(sheets)
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
    """Writes what a finished pre-training holds; the record comes last."""
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
    record = replace(started_record, training=training)
    write_pretraining_card(folder, record, trainer.accelerator.unwrap_model(trainer.model), recipe)
    write_record(record, folder)
    log_record(trainer, folder / record.file_name, record.trainer_metrics(), result.global_step)
    return record
