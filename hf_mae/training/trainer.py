"""`MaeTrainerBase`: optimizer groups, schedule, checks and checkpoints that fine-tuning and pre-training share."""

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import SchedulerType, TrainerCallback, set_seed
from transformers.trainer_utils import has_length

from ..compat.accelerate import use_low_memory_sampler
from ..compat.deepspeed import (
    disable_zero3_init,
    find_deepspeed_conflicts,
    get_checkpoint_classes,
    process_deepspeed_config,
)
from ..compat.launchers import restore_engines_on_error, unset_engines
from ..compat.torch import is_compiler_error, load_weights_only, move_schedule
from ..compat.transformers import HookedTrainer, StockModel, get_attn_implementation, use_attn_implementation
from ..conversion.safety import is_timm
from ..data.images.torch_datasets import collate
from ..errors import UsageError, first_error_line, summarize_exception, warn
from ..files.atomic import apply_umask
from ..models.attention import register_plain_attention
from ..models.introspection import find_blocks
from ..settings.arguments import MaeTrainingArguments
from ..settings.messages import SettingsMessage
from .checkpoint_files import check_checkpoint_files
from .dataloader_signals import make_workers_signal_safe
from .layer_decay import strip_wrapper_prefixes
from .messages import TrainingMessage
from .optimizer_arguments import read_optimizer_arguments
from .optimizer_check import find_optimizer_mismatches, format_learning_rates, read_optimizer_settings
from .progress import REPLACED_CALLBACKS, Progress
from .resume import (
    Launch,
    Position,
    check_optimizer_state,
    check_resumable,
    check_training_length,
    find_last_checkpoint,
    find_position,
    write_launch,
)
from .schedule import WITHOUT_WARMUP, build_schedule, warn_about_unused_settings
from .streaming import ImageStream, StreamLoader
from .trackers import guard_trackers

logger = logging.getLogger(__name__)


class NonFiniteLossError(UsageError):
    """A training loss was NaN or infinite."""


@contextmanager
def explain_errors(optimizer: str | None = None) -> Iterator[None]:
    """Within the block, errors of transformers, accelerate and torch about the settings become a UsageError.

    Args:
        optimizer: name of the optimizer that the block creates.
    """
    try:
        with restore_engines_on_error():
            yield
    except UsageError:
        raise
    except (ValueError, KeyError, ImportError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        text = summarize_exception(error)
        if optimizer is not None:
            raise UsageError(TrainingMessage.OPTIMIZER_UNAVAILABLE, name=optimizer, error=text) from error
        raise UsageError(TrainingMessage.SETUP_REJECTED, error=text) from error


class MaeTrainerBase(HookedTrainer):
    """Base of both trainers: linear learning-rate rule, warm-up in epochs, stop at a non-finite loss.

    The trainer does not change the caller's `args` and `model`: it uses a copy of `args` with the absolute learning
    rate, and reverts all changes of the model, except its weights, after training.

    Subclasses implement `get_param_groups(model, learning_rate)`.
    """

    args: MaeTrainingArguments
    arguments_class: type[MaeTrainingArguments] = MaeTrainingArguments

    def __init__(
        self,
        model: StockModel | None = None,
        args: MaeTrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ):
        args = self.arguments_class(output_dir="tmp_trainer") if args is None else args  # as the stock Trainer
        if not isinstance(args, self.arguments_class):
            raise UsageError(
                TrainingMessage.ARGUMENTS_OF_OTHER_CLASS,
                expected=self.arguments_class.__name__,
                found=type(args).__name__,
            )
        self._check_optimizer_param_groups(kwargs.get("optimizer_cls_and_kwargs"))
        self._given_args = args  # a search changes a copy
        self._model_init_stack = ExitStack()  # contexts of the model from `model_init`
        resolved = _resolve_learning_rate(args)
        with explain_errors():
            process_deepspeed_config(resolved)
            super().__init__(
                model, resolved, data_collator or collate, train_dataset, eval_dataset, processing_class, **kwargs
            )
        self._check_deepspeed_config(resolved)
        self.resumed_from: Path | None = None  # checkpoint
        self._stream: StreamLoader | None = None
        self._position: Position | None = None  # where a checkpoint resumes
        self.images_in_epoch = 0  # that were trained in the current epoch
        self._group_settings: list[dict[str, float]] = []  # lr and weight decay of each parameter group
        self._pending_losses: deque[_PendingLoss] = deque()  # not checked yet
        self._checked_loss_sum = 0.0  # on this process
        self._requested_settings: dict[str, dict[str, float]] = {}  # by parameter: lr, weight decay
        self.uses_linear_rule = args.learning_rate is None
        self.warmup = 0.0  # updates of warm-up of the schedule
        self.parameter_counts: dict[str, int] = {}  # of the model, by name
        self.trained_parameter_names: set[str] = set()
        self.resumes, self._earlier_seconds = 0, 0.0
        self._start_time = time.monotonic()
        self._end_time: float | None = None
        guard_trackers(self)
        self.add_callback(_SanityCallback(self))
        for callback_class in REPLACED_CALLBACKS:  # not the callback for notebooks
            if self.pop_callback(callback_class) is not None:
                self.add_callback(Progress(self.sum_losses))
        if self.train_dataset is not None and self.is_world_process_zero():
            self._log_batch_and_rate()

    def _check_deepspeed_config(self, args: MaeTrainingArguments) -> None:
        """Checks that the DeepSpeed config has the values of the settings, and no optimizer or schedule; and that a
        launcher started this process."""
        lacks_launcher = bool(args.deepspeed) and not args.is_launched
        if lacks_launcher:
            unset_engines()  # no check passes, and this process may start another run
        sections, mismatches = find_deepspeed_conflicts(self.accelerator)
        if sections:
            also = f", and correct {', '.join(mismatches)}" if mismatches else ""
            raise UsageError(TrainingMessage.DEEPSPEED_DEFINES_OPTIMIZER, sections=sections, also=also)
        if mismatches:
            raise UsageError(TrainingMessage.DEEPSPEED_CONTRADICTS, mismatches=mismatches)
        if lacks_launcher:
            raise UsageError(SettingsMessage.ENGINE_WITHOUT_LAUNCHER, name="deepspeed")

    def errors_of_setup(self) -> AbstractContextManager[None]:
        """Explains errors of the model, the engine and the loaders that are prepared when training begins."""
        return explain_errors()

    @contextmanager
    def errors_of_loading(self) -> Iterator[None]:
        """Names the checkpoint if one of its states does not fit; torch and transformers raise many types."""
        try:
            yield
        except UsageError:
            raise
        except Exception as error:
            if self.resumed_from is None:
                raise
            reason = f"{error} is missing" if isinstance(error, KeyError) else summarize_exception(error)
            raise UsageError(
                TrainingMessage.CHECKPOINT_CANNOT_BE_LOADED, path=self.resumed_from, reason=reason
            ) from error

    def _log_batch_and_rate(self) -> None:
        args = self.args
        rule = f" = {args.base_learning_rate:g} x {args.images_per_update} / 256" if self.uses_linear_rule else ""
        logger.info(
            "Learning rate %g%s; effective batch size %d = %d per device x %d accumulation steps x %d processes",
            args.learning_rate,
            rule,
            args.images_per_update,
            args.train_batch_size,
            args.gradient_accumulation_steps,
            args.world_size,
        )

    # Data

    @contextmanager
    def _override_drop_last(self, drop_last: bool) -> Iterator[None]:
        previous, self.args.dataloader_drop_last = self.args.dataloader_drop_last, drop_last
        try:
            yield
        finally:
            self.args.dataloader_drop_last = previous

    def get_train_dataloader(self) -> DataLoader:
        """Returns the stock loader, or the loader of a stream; raises UsageError if the images do not fill a batch."""
        if isinstance(self.train_dataset, ImageStream):
            return self._get_stream_loader(self.train_dataset).dataloader
        with self._override_drop_last(self.drop_last), self.errors_of_setup():
            loader = super().get_train_dataloader()
        if has_length(loader) and len(loader) == 0:
            num_images, batch_size = len(self.train_dataset), self.micro_batch_size
            raise UsageError(TrainingMessage.FEWER_IMAGES_THAN_A_BATCH, images=num_images, batch_size=batch_size)
        return use_low_memory_sampler(make_workers_signal_safe(loader))

    def _get_stream_loader(self, stream: ImageStream) -> StreamLoader:
        """Returns the loader of the stream, created once because it has a state."""
        self._stream = self._stream or StreamLoader(stream, self.micro_batch_size, self.args)
        return self._stream

    # The stock Trainer applies `dataloader_drop_last` to evaluation too.
    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Returns the stock loader, which does not drop images."""
        with self._override_drop_last(False), self.errors_of_setup():
            return make_workers_signal_safe(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Returns the stock loader, which does not drop images."""
        with self._override_drop_last(False), self.errors_of_setup():
            return make_workers_signal_safe(super().get_test_dataloader(test_dataset))

    @property
    def drop_last(self) -> bool:
        """Whether training drops the last incomplete batch."""
        return self.args.dataloader_drop_last

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Returns the stock micro-batches, after the augmentation that runs on the device."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        return [self._augment_on_device(batch) for batch in batches], num_items

    def _augment_on_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Applies the random part of the transform to a batch of `TrainDataset(batched=True)`."""
        if "pixels" not in batch:
            return batch
        pixels, params = (
            batch.pop(name).to(self.args.device, non_blocking=True) for name in ("pixels", "augment_params")
        )
        return batch | {"pixel_values": self.train_dataset.transform.batch_augment(pixels, params)}

    # Model

    @contextmanager
    def configure_model(self) -> Iterator[StockModel]:
        """Configures the unwrapped model for training within the block; afterwards only its weights differ."""
        model = self.accelerator.unwrap_model(self.model)
        with self.configure_for_training(model):
            yield model

    @contextmanager
    def configure_for_training(self, model: StockModel) -> Iterator[StockModel]:
        """Configures a model for training within the block: attention implementation and frozen parameters."""
        with ExitStack() as stack:
            if is_plain_attention_faster(model, self.args.device):
                stack.enter_context(use_attn_implementation(model, register_plain_attention(model)))
            stack.enter_context(freeze_parameters(model, self.frozen_parameter_names(model)))
            yield model

    def blocks(self, model: StockModel) -> Sequence[nn.Module]:
        """Returns the blocks of any network of transformers or timm."""
        return find_blocks(model)

    def frozen_parameter_names(self, model: StockModel) -> list[str]:
        """Returns the names of parameters that stay frozen, whatever their `requires_grad`."""
        return []

    def train(  # type: ignore[override]  # other arguments are passed through
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, **kwargs: Any
    ) -> Any:
        """Trains as the stock Trainer; raises UsageError for a checkpoint that this launch cannot resume from."""
        if trial is not None:
            self._apply_trial(trial)
        if resume_from_checkpoint is True and (last_checkpoint := find_last_checkpoint(self.args.folder)):
            resume_from_checkpoint = str(last_checkpoint)
        self.resumed_from = Path(resume_from_checkpoint) if isinstance(resume_from_checkpoint, str) else None
        self._start_time, self._end_time, self._position = time.monotonic(), None, None
        if self.resumed_from is not None:
            self.on_resume(self.resumed_from)
        with self._model_init_stack if self.model_init is not None else self.configure_model():
            with nullcontext() if self.resumed_from is None else self._load_safely():
                output = super().train(resume_from_checkpoint=resume_from_checkpoint, trial=trial, **kwargs)
        self._end_time = time.monotonic()
        return output

    def _load_safely(self) -> AbstractContextManager[None]:
        return load_weights_only(get_checkpoint_classes() if self.is_deepspeed_enabled else [])

    def call_model_init(self, trial: Any = None) -> StockModel:
        """Builds and configures the model of a trial, and resets the random seed."""
        model: StockModel = super().call_model_init(trial)
        if getattr(self, "is_in_train", False):  # not the model that the constructor builds
            set_seed(self.args.seed)
            self._model_init_stack.close()
            self._model_init_stack.enter_context(self.configure_for_training(model))
        return model

    def _apply_trial(self, trial: Any) -> None:
        """Changes the settings to those of a trial of `hyperparameter_search`, with all that follows from them."""
        values = dict(self.trial_values(trial))
        if unknown := sorted(values.keys() - {item.name for item in fields(self._given_args)}):
            raise UsageError(TrainingMessage.UNKNOWN_TRIAL_SETTINGS, names=unknown)
        if self._given_args.effective_batch_size is not None:
            values.setdefault("gradient_accumulation_steps", 1)  # derived again
        self.args = _resolve_learning_rate(replace(self._given_args, **values))
        self.apply_settings()

    def apply_settings(self) -> None:
        """Computes what follows from the settings and the data; called again if a search has changed the settings."""

    def on_resume(self, checkpoint: Path) -> None:
        """Checks, before a checkpoint is loaded, that this training can resume from it."""
        check_checkpoint_files(checkpoint)
        if saved := check_resumable(checkpoint, self.launch):
            self.resumes, self._earlier_seconds = saved.resumes + 1, saved.seconds
            self._position = self._find_position(checkpoint, saved)
        check_training_length(checkpoint, self.args.num_train_epochs, self.args.max_steps)
        if isinstance(self.train_dataset, ImageStream):
            self._get_stream_loader(self.train_dataset).load(checkpoint)

    def _find_position(self, checkpoint: Path, saved: Launch) -> Position | None:
        if saved.images_seen is None or saved.images_per_epoch is None or not has_length(self.train_dataset):
            return None
        found = len(self.train_dataset)
        if saved.images_seen % saved.images_per_epoch and found != saved.images_per_epoch:
            raise UsageError(
                TrainingMessage.DATASET_LENGTH_CHANGED, path=checkpoint, saved=saved.images_per_epoch, found=found
            )
        args, images_seen = self.args, saved.images_seen * found // saved.images_per_epoch
        return find_position(
            images_seen,
            found,
            args.train_batch_size * args.world_size,
            args.gradient_accumulation_steps,
            self.drop_last,
        )

    def set_initial_training_values(self, args: Any, dataloader: DataLoader) -> Any:
        """Returns the stock values; `max_steps` ends a resumed training after enough epochs, of whatever length."""
        epochs, *values = super().set_initial_training_values(args, dataloader)
        return (epochs + (self._position.epochs if self._position and args.max_steps > 0 else 0), *values)

    def resume_position(self, epochs: int, batches: int, num_training_steps: int) -> tuple[int, int]:
        """Resumes at the next image, however many images an update of the original launch and of this one has."""
        if (position := self._position) is None:
            return epochs, batches
        if self.args.max_steps <= 0:
            self.state.max_steps = self.state.global_step + num_training_steps - position.update
        self.images_in_epoch = position.images
        return position.epochs, 0 if self.args.ignore_data_skip else position.batches or 0

    def images_to_skip(self, epoch: int) -> int:
        """Returns the images of the resumed epoch that were trained, if they end within an update of this launch."""
        position = self._position
        if position is None or epoch != position.epochs or position.batches is not None or self.args.ignore_data_skip:
            return 0
        return position.images

    def on_epoch_begin(self, epoch: int) -> None:
        """Counts the images of the epoch."""
        position = self._position
        self.images_in_epoch = position.images if position is not None and epoch == position.epochs else 0

    def on_update(self) -> None:
        """Counts the images of an update; the epoch of a log line contains those that were trained before."""
        self.images_in_epoch += self.args.images_per_update
        epoch = float(self.state.epoch or 0)
        if not epoch.is_integer() and (skipped := self.images_to_skip(int(epoch))):
            share = skipped / len(self.train_dataset)
            self.state.epoch = int(epoch) + share + (1 - share) * (epoch - int(epoch))

    def on_optimizer_loaded(self) -> None:
        """Places the schedule at the resumed image, with the learning rates and weight decays of this launch."""
        scheduler, groups = self.lr_scheduler, self.optimizer.param_groups
        if self.resumed_from is not None and not self.is_deepspeed_enabled:
            check_optimizer_state(self.resumed_from, self.optimizer, scheduler)
        if not isinstance(scheduler, LambdaLR) or len(self._group_settings) != len(groups):
            return
        update = scheduler.last_epoch
        if self._position is not None:
            update = self.state.global_step if self.args.max_steps > 0 else self._position.update
        saved = [{"lr": group["initial_lr"], "weight_decay": group["weight_decay"]} for group in groups]
        if update == scheduler.last_epoch and saved == self._group_settings:
            return
        for group, settings in zip(groups, self._group_settings, strict=True):
            group |= {"initial_lr": settings["lr"], "weight_decay": settings["weight_decay"]}
        move_schedule(scheduler, groups, update)

    # Optimizer and schedule

    def get_param_groups(self, model: StockModel, learning_rate: float) -> list[dict[str, Any]]:
        """Builds the parameter groups of the optimizer: `params`, `lr`, `lr_scale`, `weight_decay`."""
        raise NotImplementedError

    def create_optimizer(self, model: StockModel | None = None) -> torch.optim.Optimizer:
        """Creates the optimizer: the caller's, or `args.optim` (or the caller's class) with the groups of
        `get_param_groups`."""
        if self.optimizer is None:
            model = self.model if model is None else model
            assert model is not None
            optimizer_class, kwargs = self._get_optimizer_class(model)
            with freeze_parameters(model, self.frozen_parameter_names(model)):
                groups = self.get_param_groups(model, kwargs.get("lr", self.args.absolute_learning_rate))
            self._group_settings = [{"lr": group["lr"], "weight_decay": group["weight_decay"]} for group in groups]
            names = {id(parameter): strip_wrapper_prefixes(name) for name, parameter in model.named_parameters()}
            self.parameter_counts = {names[id(parameter)]: parameter.numel() for parameter in model.parameters()}
            self._requested_settings = {
                names[id(parameter)]: {"lr": group["lr"], "weight_decay": group["weight_decay"]}
                for group in groups
                for parameter in group["params"]
            }
            trained = [parameter for group in groups if group.get("lr_scale", 1.0) for parameter in group["params"]]
            self.trained_parameter_names = {names[id(parameter)] for parameter in trained}
            with explain_errors(self._optimizer_name):
                self.optimizer = optimizer_class(groups, **kwargs)
        return self.optimizer

    @property
    def _optimizer_name(self) -> str:
        return str(getattr(self.args.optim, "value", self.args.optim))

    def _get_optimizer_class(self, model: StockModel) -> tuple[Any, dict[str, Any]]:
        if self.optimizer_cls_and_kwargs is not None:
            return self.optimizer_cls_and_kwargs
        with explain_errors(self._optimizer_name):
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
            without_arguments = copy.copy(self.args)
            without_arguments.optim_args = None
            _, defaults = self.get_optimizer_cls_and_kwargs(without_arguments, model)
            kwargs |= read_optimizer_arguments(self.args.optim_args, optimizer_class, kwargs, defaults)
        self._check_optimizer_param_groups((optimizer_class, kwargs))
        return optimizer_class, kwargs

    @staticmethod
    def _check_optimizer_param_groups(optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None) -> None:
        optimizer_class, kwargs = optimizer_cls_and_kwargs or (None, {})
        if arguments := sorted({"params", "model", "optimizer_dict"} & kwargs.keys()):
            name = getattr(optimizer_class, "__name__", optimizer_class)
            raise UsageError(TrainingMessage.OPTIMIZER_DEFINES_GROUPS, name=name, arguments=arguments)

    def check_learning_rates(self) -> None:
        """Checks the learning rate and weight decay of every parameter in the prepared optimizer.

        Raises:
            UsageError: If the engine changed some of them.
        """
        if not self._requested_settings or not isinstance(self.lr_scheduler, LambdaLR):
            return
        rates = zip(map(float, self.lr_scheduler.base_lrs), map(float, self.lr_scheduler.get_last_lr()))
        base, current = max(rates)  # of the head: those of other layers may be 0
        schedule_factor = current / base if base else 0.0
        actual = read_optimizer_settings(self.accelerator.unwrap_model(self.model), self.optimizer)
        if mismatches := find_optimizer_mismatches(self._requested_settings, actual, schedule_factor):
            raise UsageError(
                TrainingMessage.LEARNING_RATES_CHANGED,
                engine=self.accelerator.distributed_type.value,
                count=len(mismatches),
                examples="; ".join(mismatches[:3]),
            )

    def print_learning_rates(self) -> None:
        """Logs the learning rate and weight decay of every parameter."""
        if self._requested_settings:
            logger.info(format_learning_rates(self._requested_settings))

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Creates the schedule, by default the cosine with warm-up of util/lr_sched.py of the original MAE code."""
        if self.lr_scheduler is None:
            optimizer = self.optimizer if optimizer is None else optimizer
            self.warmup = self.warmup_updates(num_training_steps)
            self.set_scheduler(build_schedule(self.args, optimizer, self.warmup, num_training_steps))
            if self.is_world_process_zero():
                self._warn_about_schedule(num_training_steps)
        return self.lr_scheduler

    def _warn_about_schedule(self, num_training_steps: int) -> None:
        warn_about_unused_settings(self.args)
        requested, used = self._requested_warmup(num_training_steps), self.warmup
        if used < requested:
            warn(
                logger,
                TrainingMessage.WARMUP_SHORTENED,
                warmup=requested,
                updates=num_training_steps,
                shortened=used,
            )

    def warmup_updates(self, num_training_steps: int) -> float:
        """Returns the number of updates of warm-up (may be fractional): as requested, but less than the training."""
        requested = self._requested_warmup(num_training_steps)
        return requested if requested < num_training_steps else num_training_steps // 10

    def _requested_warmup(self, num_training_steps: int) -> float:
        if SchedulerType(self.args.lr_scheduler_type).value in WITHOUT_WARMUP:
            return 0
        if self.args.warmup_steps is not None:
            return self.args.get_warmup_steps(num_training_steps)
        return self.args.warmup_epochs * self.updates_per_epoch(num_training_steps)

    def planned_updates(self) -> int:
        """Returns the number of updates of the training."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        return math.ceil(self.updates_per_epoch(0) * self.args.num_train_epochs)

    def updates_per_epoch(self, num_training_steps: int) -> int:
        """Returns the number of updates of an epoch; data of unknown length is one epoch, as in the stock Trainer."""
        loader = self.get_train_dataloader()
        if not has_length(loader):
            return num_training_steps
        return max(1, math.ceil(len(loader) / self.args.gradient_accumulation_steps))

    def wants_gradient_norm(self) -> bool:
        """Whether this update is logged, so that it needs the gradient norm."""
        if self.args.logging_strategy != "steps" or self.args.logging_first_step:
            return True
        return not (self.state.global_step + 1) % self.state.logging_steps

    # Loss checks

    def training_step(self, model: StockModel, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Performs the stock step; its loss is checked as soon as it is available."""
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except Exception as error:
            if not (self.args.torch_compile and is_compiler_error(error)):
                raise
            raise UsageError(TrainingMessage.COMPILATION_FAILED, error=first_error_line(error)) from error
        self._pending_losses.append(_PendingLoss.copy_async(loss, inputs.get("index"), self.state.global_step + 1))
        self.check_finite(wait=False)
        return loss

    def check_finite(self, wait: bool = True) -> None:
        """Checks the pending losses.

        Args:
            wait: whether to wait for losses that the accelerator still computes. Otherwise they are checked later, so
                that training steps do not wait.

        Raises:
            NonFiniteLossError: If a loss is not finite; it names the images of the batch.
        """
        while self._pending_losses and (wait or self._pending_losses[0].is_ready()):
            self._check_loss_finite(self._pending_losses.popleft())

    def sum_losses(self) -> float:
        """Returns the sum of the training losses of all updates so far, averaged over processes. All processes must
        call it."""
        self.check_finite()
        if self.args.world_size == 1:
            return self._checked_loss_sum
        return float(self.accelerator.reduce(torch.tensor(self._checked_loss_sum, device=self.args.device), "mean"))

    def _check_loss_finite(self, pending_loss: "_PendingLoss") -> None:
        loss, index = pending_loss.item(), pending_loss.index
        if math.isfinite(loss):
            self._checked_loss_sum += loss
            return
        images = ["unknown"]
        if index is not None and hasattr(self.train_dataset, "file_names"):
            images = [self.train_dataset.file_names[i] for i in index.tolist()]
        raise NonFiniteLossError(
            TrainingMessage.LOSS_NOT_FINITE_FP16 if self.args.fp16 else TrainingMessage.LOSS_NOT_FINITE,
            loss=loss,
            step=pending_loss.step,
            images=images,
            checkpoint=find_last_checkpoint(self.args.folder) or "none",
        )

    # Checkpoints

    @property
    def launch(self) -> Launch:
        """How this run was launched, and its training time so far."""
        engine, processes = self.accelerator.distributed_type.value, self.args.world_size
        launch = Launch(engine, processes, self.args.images_per_update, round(self.training_seconds, 3), self.resumes)
        if not has_length(self.train_dataset):
            return launch
        images, epoch = len(self.train_dataset), float(self.state.epoch or 0)
        in_epoch = 0 if epoch.is_integer() else self.images_in_epoch
        return replace(launch, images_seen=int(epoch) * images + in_epoch, images_per_epoch=images)

    @property
    def training_seconds(self) -> float:
        """Training time so far, including that of the processes that this one resumed."""
        end = time.monotonic() if self._end_time is None else self._end_time
        return self._earlier_seconds + end - self._start_time

    def before_checkpoint(self) -> None:
        """Checks the losses, so that no checkpoint is saved after a non-finite one."""
        self.check_finite()

    def save_extra_state(self, folder: Path) -> None:
        """Saves the state of a stream."""
        if self._stream is not None:
            self._stream.save(folder)

    def after_checkpoint(self, folder: Path) -> None:
        """Writes into the checkpoint how the run was launched."""
        write_launch(folder, self.launch)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model as the stock Trainer, in float32; the saved weights get the permissions of the umask."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            folder = Path(output_dir or self.args.folder)
            if self.is_deepspeed_enabled and self.accelerator.mixed_precision != "no" and not _internal_call:
                with disable_zero3_init():  # DeepSpeed saves bf16 weights, and `pipeline()` would compute in bf16
                    model = type(self.accelerator.unwrap_model(self.model)).from_pretrained(folder, dtype=torch.float32)
                model.save_pretrained(folder)
            apply_umask(folder.glob("model*.safetensors"))

    def load_weights(self, folder: str) -> None:
        """Loads all weights of a saved model into the model in training."""
        model = self.accelerator.unwrap_model(self.model)
        saved = type(model).from_pretrained(folder, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())


def _resolve_learning_rate(args: MaeTrainingArguments) -> MaeTrainingArguments:
    """Returns a copy of the arguments with the absolute learning rate; the caller may reuse the original."""
    resolved = copy.copy(args)
    resolved.learning_rate = args.absolute_learning_rate
    return resolved


def is_plain_attention_faster(model: StockModel, device: torch.device) -> bool:
    """Whether training is faster with plain attention.

    On a CPU, the backward pass of torch's fused attention takes longer than all matrix products. Plain attention gives
    1.15 to 1.5 x the images/s (scripts/benchmarks/attention.py).
    """
    return device.type == "cpu" and get_attn_implementation(model) == "sdpa" and not is_timm(model.config)


@contextmanager
def freeze_parameters(model: StockModel, names: list[str]) -> Iterator[None]:
    """Freezes the parameters of these names within the block."""
    frozen_names = set(names)
    parameters = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and strip_wrapper_prefixes(name) in frozen_names
    ]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@dataclass
class _PendingLoss:
    """A loss that is copied asynchronously from the accelerator to the host."""

    value: torch.Tensor  # on the CPU
    index: torch.Tensor | None  # of the images of the batch
    step: int
    copy_event: "torch.cuda.Event | None" = None

    @classmethod
    def copy_async(cls, loss: torch.Tensor, index: torch.Tensor | None, step: int) -> "_PendingLoss":
        if loss.device.type != "cuda":
            return cls(loss.detach(), index, step)
        value = torch.empty((), dtype=loss.dtype, pin_memory=True)
        value.copy_(loss.detach(), non_blocking=True)
        copy_event = torch.cuda.Event()
        copy_event.record()
        return cls(value, index, step, copy_event)

    def is_ready(self) -> bool:
        return self.copy_event is None or self.copy_event.query()

    def item(self) -> float:
        if self.copy_event is not None:
            self.copy_event.synchronize()
        return self.value.item()


class _SanityCallback(TrainerCallback):
    """Sets the epoch of the training set (accelerate sets it on one process only), checks the learning rates of the
    optimizer in the first updates, and checks the last losses at the end of training."""

    def __init__(self, trainer: MaeTrainerBase):
        self.trainer = trainer
        self._updates = 0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.on_epoch_begin(int(state.epoch or 0))
        if hasattr(self.trainer.train_dataset, "set_epoch"):
            self.trainer.train_dataset.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.on_update()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.check_learning_rates()
        if args.print_learning_rates and self.trainer.is_world_process_zero():
            self.trainer.print_learning_rates()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._updates < 2:  # with warm-up, all learning rates of the first update are 0
            self.trainer.check_learning_rates()
        self._updates += 1

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.check_finite()
