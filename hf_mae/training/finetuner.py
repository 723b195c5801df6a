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
from ..data.samples import is_image_dataset, standardize_columns
from ..data.seeding import seed_all
from ..data.torch_datasets import EvalDataset, TrainDataset
from ..data.transforms import training_transform_from_processor
from ..errors import UsageError, did_you_mean
from ..evaluation.confusion import ORDINAL
from ..evaluation.metrics import LOGGED_METRICS, classification_scores, ranking_scores
from ..evaluation.retfound import f1_auroc_kappa
from ..evaluation.scores import ordinal_scores, softmax
from ..models.introspection import describe_model, find_head
from ..models.loading import class_names
from ..models.stochastic_depth import apply_patch_dropout, get_drop_path_rate, get_patch_embeddings
from ..settings.arguments import FinetuningArguments
from ..settings.training import SAMPLING_EXPONENTS, SUPPORTS_LABEL_SMOOTHING
from .distillation import Teacher
from .layer_decay import parameter_groups
from .losses import balanced_class_weights, cross_entropy_sum, focal_sum, label_weight_sum, log_prior, ordinal_sum
from .trainer import MaeTrainerBase
from .weight_averaging import WeightAverage, check_checkpoint_has_no_average

logger = logging.getLogger(__name__)

RETFOUND_METRIC = "f1_auroc_kappa"  # the metric by which RETFound chooses the epoch


class MaeFinetuner(MaeTrainerBase):
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
        _check_compatible_settings(model, args, ordered)
        if kwargs.get("compute_metrics") is None:
            check_metric_for_best_model(args, ordered)
        processor = kwargs.get("processing_class")
        if is_image_dataset(kwargs.get("train_dataset")):
            transform = training_transform_from_processor(_require_processor(processor))
            images = standardize_columns(kwargs["train_dataset"])
            kwargs["train_dataset"] = TrainDataset(images, transform, args.seed, sampling=args.sampling)
        _check_sampling(kwargs.get("train_dataset"), args.sampling)
        if isinstance(held_out := kwargs.get("eval_dataset"), dict):
            kwargs["eval_dataset"] = {name: _wrap_eval_dataset(part, processor) for name, part in held_out.items()}
        else:
            kwargs["eval_dataset"] = _wrap_eval_dataset(held_out, processor)
        kwargs.setdefault("compute_metrics", self.compute_scores)
        self.class_names = class_names(model)
        super().__init__(model, args, **kwargs)
        self.label_names = ["labels"]
        self.class_weights = self._compute_class_weights()
        self.log_prior = self._compute_log_prior()
        self.teacher = None if teacher is None else teacher.to(self.args.device)
        self.mixup = self._build_mixup() if args.uses_mixup else None
        self.average: WeightAverage | None = None  # while it trains, where `args` ask for one
        if args.uses_weight_averaging:
            self.add_callback(_AveragingCallback(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
        if self.train_dataset is not None:
            self._log_drop_path_mismatch(model)

    def _log_drop_path_mismatch(self, model: StockModel) -> None:
        rate, asked = get_drop_path_rate(model), self.args.drop_path
        if not math.isclose(rate, asked, rel_tol=1e-6) and not self.args.freeze_backbone:
            logger.info("drop path of the model is %g (args.drop_path is %g)", rate, asked)

    def _build_mixup(self) -> Mixup:
        return Mixup(
            mixup_alpha=self.args.mixup,
            cutmix_alpha=self.args.cutmix,
            prob=self.args.mixup_prob,
            switch_prob=self.args.mixup_switch_prob,
            mode=self.args.mixup_mode,
            label_smoothing=self.args.smoothing if self.args.loss in SUPPORTS_LABEL_SMOOTHING else 0.0,
            num_classes=len(self.class_names),
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Images through the image processor."""
        return super().get_eval_dataloader(_wrap_eval_dataset(eval_dataset, self.processing_class))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Images through the image processor."""
        return super().get_test_dataloader(_wrap_eval_dataset(test_dataset, self.processing_class))

    @property
    def drop_last(self) -> bool:
        """As the reference's training loader always does: mixing needs an even number of images."""
        return self.args.dataloader_drop_last or self.args.uses_mixup

    def frozen_parameter_names(self, model: StockModel) -> list[str]:
        """Everything but the head, where that alone is trained."""
        if not self.args.freeze_backbone:
            return []
        head, _ = find_head(model)
        return [name for name, _ in model.named_parameters() if not name.startswith(f"{head}.")]

    @contextmanager
    def configure_for_training(self, model: StockModel) -> Iterator[StockModel]:
        """With patch dropout, where it is asked for."""
        with super().configure_for_training(model), apply_patch_dropout(model, self.args.patch_dropout):
            yield model

    # The average of the weights

    def on_resume(self, checkpoint: Path) -> None:
        """With the average, or without, as the run began."""
        if not self.args.uses_weight_averaging:
            check_checkpoint_has_no_average(checkpoint)
        super().on_resume(checkpoint)

    def start_averaging(self) -> None:
        """From the weights that training begins with, or from the checkpoint that it goes on from."""
        model = self.accelerator.unwrap_model(self.model)
        self.average = WeightAverage(model, self.args.ema_decay, self.args.process_index, self.args.should_save)
        if self.resumed_from is not None:
            self.average.load(self.resumed_from)

    def update_average(self) -> None:
        """The weights as they are now."""
        assert self.average is not None
        self.average.update()

    def finish_averaging(self) -> None:
        """The model has the average for its weights from here on."""
        assert self.average is not None
        self.average.copy_to_model()
        self.average = None

    def save_extra_state(self, folder: Path) -> None:
        """With the average."""
        super().save_extra_state(folder)
        if self.average is not None:
            self.average.save(folder)

    def on_best_model_loaded(self, folder: Path) -> None:
        """With the average, which was the best."""
        if self.average is not None:
            self.average.load(folder)

    def get_param_groups(self, model: StockModel, learning_rate: float) -> list[dict[str, Any]]:
        """One for each layer and weight decay."""
        return parameter_groups(model, learning_rate, self.args.weight_decay, self.args.layer_decay)

    def _compute_class_weights(self) -> torch.Tensor | None:
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

    def _compute_log_prior(self) -> torch.Tensor | None:
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
        batches = [self._apply_mixup(batch, i) for i, batch in enumerate(batches)]
        return batches, self.loss_normalizer(batches, device)

    def _apply_mixup(self, batch: dict[str, Any], micro_batch: int) -> dict[str, Any]:
        """timm's Mixup / CutMix with soft targets; its draws depend on (seed, update, micro-batch, process) alone."""
        assert self.mixup is not None
        with seed_all(self.args.seed, self.state.global_step, micro_batch, self.args.process_index):
            pixel_values, labels = self.mixup(batch["pixel_values"], batch["labels"])
        return batch | {"pixel_values": pixel_values, "labels": labels}

    def loss_normalizer(self, batches: Sequence[dict[str, Any]], device: torch.device) -> torch.Tensor | None:
        """What the summed loss of an update is divided by: the images (or their class weights) of all its
        micro-batches and processes."""
        if not batches:
            return None
        weight = torch.stack(
            [label_weight_sum(batch["labels"].to(device), self.class_weights) for batch in batches]
        ).sum()
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
                loss = loss / label_weight_sum(labels, self.class_weights)
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
        with self.average.swap_in() if self.average is not None else nullcontext():
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
        logged = {name: scores[name] for name in LOGGED_METRICS}
        if self.args.metric_for_best_model in (RETFOUND_METRIC, f"eval_{RETFOUND_METRIC}"):
            ranking = ranking_scores(softmax(prediction.predictions), np.asarray(labels), self.class_names)
            logged[RETFOUND_METRIC] = f1_auroc_kappa(scores["macro_f1"], ranking["roc_auc"], scores["confusion_matrix"])
        return logged | ordinal_scores(scores["confusion_matrix"]) if self.ordered else logged


class _AveragingCallback(TrainerCallback):
    """Takes every update, or the last epochs, into the average."""

    def __init__(self, trainer: MaeFinetuner):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.start_averaging()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.ema_decay is not None:
            self.trainer.update_average()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.average_last is not None and math.ceil(state.epoch - 1e-6) > state.num_train_epochs - args.average_last:
            self.trainer.update_average()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.finish_averaging()  # the best one, where that was loaded


def _check_compatible_settings(model: StockModel, args: FinetuningArguments, ordered: bool) -> None:
    """Of the settings, the classes and the network."""
    if args.loss not in SUPPORTS_LABEL_SMOOTHING and not ordered:
        raise UsageError(f"--loss {args.loss} is for grades: tell their order with --class_order.")
    if args.uses_mixup and args.per_device_train_batch_size % 2:
        raise UsageError(
            f"mixup and CutMix mix pairs of images: per_device_train_batch_size must be even, "
            f"not {args.per_device_train_batch_size}."
        )
    if args.average_last is not None and args.load_best_model_at_end:
        raise UsageError("average_last saves the mean of epochs, load_best_model_at_end one of them: choose one.")
    if args.patch_dropout:
        get_patch_embeddings(model)
    if args.uses_weight_averaging or args.freeze_backbone:
        _check_no_batch_norm(model, args)


def _check_sampling(dataset: Any, requested: str) -> None:
    """Refuses a data set whose epochs have other images than the settings say."""
    sampling = getattr(dataset, "sampling", None)
    if dataset is not None and SAMPLING_EXPONENTS[requested] != (1.0 if sampling is None else sampling.exponent):
        raise UsageError(
            f"--sampling {requested} is of training images, and this data set draws others: give a datasets.Dataset of "
            "images, or hf_mae's TrainingImages with the same sampling."
        )


def _check_no_batch_norm(model: StockModel, args: FinetuningArguments) -> None:
    """Refuses what would leave the statistics of batch norms, which move in training, as they are in no model."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        flag = (
            "--freeze_backbone"
            if args.freeze_backbone
            else "--ema_decay"
            if args.ema_decay is not None
            else "--average_last"
        )
        raise UsageError(
            f"{flag} is for networks without batch norm, and a {describe_model(model)} has some: leave it out."
        )


def check_metric_for_best_model(args: FinetuningArguments, ordered: bool = False) -> None:
    """Raises UsageError for a metric that no evaluation here gives, or whose best is not what `greater_is_better`
    says."""
    if args.metric_for_best_model is None:
        return
    name = args.metric_for_best_model.removeprefix("eval_")
    known: tuple[str, ...] = (*LOGGED_METRICS, RETFOUND_METRIC, "loss")
    if name in ORDINAL and not ordered:
        raise UsageError(f"--metric_for_best_model {name} is for grades: tell their order with --class_order.")
    known += tuple(ORDINAL) if ordered else ()
    if name not in known:
        raise UsageError(
            f"--metric_for_best_model takes one of {', '.join(known)} (of the split that judges the epochs), not "
            f"{args.metric_for_best_model}{did_you_mean(name, known)}."
        )
    smaller = name in ("loss", "mae")
    if args.greater_is_better is not None and args.greater_is_better == smaller:
        raise UsageError(
            f"--greater_is_better {str(args.greater_is_better).lower()} contradicts --metric_for_best_model {name}, "
            f"of which the {'smallest' if smaller else 'greatest'} is the best: leave it out."
        )


def _wrap_eval_dataset(dataset: Any, processor: Any) -> Any:
    """Images through the image processor; a data set of tensors as it is."""
    return (
        EvalDataset(standardize_columns(dataset), _require_processor(processor))
        if is_image_dataset(dataset)
        else dataset
    )


def _require_processor(processor: Any) -> Any:
    if processor is None:
        raise UsageError(
            "A data set of images needs processing_class=image_processor(family, image_size), of hf_mae.data."
        )
    return processor
