"""`MaeTrainerBase`: optimizer groups, schedule, checks and checkpoints that fine-tuning and pre-training share."""

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import TrainerCallback, get_scheduler, set_seed

from ..compat.accelerate import use_low_memory_sampler
from ..compat.transformers import HookedTrainer, StockModel, get_attn_implementation, use_attn_implementation
from ..conversion.safety import is_timm
from ..data.images.torch_datasets import collate
from ..errors import UsageError, summarize_exception
from ..files.atomic import apply_umask
from ..models.attention import register_plain_attention
from ..models.introspection import find_blocks
from ..settings.arguments import MaeTrainingArguments
from ..settings.training import DEFAULT_LR_SCHEDULER
from .dataloader_signals import make_workers_signal_safe
from .layer_decay import strip_wrapper_prefixes
from .messages import TrainingMessage
from .optimizer_check import find_optimizer_mismatches, format_learning_rates, read_optimizer_settings
from .progress import REPLACED_CALLBACKS, Progress
from .resume import Launch, check_resumable, check_training_length, find_last_checkpoint, write_launch
from .streaming import ImageStream, StreamLoader
from .trackers import guard_trackers

logger = logging.getLogger(__name__)


class NonFiniteLossError(UsageError):
    """A training loss was NaN or infinite."""


class MaeTrainerBase(HookedTrainer):
    """Base of both trainers: linear learning-rate rule, warm-up in epochs, stop at a non-finite loss.

    The trainer does not change the caller's `args` and `model`: it uses a copy of `args` with the absolute learning
    rate, and reverts all changes of the model, except its weights, after training.

    Subclasses implement `get_param_groups(model, learning_rate)`.
    """

    args: MaeTrainingArguments

    def __init__(self, model: StockModel, args: MaeTrainingArguments, **kwargs: Any):
        self._check_optimizer_param_groups(kwargs.get("optimizer_cls_and_kwargs"))
        kwargs.setdefault("data_collator", collate)
        super().__init__(model=model, args=_resolve_learning_rate(args), **kwargs)
        self._model_init_stack = ExitStack()  # contexts of the model from `model_init`
        self.resumed_from: Path | None = None  # checkpoint
        self._stream: StreamLoader | None = None
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
                self.add_callback(Progress(self.args.images_per_update, self.sum_losses))
        if self.train_dataset is not None and self.is_world_process_zero():
            self._log_batch_and_rate()

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
        with self._override_drop_last(self.drop_last):
            loader = super().get_train_dataloader()
        if len(loader) == 0:
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
        with self._override_drop_last(False):
            return make_workers_signal_safe(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Returns the stock loader, which does not drop images."""
        with self._override_drop_last(False):
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
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """Trains as the stock Trainer; raises UsageError for a checkpoint that this launch cannot resume from."""
        if resume_from_checkpoint is True and (last_checkpoint := find_last_checkpoint(self.args.folder)):
            resume_from_checkpoint = str(last_checkpoint)
        self.resumed_from = Path(resume_from_checkpoint) if isinstance(resume_from_checkpoint, str) else None
        self._start_time, self._end_time = time.monotonic(), None
        if self.resumed_from is not None:
            self.on_resume(self.resumed_from)
        with nullcontext() if self.model_init is not None else self.configure_model():
            output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self._end_time = time.monotonic()
        return output

    def call_model_init(self, trial: Any = None) -> StockModel:
        """Builds and configures the model of a trial, and resets the random seed."""
        model: StockModel = super().call_model_init(trial)
        set_seed(self.args.seed)
        self._model_init_stack.close()
        self._model_init_stack.enter_context(self.configure_for_training(model))
        return model

    def on_resume(self, checkpoint: Path) -> None:
        """Checks, before a checkpoint is loaded, that this training can resume from it."""
        if saved := check_resumable(checkpoint, self.launch):
            self.resumes, self._earlier_seconds = saved.resumes + 1, saved.seconds
        check_training_length(checkpoint, self.args.num_train_epochs, self.args.max_steps)
        if isinstance(self.train_dataset, ImageStream):
            self._get_stream_loader(self.train_dataset).load(checkpoint)

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
            names = {id(parameter): strip_wrapper_prefixes(name) for name, parameter in model.named_parameters()}
            self.parameter_counts = {names[id(parameter)]: parameter.numel() for parameter in model.parameters()}
            self._requested_settings = {
                names[id(parameter)]: {"lr": group["lr"], "weight_decay": group["weight_decay"]}
                for group in groups
                for parameter in group["params"]
            }
            self.trained_parameter_names = {
                name for name, settings in self._requested_settings.items() if settings["lr"] > 0
            }
            self.optimizer = optimizer_class(groups, **kwargs)
        return self.optimizer

    def _get_optimizer_class(self, model: StockModel) -> tuple[Any, dict[str, Any]]:
        if self.optimizer_cls_and_kwargs is not None:
            return self.optimizer_cls_and_kwargs
        try:
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
        except (ImportError, ValueError, RuntimeError) as error:
            name = getattr(self.args.optim, "value", self.args.optim)
            raise UsageError(
                TrainingMessage.OPTIMIZER_UNAVAILABLE, name=name, error=summarize_exception(error)
            ) from None
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
        """Creates the cosine schedule with warm-up of util/lr_sched.py; the lr of a group contains its layer scale."""
        if self.lr_scheduler is not None:
            return self.lr_scheduler
        self.warmup = warmup = self.warmup_updates(num_training_steps)
        kwargs: Any = self.args.lr_scheduler_kwargs
        rate = self.args.absolute_learning_rate
        if self.args.lr_scheduler_type == DEFAULT_LR_SCHEDULER and not kwargs:
            kwargs = {"min_lr_rate": self.args.min_learning_rate / rate if rate else 0.0}
        try:
            scheduler = get_scheduler(
                self.args.lr_scheduler_type,
                optimizer=self.optimizer if optimizer is None else optimizer,
                num_warmup_steps=warmup,  # type: ignore[arg-type]  # may be fractional
                num_training_steps=num_training_steps,
                scheduler_specific_kwargs=kwargs,
            )
        except (TypeError, ValueError) as error:
            name = getattr(self.args.lr_scheduler_type, "value", self.args.lr_scheduler_type)
            raise UsageError(
                TrainingMessage.SCHEDULER_UNAVAILABLE, name=name, settings=kwargs, error=summarize_exception(error)
            ) from None
        self.set_scheduler(scheduler)
        return scheduler

    def warmup_updates(self, num_training_steps: int) -> float:
        """Returns the number of updates of warm-up (may be fractional)."""
        if self.args.warmup_steps is not None:
            return self.args.get_warmup_steps(num_training_steps)
        updates = math.ceil(len(self.get_train_dataloader()) / self.args.gradient_accumulation_steps)
        return self.args.warmup_epochs * updates

    def wants_gradient_norm(self) -> bool:
        """Whether this update is logged, so that it needs the gradient norm."""
        if self.args.logging_strategy != "steps" or self.args.logging_first_step:
            return True
        return not (self.state.global_step + 1) % self.state.logging_steps

    # Loss checks

    def training_step(self, model: StockModel, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Performs the stock step; its loss is checked as soon as it is available."""
        loss = super().training_step(model, inputs, num_items_in_batch)
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
        return Launch(engine, processes, self.args.images_per_update, round(self.training_seconds, 3), self.resumes)

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
        """Saves the model as the stock Trainer; the saved weights get the permissions of the umask."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            apply_umask(Path(output_dir or self.args.folder).glob("model*.safetensors"))

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
        if hasattr(self.trainer.train_dataset, "set_epoch"):
            self.trainer.train_dataset.set_epoch(int(state.epoch or 0))

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
