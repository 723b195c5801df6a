"""Cross-entropy as a sum over images and the weight that it is to be divided by.

Keeping the two apart lets the loss be the mean over the whole effective batch, however that was split into
micro-batches and processes.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UsageError


def cross_entropy_sum(logits: Tensor, labels: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Sum over the images of their (weighted, smoothed) cross-entropy, in float32.

    Args:
        logits: (batch, classes).
        labels: class ids (batch,), or soft targets (batch, classes), which are never smoothed again.
        weight: one for each class, (classes,).
        smoothing: as timm's LabelSmoothingCrossEntropy and torch's `label_smoothing`.
    """
    if labels.ndim == 2:
        return F.cross_entropy(logits.float(), labels.float(), weight, reduction="sum")
    return F.cross_entropy(logits.float(), labels, weight, reduction="sum", label_smoothing=smoothing)


def label_weight(labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """What the sum is divided by: the number of images, or the sum of their class weights. A float32 scalar.

    For class ids this is torch's weighted mean; soft targets count with the weights of their classes. Where all of them
    are classes of weight 0 it is next to nothing, so that their loss, 0, stays 0.
    """
    if weight is None:
        return torch.tensor(float(len(labels)), device=labels.device)
    weight = weight.to(labels.device)
    return (labels.float() @ weight if labels.ndim == 2 else weight[labels]).sum().clamp_min(1e-30)


def balanced_class_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """n / (classes x count), as sklearn's `compute_class_weight("balanced")`; 1 for a class without images."""
    if labels.ndim == 2:
        raise UsageError("class_weights balanced needs class ids, and the labels are soft targets: give the weights.")
    counts = np.bincount(labels, minlength=num_labels)
    weights = np.ones(num_labels)
    weights[counts > 0] = len(labels) / ((counts > 0).sum() * counts[counts > 0])
    return weights
