"""Settings that `--auto` chose, with the reasons as facts; `reporting.plan_summary` has their sentences."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class AutoReason(str, Enum):
    """Why `--auto` chose a setting; the comment names its values."""

    NO_VALIDATION_SPLIT = "no_validation_split"
    SIZE_OF_CHECKPOINT = "size_of_checkpoint"
    NO_GPU = "no_gpu"
    BFLOAT16 = "bfloat16"
    NO_BFLOAT16 = "no_bfloat16"
    NO_BFLOAT16_FOR_HUGE_MODEL = "no_bfloat16_for_huge_model"
    CPU_CORES = "cpu_cores"  # cores
    UPDATES_PER_EPOCH = "updates_per_epoch"  # images, updates
    FITS_INTO_MEMORY = "fits_into_memory"
    SQUARE_ROOT_OF_BATCH_SIZE = "square_root_of_batch_size"  # batch_size
    TRAINING_IMAGES = "training_images"  # images
    TENTH_OF_EPOCHS = "tenth_of_epochs"
    CLASS_RATIO = "class_ratio"  # ratio
    IMBALANCE_AND_RECALL = "imbalance_and_recall"  # ratio, metric
    IMBALANCE_AND_PRECISION = "imbalance_and_precision"  # ratio
    SIZE_OF_MODEL = "size_of_model"  # is_large


@dataclass(frozen=True)
class AutoSetting:
    """A chosen setting, its reason, and the numbers and names of the reason."""

    name: str
    value: Any
    reason: AutoReason
    values: dict[str, Any] = field(default_factory=dict)
