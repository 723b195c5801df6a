"""The dataclasses that recipes and flags fill.

`FinetuningArguments` extends `transformers.TrainingArguments`; its defaults are those of the reference
(main_finetune.py of facebookresearch/mae), also for the fields that it inherits.
"""

import os
from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from .checkpoints import RANDOM_WEIGHTS
from .engines import use_fsdp_where_asked
from .errors import UsageError

COSINE = "cosine_with_min_lr"


@dataclass
class ReferenceTraining(TrainingArguments):
    """What fine-tuning and pre-training share: linear lr scaling, warm-up in epochs, cosine to a minimum."""

    learning_rate: float | None = field(
        default=None,
        metadata={"help": "Absolute learning rate. Not given: base_learning_rate x effective batch / 256."},
    )
    base_learning_rate: float = field(
        default=1e-3, metadata={"help": "Learning rate for an effective batch of 256 (the linear scaling rule)."}
    )
    min_learning_rate: float = field(
        default=1e-6, metadata={"help": "Where the cosine ends (for the group with lr_scale 1)."}
    )
    warmup_epochs: float = field(
        default=5.0,
        metadata={"help": "Epochs of linear warm-up from 0, fractions too. warmup_steps, if given, comes first."},
    )
    num_train_epochs: float = field(default=50.0, metadata={"help": "Passes over the training images."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Images per process and forward pass."})
    effective_batch_size: int | None = field(
        default=None,
        metadata={"help": "Images per update; the accumulation follows from it and from the processes there are."},
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "The same for evaluation."})
    lr_scheduler_type: str = field(default=COSINE, metadata={"help": "transformers' name of the schedule."})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's weight decay (not on 1-D parameters)."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Clip the gradient norm at this; 0: no clipping."})
    seed: int = field(default=0, metadata={"help": "Seed of everything that is random."})
    logging_steps: float = field(default=20, metadata={"help": "Log every so many updates."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide losses that are not finite from the log; training stops on them anyway."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start anew in an output folder that holds a run."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "DDP: look for parameters that got no gradient; there are none."}
    )
    print_learning_rates: bool = field(
        default=False, metadata={"help": "Print every parameter's learning rate and weight decay at the start."}
    )
    log_on_each_node: bool = field(default=False, metadata={"help": "Log on every node, or on the first alone."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Columns that the model does not take are ignored, so none need be removed."}
    )

    def __post_init__(self):
        if self.num_train_epochs <= 0 and self.max_steps <= 0:
            raise UsageError(f"num_train_epochs must be above 0, not {self.num_train_epochs}.")
        if self.warmup_epochs < 0:
            raise UsageError(f"warmup_epochs cannot be negative ({self.warmup_epochs}).")
        for name in ("base_learning_rate", "min_learning_rate", "learning_rate"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise UsageError(f"{name} cannot be negative ({value}).")
        if not (self.bf16 or self.fp16):  # as `accelerate launch` says: DeepSpeed wants the two to agree
            precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            self.bf16, self.fp16 = precision == "bf16", precision == "fp16"
        super().__post_init__()
        device = self.device  # joins the other processes
        if self.distributed_state is not None:
            use_fsdp_where_asked(self.distributed_state)
        if self.effective_batch_size is not None:
            self._derive_accumulation()
        if self.fp16 and device.type == "cpu":
            raise UsageError("fp16 needs a GPU: on a CPU use --bf16, or neither.")
        for tracker in self.report_to:
            if tracker not in get_available_reporting_integrations():
                raise UsageError(f"--report_to {tracker} needs a package that is not installed: pip install {tracker}.")

    def _derive_accumulation(self) -> None:
        """Accumulation steps from the effective batch size and the hardware."""
        asked, at_once = self.effective_batch_size, self.train_batch_size * self.world_size
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
    def images_per_update(self) -> int:
        """The effective batch: batch per device x devices x processes x accumulation."""
        return self.train_batch_size * self.gradient_accumulation_steps * self.world_size

    @property
    def absolute_learning_rate(self) -> float:
        """`learning_rate` where given, else base_learning_rate x effective batch / 256."""
        from .optim import linear_scaled_lr

        if self.learning_rate is not None:
            return self.learning_rate
        return linear_scaled_lr(self.base_learning_rate, self.images_per_update)


@dataclass
class FinetuningArguments(ReferenceTraining):
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
        drop_path: rate of stochastic depth of the last block; `hf-mae finetune` builds its model with it.
        patch_dropout: share of each image's patches that training leaves out, drawn anew every time.
        freeze_backbone: train the head alone (linear probe).
        early_stopping_patience: stop after so many evaluations without a better `metric_for_best_model`.
    """

    layer_decay: float = field(default=0.75, metadata={"help": "Layer-wise learning rate decay; 1 turns it off."})
    mixup: float = field(default=0.0, metadata={"help": "Alpha of mixup; 0: off."})
    cutmix: float = field(default=0.0, metadata={"help": "Alpha of CutMix; 0: off."})
    mixup_prob: float = field(default=1.0, metadata={"help": "Share of batches that are mixed."})
    mixup_switch_prob: float = field(default=0.5, metadata={"help": "Share of CutMix where both are on."})
    mixup_mode: str = field(
        default="batch", metadata={"help": "Mix per batch, pair or elem.", "choices": ["batch", "pair", "elem"]}
    )
    smoothing: float = field(default=0.1, metadata={"help": "Label smoothing."})
    class_weights: list[str] | None = field(
        default=None, metadata={"help": "none, balanced, or one weight for each class."}
    )
    drop_path: float = field(default=0.1, metadata={"help": "Stochastic depth rate of the last block."})
    patch_dropout: float = field(
        default=0.0,
        metadata={"help": "Share of each image's patches that training leaves out, which is faster; 0: none."},
    )
    freeze_backbone: bool = field(default=False, metadata={"help": "Train the head alone (linear probe)."})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without a better metric_for_best_model before training stops."}
    )

    def __post_init__(self):
        self.class_weights = parse_class_weights(self.class_weights)
        for name, low, high in (
            ("layer_decay", 0.0, 1.0),
            ("smoothing", 0.0, 1.0),
            ("drop_path", 0.0, 1.0),
            ("mixup_prob", 0.0, 1.0),
            ("mixup_switch_prob", 0.0, 1.0),
            ("patch_dropout", 0.0, 0.95),
            ("mixup", 0.0, None),
            ("cutmix", 0.0, None),
        ):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                raise UsageError(
                    f"{name} must be {f'between {low:g} and {high:g}' if high else 'at least 0'}, not {value}."
                )
        super().__post_init__()

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


def parse_class_weights(value) -> str | list[float]:
    """`none`, `balanced` or a list of floats from what a flag, a recipe or a caller gave."""
    words = [value] if isinstance(value, str) else list(value or ["none"])
    if len(words) == 1 and words[0] in ("none", "balanced"):
        return words[0]
    try:
        weights = [float(word) for word in words]
    except (TypeError, ValueError):
        raise UsageError(f"class_weights takes none, balanced or one number for each class, not {value!r}.") from None
    if min(weights) < 0 or not sum(weights) < float("inf"):
        raise UsageError(f"class_weights must be finite numbers of at least 0, not {weights}.")
    return weights


@dataclass
class PretrainingArguments(ReferenceTraining):
    """The same for masked pre-training; defaults of the reference's main_pretrain.py.

    Args:
        mask_ratio: share of the patches that are hidden; not given: the model's own.
        norm_pix_loss: predict patches normalised by their own mean and variance; not given: the model's own.
    """

    base_learning_rate: float = field(default=1.5e-4, metadata={"help": "Learning rate for an effective batch of 256."})
    min_learning_rate: float = field(default=0.0, metadata={"help": "Where the cosine ends."})
    warmup_epochs: float = field(default=40.0, metadata={"help": "Epochs of linear warm-up from 0."})
    num_train_epochs: float = field(default=400.0, metadata={"help": "Passes over the training images."})
    adam_beta2: float = field(default=0.95, metadata={"help": "AdamW's beta2."})
    mask_ratio: float | None = field(default=None, metadata={"help": "Share of hidden patches (0.1 to 0.9)."})
    norm_pix_loss: bool | None = field(
        default=None, metadata={"help": "Predict normalised patches.", "nargs": "?", "const": True}
    )

    def __post_init__(self):
        if self.mask_ratio is not None and not 0.0 < self.mask_ratio < 1.0:
            raise UsageError(f"mask_ratio must lie between 0 and 1, not {self.mask_ratio}.")
        super().__post_init__()


@dataclass
class ModelArguments:
    """What to start from."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "An MAE .pth, a converted folder, or a Hub id."}
    )
    pooling: str = field(
        default="auto",
        metadata={
            "help": "mean (of the patches, the reference's default), cls (class token), or auto.",
            "choices": ["auto", "mean", "cls"],
        },
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Pixels; position embeddings are resized. Not given: the checkpoint's."}
    )
    num_attention_heads: int | None = field(
        default=None, metadata={"help": "Where neither the width nor the checkpoint's args tell."}
    )
    random_weights: bool = field(
        default=False,
        metadata={"help": "Take the checkpoint's sizes alone, and fresh weights: what its pre-training is worth."},
    )

    @property
    def base(self) -> str:
        """What the weights come from, for whoever reads about the run."""
        return RANDOM_WEIGHTS if self.random_weights else self.model_name_or_path


@dataclass
class DataSourceArguments:
    """Where labelled images are."""

    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of class folders (with train/ val/ test/ or without), a CSV/JSONL manifest, or a Hub id."
        },
    )
    manifest: str | None = field(
        default=None, metadata={"help": "CSV or JSONL with file_name,label[,split]; names are relative to data_dir."}
    )
    benchmark: str | None = field(
        default=None,
        metadata={"help": "An endoscopy benchmark (hyperkvasir-16, gastrovision-22, ...); data_dir is its archive."},
    )
    fold: int = field(default=1, metadata={"help": "Official fold of a benchmark that has them: 1 or 2."})
    split_file: list[str] | None = field(
        default=None, metadata={"help": "Copies of the benchmark's official CSVs; not given: downloaded once."}
    )
    exclude_pairs: str | None = field(
        default=None,
        metadata={"help": "CSV of image pairs (of hf-mae audit, or published); both images of each are left out."},
    )
    group_column: str | None = field(
        default=None,
        metadata={"help": "Manifest column with the patient or video of an image. Not given: group, if there is one."},
    )
    group_pattern: str | None = field(
        default=None,
        metadata={"help": "Or a regular expression on file_name, whose first group is the patient or video."},
    )
    val_fraction: float = field(
        default=0.0,
        metadata={"help": "Held-out share of the training images (stratified by class, whole groups, seeded)."},
    )
    train_fraction: float = field(
        default=1.0,
        metadata={
            "help": "Share of the training images to use (stratified, seeded; a smaller share lies within a larger)."
        },
    )
    select_on: float = field(
        default=0.0,
        metadata={"help": "Share of the training images that chooses the epoch, in place of the validation split."},
    )
    on_bad_image: str = field(
        default="error",
        metadata={"help": "Stop at unreadable or duplicated files, or leave them out.", "choices": ["error", "skip"]},
    )
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "Threads that decode images. Not given: one for each core."}
    )


@dataclass
class DataArguments(DataSourceArguments):
    """Where the images are and how they are prepared."""

    transforms: str = field(
        default="endoscopy",
        metadata={"help": "Family of image transforms.", "choices": ["endoscopy", "imagenet"]},
    )
    mean_std: list[str] | None = field(
        default=None,
        metadata={"help": "auto (of the training images), imagenet, endoscopy, or six numbers: mean then std."},
    )
    auto_augment: str = field(
        default="rand-m9-mstd0.5-inc1", metadata={"help": "imagenet family: timm's RandAugment policy; none: off."}
    )
    random_erasing: float = field(default=0.25, metadata={"help": "imagenet family: probability of random erasing."})
    cache: bool = field(
        default=True, metadata={"help": "Keep decoded and resized images on disk, so that each is decoded once."}
    )
    cache_shortest_edge: int | None = field(
        default=None,
        metadata={
            "help": "imagenet family, whose crop comes first: images are kept with their shorter side at most this, "
            "and crops are cut from those. Not given: twice the image size; 0: crops are cut from the files themselves."
        },
    )

    def kept_shortest_edge(self, image_size: int) -> int | None:
        """`cache_shortest_edge` for images of a size; None: no image of the `imagenet` family is kept."""
        if not self.cache:
            return None
        return (2 * image_size if self.cache_shortest_edge is None else self.cache_shortest_edge) or None
