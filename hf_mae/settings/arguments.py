"""`FinetuningArguments` and `PretrainingArguments`: `TrainingArguments` with the options of the original MAE code."""

import copy
import re
import typing
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

import torch
from torch.utils.checkpoint import checkpoint
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations, is_tensorboard_available
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..compat.launchers import read_launch, restore_engines_on_error
from ..compat.torch import PEER_TIMEOUT, wait_for_peers
from ..errors import UsageError, did_you_mean, summarize_exception
from .losses import CLASS_WEIGHTS, LOGIT_ADJUSTMENT, LOSSES, SOFT_LABELS
from .messages import SettingsMessage
from .metrics import PPV_AT_RECALL, is_greater_better, selection_metric_names
from .options import dataclass_options
from .trainer_options import LOADER_OPTIONS, check_trainer_option
from .training import (
    INSTANCE_BALANCED,
    FinetuningFields,
    MaeTrainingFields,
    PretrainingFields,
)


@cache
def _trainer_choices() -> dict[str, list[Any]]:
    """Returns the values of the fields of `TrainingArguments` that have a fixed set of values."""
    choices = {
        item.name: list(item.metadata["choices"]) for item in fields(TrainingArguments) if "choices" in item.metadata
    }
    for name, hint in typing.get_type_hints(TrainingArguments).items():
        parts = typing.get_args(hint)
        for part in [*parts, *(inner for outer in parts for inner in typing.get_args(outer))]:
            if isinstance(part, type) and issubclass(part, Enum):
                choices[name] = [member.value for member in part]
    return choices | {"debug": ["underflow_overflow"]}  # the other value needs a TPU


ArgumentsClass = TypeVar("ArgumentsClass", bound=type)


def _with_argparse_metadata(cls: ArgumentsClass) -> ArgumentsClass:
    """Leaves only what argparse knows in the metadata of the fields, so that `HfArgumentParser` can read the class."""
    for name, item in vars(cls)["__dataclass_fields__"].items():
        plain = copy.copy(item)
        known = {key: item.metadata[key] for key in ("choices", "metavar", "aliases") if key in item.metadata}
        text = re.sub(r"%(?![(%])(?<!%%)", "%%", item.metadata.get("help", ""))
        plain.metadata = MappingProxyType({"help": text, **known})
        vars(cls)["__dataclass_fields__"][name] = plain
    return cls


@dataclass
class MaeTrainingArguments(MaeTrainingFields, TrainingArguments):  # type: ignore[misc]  # types differ from transformers
    """Base of fine-tuning and pre-training: linear lr scaling, warm-up in epochs, cosine decay to a minimum."""

    def __post_init__(self) -> None:
        self.check_options()
        launch = read_launch()
        is_default = self.ddp_timeout == TrainingArguments.ddp_timeout
        wait_for_peers(launch, PEER_TIMEOUT if is_default else self.ddp_timeout)
        warmup_steps, self.warmup_steps = self.warmup_steps, self.warmup_steps or 0  # transformers requires a number
        if not (self.bf16 or self.fp16):  # DeepSpeed requires the precision of `accelerate launch`
            self.bf16, self.fp16 = launch.precision == "bf16", launch.precision == "fp16"
        self.debug = " ".join(self.debug) if isinstance(self.debug, list) else self.debug
        try:
            with restore_engines_on_error():
                super().__post_init__()
                self._check_engine(launch.is_launched)
            self._check_checkpointing_arguments()
        except UsageError:
            raise
        except (ValueError, KeyError, ImportError, TypeError, RuntimeError, OSError) as error:  # contradictory options
            raise UsageError(SettingsMessage.REJECTED_BY_TRANSFORMERS, error=summarize_exception(error)) from None
        self.warmup_steps = warmup_steps
        device = self.device  # initializes the process group
        self._read_accelerator_config()
        if self.effective_batch_size is not None:
            self._derive_gradient_accumulation()
        if self.fp16 and device.type == "cpu":
            raise UsageError(SettingsMessage.FP16_ON_CPU)
        for tracker in self.report_to or []:
            if tracker not in INTEGRATION_TO_CALLBACK:
                trackers = list(INTEGRATION_TO_CALLBACK)
                raise UsageError(
                    SettingsMessage.INVALID_CHOICE, value=tracker, name="report_to", location="", choices=trackers
                )
            if tracker not in get_available_reporting_integrations():
                raise UsageError(SettingsMessage.TRACKER_NOT_INSTALLED, tracker=tracker)

    def __copy__(self) -> Self:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state for `training_args.bin`, which others may read: without the token of the Hub."""
        return {**self.__dict__, "hub_token": None}

    def check_options(self) -> None:
        """Checks every option on its own, and those that depend on each other."""
        fields_class = next(base for base in type(self).__mro__ if not issubclass(base, TrainingArguments))
        for option in dataclass_options(fields_class):
            if (value := getattr(self, option.name)) is not None:
                option.check(value)
        for name, choices in _trainer_choices().items():
            self._check_choice(name, choices)
        if not self.dataloader_num_workers and (
            given := [name for name in LOADER_OPTIONS if getattr(self, name) not in (None, False)]
        ):
            raise UsageError(SettingsMessage.NO_LOADER_WORKERS, names=given)
        if self.ddp_backend and read_launch().num_processes < 2:
            raise UsageError(SettingsMessage.BACKEND_WITHOUT_PROCESSES)
        for item in filter(lambda item: item.init, fields(self)):
            default = item.default if item.default_factory is MISSING else item.default_factory()
            check_trainer_option(item.name, getattr(self, item.name), default)

    def _check_choice(self, name: str, choices: list[Any]) -> None:
        value = getattr(self, name)
        values = value.split() if name == "debug" and isinstance(value, str) else value
        for item in values if isinstance(values, list) else [values]:
            if item is not None and item not in choices:
                raise UsageError(SettingsMessage.INVALID_CHOICE, value=item, name=name, location="", choices=choices)

    def _check_engine(self, is_launched: bool) -> None:
        """Checks that a launcher started this process if an engine needs one (DeepSpeed: see `MaeTrainerBase`)."""
        self.is_launched = is_launched
        if self.fsdp and not is_launched:
            raise UsageError(SettingsMessage.ENGINE_WITHOUT_LAUNCHER, name="fsdp")

    def _check_checkpointing_arguments(self) -> None:
        """Tries the arguments of gradient checkpointing on a function; raises ValueError or TypeError."""
        for name in ("gradient_checkpointing_kwargs", "lr_scheduler_kwargs"):
            if isinstance(value := getattr(self, name), str) and value:
                raise UsageError(SettingsMessage.INVALID_JSON, value=value, name=name, location="")
        given: Any = self.gradient_checkpointing_kwargs
        arguments = dict(given or {})
        for name in ("every_n_layers", "offload"):  # read by transformers
            arguments.pop(name, None)
        if arguments:
            checkpoint(torch.sin, torch.zeros(1, requires_grad=True), **arguments)

    def _read_accelerator_config(self) -> None:
        """Moves the accumulation steps of `accelerator_config` to the field from which the batch is computed."""
        config: Any = copy.copy(self.accelerator_config)
        if config.split_batches:
            raise UsageError(SettingsMessage.SPLIT_BATCHES)
        self.accelerator_config = config
        kwargs = dict(config.gradient_accumulation_kwargs or {})
        steps = kwargs.pop("num_steps", 1)
        config.gradient_accumulation_kwargs = kwargs or None
        if steps == 1:
            return
        if self.gradient_accumulation_steps not in (1, steps):
            raise UsageError(SettingsMessage.TWO_ACCUMULATIONS, config=steps, given=self.gradient_accumulation_steps)
        self.gradient_accumulation_steps = steps

    def get_warmup_steps(self, num_training_steps: int) -> float:
        """Returns the warm-up of `warmup_steps` in updates; 0 if it is not set."""
        return 0 if self.warmup_steps is None else super().get_warmup_steps(num_training_steps)

    def _derive_gradient_accumulation(self) -> None:
        """Sets the accumulation steps from the effective batch size and the number of processes."""
        batch_size, step_size = self.effective_batch_size or 0, self.train_batch_size * self.world_size
        steps, remainder = divmod(batch_size, step_size)
        if steps < 1 or remainder:
            raise UsageError(
                SettingsMessage.BATCH_NOT_A_MULTIPLE,
                batch_size=batch_size,
                step_size=step_size,
                processes=self.world_size,
                per_device=self.train_batch_size,
            )
        if self.gradient_accumulation_steps not in (1, steps):
            raise UsageError(
                SettingsMessage.BATCH_AND_ACCUMULATION,
                batch_size=batch_size,
                steps=steps,
                processes=self.world_size,
                per_device=self.train_batch_size,
                given=self.gradient_accumulation_steps,
            )
        self.gradient_accumulation_steps = steps

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.output_dir or "")

    @property
    def images_per_update(self) -> int:
        """The effective batch size: batch per device x devices x processes x accumulation steps."""
        return int(self.train_batch_size * self.gradient_accumulation_steps * self.world_size)

    @property
    def absolute_learning_rate(self) -> float:
        """`learning_rate` if it is set, else base_learning_rate x effective batch size / 256."""
        if self.learning_rate is not None:
            return self.learning_rate
        return linear_scaled_lr(self.base_learning_rate, self.images_per_update)


BASE_BATCH_SIZE = 256  # images per update that base learning rates refer to


def linear_scaled_lr(base_learning_rate: float, effective_batch_size: int) -> float:
    """Returns the absolute learning rate: base lr x effective batch size (images per update) / 256.

    Source: facebookresearch/mae, after Goyal et al., 2017, arXiv:1706.02677.
    """
    return base_learning_rate * effective_batch_size / BASE_BATCH_SIZE


@_with_argparse_metadata
@dataclass
class FinetuningArguments(FinetuningFields, MaeTrainingArguments):  # type: ignore[misc]
    """`transformers.TrainingArguments` with the fine-tuning options and defaults of the original MAE code.

    The fields are those of `settings.training.FinetuningFields`, with their help texts, and those of transformers.
    """

    def __post_init__(self) -> None:
        self.class_weights: Any = parse_class_weights(self.class_weights)
        if self.metric_for_best_model is not None and self.greater_is_better is None:
            self.greater_is_better = is_greater_better(self.metric_for_best_model)
        super().__post_init__()

    def check_options(self) -> None:
        """Checks the options that depend on each other, too."""
        super().check_options()
        self.check_ppv_options()
        if self.ema_decay is not None and self.save_only_model:
            raise UsageError(SettingsMessage.AVERAGE_NOT_SAVED)
        self._check_loss_supports_options()
        if self.uses_mixup and self.per_device_train_batch_size % 2:
            raise UsageError(SettingsMessage.ODD_BATCH_FOR_MIXUP, batch_size=self.per_device_train_batch_size)
        if len(self.active_rebalancing) > 1:
            raise UsageError(SettingsMessage.SEVERAL_REBALANCINGS, flags=self.active_rebalancing)
        is_plain_loss = self.class_weights == "none" and self.loss == "cross_entropy" and not self.logit_adjustment
        if self.teacher and not is_plain_loss:
            raise UsageError(SettingsMessage.TEACHER_WITH_LOSS)

    def _check_loss_supports_options(self) -> None:
        """Checks that the loss supports the options that are on. Label smoothing is on by default, so it is ignored."""
        requested = {
            CLASS_WEIGHTS: self.class_weights != "none",
            LOGIT_ADJUSTMENT: self.logit_adjustment > 0,
            SOFT_LABELS: self.uses_mixup,
        }
        for name, is_on in requested.items():
            if is_on and name not in LOSSES[self.loss].supports:
                supported = [loss.name for loss in LOSSES.values() if name in loss.supports]
                raise UsageError(
                    SettingsMessage.OPTION_NOT_SUPPORTED_BY_LOSS, option=name, loss=self.loss, supported=supported
                )

    @property
    def active_rebalancing(self) -> list[str]:
        """The flags that compensate for class imbalance."""
        flags = {
            "--class_weights balanced": self.class_weights == "balanced",
            f"--sampling {self.sampling}": self.sampling != INSTANCE_BALANCED,
            f"--logit_adjustment {self.logit_adjustment:g}": self.logit_adjustment > 0,
        }
        return [flag for flag, is_active in flags.items() if is_active]

    @property
    def uses_mixup(self) -> bool:
        """Whether mixup or CutMix is on."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def drops_last_batch(self) -> bool:
        """Whether training drops the last incomplete batch: always with mixup, which needs an even number of images."""
        return self.dataloader_drop_last or self.uses_mixup


def check_loss_fits_classes(loss: str, ordered: bool) -> None:
    """Checks that a loss for ordinal classes has ordered ones.

    Args:
        ordered: whether the classes are grades.
    """
    if LOSSES[loss].needs_ordered_classes and not ordered:
        raise UsageError(SettingsMessage.LOSS_NEEDS_ORDERED_CLASSES, loss=loss)


def check_selection_metric(args: FinetuningArguments, ordered: bool) -> None:
    """Checks that evaluation computes the metric that selects the epoch, and that `greater_is_better` fits it."""
    if args.metric_for_best_model is None:
        return
    name = args.metric_for_best_model.removeprefix("eval_")
    computed_metrics = selection_metric_names(ordered)
    if name in selection_metric_names(ordered=True) and name not in computed_metrics:
        raise UsageError(SettingsMessage.METRIC_NEEDS_ORDERED_CLASSES, metric=name)
    if name not in computed_metrics:
        suggestion = did_you_mean(name, computed_metrics)
        metric = args.metric_for_best_model
        raise UsageError(SettingsMessage.UNKNOWN_METRIC, known=computed_metrics, metric=metric, suggestion=suggestion)
    if name == PPV_AT_RECALL and not (args.positive and args.ppv_at_recall):
        raise UsageError(SettingsMessage.PPV_METRIC_NEEDS_OPTIONS)
    smallest_is_best = not is_greater_better(name)
    if args.greater_is_better is not None and args.greater_is_better == smallest_is_best:
        code = SettingsMessage.SMALLEST_IS_BEST if smallest_is_best else SettingsMessage.GREATEST_IS_BEST
        raise UsageError(code, metric=name)


def parse_class_weights(value: Any) -> str | list[float]:
    """Parses class weights: `none`, `balanced` or a list of floats.

    Raises:
        UsageError: If the value is not valid.
    """
    words = [value] if isinstance(value, str) else list(() if value is None else value) or ["none"]
    if len(words) == 1 and words[0] in ("none", "balanced"):
        return words[0]
    try:
        weights = [float(word) for word in words]
    except (TypeError, ValueError):
        raise UsageError(SettingsMessage.INVALID_CLASS_WEIGHTS, value=value) from None
    if min(weights) < 0 or not sum(weights) < float("inf"):
        raise UsageError(SettingsMessage.CLASS_WEIGHTS_OUT_OF_RANGE, value=weights)
    return weights


@_with_argparse_metadata
@dataclass
class PretrainingArguments(PretrainingFields, MaeTrainingArguments):  # type: ignore[misc]
    """`transformers.TrainingArguments` with the pre-training options and defaults of the original MAE code.

    Args:
        mask_ratio: fraction of masked patches; None: that of the model.
        norm_pix_loss: predict patches normalized by their own mean and variance; None: as the model.
    """


def get_device_defaults() -> dict[str, Any]:
    """Returns the defaults of the training commands on this machine, which do not change results."""
    gpu = torch.cuda.is_available()
    return {
        "use_cpu": not torch.accelerator.is_available(),  # transformers rejects bf16 on a CPU unless this is set
        "dataloader_pin_memory": gpu,
        "dataloader_num_workers": min(8, torch.get_num_threads()) if gpu else 0,
        "report_to": "tensorboard" if is_tensorboard_available() else "none",
    }
