"""Normalizers of the summed losses (`LOSSES`), class weights, and the prior of the logit-adjusted loss.

Separate sums and normalizers give the mean over the effective batch, however it is split into micro-batches and
processes.
"""

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .messages import TrainingMessage


def label_weight_sum(labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Computes the normalizer of a summed loss: the number of images, or the sum of their class weights. A float32
    scalar.

    For class ids this gives torch's weighted mean. Soft labels count with the weights of their classes. The minimum of
    1e-30 keeps the loss 0 if all classes in the batch have weight 0.
    """
    if weight is None:
        return torch.tensor(float(len(labels)), device=labels.device)
    weight = weight.to(labels.device)
    return (labels.float() @ weight if labels.ndim == 2 else weight[labels]).sum().clamp_min(1e-30)


def log_prior(labels: np.ndarray, num_labels: int) -> Tensor:
    """Logarithms of the class frequencies in the training set, float32 (classes,); an empty class counts as one image.

    Training with logits + tau x prior is the logit-adjusted loss of Menon et al., 2021, Long-tail learning via logit
    adjustment, equation 10. The logits of the model then correspond to equally frequent classes.
    """
    counts = torch.tensor(class_counts(labels, num_labels), dtype=torch.float32).clamp_min(1)
    return (counts / counts.sum()).log()


def class_counts(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Counts the images per class, (classes,).

    Raises:
        UsageError: If the labels are soft.
    """
    if labels.ndim == 2:
        raise UsageError(TrainingMessage.CLASS_COUNTS_OF_SOFT_LABELS)
    return np.bincount(labels, minlength=num_labels)


def check_number_of_weights(class_weights: str | list[float], num_labels: int) -> None:
    """Raises UsageError if there is not one weight per class."""
    if not isinstance(class_weights, str) and len(class_weights) != num_labels:
        raise UsageError(TrainingMessage.CLASS_WEIGHTS_DO_NOT_MATCH, found=len(class_weights), expected=num_labels)


def balanced_class_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Computes n / (classes x count), as scikit-learn's `compute_class_weight("balanced")`; 1 for an empty class."""
    counts = class_counts(labels, num_labels)
    weights = np.ones(num_labels)
    weights[counts > 0] = len(labels) / ((counts > 0).sum() * counts[counts > 0])
    return weights
