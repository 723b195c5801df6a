"""`MaeFinetuner`: fine-tuning of the original MAE code (losses, class weights, mixup) on transformers' Trainer."""

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

from ..compat.deepspeed import disable_zero3_init
from ..compat.transformers import StockModel
from ..conversion.stock_models import load_stock_model
from ..data.columns import is_image_dataset, standardize_columns
from ..data.images.seeding import seed_all
from ..data.images.torch_datasets import EvalDataset, TrainDataset
from ..data.images.transforms import training_transform_from_processor
from ..errors import UsageError, warn
from ..evaluation.messages import EvaluationMessage
from ..evaluation.metrics import classification_scores, ordinal_scores, ranking_scores, softmax
from ..evaluation.operating_points import find_positive_ids
from ..evaluation.ppv_at_recall import ppv_at_recall
from ..evaluation.retfound import f1_auroc_kappa
from ..inference.forward import predict_logits
from ..models.introspection import find_head, get_network
from ..models.loading import class_names
from ..models.stochastic_depth import apply_patch_dropout, get_drop_path_rate, get_patch_embeddings
from ..settings.arguments import FinetuningArguments, check_loss_fits_classes, check_selection_metric
from ..settings.losses import LOSSES, SMOOTHING, cross_entropy_sum
from ..settings.metrics import METRICS, PPV_AT_RECALL
from ..settings.training import SAMPLING_EXPONENTS
from .distillation import Teacher
from .layer_decay import parameter_groups
from .losses import balanced_class_weights, check_number_of_weights, label_weight_sum, log_prior
from .messages import TrainingMessage
from .trainer import MaeTrainerBase
from .weight_averaging import WeightAverage, check_checkpoint_has_no_average

logger = logging.getLogger(__name__)

VIT_HUGE_WIDTH = 1280

RETFOUND_METRIC = "f1_auroc_kappa"  # RETFound selects the epoch by this metric


class MaeFinetuner(MaeTrainerBase):
    """Fine-tunes a ViT or BEiT classifier with the training recipe of the original MAE code.

    A dataset of `{"pixel_values": FloatTensor (C, H, W), "labels": int or FloatTensor (num_labels,)}` is used
    unchanged, except for mixup and CutMix of the batch if `args` enables them. A `datasets.Dataset` of images (from
    `load_image_folder` or `load_dataset("imagefolder")`) is augmented for training to match `processing_class`, and
    preprocessed with `processing_class` for evaluation. A `datasets.Dataset` with its own transform is treated as in
    the stock Trainer.

    Args:
        model: result of `build_classifier`, or any stock ViT / mean-pooling BEiT classifier.
        args: `FinetuningArguments`.
        ordered: whether the classes are ordered (grades), in the order of their ids.
        teacher: teacher for knowledge distillation with `args.teacher_weight`; None: train on the labels only.
        train_dataset, eval_dataset, processing_class, ...: as for `transformers.Trainer`.
    """

    args: FinetuningArguments
    arguments_class = FinetuningArguments

    def __init__(
        self,
        model: StockModel | None = None,
        args: FinetuningArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        ordered: bool = False,
        teacher: Teacher | None = None,
        **kwargs: Any,
    ):
        self.ordered = ordered
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: _wrap_eval_dataset(data, processing_class) for name, data in eval_dataset.items()}
        else:
            eval_dataset = _wrap_eval_dataset(eval_dataset, processing_class)
        self._computes_own_scores = kwargs.get("compute_metrics") is not None
        kwargs["compute_metrics"] = kwargs.get("compute_metrics") or self.compute_scores
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, processing_class, **kwargs)
        self._train_images = train_dataset
        self.label_names = ["labels"]
        self.class_names = class_names(self.model)
        self.teacher = None if teacher is None else teacher.to(self.args.device)
        self.average: WeightAverage | None = None  # during training, if `args` enables it
        self.apply_settings()
        if self.train_dataset is not None:
            self._log_drop_path_mismatch(self.model)

    def apply_settings(self) -> None:
        """Builds the training data, losses and callbacks, and checks that the settings fit the model and the data."""
        args = self.args
        if self.model is not None:  # a search has no model between its trials
            _check_compatible_settings(self.model, args, self.ordered)
        if not self._computes_own_scores:
            check_selection_metric(args, self.ordered)
        if is_image_dataset(self._train_images):
            transform = training_transform_from_processor(_require_processor(self.processing_class))
            images = standardize_columns(self._train_images)
            self.train_dataset = TrainDataset(images, transform, args.seed, sampling=args.sampling)
        _check_sampling(self.train_dataset, args.sampling)
        self.positive_ids = find_positive_ids(args.positive or [], self.class_names)
        if (args.metric_for_best_model or "").removeprefix("eval_") == PPV_AT_RECALL:
            _check_both_sides(self.eval_dataset, self.positive_ids)
        self.class_weights = self._compute_class_weights()
        self.log_prior = self._compute_log_prior()
        self.mixup = self._build_mixup() if args.uses_mixup else None
        for callback_class in (_AveragingCallback, EarlyStoppingCallback):
            self.pop_callback(callback_class)
        if args.ema_decay is not None:
            self.add_callback(_AveragingCallback(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def _log_drop_path_mismatch(self, model: StockModel) -> None:
        rate, requested = get_drop_path_rate(model), self.args.drop_path
        if not math.isclose(rate, requested, rel_tol=1e-6) and not self.args.freeze_backbone:
            logger.info("The model was built with drop path %g; args.drop_path (%g) is ignored.", rate, requested)

    def _build_mixup(self) -> Mixup:
        return Mixup(
            mixup_alpha=self.args.mixup,
            cutmix_alpha=self.args.cutmix,
            prob=self.args.mixup_prob,
            switch_prob=self.args.mixup_switch_prob,
            mode=self.args.mixup_mode,
            label_smoothing=self.args.smoothing if SMOOTHING in LOSSES[self.args.loss].supports else 0.0,
            num_classes=len(self.class_names),
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Returns the stock loader; a dataset of images is preprocessed with the image processor."""
        return super().get_eval_dataloader(_wrap_eval_dataset(eval_dataset, self.processing_class))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Returns the stock loader; a dataset of images is preprocessed with the image processor."""
        return super().get_test_dataloader(_wrap_eval_dataset(test_dataset, self.processing_class))

    @property
    def runs_plain_model_on_gpu(self) -> bool:
        """Whether a step can be profiled: the model is not sharded by an engine, and runs on a GPU."""
        return self.args.device.type == "cuda" and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)

    @property
    def drop_last(self) -> bool:
        """Whether training drops the last incomplete batch."""
        return self.args.drops_last_batch

    def frozen_parameter_names(self, model: StockModel) -> list[str]:
        """Returns the names of all parameters except those of the head, with `freeze_backbone`."""
        if not self.args.freeze_backbone:
            return []
        head, _ = find_head(model)
        return [name for name, _ in model.named_parameters() if not name.startswith(f"{head}.")]

    @contextmanager
    def configure_for_training(self, model: StockModel) -> Iterator[StockModel]:
        """Configures a model as the base class does, and applies patch dropout within the block."""
        with super().configure_for_training(model), apply_patch_dropout(model, self.args.patch_dropout):
            yield model

    # Weight averaging

    def on_resume(self, checkpoint: Path) -> None:
        """Checks that the checkpoint has a weight average only if this run has one."""
        if self.args.ema_decay is None:
            check_checkpoint_has_no_average(checkpoint)
        super().on_resume(checkpoint)

    def save_extra_state(self, folder: Path) -> None:
        """Saves the average."""
        super().save_extra_state(folder)
        if self.average is not None:
            self.average.save(folder)

    def on_best_model_loaded(self, folder: Path) -> None:
        """Loads the average of the best checkpoint."""
        if self.average is not None:
            self.average.load(folder)

    def get_param_groups(self, model: StockModel, learning_rate: float) -> list[dict[str, Any]]:
        """Builds one group per layer and weight decay."""
        return parameter_groups(model, learning_rate, self.args.weight_decay, self.args.layer_decay)

    def _compute_class_weights(self) -> torch.Tensor | None:
        """Computes class weights (classes,), or None."""
        requested, num_classes = self.args.class_weights, len(self.class_names)
        if requested == "none" or self.train_dataset is None:
            return None
        if requested != "balanced":
            check_number_of_weights(requested, num_classes)
            return torch.tensor(requested, device=self.args.device)
        weights = balanced_class_weights(self._training_labels(), num_classes)
        if self.is_world_process_zero():
            logger.info("Class weights: %s", dict(zip(self.class_names, weights.round(3).tolist())))
        return torch.tensor(weights, dtype=torch.float32, device=self.args.device)

    def _compute_log_prior(self) -> torch.Tensor | None:
        """Computes the class prior of the logit-adjusted loss, or None."""
        if not self.args.logit_adjustment or self.train_dataset is None:
            return None
        return log_prior(self._training_labels(), len(self.class_names)).to(self.args.device)

    def _training_labels(self) -> np.ndarray:
        """Returns class ids (images,), or soft labels (images, classes)."""
        labels = getattr(self.train_dataset, "labels", None)
        if labels is None:
            labels = [item["labels"] if "labels" in item else item["label"] for item in self.train_dataset]
        return np.asarray(labels)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Returns the micro-batches of an update after mixup, and the normalizer of their loss."""
        batches, normalizer = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.mixup is None:
            return batches, normalizer
        batches = [self._apply_mixup(batch, i) for i, batch in enumerate(batches)]
        return batches, self.loss_normalizer(batches, device)

    def _apply_mixup(self, batch: dict[str, Any], micro_batch: int) -> dict[str, Any]:
        """Applies timm's Mixup / CutMix. Its random numbers depend on (seed, update, micro-batch, process) only."""
        assert self.mixup is not None
        with seed_all(self.args.seed, self.state.global_step, micro_batch, self.args.process_index):
            pixel_values, labels = self.mixup(batch["pixel_values"], batch["labels"])
        return batch | {"pixel_values": pixel_values, "labels": labels}

    def loss_normalizer(self, batches: Sequence[dict[str, Any]], device: torch.device) -> torch.Tensor | None:
        """Computes the normalizer of the summed loss of an update: the number of images (or the sum of their class
        weights) over all micro-batches and processes."""
        if not batches:
            return None
        class_weights = self.class_weights if self.compute_loss_func is None else None
        weight = torch.stack([label_weight_sum(batch["labels"].to(device), class_weights) for batch in batches]).sum()
        return self.accelerator.gather(weight).sum() if self.args.world_size > 1 else weight

    def compute_loss(
        self, model: StockModel, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Computes the loss of a micro-batch.

        In training it is the contribution to the mean over the effective batch, scaled such that the Trainer's division
        by the accumulation steps and DDP's mean over processes give that mean. For micro-batches of equal size this is
        the mean of the micro-batch. In evaluation it is the plain cross-entropy. A `compute_loss_func` of the caller
        replaces both, with the number of images of the update as `num_items_in_batch`.
        """
        labels, pixel_values = inputs["labels"], inputs["pixel_values"]
        if not model.training and (self.args.bf16_full_eval or self.args.fp16_full_eval):
            pixel_values = pixel_values.to(next(model.parameters()).dtype)  # unchanged during training
        outputs = model(pixel_values=pixel_values)
        if self.compute_loss_func is not None:
            loss = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items_in_batch)
            if num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes  # whose gradients are averaged
        elif not model.training:
            loss = cross_entropy_sum(outputs.logits, labels) / len(labels)
        else:
            loss = self._loss_sum(outputs.logits, labels)
            if self.teacher is not None:
                weight = self.args.teacher_weight
                loss = (1 - weight) * loss + weight * self.teacher.loss_sum(outputs.logits, pixel_values)
            if num_items_in_batch is None:
                loss = loss / label_weight_sum(labels, self.class_weights)
            else:
                micro_batches = self.current_gradient_accumulation_steps * self.accelerator.num_processes
                loss = loss * micro_batches / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def _loss_sum(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.log_prior is not None:
            logits = logits.float() + self.args.logit_adjustment * self.log_prior
        return LOSSES[self.args.loss].compute(logits, labels, self.class_weights, self.args)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the stock loop on the weight average, if there is one.

        The loss is the mean over all images. (The stock loss also counts the duplicates that pad the last batch of
        distributed runs.)
        """
        with self.average.swap_in() if self.average is not None else nullcontext():
            output: Any = super().evaluation_loop(*args, **kwargs)
        key = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
        is_own_loss = self.compute_loss_func is None and self.preprocess_logits_for_metrics is None
        if is_own_loss and output.label_ids is not None and key in output.metrics:
            logits, labels = torch.from_numpy(_logits(output)), torch.from_numpy(output.label_ids)
            output.metrics[key] = (cross_entropy_sum(logits, labels) / len(labels)).item()
        return output

    def predict_logits(self, images: EvalDataset) -> np.ndarray:
        """Computes the logits (images, classes) of the saved model, on every process.

        They are those of the weights in float32, whatever the precision of the training was, unless `bf16_full_eval` or
        `fp16_full_eval` requests otherwise.
        """
        args = self.args
        dtype = torch.bfloat16 if args.bf16_full_eval else torch.float16 if args.fp16_full_eval else torch.float32
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if is_sharded and self.accelerator.mixed_precision != "no":  # the engine has the weights in that precision
            self.accelerator.wait_for_everyone()  # until the main process has saved it
            with disable_zero3_init():
                model = load_stock_model(str(args.folder), "AutoModelForImageClassification")[0].to(args.device)
        else:
            model = self.model if is_sharded else self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        return predict_logits(
            model.to(dtype).eval(),
            images,
            self.accelerator,
            args.per_device_eval_batch_size,
            args.dataloader_num_workers,
            autocast=False,
        )

    def compute_scores(self, prediction: Any) -> dict[str, float]:
        """Computes the logged metrics from logits (images, classes) and class ids or soft labels."""
        labels = prediction.label_ids
        labels = labels.argmax(-1) if labels.ndim == 2 else labels
        logits = _logits(prediction)
        predicted = logits if logits.ndim == 1 else logits.argmax(-1)  # class ids of `preprocess_logits_for_metrics`
        scores = classification_scores(predicted, labels, self.class_names)
        logged = {name: scores[name] for name, metric in METRICS.items() if metric.logged and name in scores}
        if self.args.metric_for_best_model in (RETFOUND_METRIC, f"eval_{RETFOUND_METRIC}"):
            ranking = ranking_scores(softmax(logits), np.asarray(labels), self.class_names)
            logged[RETFOUND_METRIC] = f1_auroc_kappa(scores["macro_f1"], ranking["roc_auc"], scores["kappa"])
        if self.positive_ids and (recall := self.args.ppv_at_recall) is not None:
            score, is_positive = (
                softmax(logits)[:, self.positive_ids].sum(-1),
                np.isin(labels, self.positive_ids),
            )
            if is_positive.any() and not is_positive.all():
                logged[PPV_AT_RECALL] = ppv_at_recall(score, is_positive, recall, self.args.prevalence)
        return logged | ordinal_scores(scores["confusion_matrix"]) if self.ordered else logged


def _logits(output: Any) -> np.ndarray:
    """Returns the logits among the outputs of a model, which may also be e.g. hidden states."""
    predictions = output.predictions
    return np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)


class _AveragingCallback(TrainerCallback):
    """Averages the weights over all updates."""

    def __init__(self, trainer: MaeFinetuner):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        self.trainer.average = WeightAverage(model, args.ema_decay, args.process_index, args.should_save)
        if self.trainer.resumed_from is not None:
            self.trainer.average.load(self.trainer.resumed_from)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.trainer.average is not None
        self.trainer.average.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.trainer.average is not None
        self.trainer.average.copy_to_model()  # the average of the best epoch, if it was loaded
        self.trainer.average = None


def warn_about_fp16(fp16: bool, hidden_size: int) -> None:
    """Warns if a ViT-H is trained with fp16."""
    if fp16 and hidden_size >= VIT_HUGE_WIDTH:
        warn(logger, TrainingMessage.FP16_WITH_VIT_HUGE)


def _check_compatible_settings(model: StockModel, args: FinetuningArguments, ordered: bool) -> None:
    """Checks that the settings, the classes and the network fit together."""
    check_loss_fits_classes(args.loss, ordered)
    warn_about_fp16(args.fp16, find_head(model)[1].in_features)
    if args.patch_dropout:
        get_patch_embeddings(model)
    if args.ema_decay is not None or args.freeze_backbone:
        _check_no_batch_norm(model, args)


def _check_both_sides(dataset: Any, positive_ids: list[int]) -> None:
    """Checks that a dataset that has labels has positive and negative images."""
    labels = getattr(dataset, "labels", None)
    if labels is not None:
        positive = int(np.isin(labels, positive_ids).sum())
        if positive in (0, len(labels)):
            code = EvaluationMessage.OPERATING_POINT_NEEDS_BOTH_SIDES
            raise UsageError(code, rule=PPV_AT_RECALL, positive=positive, total=len(labels))


def _check_sampling(dataset: Any, requested: str) -> None:
    """Checks that the dataset samples its images as the settings require."""
    sampling = getattr(dataset, "sampling", None)
    if dataset is not None and SAMPLING_EXPONENTS[requested] != (1.0 if sampling is None else sampling.exponent):
        raise UsageError(TrainingMessage.SAMPLING_OF_OTHER_DATASET, sampling=requested)


def _check_no_batch_norm(model: StockModel, args: FinetuningArguments) -> None:
    """Checks that the network has no batch normalization, whose running statistics would not fit the weights."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        flag = "--freeze_backbone" if args.freeze_backbone else "--ema_decay"
        raise UsageError(TrainingMessage.BATCH_NORM_UNSUPPORTED, flag=flag, network=get_network(model))


def _wrap_eval_dataset(dataset: Any, processor: Any) -> Any:
    """Wraps a dataset of images for evaluation with the image processor; returns a dataset of tensors unchanged."""
    return (
        EvalDataset(standardize_columns(dataset), _require_processor(processor))
        if is_image_dataset(dataset)
        else dataset
    )


def _require_processor(processor: Any) -> Any:
    if processor is None:
        raise UsageError(TrainingMessage.PROCESSING_CLASS_MISSING)
    return processor
