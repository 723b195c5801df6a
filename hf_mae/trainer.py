"""The Trainer subclasses: the reference's losses, class weights and mixup, and its masks."""

import logging

import datasets
import numpy as np
import torch
from timm.data import Mixup
from torch import nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback

from .arguments import FinetuningArguments, PretrainingArguments
from .base_trainer import ReferenceTrainer
from .data.images import EvaluationImages, TrainingImages, seeded_draws
from .data.transforms import training_transform_of
from .errors import UsageError
from .losses import cross_entropy_sum, label_weight
from .metrics import ClassificationMetrics, scalar_scores
from .models import drop_path_of, set_patch_dropout
from .optim import parameter_groups, pretraining_groups

logger = logging.getLogger(__name__)


def holds_images(dataset) -> bool:
    """Whether a data set is one of images as `load_image_folder` gives them, rather than of tensors."""
    return isinstance(dataset, datasets.Dataset) and "image" in dataset.column_names


def evaluated(dataset, processor):
    """Images through the image processor; a data set of tensors as it is."""
    return EvaluationImages(dataset, _needed(processor)) if holds_images(dataset) else dataset


def _needed(processor):
    if processor is None:
        raise UsageError(
            "A data set of images needs processing_class=image_processor(family, image_size), of hf_mae.data."
        )
    return processor


class MaeFinetuner(ReferenceTrainer):
    """Fine-tunes a ViT or BEiT classifier as the reference does.

    A data set of `{"pixel_values": FloatTensor (C, H, W), "labels": int or FloatTensor (num_labels,)}` trains as it
    is; nothing is added to it but what `args` asks for on the batch (mixup, CutMix). A `datasets.Dataset` of images (of
    `load_image_folder`) is trained on with the augmentation that goes with `processing_class`, and evaluated through
    `processing_class` itself.

    Args:
        model: of `build_classifier`, or any stock ViT / mean-pooling BEiT classifier.
        args: `FinetuningArguments`.
        train_dataset, eval_dataset, processing_class, ...: as for `transformers.Trainer`.
    """

    def __init__(self, model: nn.Module, args: FinetuningArguments, **kwargs):
        if args.freeze_backbone:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.startswith("classifier."))
        set_patch_dropout(model, args.patch_dropout)
        if args.mixes:
            if args.per_device_train_batch_size % 2:
                raise UsageError(
                    f"mixup and CutMix mix pairs of images: per_device_train_batch_size must be even, "
                    f"not {args.per_device_train_batch_size}."
                )
        processor = kwargs.get("processing_class")
        if holds_images(kwargs.get("train_dataset")):
            transform = training_transform_of(_needed(processor))
            kwargs["train_dataset"] = TrainingImages(kwargs["train_dataset"], transform, args.seed)
        if isinstance(held_out := kwargs.get("eval_dataset"), dict):
            kwargs["eval_dataset"] = {name: evaluated(part, processor) for name, part in held_out.items()}
        else:
            kwargs["eval_dataset"] = evaluated(held_out, processor)
        kwargs.setdefault("compute_metrics", self.compute_scores)
        self.label_names_by_id = [model.config.id2label[i] for i in range(model.config.num_labels)]
        self._metric = None
        super().__init__(model, args, **kwargs)
        self.label_names = ["labels"]
        self.class_weights = self._class_weights()
        self.mixup = None
        if args.mixes:
            self.mixup = Mixup(
                mixup_alpha=args.mixup,
                cutmix_alpha=args.cutmix,
                prob=args.mixup_prob,
                switch_prob=args.mixup_switch_prob,
                mode=args.mixup_mode,
                label_smoothing=args.smoothing,
                num_classes=model.config.num_labels,
            )
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
        if self.train_dataset is not None and drop_path_of(model) != args.drop_path and not args.freeze_backbone:
            logger.info("drop path of the model is %g (args.drop_path is %g)", drop_path_of(model), args.drop_path)

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        return super().get_eval_dataloader(evaluated(eval_dataset, self.processing_class))

    def get_test_dataloader(self, test_dataset) -> DataLoader:
        return super().get_test_dataloader(evaluated(test_dataset, self.processing_class))

    @property
    def drops_last_batch(self) -> bool:
        """As the reference's training loader always does: mixing needs an even number of images."""
        return self.args.dataloader_drop_last or self.args.mixes

    def groups(self, model: nn.Module) -> list[dict]:
        return parameter_groups(model, self.args.learning_rate, self.args.weight_decay, self.args.layer_decay)

    def _class_weights(self) -> torch.Tensor | None:
        """One weight for each class, or None."""
        asked, count = self.args.class_weights, len(self.label_names_by_id)
        if asked == "none" or self.train_dataset is None:
            return None
        if asked != "balanced":
            if len(asked) != count:
                raise UsageError(f"class_weights has {len(asked)} numbers, but the model has {count} classes.")
            return torch.tensor(asked, device=self.args.device)
        labels = getattr(self.train_dataset, "labels", None)
        if labels is None:
            labels = [item["labels"] for item in self.train_dataset]
        weights = balanced_class_weights(np.asarray(labels), count)
        if self.is_world_process_zero():
            logger.info("class weights: %s", dict(zip(self.label_names_by_id, weights.round(3).tolist())))
        return torch.tensor(weights, dtype=torch.float32, device=self.args.device)

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        batches, weight = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.mixup is None:
            return batches, weight
        batches = [self._mix(batch, i) for i, batch in enumerate(batches)]
        return batches, self._get_num_items_in_batch(batches, device)

    def _mix(self, batch: dict, micro_batch: int) -> dict:
        """timm's Mixup / CutMix with soft targets; its draws depend on (seed, update, micro-batch, process) alone."""
        with seeded_draws(self.args.seed, self.state.global_step, micro_batch, self.args.process_index):
            pixel_values, labels = self.mixup(batch["pixel_values"], batch["labels"])
        return batch | {"pixel_values": pixel_values, "labels": labels}

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        """What the summed loss of an update is divided by: the images (or their class weights) of all its
        micro-batches and processes."""
        if not batch_samples:
            return None
        weight = sum(label_weight(batch["labels"].to(device), self.class_weights) for batch in batch_samples)
        return self.accelerator.gather(weight).sum() if self.args.world_size > 1 else weight

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        """In training: the micro-batch's share of the mean over the effective batch, scaled so that the Trainer's
        division by the accumulation steps and DDP's mean over processes give that mean; for equal micro-batches it is
        the micro-batch's own mean. In evaluation: the plain cross-entropy.
        """
        labels = inputs["labels"]
        outputs = model(pixel_values=inputs["pixel_values"])
        if not model.training:
            loss = cross_entropy_sum(outputs.logits, labels) / len(labels)
        else:
            loss = cross_entropy_sum(outputs.logits, labels, self.class_weights, self.args.smoothing)
            if num_items_in_batch is None:
                loss = loss / label_weight(labels, self.class_weights)
            else:
                parts = self.current_gradient_accumulation_steps * self.accelerator.num_processes
                loss = loss * parts / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *args, **kwargs):
        """The stock loop, with a loss over every image once: its own averages the processes' batches, the repeated
        images that fill the last one included."""
        output = super().evaluation_loop(*args, **kwargs)
        name = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
        if output.label_ids is not None and name in output.metrics:
            logits, labels = torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)
            output.metrics[name] = (cross_entropy_sum(logits, labels) / len(labels)).item()
        return output

    def compute_scores(self, prediction) -> dict[str, float]:
        """The metrics that the log holds, from logits (images, classes) and class ids (or soft targets)."""
        labels = prediction.label_ids
        labels = labels.argmax(-1) if labels.ndim == 2 else labels
        self._metric = self._metric or ClassificationMetrics()
        scores = self._metric.compute(
            predictions=prediction.predictions.argmax(-1), references=labels, label_names=self.label_names_by_id
        )
        return {name: value for name, value in scalar_scores(scores).items() if not name.startswith("micro_")}


def balanced_class_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """n / (classes x count), as sklearn's `compute_class_weight("balanced")`; 1 for a class without images."""
    if labels.ndim == 2:
        raise UsageError("class_weights balanced needs class ids, and the labels are soft targets: give the weights.")
    counts = np.bincount(labels, minlength=num_labels)
    weights = np.ones(num_labels)
    weights[counts > 0] = len(labels) / ((counts > 0).sum() * counts[counts > 0])
    return weights


class MaePretrainer(ReferenceTrainer):
    """Pre-trains a `ViTMAEForPreTraining` as the reference does.

    A data set of `{"pixel_values": FloatTensor (C, H, W)}` trains as it is; it may carry `noise` (num_patches,), which
    decides the mask. Without it the noise depends on (seed, update, micro-batch, process) alone.
    """

    def __init__(self, model: nn.Module, args: PretrainingArguments, **kwargs):
        for name in ("mask_ratio", "norm_pix_loss"):
            if (value := getattr(args, name)) is not None:
                setattr(model.config, name, value)
        super().__init__(model, args, **kwargs)
        self.label_names = []

    def groups(self, model: nn.Module) -> list[dict]:
        return pretraining_groups(model, self.args.learning_rate, self.args.weight_decay)

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return [self._with_noise(batch, i) for i, batch in enumerate(batches)], None

    def _with_noise(self, batch: dict, micro_batch: int) -> dict:
        if "noise" in batch:
            return batch
        pixel_values = batch["pixel_values"]
        patches = (pixel_values.shape[-1] // self.accelerator.unwrap_model(self.model).config.patch_size) ** 2
        with seeded_draws(self.args.seed, self.state.global_step, micro_batch, self.args.process_index):
            noise = torch.rand(len(pixel_values), patches)
        return batch | {"noise": noise.to(pixel_values.device)}

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        """Mean squared error of the hidden patches (the model's own), a mean over each micro-batch as in the
        reference."""
        outputs = model(pixel_values=inputs["pixel_values"], noise=inputs.get("noise"))
        return (outputs.loss, outputs) if return_outputs else outputs.loss
