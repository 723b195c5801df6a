"""What fine-tuning and pre-training add to `transformers.TrainingArguments`, and where their defaults differ.

Light on purpose: `settings.arguments` joins these fields with transformers' class. Defaults are those of the reference
(main_finetune.py and main_pretrain.py of facebookresearch/mae), also for the fields that are transformers'.
"""

from dataclasses import dataclass

from .options import option

SUPPORTS_LABEL_SMOOTHING = ("cross_entropy", "focal")  # losses that know label smoothing
LOSSES = (*SUPPORTS_LABEL_SMOOTHING, "cdw", "emd")
SAMPLING_EXPONENTS = {
    "instance_balanced": 1.0,
    "square_root": 0.5,
    "class_balanced": 0.0,
}  # exponents of a class's images
INSTANCE_BALANCED = "instance_balanced"
DEFAULT_LR_SCHEDULER = "cosine_with_min_lr"


@dataclass
class MaeTrainingFields:
    """What both trainings share: linear lr scaling, warm-up in epochs, cosine to a minimum."""

    learning_rate: float | None = option(
        None,
        "Absolute learning rate. Not given: base_learning_rate x effective batch / 256.",
        show_in_help=True,
        group="Training",
    )
    base_learning_rate: float = option(
        1e-3, "Learning rate for an effective batch of 256 (the linear scaling rule).", group="Training"
    )
    min_learning_rate: float = option(1e-6, "Where the cosine ends (for the group with lr_scale 1).", group="Training")
    warmup_epochs: float = option(
        5.0,
        "Epochs of linear warm-up from 0, fractions too. warmup_steps, if given, comes first.",
        group="Training",
    )
    warmup_steps: float | None = option(
        None, "Updates of warm-up, or a share of all where below 1. Not given: warmup_epochs.", group="Training"
    )
    num_train_epochs: float = option(50.0, "Passes over the training images.", show_in_help=True, group="Training")
    per_device_train_batch_size: int = option(
        64, "Images per process and forward pass.", show_in_help=True, group="Training", ge=1
    )
    effective_batch_size: int | None = option(
        None,
        "Images per update; the accumulation follows from it and from the processes there are.",
        group="Training",
        ge=1,
    )
    per_device_eval_batch_size: int = option(64, "The same for evaluation.", group="Training", ge=1)
    lr_scheduler_type: str = option(DEFAULT_LR_SCHEDULER, "transformers' name of the schedule.", group="Training")
    weight_decay: float = option(0.05, "AdamW's weight decay (not on 1-D parameters).", group="Training", ge=0)
    max_grad_norm: float = option(0.0, "Clip the gradient norm at this; 0: no clipping.", group="Training", ge=0)
    seed: int = option(0, "Seed of everything that is random.", show_in_help=True, group="Training")
    logging_steps: float = option(20, "Log every so many updates.", group="Output", gt=0)
    logging_nan_inf_filter: bool = option(
        False, "Hide losses that are not finite from the log; training stops on them anyway.", group="Output"
    )
    overwrite_output_dir: bool = option(False, "Start anew in an output folder that holds a run.", group="Output")
    ddp_find_unused_parameters: bool | None = option(
        False, "DDP: look for parameters that got no gradient; there are none.", group="Training"
    )
    print_learning_rates: bool = option(
        False, "Print every parameter's learning rate and weight decay at the start.", group="Output"
    )
    log_on_each_node: bool = option(False, "Log on every node, or on the first alone.", group="Output")
    remove_unused_columns: bool = option(
        False, "Columns that the model does not take are ignored, so none need be removed.", group="Training"
    )


@dataclass
class FinetuningFields(MaeTrainingFields):
    """The reference's fine-tuning options."""

    layer_decay: float = option(
        0.75, "Layer-wise learning rate decay; 1 turns it off.", show_in_help=True, group="Training"
    )
    mixup: float = option(0.0, "Alpha of mixup; 0: off.", group="Training")
    cutmix: float = option(0.0, "Alpha of CutMix; 0: off.", group="Training")
    mixup_prob: float = option(1.0, "Share of batches that are mixed.", group="Training")
    mixup_switch_prob: float = option(0.5, "Share of CutMix where both are on.", group="Training")
    mixup_mode: str = option(
        "batch", "Mix per batch, pair or elem.", choices=("batch", "pair", "elem"), group="Training"
    )
    smoothing: float = option(0.1, "Label smoothing.", show_in_help=True, group="Training")
    class_weights: list[str] | None = option(
        None, "none, balanced, or one weight for each class.", show_in_help=True, group="Training"
    )
    sampling: str = option(
        INSTANCE_BALANCED,
        "Share of an epoch that a class of n images has: in proportion to n (instance_balanced), to its square root "
        "(square_root), or as every other class (class_balanced; Kang et al., 2020).",
        choices=tuple(SAMPLING_EXPONENTS),
        group="Training",
    )
    logit_adjustment: float = option(
        0.0,
        "Tau of the logit-adjusted loss for long tails (Menon et al., 2021), as 1; 0: off.",
        group="Training",
    )
    loss: str = option(
        "cross_entropy",
        "cross_entropy or focal (Lin et al., 2017); of grades (--class_order) also cdw (class distance weighted "
        "cross-entropy; Polat et al., 2022) or emd (squared earth mover's distance; Hou et al., 2016), which know no "
        "smoothing.",
        choices=LOSSES,
        group="Training",
    )
    focal_gamma: float = option(2.0, "Power by which the loss focal turns to what is not learnt yet.", group="Training")
    cdw_alpha: float = option(5.0, "Power of the distance between grades in the loss cdw.", group="Training")
    drop_path: float = option(0.1, "Stochastic depth rate of the last block.", group="Training")
    patch_dropout: float = option(
        0.0, "Share of each image's patches that training leaves out, which is faster; 0: none.", group="Training"
    )
    ema_decay: float | None = option(
        None,
        "Average the weights over the updates with this decay, as 0.999; the average is judged and saved.",
        group="Training",
    )
    average_last: int | None = option(
        None,
        "Save the mean of the weights at the ends of so many last epochs, in place of the best epoch's.",
        group="Training",
    )
    teacher: str | None = option(
        None,
        "A fine-tuned model or an ensemble with the same classes, whose scores are learnt too (hf-mae distill).",
        group="Distillation",
    )
    teacher_weight: float = option(
        0.5, "Of the teacher's scores in the loss; the labels have the rest.", group="Distillation"
    )
    teacher_temperature: float = option(
        2.0, "Softens the scores of both, so that small ones count.", group="Distillation"
    )
    freeze_backbone: bool = option(False, "Train the head alone (linear probe).", group="Training")
    early_stopping_patience: int | None = option(
        None, "Evaluations without a better metric_for_best_model before training stops.", group="Training", ge=1
    )


@dataclass
class PretrainingFields(MaeTrainingFields):
    """The reference's pre-training options."""

    base_learning_rate: float = option(
        1.5e-4, "Learning rate for an effective batch of 256.", show_in_help=True, group="Training"
    )
    min_learning_rate: float = option(0.0, "Where the cosine ends.", group="Training")
    warmup_epochs: float = option(40.0, "Epochs of linear warm-up from 0.", show_in_help=True, group="Training")
    num_train_epochs: float = option(400.0, "Passes over the training images.", show_in_help=True, group="Training")
    adam_beta2: float = option(0.95, "AdamW's beta2.", group="Training", ge=0, lt=1)
    mask_ratio: float | None = option(
        None,
        "Share of hidden patches, between 0 and 1; not given: the checkpoint's, or 0.75.",
        show_in_help=True,
        group="Training",
    )
    norm_pix_loss: bool | None = option(
        None, "Predict normalised patches; not given: the checkpoint's, or false.", show_in_help=True, group="Training"
    )
