"""transformers: the Trainer's private seams under public names, and private names of its models.

Verified with transformers 5.17 to 5.24. Six of the methods below changed between these two.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import Trainer

from .accelerate import enable_fsdp_on_cpu, skip_deepspeed_import, unwrap_without_deepspeed_import

# A stock model: its attributes (`config`, `base_model.layers`, `classifier`...) are those of its class.
StockModel: TypeAlias = Any


class HookedTrainer(Trainer):
    """transformers' `Trainer` with hooks in place of its private methods.

    A subclass overrides the hooks (`loss_normalizer`, `load_weights`, `wants_gradient_norm`, `before_checkpoint`,
    `after_checkpoint`, ...), and nothing that begins with an underscore.
    """

    model: Any
    train_dataset: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # ViT and BEiT take **kwargs, from which the Trainer concludes that they normalise their loss by
        # num_items_in_batch; they do not, and gradients would come out as many times too large as there are splits.
        self.model_accepts_loss_kwargs = False
        self.can_return_loss = True
        if self.is_fsdp_enabled:
            set_no_split_modules(self.model, self.blocks(self.model))

    # Hooks

    def blocks(self, model: StockModel) -> Sequence[nn.Module]:
        """Its residual blocks, by which FSDP shares it out."""
        raise NotImplementedError

    def loss_normalizer(self, batches: Sequence[dict[str, Any]], device: torch.device) -> torch.Tensor | None:
        """What the summed loss of an update is divided by; None: each micro-batch by its own."""
        return None

    def load_weights(self, folder: str) -> None:
        """Loads the weights of a checkpoint, without FSDP and DeepSpeed, which load their own."""
        raise NotImplementedError

    def wants_gradient_norm(self) -> bool:
        """Whether the norm of this update's gradients is used."""
        return True

    def before_checkpoint(self) -> None:
        """Called before a checkpoint is saved; may stop the training."""

    def save_extra_state(self, folder: Path) -> None:
        """Called on every process while a checkpoint is saved: for where it is among the images."""

    def on_best_model_loaded(self, folder: Path) -> None:
        """Called on every process when the weights of the best checkpoint are in the model."""

    def after_checkpoint(self, folder: Path) -> None:
        """Called on the main process when a checkpoint is saved."""

    # The private methods that they stand for

    def create_accelerator_and_postprocess(self) -> None:
        """With FSDP on CPUs too, and without DeepSpeed's import where it is not the engine."""
        with enable_fsdp_on_cpu():
            super().create_accelerator_and_postprocess()
        if not self.is_deepspeed_enabled:
            unwrap_without_deepspeed_import(self.accelerator)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the stock Trainer, without DeepSpeed's import where it is not the engine."""
        with nullcontext() if self.is_deepspeed_enabled else skip_deepspeed_import():
            super().save_model(output_dir, _internal_call)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        return self.loss_normalizer(batch_samples, device)

    def _get_grad_norm(self, model: StockModel, grad_norm: Any = None) -> Any:
        # The stock one passes over all gradients in every update, to clip them at infinity.
        return super()._get_grad_norm(model, grad_norm) if self.wants_gradient_norm() or grad_norm is not None else None

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        # The stock Trainer leaves the last, unlogged part of the training loss at this process's own share.
        if self.args.world_size > 1:
            self._tr_loss = self.accelerator.gather(self._tr_loss).mean()
        return super()._finalize_training(*args, **kwargs)

    def _save_checkpoint(self, model: StockModel, trial: Any) -> None:
        self.before_checkpoint()
        super()._save_checkpoint(model, trial)
        if self.is_world_process_zero():
            self.after_checkpoint(Path(self.args.output_dir or "") / f"checkpoint-{self.state.global_step}")

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.save_extra_state(Path(output_dir))
        # The main process's trainer_state.json, which comes next, says that the checkpoint is whole.
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: StockModel | None = None) -> None:
        # The stock Trainer reads the file into `load_state_dict(strict=False)`; but ViT, BEiT and ViTMAE are saved
        # under other names than they have in memory, so that it would load the head alone, with a warning.
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.load_weights(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self.load_weights(str(self.state.best_model_checkpoint))
        self.on_best_model_loaded(Path(str(self.state.best_model_checkpoint)))

    # Private state

    @property
    def micro_batch_size(self) -> int:
        """Images of a training batch on one process."""
        return self._train_batch_size

    def set_scheduler(self, scheduler: Any) -> None:
        """Makes a learning rate schedule the Trainer's own, which saves and loads it."""
        self.lr_scheduler = scheduler
        self._created_lr_scheduler = True


def set_no_split_modules(model: StockModel, blocks: Sequence[nn.Module]) -> None:
    """Lets FSDP2 share out a model block by block.

    Of ViT, transformers also names the embeddings, whose patch embeddings accelerate then tries to share out a second
    time, and fails.
    """
    model._no_split_modules = {type(block).__name__ for block in blocks}


def get_attn_implementation(model: StockModel) -> str:
    """`sdpa`, `eager`...: how a model computes its attention."""
    return model.config._attn_implementation


@contextmanager
def use_attn_implementation(model: StockModel, implementation: str) -> Iterator[None]:
    """Another way to compute attention, for a block."""
    before = get_attn_implementation(model)
    if before == implementation:
        yield
        return
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def build_beit_drop_path(rate: float) -> nn.Module:
    """transformers' own drop path of BEiT, which its blocks already know how to call."""
    from transformers.models.beit.modeling_beit import BeitDropPath

    return BeitDropPath(rate)
