"""`pretrain`: masked pre-training on unlabelled images, from scratch or from a checkpoint."""

import logging
from dataclasses import replace

from ..data.checks.contamination import record_hashes, write_image_list
from ..models.building import build_pretraining_model
from ..reporting.conversion_summary import format_conversion
from ..reporting.reconstructions import ReconstructionCallback
from ..reporting.run_results import write_pretraining_results
from ..runs.environment import get_environment
from ..runs.output_dir import (
    check_recipe_data,
    check_same_run,
    lock_output_dir,
    remove_old_run,
    resolve_resume_checkpoint,
)
from ..runs.record import DataSource, RunRecord
from ..runs.record_io import write_started_record
from ..runs.run_licences import find_licences
from ..runs.training_record import describe_training
from ..settings.parse import Settings
from ..sharing.hub import schedule_push
from ..training.pretrainer import MaePretrainer
from ..training.pretraining_data import find_pretraining_data, prepare_pretraining_data
from ..training.run_trainer import run_training
from ..training.trackers import defer_tracker_close
from .command import command

logger = logging.getLogger(__name__)


@command("pretrain")
def pretrain(settings: Settings) -> RunRecord | None:
    """Pre-trains a masked autoencoder on unlabelled images.

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
    options, args = settings.data, settings.training
    checkpoint = resolve_resume_checkpoint(args)
    data = find_pretraining_data(options, args)
    check_recipe_data(options.data_fingerprint, data.fingerprint)

    model = build_pretraining_model(settings.model, args.seed, args.mask_ratio, args.norm_pix_loss)
    report = model.conversion_report
    logger.info("%s; %s", data.summary, format_conversion(report) if report else "training from scratch")
    source = DataSource(str(options.data_dir), seed=args.seed, fingerprint=data.fingerprint)
    if checkpoint:
        check_same_run(checkpoint, model.config, source)

    train_dataset, processor = prepare_pretraining_data(data, options, args, model.config.image_size)
    trainer = MaePretrainer(model=model, args=args, train_dataset=train_dataset, processing_class=processor)
    if options.reconstruction_steps > 0:
        pixel_values = data.first_pixel_values(processor)
        trainer.add_callback(ReconstructionCallback(trainer, pixel_values, options.reconstruction_steps))

    record = RunRecord(
        kind="pretrain",
        base=settings.model.base,
        data=source,
        images={"train": data.count},
        environment=get_environment(),
        settings=settings.overrides,
        excluded=len(data.excluded),
        licences=find_licences(settings.model.base),
    )
    if trainer.is_world_process_zero():
        if not checkpoint:
            remove_old_run(args)
        write_started_record(record, args.folder)
        if data.images is not None:
            write_image_list(args.folder, data.images, list(data.excluded))
    with defer_tracker_close(trainer):
        output = run_training(trainer, checkpoint)
        trainer.save_model()
        trainer.save_state()
        if not trainer.is_world_process_zero():
            return None
        if data.images is not None:
            record_hashes(args.folder, data.images, options.preprocessing_num_workers)
        record = replace(record, train=describe_training(trainer, output))
        return write_pretraining_results(trainer, record)
