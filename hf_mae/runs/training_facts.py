"""Facts about a completed training: length, optimizer, schedule, trained parameters, loss and augmentation.

`runs.training_record` reads them from the trainer after training; they are what was done, not what was requested.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class TrainedPart(str, Enum):
    """Which parameters were trained."""

    ALL = "all"
    HEAD = "head"  # the classification head only
    PART = "part"


@dataclass(frozen=True)
class Optimizer:
    """The optimizer.

    Args:
        name: its class.
        base_learning_rate: rate of the linear scaling rule (for 256 images per update); None: not used.
        weight_decay: the largest of its parameter groups.
        layer_decay: decay of the learning rate by layer; 1: all trained layers have the same rate.
        betas: of Adam and its variants.
        momentum: of SGD.
        max_grad_norm: gradients were clipped to this norm; 0: not clipped.
    """

    name: str
    base_learning_rate: float | None
    weight_decay: float
    layer_decay: float
    betas: list[float] | None
    momentum: float | None
    max_grad_norm: float


@dataclass(frozen=True)
class Schedule:
    """The learning-rate schedule.

    Args:
        name: of transformers.
        warmup_updates: updates of warm-up.
        final_learning_rate: learning rate of the head at the end of training.
    """

    name: str
    warmup_updates: float
    final_learning_rate: float


@dataclass(frozen=True)
class Objective:
    """What was minimized.

    Args:
        loss: key of `LOSSES`.
        parameters: hyper-parameters of the loss.
        smoothing: label smoothing; 0: none.
        class_weights: by class; None: none.
        balanced: whether these weights are computed from the numbers of images.
        logit_adjustment: tau; 0: none.
        sampling: key of `SAMPLING_EXPONENTS`.
    """

    loss: str
    parameters: dict[str, float]
    smoothing: float
    class_weights: dict[str, float] | None
    balanced: bool
    logit_adjustment: float
    sampling: str


@dataclass(frozen=True)
class Augmentation:
    """Random changes of images and network in training; 0 or None: not applied.

    Args:
        transforms: family of transforms (`endoscopy`: flips and rotation; `imagenet`: random crop and flip).
        auto_augment, random_erasing: of the family `imagenet`.
        mixup, cutmix: alpha.
        mixup_prob: probability of mixup or CutMix per batch.
        drop_path: stochastic depth rate of the last block.
        patch_dropout: fraction of dropped patches.
    """

    transforms: str
    auto_augment: str | None
    random_erasing: float
    mixup: float
    cutmix: float
    mixup_prob: float
    drop_path: float
    patch_dropout: float


@dataclass(frozen=True)
class Training:
    """Facts about the training of a run.

    Args:
        seconds: training time, including that of the processes that a resumed run continued.
        updates: number of optimizer updates.
        learning_rate: absolute learning rate of the head.
        effective_batch_size: images per update.
        metrics: metrics of the Trainer (`train_loss`, `train_runtime`...).
        epochs: completed epochs, which may be a fraction.
        planned_updates: updates of the complete training; early stopping makes fewer.
        planned_epochs: requested epochs; None: the length was given in updates.
        early_stopping_patience: evaluations without improvement that end the training; None: no early stopping.
        resumes: how often the training was resumed from a checkpoint.
        processes: number of processes at the end.
        precision: `bf16` or `fp16` (mixed precision), or the type of the weights.
        parameters, trained_parameters: their number.
        trained_part: which parameters were trained.
        seed: random seed.
        objective, augmentation: of a fine-tuning.
    """

    seconds: float
    updates: int
    learning_rate: float
    effective_batch_size: int
    metrics: dict[str, Any] = field(default_factory=dict)
    epochs: float = 0.0
    planned_updates: int = 0
    planned_epochs: float | None = None
    early_stopping_patience: int | None = None
    resumes: int = 0
    processes: int = 1
    precision: str = "float32"
    parameters: int = 0
    trained_parameters: int = 0
    trained_part: TrainedPart = TrainedPart.ALL
    seed: int = 0
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    objective: Objective | None = None
    augmentation: Augmentation | None = None

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping ended the training."""
        return self.updates < self.planned_updates
