"""transformers: public hooks for private methods of the Trainer, and private names of models.

Verified with transformers 5.17 to 5.24. Six of the methods below changed between these versions.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import HPSearchBackend

from .accelerate import (
    enable_fsdp_on_cpu,
    skip_deepspeed_import,
    skip_first_images,
    unwrap_without_deepspeed_import,
)

# A stock model, with the attributes of its class (`config`, `base_model.layers`, `classifier`...).
StockModel: TypeAlias = Any


class HookedTrainer(Trainer):
    """`Trainer` of transformers with hooks for its private methods.

    A subclass overrides the hooks (`loss_normalizer`, `load_weights`, `wants_gradient_norm`, `before_checkpoint`,
    `after_checkpoint`, ...), and no method that starts with an underscore.
    """

    model: Any
    train_dataset: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # ViT and BEiT take **kwargs, so the Trainer assumes that they normalize their loss by num_items_in_batch. They
        # do not, and with n micro-batches or processes the gradients would be n times too large.
        self.model_accepts_loss_kwargs = False
        self.can_return_loss = True
        if self.is_fsdp_enabled:
            set_no_split_modules(self.model, self.blocks(self.model))

    # Hooks

    def blocks(self, model: StockModel) -> Sequence[nn.Module]:
        """Returns the residual blocks of the model, which FSDP shards."""
        raise NotImplementedError

    def resume_position(self, epochs: int, batches: int, num_training_steps: int) -> tuple[int, int]:
        """Returns the completed epochs, and the batches of the current one, where a checkpoint resumes.

        Args:
            epochs, batches: of the stock Trainer, which counts updates.
        """
        return epochs, batches

    def images_to_skip(self, epoch: int) -> int:
        """Returns the images at the start of an epoch that were trained before, if they end within an update."""
        return 0

    def on_optimizer_loaded(self) -> None:
        """Runs after the optimizer and the schedule of a checkpoint were loaded."""

    def errors_of_setup(self) -> AbstractContextManager[None]:
        """Translates errors while the model, the engine and the optimizer are prepared for training."""
        return nullcontext()

    def errors_of_loading(self) -> AbstractContextManager[None]:
        """Translates errors while the states of a checkpoint are loaded."""
        return nullcontext()

    def loss_normalizer(self, batches: Sequence[dict[str, Any]], device: torch.device) -> torch.Tensor | None:
        """Returns the divisor of the summed loss of an update; None: each micro-batch is averaged separately."""
        return None

    def load_weights(self, folder: str) -> None:
        """Loads the weights of a checkpoint; not called with FSDP and DeepSpeed, which load weights themselves."""
        raise NotImplementedError

    def wants_gradient_norm(self) -> bool:
        """Whether the gradient norm of this update is needed."""
        return True

    def before_checkpoint(self) -> None:
        """Runs before a checkpoint is saved; may stop the training."""

    def save_extra_state(self, folder: Path) -> None:
        """Runs on every process while a checkpoint is saved, e.g. to save the position in a stream."""

    def on_best_model_loaded(self, folder: Path) -> None:
        """Runs on every process after the weights of the best checkpoint were loaded."""

    def after_checkpoint(self, folder: Path) -> None:
        """Runs on the main process after a checkpoint was saved."""

    # Private methods that call the hooks

    def create_accelerator_and_postprocess(self) -> None:
        """Creates the accelerator, also with FSDP on CPUs, and without importing DeepSpeed unless it is the engine."""
        with enable_fsdp_on_cpu():
            super().create_accelerator_and_postprocess()
        if not self.is_deepspeed_enabled:
            unwrap_without_deepspeed_import(self.accelerator)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model like the stock Trainer, without importing DeepSpeed unless it is the engine."""
        with nullcontext() if self.is_deepspeed_enabled else skip_deepspeed_import():
            super().save_model(output_dir, _internal_call)

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, checkpoint: Any, trial: Any
    ) -> tuple[int, int]:
        with self.errors_of_loading():
            epochs, batches = super()._init_training_state(
                max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, trial
            )
        return (epochs, batches) if checkpoint is None else self.resume_position(epochs, batches, max_steps)

    def _run_epoch(self, **kwargs: Any) -> Any:  # type: ignore[override]  # the Trainer passes keywords
        if not (images := self.images_to_skip(kwargs["epoch"])):
            return super()._run_epoch(**kwargs)
        with skip_first_images(kwargs["train_dataloader"], images) as batches:
            updates = math.ceil(batches / self.args.gradient_accumulation_steps)
            return super()._run_epoch(**kwargs | {"steps_in_epoch": batches, "num_update_steps_per_epoch": updates})

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with self.errors_of_loading():
            super()._load_optimizer_and_scheduler(checkpoint)
        self.on_optimizer_loaded()

    def _load_scaler(self, checkpoint: str | None) -> None:
        with self.errors_of_loading():
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with self.errors_of_loading():
            super()._load_rng_state(checkpoint)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        with self.errors_of_setup():
            return super()._prepare_for_training(*args, **kwargs)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        return self.loss_normalizer(batch_samples, device)

    def _get_grad_norm(self, model: StockModel, grad_norm: Any = None) -> Any:
        # The stock Trainer computes the norm in every update, and clips the gradients at infinity.
        return super()._get_grad_norm(model, grad_norm) if self.wants_gradient_norm() or grad_norm is not None else None

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        # The stock Trainer does not average the unlogged rest of the training loss over the processes.
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
        # The main process writes trainer_state.json next, which marks the checkpoint as complete.
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: StockModel | None = None) -> None:
        # The stock Trainer calls `load_state_dict(strict=False)` with the keys of the file. ViT, BEiT and ViTMAE have
        # different keys in memory, so that only the head would be loaded, with a warning.
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

    def trial_values(self, trial: Any) -> dict[str, Any]:
        """Returns the settings of a trial of `hyperparameter_search`, by name."""
        is_optuna = self.hp_search_backend == HPSearchBackend.OPTUNA
        return self.hp_space(trial) if is_optuna else {k: v for k, v in trial.items() if k != "wandb"}

    @property
    def micro_batch_size(self) -> int:
        """Number of images in a training batch of one process."""
        return self._train_batch_size

    def set_scheduler(self, scheduler: Any) -> None:
        """Sets the learning rate scheduler, which the Trainer then saves and loads."""
        self.lr_scheduler = scheduler
        self._created_lr_scheduler = True


def set_no_split_modules(model: StockModel, blocks: Sequence[nn.Module]) -> None:
    """Makes FSDP2 shard a model block by block.

    transformers also lists the embeddings of ViT; accelerate then fails because it shards the patch embeddings twice.
    """
    model._no_split_modules = {type(block).__name__ for block in blocks}


def get_attn_implementation(model: StockModel) -> str:
    """Returns the attention implementation of a model (`sdpa`, `eager`...)."""
    return model.config._attn_implementation


@contextmanager
def use_attn_implementation(model: StockModel, implementation: str) -> Iterator[None]:
    """Within the block, a model uses another attention implementation."""
    before = get_attn_implementation(model)
    if before == implementation:
        yield
        return
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def use_gradient_checkpointing(model: StockModel, arguments: Any) -> Iterator[None]:
    """Within the block, a model computes activations twice, with the `gradient_checkpointing_kwargs` of the Trainer."""
    # transformers 5.24 deprecates the names of 5.17.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    options = dict(arguments or {})
    more = {name: options.pop(name) for name in ("every_n_layers", "offload") if name in options}
    getattr(model, f"{kind}_checkpointing_enable")(options or None, **more)
    try:
        yield
    finally:
        getattr(model, f"{kind}_checkpointing_disable")()


def build_beit_drop_path(rate: float) -> nn.Module:
    """Builds the drop path (stochastic depth) module of transformers' BEiT."""
    from transformers.models.beit.modeling_beit import BeitDropPath

    return BeitDropPath(rate)
