"""Training options that are added to `transformers.TrainingArguments`, and changed defaults.

Importing this module does not import transformers; `settings.arguments` joins the fields with `TrainingArguments`.
Defaults are those of main_finetune.py and main_pretrain.py of the original MAE code (facebookresearch/mae), also for
fields of transformers.
"""

from dataclasses import dataclass, make_dataclass

from .losses import LOSSES
from .metrics import MetricKind, metric_names, selection_metric_names
from .one_vs_rest import ONE_VS_REST_OPTIONS, OneVsRestArguments
from .options import option

# Number of samples per epoch of a class of n images: proportional to n ** exponent.
SAMPLING_EXPONENTS = {"instance_balanced": 1.0, "square_root": 0.5, "class_balanced": 0.0}
INSTANCE_BALANCED = "instance_balanced"
DEFAULT_LR_SCHEDULER = "cosine_with_min_lr"


@dataclass
class MaeTrainingFields:
    """Options of fine-tuning and pre-training: linear lr scaling, warm-up in epochs, cosine decay to a minimum."""

    option_group = "Training"

    learning_rate: float | None = option(
        None, "Absolute learning rate. Default: --base_learning_rate x effective batch size / 256.", ge=0
    )
    base_learning_rate: float = option(
        1e-3, "Learning rate for an effective batch size of 256 (linear scaling rule).", hidden=True, ge=0
    )
    min_learning_rate: float = option(
        1e-6, "Final learning rate of the cosine schedule, before layer-wise decay.", hidden=True, ge=0
    )
    warmup_epochs: float = option(
        5.0,
        "Learning-rate warm-up in epochs (linear from 0, fractions allowed); --warmup_steps takes precedence.",
        hidden=True,
        ge=0,
    )
    warmup_steps: float | None = option(
        None,
        "Learning-rate warm-up in updates, or as a fraction of all updates if below 1. Default: --warmup_epochs.",
        hidden=True,
    )
    num_train_epochs: float = option(50.0, "Number of training epochs.", gt=0)
    per_device_train_batch_size: int = option(64, "Images per process and forward pass.", ge=1)
    effective_batch_size: int | None = option(
        None,
        "Images per update; sets --gradient_accumulation_steps for the number of processes. Default: one forward pass "
        "of all processes.",
        ge=1,
        hidden=True,
    )
    per_device_eval_batch_size: int = option(
        64, "Images per process and forward pass of the evaluation.", ge=1, hidden=True
    )
    lr_scheduler_type: str = option(
        DEFAULT_LR_SCHEDULER, "Learning-rate schedule of transformers.", metavar="NAME", hidden=True
    )
    weight_decay: float = option(0.05, "Weight decay of AdamW (not on 1-D parameters).", ge=0, hidden=True)
    max_grad_norm: float = option(0.0, "Maximum gradient norm (gradient clipping); 0: off.", ge=0, hidden=True)
    seed: int = option(0, "Random seed.", ge=0, le=2**32 - 1)
    logging_steps: float = option(20, "Updates between log lines.", group="Output", gt=0, hidden=True)
    logging_nan_inf_filter: bool = option(
        False,
        "Omit NaN and infinite losses from the log; training stops at them in any case.",
        group="Output",
        hidden=True,
    )
    overwrite_output_dir: bool = option(
        False, "Delete an existing run in the output folder and train from the start.", group="Output", hidden=True
    )
    ddp_find_unused_parameters: bool | None = option(
        False, "DDP: search for parameters without gradients (not needed: there are none).", hidden=True
    )
    print_learning_rates: bool = option(
        False,
        "Print the learning rate and weight decay of each parameter before training.",
        group="Output",
        hidden=True,
    )
    log_on_each_node: bool = option(False, "Log on every node instead of the first only.", group="Output", hidden=True)
    remove_unused_columns: bool = option(False, "Not supported: the trainer ignores unused columns.", hidden=True)


# The hyper-parameters of `LOSSES`, as fields.
LossParameters: type = make_dataclass(
    "LossParameters",
    [(name, float, default) for loss in LOSSES.values() for name, default in loss.parameters.items()],
    namespace={"option_group": "Training"},
)


@dataclass
class FinetuningFields(LossParameters, OneVsRestArguments, MaeTrainingFields):  # type: ignore[misc]
    """Options of fine-tuning."""

    option_group = "Training"
    hidden_options = tuple(ONE_VS_REST_OPTIONS)

    layer_decay: float = option(0.75, "Layer-wise learning-rate decay; 1 turns it off.", ge=0, le=1)
    mixup: float = option(0.0, "Mixup alpha; 0: off.", hidden=True, ge=0)
    cutmix: float = option(0.0, "CutMix alpha; 0: off.", hidden=True, ge=0)
    mixup_prob: float = option(
        1.0, "Probability of mixup or CutMix per batch.", metavar="FRACTION", hidden=True, ge=0, le=1
    )
    mixup_switch_prob: float = option(
        0.5, "Probability of CutMix if mixup and CutMix are both on.", metavar="FRACTION", hidden=True, ge=0, le=1
    )
    mixup_mode: str = option(
        "batch", "Apply mixup per batch, per pair or per element.", choices=("batch", "pair", "elem"), hidden=True
    )
    smoothing: float = option(0.1, "Label smoothing; 0: off.", metavar="FRACTION", ge=0, le=1)
    class_weights: list[str] | None = option(
        None,
        "Class weights of the loss, for class imbalance: none, balanced, or one number per class. Default: none.",
        metavar="VALUE",
    )
    sampling: str = option(
        INSTANCE_BALANCED,
        "Sampling of the training images, for class imbalance (Kang et al., 2020). The number of samples of a class "
        "with n images is proportional to n (instance_balanced), proportional to the square root of n (square_root), "
        "or equal for all classes (class_balanced).",
        choices=tuple(SAMPLING_EXPONENTS),
        hidden=True,
    )
    logit_adjustment: float = option(
        0.0,
        "Tau of the logit-adjusted loss, for class imbalance and long tails (Menon et al., 2021), e.g. 1; 0: off.",
        hidden=True,
        ge=0,
    )
    loss: str = option(
        "cross_entropy",
        f"Loss. {'; '.join(loss.help_text for loss in LOSSES.values())}.",
        choices=tuple(LOSSES),
        hidden=True,
    )
    drop_path: float = option(
        0.1, "Stochastic depth (drop path) rate of the last block.", metavar="FRACTION", hidden=True, ge=0, le=1
    )
    patch_dropout: float = option(
        0.0,
        "Fraction of the patches of each image dropped during training, for speed; 0: none.",
        metavar="FRACTION",
        hidden=True,
        ge=0,
        le=0.95,
    )
    ema_decay: float | None = option(
        None,
        "Decay of an exponential moving average (EMA) of the weights, e.g. 0.999; the average is evaluated and saved. "
        "Default: off.",
        hidden=True,
        gt=0,
        lt=1,
    )
    teacher: str | None = option(
        None,
        "Teacher for knowledge distillation: a fine-tuned model or an ensemble with the same classes.",
        group="Distillation",
        metavar="TEACHER",
        hidden=True,
    )
    teacher_weight: float = option(
        0.5,
        "Weight w of the distillation loss; the loss on the labels has weight 1 - w.",
        group="Distillation",
        metavar="FRACTION",
        hidden=True,
        ge=0,
        le=1,
    )
    teacher_temperature: float = option(
        2.0,
        "Temperature of the distillation loss, for the logits of the teacher and of the model.",
        group="Distillation",
        hidden=True,
        gt=0,
    )
    freeze_backbone: bool = option(False, "Train the classification head only (linear probe).", hidden=True)
    metric_for_best_model: str | None = option(
        None,
        f"Metric that selects the epoch: {', '.join(selection_metric_names(ordered=False))}; for ordinal classes "
        f"(--class_order) also {', '.join(metric_names(MetricKind.ORDINAL))}.",
        metavar="NAME",
    )
    early_stopping_patience: int | None = option(
        None,
        "Early stopping: number of evaluations without improvement of --metric_for_best_model. Default: off.",
        ge=1,
    )


@dataclass
class PretrainingFields(MaeTrainingFields):
    """Options of pre-training."""

    option_group = "Training"

    base_learning_rate: float = option(
        1.5e-4, "Learning rate for an effective batch size of 256 (linear scaling rule).", ge=0
    )
    min_learning_rate: float = option(0.0, "Final learning rate of the cosine schedule.", hidden=True, ge=0)
    warmup_epochs: float = option(
        40.0,
        "Learning-rate warm-up in epochs (linear from 0, fractions allowed); --warmup_steps takes precedence.",
        ge=0,
    )
    num_train_epochs: float = option(400.0, "Number of training epochs.", gt=0)
    adam_beta2: float = option(0.95, "Beta2 of AdamW.", ge=0, lt=1, hidden=True)
    mask_ratio: float | None = option(
        None, "Fraction of masked patches. Default: that of the checkpoint, or 0.75.", metavar="FRACTION", gt=0, lt=1
    )
    norm_pix_loss: bool | None = option(None, "Predict normalized patches. Default: that of the checkpoint, or false.")
