"""What both trainings share on transformers' own loop: optimizer groups, schedule, checks, checkpoints."""

import copy
import logging
import math
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
from ..data.streaming import ImageStream
from ..data.torch_datasets import collate
from ..errors import UsageError, summarize_exception
from ..files.atomic import apply_umask
from ..models.attention import register_plain_attention
from ..models.introspection import find_blocks
from ..settings.arguments import MaeTrainingArguments
from ..settings.training import DEFAULT_LR_SCHEDULER
from .dataloader_signals import make_workers_signal_safe
from .layer_decay import strip_wrapper_prefixes
from .optimizer_check import find_optimizer_mismatches, format_learning_rates, read_optimizer_settings
from .progress import REPLACED_CALLBACKS, Progress
from .resume import Launch, check_resumable, check_training_length, find_last_checkpoint, write_launch
from .streaming import StreamLoader

logger = logging.getLogger(__name__)


class NonFiniteLossError(UsageError):
    """A loss was not finite."""


class MaeTrainerBase(HookedTrainer):
    """What both trainings share: linear lr rule, warm-up in epochs, a stop at losses that are not finite.

    The caller's `args` and `model` stay as they were: the trainer works on a copy of `args` with the learning rate that
    follows from them, and what the model has to be like in training, it is while it trains.

    A subclass has `groups(model, learning_rate)`: the parameter groups of the optimizer.
    """

    args: MaeTrainingArguments

    def __init__(self, model: StockModel, args: MaeTrainingArguments, **kwargs: Any):
        self._check_optimizer_param_groups(kwargs.get("optimizer_cls_and_kwargs"))
        kwargs.setdefault("data_collator", collate)
        super().__init__(model=model, args=_resolve_learning_rate(args), **kwargs)
        self._model_init_stack = ExitStack()  # of what `model_init` made
        self.resumed_from: Path | None = None  # the checkpoint that a training goes on from
        self._stream: StreamLoader | None = None
        self._pending_losses: deque[_PendingLoss] = deque()  # that have not been looked at yet
        self._requested_settings: dict[str, dict[str, float]] = {}  # learning rate and weight decay of each parameter
        self.add_callback(_SanityCallback(self))
        for kind in REPLACED_CALLBACKS:  # a notebook's own stays
            if self.pop_callback(kind) is not None:
                self.add_callback(Progress(self.args.images_per_update))
        if self.train_dataset is not None and self.is_world_process_zero():
            self._log_batch_and_rate(uses_linear_rule=args.learning_rate is None)

    def _log_batch_and_rate(self, uses_linear_rule: bool) -> None:
        args = self.args
        rule = f" = {args.base_learning_rate:g} x {args.images_per_update} / 256" if uses_linear_rule else ""
        logger.info(
            "learning rate %g%s; effective batch %d = %d per device x %d accumulated x %d processes",
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
        asked, self.args.dataloader_drop_last = self.args.dataloader_drop_last, drop_last
        try:
            yield
        finally:
            self.args.dataloader_drop_last = asked

    def get_train_dataloader(self) -> DataLoader:
        """The stock loader; a data set that gives no batch is an error."""
        if isinstance(self.train_dataset, ImageStream):
            return self._get_stream_loader(self.train_dataset).dataloader
        with self._override_drop_last(self.drop_last):
            loader = super().get_train_dataloader()
        if len(loader) == 0:
            raise UsageError(
                f"There are {len(self.train_dataset)} training images, fewer than a batch of {self.micro_batch_size}: "
                "mixup and --dataloader_drop_last leave out a smaller batch, so use a smaller "
                "per_device_train_batch_size."
            )
        return use_low_memory_sampler(make_workers_signal_safe(loader))

    def _get_stream_loader(self, stream: ImageStream) -> StreamLoader:
        """The one loader of a stream, which knows where it is."""
        self._stream = self._stream or StreamLoader(stream, self.micro_batch_size, self.args)
        return self._stream

    # The stock Trainer would leave out the last images of an evaluation too.
    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The stock loader, of every image."""
        with self._override_drop_last(False):
            return make_workers_signal_safe(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """The stock loader, of every image."""
        with self._override_drop_last(False):
            return make_workers_signal_safe(super().get_test_dataloader(test_dataset))

    @property
    def drop_last(self) -> bool:
        """Whether a last, smaller batch is left out of training."""
        return self.args.dataloader_drop_last

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The stock micro-batches, with the random part of the transform done on the device where it was put off."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        return [self._augment_on_device(batch) for batch in batches], count

    def _augment_on_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Of `TrainingImages(batched=True)`: the random part, on the device, for the whole batch at once."""
        if "pixels" not in batch:
            return batch
        pixels, drawn = (
            batch.pop(name).to(self.args.device, non_blocking=True) for name in ("pixels", "augment_params")
        )
        return batch | {"pixel_values": self.train_dataset.transform.batch_augment(pixels, drawn)}

    # The model in training

    @contextmanager
    def configure_model(self) -> Iterator[StockModel]:
        """The model as it is trained; afterwards it is as the caller gave it, but for its weights."""
        model = self.accelerator.unwrap_model(self.model)
        with self.configure_for_training(model):
            yield model

    @contextmanager
    def configure_for_training(self, model: StockModel) -> Iterator[StockModel]:
        """A model as it is trained."""
        with ExitStack() as stack:
            if is_plain_attention_faster(model, self.args.device):
                stack.enter_context(use_attn_implementation(model, register_plain_attention(model)))
            stack.enter_context(freeze_parameters(model, self.frozen_parameter_names(model)))
            yield model

    def blocks(self, model: StockModel) -> Sequence[nn.Module]:
        """Of any network of transformers or timm."""
        return find_blocks(model)

    def frozen_parameter_names(self, model: StockModel) -> list[str]:
        """Names of parameters that this training leaves as they are, whatever their `requires_grad`."""
        return []

    def train(  # type: ignore[override]  # the rest of the arguments is passed on as it is
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """As the stock Trainer; a checkpoint that this launch cannot go on from is an error."""
        if resume_from_checkpoint is True and (newest := find_last_checkpoint(self.args.folder)):
            resume_from_checkpoint = str(newest)
        self.resumed_from = Path(resume_from_checkpoint) if isinstance(resume_from_checkpoint, str) else None
        if self.resumed_from is not None:
            self.on_resume(self.resumed_from)
        with nullcontext() if self.model_init is not None else self.configure_model():
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def call_model_init(self, trial: Any = None) -> StockModel:
        """A fresh model, which is this trainer's own, as it is trained, with the draws of a training of its own."""
        model: StockModel = super().call_model_init(trial)
        set_seed(self.args.seed)
        self._model_init_stack.close()
        self._model_init_stack.enter_context(self.configure_for_training(model))
        return model

    def on_resume(self, checkpoint: Path) -> None:
        """Called before a checkpoint is loaded: refuses one that this training cannot go on from."""
        check_resumable(checkpoint, self.launch)
        check_training_length(checkpoint, self.args.num_train_epochs, self.args.max_steps)
        if isinstance(self.train_dataset, ImageStream):
            self._get_stream_loader(self.train_dataset).load(checkpoint)

    # Optimizer and schedule

    def get_param_groups(self, model: StockModel, learning_rate: float) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer: `params`, `lr`, `lr_scale`, `weight_decay`."""
        raise NotImplementedError

    def create_optimizer(self, model: StockModel | None = None) -> torch.optim.Optimizer:
        """The caller's optimizer where there is one, else that of `args.optim` (or the caller's class) on `groups`."""
        if self.optimizer is None:
            model = self.model if model is None else model
            assert model is not None
            optimizer_class, kwargs = self._get_optimizer_class(model)
            with freeze_parameters(model, self.frozen_parameter_names(model)):
                groups = self.get_param_groups(model, kwargs.get("lr", self.args.absolute_learning_rate))
            names = {id(parameter): strip_wrapper_prefixes(name) for name, parameter in model.named_parameters()}
            self._requested_settings = {
                names[id(parameter)]: {"lr": group["lr"], "weight_decay": group["weight_decay"]}
                for group in groups
                for parameter in group["params"]
            }
            self.optimizer = optimizer_class(groups, **kwargs)
        return self.optimizer

    def _get_optimizer_class(self, model: StockModel) -> tuple[Any, dict[str, Any]]:
        if self.optimizer_cls_and_kwargs is not None:
            return self.optimizer_cls_and_kwargs
        try:
            chosen, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
        except (ImportError, ValueError, RuntimeError) as error:
            name = getattr(self.args.optim, "value", self.args.optim)
            raise UsageError(f"--optim {name} cannot be used: {summarize_exception(error)}") from None
        self._check_optimizer_param_groups((chosen, kwargs))
        return chosen, kwargs

    @staticmethod
    def _check_optimizer_param_groups(optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None) -> None:
        if optimizer_cls_and_kwargs and (
            own := {"params", "model", "optimizer_dict"} & optimizer_cls_and_kwargs[1].keys()
        ):
            raise UsageError(
                f"The optimizer {getattr(optimizer_cls_and_kwargs[0], '__name__', optimizer_cls_and_kwargs[0])} makes its own parameter groups "
                f"({', '.join(sorted(own))}), and layer-wise lr decay makes others: choose another optimizer."
            )

    def check_learning_rates(self) -> None:
        """Reads every parameter's learning rate and weight decay back from the prepared optimizer.

        Raises:
            UsageError: the engine has lost or mixed up some of them.
        """
        if not self._requested_settings or not isinstance(self.lr_scheduler, LambdaLR):
            return
        base, now = float(self.lr_scheduler.base_lrs[0]), float(self.lr_scheduler.get_last_lr()[0])
        factor = now / base if base else 0.0  # of the schedule at this update
        found = read_optimizer_settings(self.accelerator.unwrap_model(self.model), self.optimizer)
        if wrong := find_optimizer_mismatches(self._requested_settings, found, factor):
            raise UsageError(
                f"{self.accelerator.distributed_type.value} did not keep the learning rates and weight decays of "
                f"{len(wrong)} parameters ({'; '.join(wrong[:3])}): use another of accelerate_configs/, and tell us."
            )

    def print_learning_rates(self) -> None:
        """Logs every parameter's learning rate and weight decay."""
        if self._requested_settings:
            logger.info(format_learning_rates(self._requested_settings))

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The cosine with warm-up of util/lr_sched.py, on groups whose lr already carries the layer's scale."""
        if self.lr_scheduler is not None:
            return self.lr_scheduler
        warmup = self._warmup_updates(num_training_steps)
        if warmup >= num_training_steps and self.is_world_process_zero():
            logger.warning(
                "The warm-up (%g updates) is as long as the training (%d): the full learning rate is never reached.",
                warmup,
                num_training_steps,
            )
        kwargs: Any = self.args.lr_scheduler_kwargs
        rate = self.args.absolute_learning_rate
        if self.args.lr_scheduler_type == DEFAULT_LR_SCHEDULER and not kwargs:
            kwargs = {"min_lr_rate": self.args.min_learning_rate / rate if rate else 0.0}
        try:
            scheduler = get_scheduler(
                self.args.lr_scheduler_type,
                optimizer=self.optimizer if optimizer is None else optimizer,
                num_warmup_steps=warmup,  # type: ignore[arg-type]  # a fraction of an update, where the epochs say so
                num_training_steps=num_training_steps,
                scheduler_specific_kwargs=kwargs,
            )
        except (TypeError, ValueError) as error:
            name = getattr(self.args.lr_scheduler_type, "value", self.args.lr_scheduler_type)
            raise UsageError(
                f"--lr_scheduler_type {name} cannot be used with --lr_scheduler_kwargs {kwargs} ({summarize_exception(error)})."
            ) from None
        self.set_scheduler(scheduler)
        return scheduler

    def _warmup_updates(self, num_training_steps: int) -> float:
        if self.args.warmup_steps is not None:
            return self.args.get_warmup_steps(num_training_steps)
        updates = math.ceil(len(self.get_train_dataloader()) / self.args.gradient_accumulation_steps)
        return self.args.warmup_epochs * updates

    def wants_gradient_norm(self) -> bool:
        """Only of updates that are logged."""
        if self.args.logging_strategy != "steps" or self.args.logging_first_step:
            return True
        return not (self.state.global_step + 1) % self.state.logging_steps

    # Losses

    def training_step(self, model: StockModel, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """The stock step, whose loss is looked at once it is there."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._pending_losses.append(_PendingLoss.copy_async(loss, inputs.get("index"), self.state.global_step + 1))
        self.check_finite(wait=False)
        return loss

    def check_finite(self, wait: bool = True) -> None:
        """Stops the training if a loss was not finite, and names the images of its batch.

        Args:
            wait: for losses that an accelerator is still computing; else they are looked at later, so that no step
                waits for them.
        """
        while self._pending_losses and (wait or self._pending_losses[0].is_ready()):
            self._check_loss_finite(self._pending_losses.popleft())

    def _check_loss_finite(self, pending_loss: "_PendingLoss") -> None:
        loss, index = pending_loss.item(), pending_loss.index
        if math.isfinite(loss):
            return
        names: Sequence[str] = []
        if index is not None and hasattr(self.train_dataset, "file_names"):
            names = [self.train_dataset.file_names[i] for i in index.tolist()]
        batch = f" The batch was: {', '.join(names)}." if names else ""
        advice = "use --bf16 instead of --fp16, or a lower" if self.args.fp16 else "use a lower"
        last = find_last_checkpoint(self.args.folder)
        kept = f"The last checkpoint is {last}." if last else "No checkpoint was saved before that."
        raise NonFiniteLossError(
            f"The loss became {loss} at update {pending_loss.update}, so training stopped: {advice} "
            f"learning rate.{batch} {kept}"
        )

    # Checkpoints

    @property
    def launch(self) -> Launch:
        """How this run was launched."""
        return Launch(self.accelerator.distributed_type.value, self.args.world_size, self.args.images_per_update)

    def before_checkpoint(self) -> None:
        """No checkpoint is saved after a loss that was not finite."""
        self.check_finite()

    def save_extra_state(self, folder: Path) -> None:
        """Of a stream; what has an order is found again by counting."""
        if self._stream is not None:
            self._stream.save(folder)

    def after_checkpoint(self, folder: Path) -> None:
        """Says in the checkpoint how it was launched."""
        write_launch(folder, self.launch)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the stock Trainer; who may read the folder may read the weights."""
        super().save_model(output_dir, _internal_call)
        folder = Path(output_dir) if output_dir else self.args.folder
        if self.args.should_save and folder.is_dir():
            apply_umask(folder)

    def load_weights(self, folder: str) -> None:
        """Every weight of a saved model into the one in training, or an error."""
        model = self.accelerator.unwrap_model(self.model)
        saved = type(model).from_pretrained(folder, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())


def _resolve_learning_rate(args: MaeTrainingArguments) -> MaeTrainingArguments:
    """A copy of the arguments with the absolute learning rate: the caller's may serve another trainer."""
    own = copy.copy(args)
    own.learning_rate = args.absolute_learning_rate
    return own


def is_plain_attention_faster(model: StockModel, device: torch.device) -> bool:
    """Whether training is faster with plain attention: on a CPU the backward pass of torch's fused one takes longer
    than all matrix products (1.15 to 1.5 x the images a second: scripts/benchmark_attention.py)."""
    return device.type == "cpu" and get_attn_implementation(model) == "sdpa" and not is_timm(model.config)


@contextmanager
def freeze_parameters(model: StockModel, names: list[str]) -> Iterator[None]:
    """Parameters of these names get no gradient within the block."""
    fixed = set(names)
    held = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and strip_wrapper_prefixes(name) in fixed
    ]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


@dataclass
class _PendingLoss:
    """A loss on its way from the accelerator to the host."""

    value: torch.Tensor  # on the CPU
    index: torch.Tensor | None  # places of the batch's images
    update: int
    copy_event: "torch.cuda.Event | None" = None

    @classmethod
    def copy_async(cls, loss: torch.Tensor, index: torch.Tensor | None, update: int) -> "_PendingLoss":
        if loss.device.type != "cuda":
            return cls(loss.detach(), index, update)
        value = torch.empty((), dtype=loss.dtype, pin_memory=True)
        value.copy_(loss.detach(), non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return cls(value, index, update, copied)

    def is_ready(self) -> bool:
        return self.copy_event is None or self.copy_event.query()

    def item(self) -> float:
        if self.copy_event is not None:
            self.copy_event.synchronize()
        return self.value.item()


class _SanityCallback(TrainerCallback):
    """Tells the training images which epoch it is (accelerate does so for one process only), reads the learning rates
    back from the optimizer at the start, and looks at the last loss when the training ends."""

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
        if self._updates < 2:  # at the first the warm-up has it all at 0
            self.trainer.check_learning_rates()
        self._updates += 1

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.check_finite()
