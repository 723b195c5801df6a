"""`MaePretrainer`: masked pre-training of the original MAE code on transformers' Trainer."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..compat.transformers import StockModel
from ..data.images.seeding import seed_all
from ..errors import warn
from ..settings.arguments import PretrainingArguments
from .layer_decay import pretraining_parameter_groups
from .messages import TrainingMessage
from .trainer import MaeTrainerBase

logger = logging.getLogger(__name__)

FIXED_POSITION_EMBEDDINGS = ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed")


class MaePretrainer(MaeTrainerBase):
    """Pre-trains a `ViTMAEForPreTraining` with the training recipe of the original MAE code.

    A dataset of `{"pixel_values": FloatTensor (C, H, W)}` is used unchanged. It may contain `noise` (num_patches,),
    which determines the mask; otherwise the noise depends on (seed, update, micro-batch, process) only. The sin-cos
    position embeddings of encoder and decoder stay frozen, even if `from_pretrained` made them trainable (as
    transformers 5.24 does).

    Args:
        model: result of `build_pretrainer`, or any `ViTMAEForPreTraining`. Training writes `mask_ratio` and
            `norm_pix_loss` of `args` into its configuration, if they are not None.
        args: `PretrainingArguments`.
        train_dataset, ...: as for `transformers.Trainer`.
    """

    args: PretrainingArguments
    arguments_class = PretrainingArguments

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.label_names = []

    def frozen_parameter_names(self, model: StockModel) -> list[str]:
        """Returns the names of the sine-cosine position embeddings of encoder and decoder."""
        return list(FIXED_POSITION_EMBEDDINGS)

    @contextmanager
    def configure_for_training(self, model: StockModel) -> Iterator[StockModel]:
        """Writes mask ratio and target of `args` into the configuration, which keeps them after training."""
        with super().configure_for_training(model):
            for name in ("mask_ratio", "norm_pix_loss"):
                if (value := getattr(self.args, name)) is not None:
                    setattr(model.config, name, value)
            yield model

    def get_param_groups(self, model: StockModel, learning_rate: float) -> list[dict[str, Any]]:
        """Builds one group with weight decay and one without."""
        return pretraining_parameter_groups(model, learning_rate, self.args.weight_decay)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Creates the schedule, and warns if most of it is warm-up. (The plan of a fine-tuning has this warning.)"""
        warmup = self.warmup_updates(num_training_steps)
        if warmup >= num_training_steps / 2 and self.is_world_process_zero():
            warn(logger, TrainingMessage.LONG_WARMUP, warmup=round(warmup), updates=num_training_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Returns the micro-batches of an update, with the noise that determines their masks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return [self._add_noise(batch, i) for i, batch in enumerate(batches)], None

    def _add_noise(self, batch: dict[str, Any], micro_batch: int) -> dict[str, Any]:
        if "noise" in batch:
            return batch
        pixel_values = batch["pixel_values"]
        patches = (pixel_values.shape[-1] // self.accelerator.unwrap_model(self.model).config.patch_size) ** 2
        with seed_all(self.args.seed, self.state.global_step, micro_batch, self.args.process_index):
            noise = torch.rand(len(pixel_values), patches)
        return batch | {"noise": noise.to(pixel_values.device)}

    def compute_loss(
        self, model: StockModel, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Computes the mean squared error of the masked patches, averaged per micro-batch as in the original code."""
        outputs = model(pixel_values=inputs["pixel_values"], noise=inputs.get("noise"))
        return (outputs.loss, outputs) if return_outputs else outputs.loss
