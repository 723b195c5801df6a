"""`finetune`: loads data and model, trains, predicts, calibrates, and writes the output folder."""

from ..data.labelled_data import LabelledData
from ..models.building import build_training_model
from ..models.introspection import input_size
from ..reporting.plan_summary import log_conversion, log_plan, write_auto_recipe
from ..reporting.report import write_single_run_report
from ..reporting.run_results import write_run_results
from ..runs.calibration import calibrate_run
from ..runs.finetuning_record import add_training, start_record
from ..runs.output_dir import (
    add_default_output_dir,
    check_recipe_data,
    check_same_run,
    lock_output_dir,
    remove_old_run,
    resolve_resume_checkpoint,
)
from ..runs.record import DataSource, RunRecord
from ..settings.parse import Settings
from ..sharing.hub import schedule_push
from ..training.distillation import load_teacher
from ..training.finetuner import MaeFinetuner
from ..training.finetuning_data import prepare_datasets
from ..training.run_trainer import disable_evaluation_without_split, run_training
from ..training.trackers import defer_tracker_close
from ..training.training_plan import Plan, build_plan
from .command import command
from .plan import choose_auto_settings, load_data, plan


@command("finetune")
def finetune(settings: Settings) -> RunRecord | Plan | None:
    """Fine-tunes a checkpoint on labelled images.

    Returns:
        The record of the run; None on processes other than the main one; the plan with `dry_run`.
    """
    if settings.run.dry_run:
        return plan.run(settings)
    settings, auto_settings = choose_auto_settings(add_default_output_dir(settings))
    args = settings.training
    push = schedule_push(args)
    with args.main_process_first(desc="reading the images"):
        data = load_data(settings)
    check_recipe_data(settings.data.data_fingerprint, data.fingerprint)
    with lock_output_dir(args):
        if auto_settings and args.process_index == 0:
            write_auto_recipe(args.folder / "auto.yaml", auto_settings)
        record = finetune_splits(data, settings)
    if record is not None and record.scores and settings.data.benchmark:
        write_single_run_report(args.folder)
    push()
    return record


def finetune_splits(data: LabelledData, settings: Settings) -> RunRecord | None:
    """Runs the fine-tuning of loaded data; the caller has locked the output folder.

    Args:
        data: the images; `selection`, or else `validation`, selects the epoch.
        settings: of the run; its `overrides` are written to `recipe.yaml`.

    Returns:
        The record; None on processes other than the main one.
    """
    args = disable_evaluation_without_split(settings.training, data.selection_split)
    checkpoint = resolve_resume_checkpoint(args)

    drop_path = 0.0 if args.freeze_backbone else args.drop_path
    model = build_training_model(settings.model, data.class_names, args.seed, drop_path)
    log_conversion(model.conversion_report)
    if checkpoint:
        source = DataSource.from_settings(settings.data, args.seed, data.fingerprint)
        check_same_run(checkpoint, model.config, source)

    with args.main_process_first(desc="preparing the images"):
        train_dataset, eval_datasets, processor = prepare_datasets(
            data.splits, settings.data, model.config, input_size(model), args.seed, args.sampling
        )
    trainer = MaeFinetuner(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_datasets.get(data.selection_split or ""),
        processing_class=processor,
        ordered=data.ordered,
        teacher=load_teacher(args, model, processor),
    )
    run_plan = build_plan(
        trainer, data.splits, data.exclusion_log, settings.data, measure=trainer.runs_plain_model_on_gpu
    )
    if trainer.is_world_process_zero():
        log_plan(run_plan)

    if not checkpoint:
        remove_old_run(args)
    record = start_record(data, settings, model)
    with defer_tracker_close(trainer):
        with trainer.configure_model():  # predictions are those of evaluations during training
            output = run_training(trainer, checkpoint)
            trainer.save_model()
            trainer.save_state()
            logits = {split: trainer.predict_logits(images) for split, images in eval_datasets.items()}
        if not trainer.is_world_process_zero():
            return None
        record = add_training(record, trainer, output, settings.data, data.selection_split)
        record = calibrate_run(
            record,
            args.folder,
            logits,
            eval_datasets,
            data.splits["train"],
            args.device,
            args.per_device_eval_batch_size,
        )
        return write_run_results(trainer, record, logits, eval_datasets)
