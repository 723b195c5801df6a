"""What both trainings share on transformers' own loop: optimizer groups, schedule, checks, checkpoints."""

import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, get_scheduler

from .arguments import COSINE, ReferenceTraining
from .data.images import collate
from .engines import (
    Launch,
    check_resumable,
    differing_settings,
    learning_rate_table,
    optimizer_settings,
    write_launch,
)
from .errors import UsageError
from .optim import plain_name
from .runs import last_checkpoint

logger = logging.getLogger(__name__)


class ReferenceTrainer(Trainer):
    """What both trainings share: linear lr rule, warm-up in epochs, a stop at losses that are not finite.

    A subclass has `groups(model)`: the parameter groups of the optimizer.
    """

    def __init__(self, model: nn.Module, args: ReferenceTraining, **kwargs):
        rule = ""
        if args.learning_rate is None:
            args.learning_rate = args.absolute_learning_rate
            rule = f" = {args.base_learning_rate:g} x {args.images_per_update} / 256"
        if kwargs.get("train_dataset") is not None:
            choose_attention(model, args.device)
        kwargs.setdefault("data_collator", collate)
        # FSDP2 shares out block by block; of ViT, transformers also names the embeddings, whose patch embeddings
        # accelerate then tries to share out a second time, and fails.
        model._no_split_modules = {type(layer).__name__ for layer in model.base_model.layers[:1]}
        super().__init__(model=model, args=args, **kwargs)
        # ViT and BEiT take **kwargs, from which the Trainer concludes that they normalise their loss by
        # num_items_in_batch; they do not, and gradients would come out as many times too large as there are splits.
        self.model_accepts_loss_kwargs = False
        self.can_return_loss = True
        self._losses: deque[_Loss] = deque()  # that have not been looked at yet
        self._asked: dict[str, dict[str, float]] = {}  # learning rate and weight decay of each parameter
        self.add_callback(_Watch(self))
        if self.train_dataset is not None and self.is_world_process_zero():
            logger.info(
                "learning rate %g%s; effective batch %d = %d per device x %d accumulated x %d processes",
                args.learning_rate,
                rule,
                args.images_per_update,
                args.train_batch_size,
                args.gradient_accumulation_steps,
                args.world_size,
            )

    @contextmanager
    def _dropping_last_batch(self, drop: bool) -> Iterator[None]:
        asked, self.args.dataloader_drop_last = self.args.dataloader_drop_last, drop
        try:
            yield
        finally:
            self.args.dataloader_drop_last = asked

    def get_train_dataloader(self) -> DataLoader:
        with self._dropping_last_batch(self.drops_last_batch):
            loader = super().get_train_dataloader()
        if len(loader) == 0:
            raise UsageError(
                f"There are {len(self.train_dataset)} training images, fewer than a batch of {self._train_batch_size}: "
                "mixup and --dataloader_drop_last leave out a smaller batch, so use a smaller "
                "per_device_train_batch_size."
            )
        return loader

    # The stock Trainer would leave out the last images of an evaluation too.
    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        with self._dropping_last_batch(False):
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset) -> DataLoader:
        with self._dropping_last_batch(False):
            return super().get_test_dataloader(test_dataset)

    @property
    def drops_last_batch(self) -> bool:
        """Whether a last, smaller batch is left out of training."""
        return self.args.dataloader_drop_last

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        return [self._with_pixel_values(batch) for batch in batches], count

    def _with_pixel_values(self, batch: dict) -> dict:
        """Of `TrainingImages(batched=True)`: the random part, on the device, for the whole batch at once."""
        if "pixels" not in batch:
            return batch
        pixels, drawn = (batch.pop(name).to(self.args.device, non_blocking=True) for name in ("pixels", "drawn"))
        return batch | {"pixel_values": self.train_dataset.transform.batch(pixels, drawn)}

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = self.groups(model)
            names = {id(parameter): plain_name(name) for name, parameter in model.named_parameters()}
            self._asked = {
                names[id(parameter)]: {"lr": group["lr"], "weight_decay": group["weight_decay"]}
                for group in groups
                for parameter in group["params"]
            }
            self.optimizer = optimizer_class(groups, **kwargs)
        return self.optimizer

    def check_learning_rates(self) -> None:
        """Reads every parameter's learning rate and weight decay back from the prepared optimizer.

        Raises:
            UsageError: the engine has lost or mixed up some of them.
        """
        if not self._asked or not isinstance(self.lr_scheduler, LambdaLR):
            return
        base, now = self.lr_scheduler.base_lrs[0], self.lr_scheduler.get_last_lr()[0]
        factor = now / base if base else 0.0  # of the schedule at this update
        found = optimizer_settings(self.accelerator.unwrap_model(self.model), self.optimizer)
        if wrong := differing_settings(self._asked, found, factor):
            raise UsageError(
                f"{self.accelerator.distributed_type.value} did not keep the learning rates and weight decays of "
                f"{len(wrong)} parameters ({'; '.join(wrong[:3])}): use another of accelerate_configs/, and tell us."
            )

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """The cosine with warm-up of util/lr_sched.py, on groups whose lr already carries the layer's scale."""
        if self.lr_scheduler is not None:
            return self.lr_scheduler
        batches = len(self.get_train_dataloader())
        warmup = self.args.get_warmup_steps(num_training_steps) if self.args.warmup_steps else 0
        if not warmup:
            warmup = self.args.warmup_epochs * math.ceil(batches / self.args.gradient_accumulation_steps)
        if warmup >= num_training_steps and self.is_world_process_zero():
            logger.warning(
                "The warm-up (%g updates) is as long as the training (%d): the full learning rate is never reached.",
                warmup,
                num_training_steps,
            )
        kwargs, rate = self.args.lr_scheduler_kwargs, self.args.learning_rate
        if self.args.lr_scheduler_type == COSINE and not kwargs:
            kwargs = {"min_lr_rate": self.args.min_learning_rate / rate if rate else 0.0}
        self.lr_scheduler = get_scheduler(
            self.args.lr_scheduler_type,
            optimizer=self.optimizer if optimizer is None else optimizer,
            num_warmup_steps=warmup,  # a fraction of an update, where the epochs say so
            num_training_steps=num_training_steps,
            scheduler_specific_kwargs=kwargs,
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_grad_norm(self, model: nn.Module, grad_norm=None):
        """Only for updates that are logged: the stock one passes over all gradients in every update, to clip them at
        infinity."""
        steps = self.args.logging_strategy == "steps" and not self.args.logging_first_step
        if grad_norm is None and steps and (self.state.global_step + 1) % self.state.logging_steps:
            return None
        return super()._get_grad_norm(model, grad_norm)

    def training_step(self, model: nn.Module, inputs: dict, num_items_in_batch=None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._losses.append(_Loss.on_its_way(loss, inputs.get("index"), self.state.global_step + 1))
        self.check_finite(wait=False)
        return loss

    def check_finite(self, wait: bool = True) -> None:
        """Stops the training if a loss was not finite, and names the images of its batch.

        Args:
            wait: for losses that an accelerator is still computing; else they are looked at later, so that no step
                waits for them.
        """
        while self._losses and (wait or self._losses[0].is_there()):
            self._refuse_if_not_finite(self._losses.popleft())

    def _refuse_if_not_finite(self, found: "_Loss") -> None:
        loss, index = found.number(), found.index
        if math.isfinite(loss):
            return
        names: Sequence[str] = []
        if index is not None and hasattr(self.train_dataset, "file_names"):
            names = [self.train_dataset.file_names[i] for i in index.tolist()]
        batch = f" The batch was: {', '.join(names)}." if names else ""
        advice = "use --bf16 instead of --fp16, or a lower" if self.args.fp16 else "use a lower"
        raise UsageError(
            f"The loss became {loss} at update {found.update}, so training stopped: {advice} "
            f"learning rate.{batch} {self._last_good()}"
        )

    def _last_good(self) -> str:
        last = last_checkpoint(self.args.output_dir)
        return f"The last checkpoint is {last}." if last else "No checkpoint was saved before that."

    def _finalize_training(self, *args, **kwargs):
        # The stock Trainer leaves the last, unlogged part of the training loss at this process's own share.
        if self.args.world_size > 1:
            self._tr_loss = self.accelerator.gather(self._tr_loss).mean()
        return super()._finalize_training(*args, **kwargs)

    def _save_checkpoint(self, model, trial):
        self.check_finite()
        super()._save_checkpoint(model, trial)
        if self.is_world_process_zero():
            write_launch(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", self._launch())

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        # The main process's trainer_state.json, which comes next, says that the checkpoint is whole.
        self.accelerator.wait_for_everyone()

    def _launch(self) -> Launch:
        return Launch(self.accelerator.distributed_type.value, self.args.world_size, self.args.images_per_update)

    def train(self, resume_from_checkpoint=None, **kwargs):
        if isinstance(resume_from_checkpoint, str):
            check_resumable(Path(resume_from_checkpoint), self._launch())
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._load_saved_weights(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_saved_weights(self.state.best_model_checkpoint)

    def _load_saved_weights(self, folder: str) -> None:
        """Every weight of a saved model into the one in training, or an error.

        The stock Trainer reads the file into `load_state_dict(strict=False)`; but ViT, BEiT and ViTMAE are saved under
        other names than they have in memory, so that it would load the head alone, with a warning.
        """
        model = self.accelerator.unwrap_model(self.model)
        saved = type(model).from_pretrained(folder, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())


def choose_attention(model: nn.Module, device: torch.device) -> None:
    """Plain attention for training on a CPU, where the backward pass of torch's fused one takes longer than all matrix
    products (1.15 to 1.5 x the images a second: scripts/benchmark_attention.py). The saved model stays as it is."""
    if device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


@dataclass
class _Loss:
    """A loss on its way from the accelerator to the host."""

    value: torch.Tensor  # on the CPU
    index: torch.Tensor | None  # places of the batch's images
    update: int
    copied: "torch.cuda.Event | None" = None

    @classmethod
    def on_its_way(cls, loss: torch.Tensor, index: torch.Tensor | None, update: int) -> "_Loss":
        if loss.device.type != "cuda":
            return cls(loss.detach(), index, update)
        value = torch.empty((), dtype=loss.dtype, pin_memory=True)
        value.copy_(loss.detach(), non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return cls(value, index, update, copied)

    def is_there(self) -> bool:
        return self.copied is None or self.copied.query()

    def number(self) -> float:
        if self.copied is not None:
            self.copied.synchronize()
        return self.value.item()


class _Watch(TrainerCallback):
    """Tells the training images which epoch it is (accelerate does so for one process only), reads the learning rates
    back from the optimizer at the start, and looks at the last loss when the training ends."""

    def __init__(self, trainer: ReferenceTrainer):
        self.trainer = trainer
        self._updates = 0

    def on_epoch_begin(self, args, state, control, **kwargs):
        if hasattr(self.trainer.train_dataset, "set_epoch"):
            self.trainer.train_dataset.set_epoch(int(state.epoch or 0))

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.check_learning_rates()
        if args.print_learning_rates and self.trainer.is_world_process_zero():
            print(learning_rate_table(self.trainer._asked), flush=True)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self._updates < 2:  # at the first the warm-up has it all at 0
            self.trainer.check_learning_rates()
        self._updates += 1

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer.check_finite()
