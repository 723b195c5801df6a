"""`FinetuningArguments` and `PretrainingArguments`: transformers' `TrainingArguments` with the reference's options."""

import os
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from ..errors import UsageError, short_repr, summarize_exception
from .trainer_options import check_trainer_option
from .training import (
    INSTANCE_BALANCED,
    LOSSES,
    SAMPLING_EXPONENTS,
    SUPPORTS_LABEL_SMOOTHING,
    FinetuningFields,
    MaeTrainingFields,
    PretrainingFields,
)

CHANGED_TRAINER_DEFAULTS = {
    "remove_unused_columns": False
}  # where one of `trainer_options` differs from transformers' own


def _get_field_default(item: "Field[Any]") -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def check_launcher_environment() -> None:
    """Raises UsageError where the environment has a launcher's LOCAL_RANK and nothing else of it."""
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in os.environ]
    if os.environ.get("LOCAL_RANK", "-1") != "-1" and missing:
        raise UsageError(
            f"The environment has LOCAL_RANK, as a launcher sets it, and no {', '.join(missing)}: unset LOCAL_RANK, or "
            "start with accelerate launch."
        )


@dataclass
class MaeTrainingArguments(MaeTrainingFields, TrainingArguments):  # type: ignore[misc]  # optional where transformers' is not
    """What fine-tuning and pre-training share: linear lr scaling, warm-up in epochs, cosine to a minimum."""

    def __post_init__(self) -> None:
        self._check_ranges()
        for item in fields(TrainingArguments):
            if item.init:
                check_trainer_option(
                    item.name,
                    getattr(self, item.name),
                    CHANGED_TRAINER_DEFAULTS.get(item.name, _get_field_default(item)),
                )
        check_launcher_environment()
        self._check_best_model_selection()
        warmup_steps, self.warmup_steps = self.warmup_steps, self.warmup_steps or 0  # a number, as transformers wants
        if not (self.bf16 or self.fp16):  # as `accelerate launch` says: DeepSpeed wants the two to agree
            precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            self.bf16, self.fp16 = precision == "bf16", precision == "fp16"
        try:
            super().__post_init__()
        except (ValueError, ImportError, TypeError, RuntimeError) as error:  # options that do not go together
            raise UsageError(summarize_exception(error)) from None
        self.warmup_steps = warmup_steps
        device = self.device  # joins the other processes
        if self.effective_batch_size is not None:
            self._derive_gradient_accumulation()
        if self.fp16 and device.type == "cpu":
            raise UsageError("fp16 needs a GPU: on a CPU use --bf16, or neither.")
        for tracker in self.report_to or []:
            if tracker not in get_available_reporting_integrations():
                raise UsageError(f"--report_to {tracker} needs a package that is not installed: pip install {tracker}.")

    def _check_ranges(self) -> None:
        if self.num_train_epochs <= 0 and self.max_steps <= 0:
            raise UsageError(f"num_train_epochs must be above 0, not {self.num_train_epochs}.")
        for name in ("warmup_epochs", "base_learning_rate", "min_learning_rate", "learning_rate"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise UsageError(f"{name} cannot be negative ({value}).")
        if self.ddp_backend and int(os.environ.get("WORLD_SIZE", "1")) < 2:
            raise UsageError("ddp_backend is for several processes: start them with accelerate launch.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must lie between 0 and 2^32 - 1, not {self.seed}.")

    def _check_best_model_selection(self) -> None:
        """Refuses to load the best of epochs that nothing judges, or keeps."""
        judged, kept = (getattr(asked, "value", asked) for asked in (self.eval_strategy, self.save_strategy))
        if not self.load_best_model_at_end or kept == "best":
            return
        if judged == "no":
            raise UsageError("load_best_model_at_end needs evaluations to choose by: --eval_strategy epoch.")
        if kept != judged:
            why = "no checkpoint is kept to load" if kept == "no" else f"saved is by {kept}, judged by {judged}"
            raise UsageError(
                f"The best epoch cannot be loaded at the end with --save_strategy {kept} ({why}): pass --save_strategy "
                f"{judged}, or --load_best_model_at_end false to keep the last epoch."
            )

    def get_warmup_steps(self, num_training_steps: int) -> float:
        """Of `warmup_steps`; 0 where it was not given."""
        return 0 if self.warmup_steps is None else super().get_warmup_steps(num_training_steps)

    def _derive_gradient_accumulation(self) -> None:
        """Accumulation steps from the effective batch size and the hardware."""
        asked, at_once = self.effective_batch_size or 0, self.train_batch_size * self.world_size
        steps, rest = divmod(asked, at_once)
        hardware = f"{self.world_size} processes x {self.train_batch_size} images"
        if steps < 1 or rest:
            raise UsageError(
                f"effective_batch_size {asked} is no multiple of the {at_once} images that {hardware} take at once: "
                "change it, or per_device_train_batch_size."
            )
        if self.gradient_accumulation_steps not in (1, steps):
            raise UsageError(
                f"effective_batch_size {asked} asks for {steps} accumulation steps of {hardware}, "
                f"gradient_accumulation_steps for {self.gradient_accumulation_steps}: leave one of them out."
            )
        self.gradient_accumulation_steps = steps

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.output_dir or "")

    @property
    def images_per_update(self) -> int:
        """The effective batch: batch per device x devices x processes x accumulation."""
        return int(self.train_batch_size * self.gradient_accumulation_steps * self.world_size)

    @property
    def absolute_learning_rate(self) -> float:
        """`learning_rate` where given, else base_learning_rate x effective batch / 256."""
        if self.learning_rate is not None:
            return self.learning_rate
        return linear_scaled_lr(self.base_learning_rate, self.images_per_update)


BASE_BATCH_SIZE = 256  # images of an update, for which base learning rates are given


def linear_scaled_lr(base_learning_rate: float, effective_batch_size: int) -> float:
    """Absolute learning rate of an effective batch (images per update): base lr x effective batch / 256.

    Source: facebookresearch/mae, after Goyal et al., 2017, arXiv:1706.02677.
    """
    return base_learning_rate * effective_batch_size / BASE_BATCH_SIZE


@dataclass
class FinetuningArguments(FinetuningFields, MaeTrainingArguments):  # type: ignore[misc]
    """`TrainingArguments` with the reference's fine-tuning options and defaults.

    Args:
        base_learning_rate: for an effective batch of 256; used when `learning_rate` is not given.
        min_learning_rate: end of the cosine, before each group's lr scale.
        warmup_epochs: epochs (fractions too) of linear warm-up.
        layer_decay: lr of a layer = lr of the next x this.
        mixup, cutmix: alpha of timm's Mixup and CutMix on the batch; 0 turns it off.
        mixup_prob, mixup_switch_prob, mixup_mode: timm's `prob`, `switch_prob` and `mode` (batch, pair, elem).
        smoothing: label smoothing.
        class_weights: `none`, `balanced` (n / (classes x count), as sklearn), or one float a class.
        sampling: share of an epoch that a class has (see `data.sampling.ClassSampling`).
        logit_adjustment: tau of the logit-adjusted loss (see `training.losses.log_prior`); 0: off.
        loss: `cross_entropy`, `focal` (see `training.losses.focal_sum`), or of grades `cdw` or `emd` (see
            `training.losses.ordinal_sum`).
        focal_gamma: power of 1 - p in the loss `focal`.
        cdw_alpha: power of the distance between grades.
        drop_path: rate of stochastic depth of the last block; `hf-mae finetune` builds its model with it.
        patch_dropout: share of each image's patches that training leaves out, drawn anew every time.
        ema: decay of an exponential moving average of the weights, which is judged and saved in their place.
        average_last: the mean of the weights at the ends of so many last epochs is judged and saved in their place.
        teacher: folder or Hub id of a model whose scores are learnt too; `hf-mae finetune` loads it.
        teacher_weight: of its scores in the loss, from 0 to 1; the labels have the rest.
        teacher_temperature: by which the logits of both are divided.
        freeze_backbone: train the head alone (linear probe).
        early_stopping_patience: stop after so many evaluations without a better `metric_for_best_model`.
    """

    def __post_init__(self) -> None:
        self.class_weights: Any = parse_class_weights(self.class_weights)
        for name, low, high in (
            ("layer_decay", 0.0, 1.0),
            ("smoothing", 0.0, 1.0),
            ("drop_path", 0.0, 1.0),
            ("mixup_prob", 0.0, 1.0),
            ("mixup_switch_prob", 0.0, 1.0),
            ("patch_dropout", 0.0, 0.95),
            ("teacher_weight", 0.0, 1.0),
            ("mixup", 0.0, None),
            ("cutmix", 0.0, None),
            ("logit_adjustment", 0.0, None),
            ("focal_gamma", 0.0, None),
        ):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                raise UsageError(
                    f"{name} must be {f'between {low:g} and {high:g}' if high else 'at least 0'}, not {value}."
                )
        self._check_weight_averaging()
        self._check_rebalancing()
        if not self.teacher_temperature > 0:
            raise UsageError(f"teacher_temperature must be above 0, not {self.teacher_temperature:g}.")
        if self.cdw_alpha <= 0 or self.loss not in LOSSES:
            raise UsageError(f"loss is one of {', '.join(LOSSES)}, and cdw_alpha above 0.")
        if (self.metric_for_best_model or "").removeprefix("eval_") == "mae" and self.greater_is_better is None:
            self.greater_is_better = False  # transformers knows this of losses alone
        super().__post_init__()

    def _check_rebalancing(self) -> None:
        """Raises UsageError where classes would be balanced twice, or the loss knows nothing of what was asked for."""
        if len(self.active_rebalancing) > 1:
            raise UsageError(
                f"{' and '.join(self.active_rebalancing)} would make rare classes count twice: choose one."
            )
        if self.sampling not in SAMPLING_EXPONENTS:
            raise UsageError(f"sampling is one of {', '.join(SAMPLING_EXPONENTS)}, not {self.sampling}.")
        if self.logit_adjustment and self.loss not in SUPPORTS_LABEL_SMOOTHING:
            raise UsageError(
                f"--logit_adjustment goes with --loss {' or '.join(SUPPORTS_LABEL_SMOOTHING)}, not {self.loss}."
            )
        plain = self.class_weights == "none" and self.loss == "cross_entropy" and not self.logit_adjustment
        if self.teacher and not plain:
            raise UsageError(
                "A teacher's scores go with --loss cross_entropy, without --class_weights and --logit_adjustment."
            )

    def _check_weight_averaging(self) -> None:
        """Raises UsageError where an average of the weights cannot be what was asked for."""
        if self.ema_decay is not None and not 0.0 < self.ema_decay < 1.0:
            raise UsageError(f"ema must lie between 0 and 1, as 0.999, not {self.ema_decay:g}.")
        if self.average_last is not None and self.average_last < 1:
            raise UsageError(f"average_last is a number of epochs, 1 at least, not {self.average_last}.")
        if self.average_last is not None and self.ema_decay is not None:
            raise UsageError("--ema_decay and --average_last are two averages of the weights: choose one.")
        if self.average_last is not None and self.early_stopping_patience is not None:
            raise UsageError(
                "--average_last needs the last epoch to be known, but --early_stopping_patience leaves it open."
            )
        if self.uses_weight_averaging and self.save_only_model:
            asked = "--average_last" if self.ema_decay is None else "--ema_decay"
            raise UsageError(f"{asked} keeps its average in the checkpoints, which --save_only_model would leave out.")

    @property
    def uses_weight_averaging(self) -> bool:
        """Whether an average of the weights is kept."""
        return self.ema_decay is not None or self.average_last is not None

    @property
    def active_rebalancing(self) -> list[str]:
        """The flags that make rare classes count more."""
        flags = {
            "--class_weights balanced": self.class_weights == "balanced",
            f"--sampling {self.sampling}": self.sampling != INSTANCE_BALANCED,
            f"--logit_adjustment {self.logit_adjustment:g}": self.logit_adjustment > 0,
        }
        return [flag for flag, given in flags.items() if given]

    @property
    def uses_mixup(self) -> bool:
        """Whether mixup or CutMix is on."""
        return self.mixup > 0 or self.cutmix > 0


def parse_class_weights(value: Any) -> str | list[float]:
    """`none`, `balanced` or a list of floats from what a flag, a recipe or a caller gave."""
    words = [value] if isinstance(value, str) else list(value or ["none"])
    if len(words) == 1 and words[0] in ("none", "balanced"):
        return words[0]
    try:
        weights = [float(word) for word in words]
    except (TypeError, ValueError):
        raise UsageError(
            f"class_weights takes none, balanced or one number for each class, not {short_repr(value)}."
        ) from None
    if min(weights) < 0 or not sum(weights) < float("inf"):
        raise UsageError(f"class_weights must be finite numbers of at least 0, not {weights}.")
    return weights


@dataclass
class PretrainingArguments(PretrainingFields, MaeTrainingArguments):  # type: ignore[misc]
    """The same for masked pre-training; defaults of the reference's main_pretrain.py.

    Args:
        mask_ratio: share of the patches that are hidden; not given: the model's own.
        norm_pix_loss: predict patches normalised by their own mean and variance; not given: the model's own.
    """

    def __post_init__(self) -> None:
        if self.mask_ratio is not None and not 0.0 < self.mask_ratio < 1.0:
            raise UsageError(f"mask_ratio must lie between 0 and 1, not {self.mask_ratio}.")
        super().__post_init__()
