"""Fine-tuning as the reference does it: its losses, class weights and mixup, on transformers' own loop."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import Mixup
from torch import nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, TrainerCallback

from ..compat.transformers import StockModel
from ..data.draws import seeded_draws
from ..data.entries import holds_images, with_own_columns
from ..data.images import EvaluationImages, TrainingImages
from ..data.transforms import training_transform_of
from ..errors import UsageError, nearest
from ..evaluation.confusion import ORDINAL
from ..evaluation.metrics import LOGGED, classification_scores, ranking_scores
from ..evaluation.retfound import f1_auroc_kappa
from ..evaluation.scores import grade_scores, softmax
from ..models.loading import class_names
from ..models.parts import describe, head_of
from ..models.stochastic_depth import drop_path_of, patch_embeddings, patches_dropped
from ..settings.arguments import FinetuningArguments
from ..settings.training import SAMPLINGS, SMOOTHED
from .averaging import WeightAverage, refuse_forgotten_average
from .distillation import Teacher
from .layer_decay import parameter_groups
from .losses import balanced_class_weights, cross_entropy_sum, focal_sum, label_weight, log_prior, ordinal_sum
from .trainer import ReferenceTrainer

logger = logging.getLogger(__name__)

RETFOUND = "f1_auroc_kappa"  # the metric by which RETFound chooses the epoch


class MaeFinetuner(ReferenceTrainer):
    """Fine-tunes a ViT or BEiT classifier as the reference does.

    A data set of `{"pixel_values": FloatTensor (C, H, W), "labels": int or FloatTensor (num_labels,)}` trains as it
    is; nothing is added to it but what `args` asks for on the batch (mixup, CutMix). A `datasets.Dataset` of images (of
    `load_image_folder`, or of `load_dataset("imagefolder")`) is trained on with the augmentation that goes with
    `processing_class`, and evaluated through `processing_class` itself; one with a transform of its own is taken as the
    stock Trainer takes it.

    Args:
        model: of `build_classifier`, or any stock ViT / mean-pooling BEiT classifier.
        args: `FinetuningArguments`.
        ordered: whether the classes are grades, in the order of their ids.
        teacher: whose scores are learnt too, with `args.teacher_weight`; None: the labels alone.
        train_dataset, eval_dataset, processing_class, ...: as for `transformers.Trainer`.
    """

    args: FinetuningArguments

    def __init__(
        self,
        model: StockModel,
        args: FinetuningArguments,
        ordered: bool = False,
        teacher: Teacher | None = None,
        **kwargs: Any,
    ):
        self.ordered = ordered
        _refuse_what_does_not_go_together(model, args, ordered)
        if kwargs.get("compute_metrics") is None:
            refuse_unknown_metric(args, ordered)
        processor = kwargs.get("processing_class")
        if holds_images(kwargs.get("train_dataset")):
            transform = training_transform_of(_needed(processor))
            images = with_own_columns(kwargs["train_dataset"])
            kwargs["train_dataset"] = TrainingImages(images, transform, args.seed, sampling=args.sampling)
        _refuse_another_sampling(kwargs.get("train_dataset"), args.sampling)
        if isinstance(held_out := kwargs.get("eval_dataset"), dict):
            kwargs["eval_dataset"] = {name: _evaluated(part, processor) for name, part in held_out.items()}
        else:
            kwargs["eval_dataset"] = _evaluated(held_out, processor)
        kwargs.setdefault("compute_metrics", self.compute_scores)
        self.class_names = class_names(model)
        super().__init__(model, args, **kwargs)
        self.label_names = ["labels"]
        self.class_weights = self._class_weights()
        self.log_prior = self._log_prior()
        self.teacher = None if teacher is None else teacher.to(self.args.device)
        self.mixup = self._mixup() if args.mixes else None
        self.average: WeightAverage | None = None  # while it trains, where `args` ask for one
        if args.averages:
            self.add_callback(_Averaging(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
        if self.train_dataset is not None:
            self._tell_of_another_drop_path(model)

    def _tell_of_another_drop_path(self, model: StockModel) -> None:
        rate, asked = drop_path_of(model), self.args.drop_path
        if not math.isclose(rate, asked, rel_tol=1e-6) and not self.args.freeze_backbone:
            logger.info("drop path of the model is %g (args.drop_path is %g)", rate, asked)

    def _mixup(self) -> Mixup:
        return Mixup(
            mixup_alpha=self.args.mixup,
            cutmix_alpha=self.args.cutmix,
            prob=self.args.mixup_prob,
            switch_prob=self.args.mixup_switch_prob,
            mode=self.args.mixup_mode,
            label_smoothing=self.args.smoothing if self.args.loss in SMOOTHED else 0.0,
            num_classes=len(self.class_names),
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Images through the image processor."""
        return super().get_eval_dataloader(_evaluated(eval_dataset, self.processing_class))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Images through the image processor."""
        return super().get_test_dataloader(_evaluated(test_dataset, self.processing_class))

    @property
    def drops_last_batch(self) -> bool:
        """As the reference's training loader always does: mixing needs an even number of images."""
        return self.args.dataloader_drop_last or self.args.mixes

    def fixed_parameters(self, model: StockModel) -> list[str]:
        """Everything but the head, where that alone is trained."""
        if not self.args.freeze_backbone:
            return []
        head, _ = head_of(model)
        return [name for name, _ in model.named_parameters() if not name.startswith(f"{head}.")]

    @contextmanager
    def as_in_training(self, model: StockModel) -> Iterator[StockModel]:
        """With patch dropout, where it is asked for."""
        with super().as_in_training(model), patches_dropped(model, self.args.patch_dropout):
            yield model

    # The average of the weights

    def go_on_from(self, checkpoint: Path) -> None:
        """With the average, or without, as the run began."""
        if not self.args.averages:
            refuse_forgotten_average(checkpoint)
        super().go_on_from(checkpoint)

    def begin_average(self) -> None:
        """From the weights that training begins with, or from the checkpoint that it goes on from."""
        model = self.accelerator.unwrap_model(self.model)
        self.average = WeightAverage(model, self.args.ema, self.args.process_index, self.args.should_save)
        if self.begun_with is not None:
            self.average.load(self.begun_with)

    def take_into_average(self) -> None:
        """The weights as they are now."""
        assert self.average is not None
        self.average.update()

    def end_average(self) -> None:
        """The model has the average for its weights from here on."""
        assert self.average is not None
        self.average.stay()
        self.average = None

    def save_place(self, folder: Path) -> None:
        """With the average."""
        super().save_place(folder)
        if self.average is not None:
            self.average.save(folder)

    def best_loaded(self, folder: Path) -> None:
        """With the average, which was the best."""
        if self.average is not None:
            self.average.load(folder)

    def groups(self, model: StockModel, learning_rate: float) -> list[dict[str, Any]]:
        """One for each layer and weight decay."""
        return parameter_groups(model, learning_rate, self.args.weight_decay, self.args.layer_decay)

    def _class_weights(self) -> torch.Tensor | None:
        """One weight for each class, or None."""
        asked, count = self.args.class_weights, len(self.class_names)
        if asked == "none" or self.train_dataset is None:
            return None
        if asked != "balanced":
            if len(asked) != count:
                raise UsageError(f"class_weights has {len(asked)} numbers, but the model has {count} classes.")
            return torch.tensor(asked, device=self.args.device)
        weights = balanced_class_weights(self._training_labels(), count)
        if self.is_world_process_zero():
            logger.info("class weights: %s", dict(zip(self.class_names, weights.round(3).tolist())))
        return torch.tensor(weights, dtype=torch.float32, device=self.args.device)

    def _log_prior(self) -> torch.Tensor | None:
        """Of the logit-adjusted loss."""
        if not self.args.logit_adjustment or self.train_dataset is None:
            return None
        return log_prior(self._training_labels(), len(self.class_names)).to(self.args.device)

    def _training_labels(self) -> np.ndarray:
        """Class ids (images,), or soft targets (images, classes)."""
        labels = getattr(self.train_dataset, "labels", None)
        if labels is None:
            labels = [item["labels"] for item in self.train_dataset]
        return np.asarray(labels)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The micro-batches of an update, mixed where that is asked for, and their weight."""
        batches, weight = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.mixup is None:
            return batches, weight
        batches = [self._mix(batch, i) for i, batch in enumerate(batches)]
        return batches, self.loss_weight(batches, device)

    def _mix(self, batch: dict[str, Any], micro_batch: int) -> dict[str, Any]:
        """timm's Mixup / CutMix with soft targets; its draws depend on (seed, update, micro-batch, process) alone."""
        assert self.mixup is not None
        with seeded_draws(self.args.seed, self.state.global_step, micro_batch, self.args.process_index):
            pixel_values, labels = self.mixup(batch["pixel_values"], batch["labels"])
        return batch | {"pixel_values": pixel_values, "labels": labels}

    def loss_weight(self, batches: Sequence[dict[str, Any]], device: torch.device) -> torch.Tensor | None:
        """What the summed loss of an update is divided by: the images (or their class weights) of all its
        micro-batches and processes."""
        if not batches:
            return None
        weight = torch.stack([label_weight(batch["labels"].to(device), self.class_weights) for batch in batches]).sum()
        return self.accelerator.gather(weight).sum() if self.args.world_size > 1 else weight

    def compute_loss(
        self, model: StockModel, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """In training: the micro-batch's share of the mean over the effective batch, scaled so that the Trainer's
        division by the accumulation steps and DDP's mean over processes give that mean; for equal micro-batches it is
        the micro-batch's own mean. In evaluation: the plain cross-entropy.
        """
        labels, pixel_values = inputs["labels"], inputs["pixel_values"]
        if not model.training and (self.args.bf16_full_eval or self.args.fp16_full_eval):
            pixel_values = pixel_values.to(torch.bfloat16 if self.args.bf16_full_eval else torch.float16)
        outputs = model(pixel_values=pixel_values)
        if not model.training:
            loss = cross_entropy_sum(outputs.logits, labels) / len(labels)
        else:
            loss = self._loss_sum(outputs.logits, labels)
            if self.teacher is not None:
                share = self.args.teacher_weight
                loss = (1 - share) * loss + share * self.teacher.loss_sum(outputs.logits, pixel_values)
            if num_items_in_batch is None:
                loss = loss / label_weight(labels, self.class_weights)
            else:
                parts = self.current_gradient_accumulation_steps * self.accelerator.num_processes
                loss = loss * parts / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def _loss_sum(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.log_prior is not None:
            logits = logits.float() + self.args.logit_adjustment * self.log_prior
        if self.args.loss == "focal":
            return focal_sum(logits, labels, self.args.focal_gamma, self.class_weights, self.args.smoothing)
        if self.args.loss == "cross_entropy":
            return cross_entropy_sum(logits, labels, self.class_weights, self.args.smoothing)
        return ordinal_sum(logits, labels, self.args.loss, self.args.cdw_alpha, self.class_weights)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The stock loop, with a loss over every image once: its own averages the processes' batches, the repeated
        images that fill the last one included. In a training that averages the weights, the average is judged."""
        with self.average.in_use() if self.average is not None else nullcontext():
            output: Any = super().evaluation_loop(*args, **kwargs)
        name = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
        if output.label_ids is not None and name in output.metrics:
            logits, labels = torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)
            output.metrics[name] = (cross_entropy_sum(logits, labels) / len(labels)).item()
        return output

    def compute_scores(self, prediction: Any) -> dict[str, float]:
        """The metrics that the log holds, from logits (images, classes) and class ids (or soft targets)."""
        labels = prediction.label_ids
        labels = labels.argmax(-1) if labels.ndim == 2 else labels
        scores = classification_scores(prediction.predictions.argmax(-1), labels, self.class_names)
        logged = {name: scores[name] for name in LOGGED}
        if self.args.metric_for_best_model in (RETFOUND, f"eval_{RETFOUND}"):
            ranking = ranking_scores(softmax(prediction.predictions), np.asarray(labels), self.class_names)
            logged[RETFOUND] = f1_auroc_kappa(scores["macro_f1"], ranking["roc_auc"], scores["confusion_matrix"])
        return logged | grade_scores(scores["confusion_matrix"]) if self.ordered else logged


class _Averaging(TrainerCallback):
    """Takes every update, or the last epochs, into the average."""

    def __init__(self, trainer: MaeFinetuner):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.begin_average()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.ema is not None:
            self.trainer.take_into_average()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.average_last is not None and math.ceil(state.epoch - 1e-6) > state.num_train_epochs - args.average_last:
            self.trainer.take_into_average()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.end_average()  # the best one, where that was loaded


def _refuse_what_does_not_go_together(model: StockModel, args: FinetuningArguments, ordered: bool) -> None:
    """Of the settings, the classes and the network."""
    if args.loss not in SMOOTHED and not ordered:
        raise UsageError(f"--loss {args.loss} is for grades: tell their order with --class_order.")
    if args.mixes and args.per_device_train_batch_size % 2:
        raise UsageError(
            f"mixup and CutMix mix pairs of images: per_device_train_batch_size must be even, "
            f"not {args.per_device_train_batch_size}."
        )
    if args.average_last is not None and args.load_best_model_at_end:
        raise UsageError("average_last saves the mean of epochs, load_best_model_at_end one of them: choose one.")
    if args.patch_dropout:
        patch_embeddings(model)
    if args.averages or args.freeze_backbone:
        _refuse_moving_statistics(model, args)


def _refuse_another_sampling(dataset: Any, asked: str) -> None:
    """Refuses a data set whose epochs have other images than the settings say."""
    sampling = getattr(dataset, "sampling", None)
    if dataset is not None and SAMPLINGS[asked] != (1.0 if sampling is None else sampling.exponent):
        raise UsageError(
            f"--sampling {asked} is of training images, and this data set draws others: give a datasets.Dataset of "
            "images, or hf_mae's TrainingImages with the same sampling."
        )


def _refuse_moving_statistics(model: StockModel, args: FinetuningArguments) -> None:
    """Refuses what would leave the statistics of batch norms, which move in training, as they are in no model."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        flag = "--freeze_backbone" if args.freeze_backbone else "--ema" if args.ema is not None else "--average_last"
        raise UsageError(f"{flag} is for networks without batch norm, and a {describe(model)} has some: leave it out.")


def refuse_unknown_metric(args: FinetuningArguments, ordered: bool = False) -> None:
    """Raises UsageError for a metric that no evaluation here gives, or whose best is not what `greater_is_better`
    says."""
    if args.metric_for_best_model is None:
        return
    name = args.metric_for_best_model.removeprefix("eval_")
    known: tuple[str, ...] = (*LOGGED, RETFOUND, "loss")
    if name in ORDINAL and not ordered:
        raise UsageError(f"--metric_for_best_model {name} is for grades: tell their order with --class_order.")
    known += tuple(ORDINAL) if ordered else ()
    if name not in known:
        raise UsageError(
            f"--metric_for_best_model takes one of {', '.join(known)} (of the split that judges the epochs), not "
            f"{args.metric_for_best_model}{nearest(name, known)}."
        )
    smaller = name in ("loss", "mae")
    if args.greater_is_better is not None and args.greater_is_better == smaller:
        raise UsageError(
            f"--greater_is_better {str(args.greater_is_better).lower()} contradicts --metric_for_best_model {name}, "
            f"of which the {'smallest' if smaller else 'greatest'} is the best: leave it out."
        )


def _evaluated(dataset: Any, processor: Any) -> Any:
    """Images through the image processor; a data set of tensors as it is."""
    return EvaluationImages(with_own_columns(dataset), _needed(processor)) if holds_images(dataset) else dataset


def _needed(processor: Any) -> Any:
    if processor is None:
        raise UsageError(
            "A data set of images needs processing_class=image_processor(family, image_size), of hf_mae.data."
        )
    return processor
