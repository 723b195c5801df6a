"""Reads the facts of a completed training from its trainer."""

from typing import Any

from ..models.introspection import find_head
from ..models.stochastic_depth import get_drop_path_rate
from ..settings.data import DataArguments
from ..settings.losses import LOSSES, SMOOTHING
from ..training.finetuner import MaeFinetuner
from ..training.trainer import MaeTrainerBase
from .training_facts import Augmentation, Objective, Optimizer, Schedule, TrainedPart, Training

WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")  # schedules of transformers


def describe_training(trainer: MaeTrainerBase, output: Any, **facts: Any) -> Training:
    """Describes a completed training.

    Args:
        trainer: after training.
        output: result of `Trainer.train`.
        facts: further fields of `Training`.
    """
    args, state, model = trainer.args, trainer.state, trainer.accelerator.unwrap_model(trainer.model)
    seconds = round(trainer.training_seconds, 1)
    parameters = trainer.parameter_counts
    trained = {name: count for name, count in parameters.items() if name in trainer.trained_parameter_names}
    return Training(
        seconds=seconds,
        updates=output.global_step,
        learning_rate=args.absolute_learning_rate,
        effective_batch_size=args.images_per_update,
        metrics=output.metrics | ({"train_runtime": seconds} if trainer.resumes else {}),
        epochs=round(float(state.epoch or 0), 4),
        planned_updates=state.max_steps,
        planned_epochs=args.num_train_epochs if args.max_steps <= 0 else None,
        resumes=trainer.resumes,
        processes=args.world_size,
        precision=find_precision(trainer.accelerator, model),
        parameters=sum(parameters.values()),
        trained_parameters=sum(trained.values()),
        trained_part=_find_trained_part(trainer, trained),
        seed=args.seed,
        optimizer=_describe_optimizer(trainer),
        schedule=_describe_schedule(trainer),
        **facts,
    )


def find_precision(accelerator: Any, model: Any) -> str:
    """Returns the mixed precision of an accelerator (`bf16`...), or the type of the weights of a model (`float32`)."""
    precision = str(accelerator.mixed_precision)
    return str(model.dtype).removeprefix("torch.") if precision == "no" else precision


def describe_finetuning(trainer: MaeFinetuner, output: Any, options: DataArguments) -> Training:
    """Describes a completed fine-tuning; `options`: its transforms."""
    return describe_training(
        trainer,
        output,
        early_stopping_patience=trainer.args.early_stopping_patience,
        objective=_describe_objective(trainer),
        augmentation=_describe_augmentation(trainer, options),
    )


def _find_trained_part(trainer: MaeTrainerBase, trained: dict[str, int]) -> TrainedPart:
    if len(trained) == len(trainer.parameter_counts):
        return TrainedPart.ALL
    if not isinstance(trainer, MaeFinetuner):
        return TrainedPart.PART
    head, _ = find_head(trainer.accelerator.unwrap_model(trainer.model))
    return TrainedPart.HEAD if all(name.startswith(f"{head}.") for name in trained) else TrainedPart.PART


def _describe_optimizer(trainer: MaeTrainerBase) -> Optimizer:
    args, optimizer = trainer.args, unwrap_optimizer(trainer.optimizer)
    groups = optimizer.param_groups
    scales = {group.get("lr_scale", 1.0) for group in groups}
    betas, momentum = groups[0].get("betas"), groups[0].get("momentum")
    return Optimizer(
        name=type(optimizer).__name__,
        base_learning_rate=args.base_learning_rate if trainer.uses_linear_rule else None,
        weight_decay=max(float(group.get("weight_decay", 0.0)) for group in groups),
        layer_decay=getattr(args, "layer_decay", 1.0) if len(scales) > 1 else 1.0,
        betas=None if betas is None else [float(beta) for beta in betas],
        momentum=None if momentum is None else float(momentum),
        max_grad_norm=float(args.max_grad_norm or 0.0),
    )


def unwrap_optimizer(optimizer: Any) -> Any:
    """Returns the optimizer within the wrappers of accelerate and DeepSpeed."""
    while (inner := getattr(optimizer, "optimizer", None)) is not None:
        optimizer = inner
    return optimizer


def _describe_schedule(trainer: MaeTrainerBase) -> Schedule:
    name = str(getattr(trainer.args.lr_scheduler_type, "value", trainer.args.lr_scheduler_type))
    rates = [float(group["lr"]) for group in unwrap_optimizer(trainer.optimizer).param_groups]
    return Schedule(name, 0.0 if name in WITHOUT_WARMUP else float(trainer.warmup), max(rates))


def _describe_objective(trainer: MaeFinetuner) -> Objective:
    args, weights = trainer.args, trainer.class_weights
    loss = LOSSES[args.loss]
    return Objective(
        loss=args.loss,
        parameters={name: float(getattr(args, name)) for name in loss.parameters},
        smoothing=args.smoothing if SMOOTHING in loss.supports else 0.0,
        class_weights=None if weights is None else dict(zip(trainer.class_names, weights.tolist())),
        balanced=args.class_weights == "balanced",
        logit_adjustment=args.logit_adjustment,
        sampling=args.sampling,
    )


def _describe_augmentation(trainer: MaeFinetuner, options: DataArguments) -> Augmentation:
    args = trainer.args
    is_imagenet = options.transforms == "imagenet"
    auto_augment = options.auto_augment if is_imagenet and options.auto_augment != "none" else None
    return Augmentation(
        transforms=options.transforms,
        auto_augment=auto_augment,
        random_erasing=options.random_erasing if is_imagenet else 0.0,
        mixup=args.mixup,
        cutmix=args.cutmix,
        mixup_prob=args.mixup_prob if args.uses_mixup else 0.0,
        drop_path=get_drop_path_rate(trainer.accelerator.unwrap_model(trainer.model)),
        patch_dropout=args.patch_dropout,
    )
