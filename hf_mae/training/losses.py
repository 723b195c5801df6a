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


def focal_sum(
    logits: Tensor, labels: Tensor, gamma: float, weight: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Sum over the images of the focal loss of their classes, in float32: -sum_k y_k (1 - p_k)^gamma log p_k.

    With gamma 0 this is `cross_entropy_sum`. Source: Lin et al., 2017, Focal loss for dense object detection,
    equation 4, with a softmax and a weight (alpha) for each class.

    Args:
        logits: (batch, classes).
        labels: class ids (batch,), or soft targets (batch, classes), which are never smoothed again.
        weight: one for each class, (classes,).
    """
    classes = logits.shape[-1]
    targets = labels.float()
    if labels.ndim == 1:
        targets = F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    scores = logits.float().log_softmax(-1)
    each = -targets * (1 - scores.exp()).clamp_min(0) ** gamma * scores
    return (each if weight is None else each * weight).sum()


def ordinal_sum(logits: Tensor, labels: Tensor, loss: str, alpha: float, weight: Tensor | None = None) -> Tensor:
    """Sum over the images of a loss that knows how far apart grades are, in float32.

    - `cdw`: -sum_i |i - c|^alpha log(1 - p_i), of the true grade c (Polat et al., 2022, Class distance weighted
      cross-entropy loss for ulcerative colitis severity estimation, equation 2).
    - `emd`: sum_i (P_i - Y_i)^2 of the cumulative scores and labels (Hou et al., 2016, Squared earth mover's
      distance-based loss for training deep neural networks; without its constant factor, as dlordinal's).

    Args:
        logits: (batch, grades).
        labels: grades (batch,), or soft targets (batch, grades), over which `cdw` is the mean.
        weight: one for each grade, (grades,).
    """
    grades = logits.shape[-1]
    targets = labels.float() if labels.ndim == 2 else F.one_hot(labels, grades).float()
    scores = logits.float().log_softmax(-1)
    if loss == "emd":
        each = (scores.exp().cumsum(-1) - targets.cumsum(-1)).square().sum(-1)
    else:
        places = torch.arange(grades, device=logits.device)
        apart = (places[:, None] - places).abs().float() ** alpha  # 0 at the true grade, 1 next to it
        others = logits.float()[:, None].masked_fill(
            torch.eye(grades, dtype=torch.bool, device=logits.device), -torch.inf
        )
        not_this = others.logsumexp(-1) - logits.float().logsumexp(-1, keepdim=True)  # log(1 - p_i)
        each = -(targets @ apart * not_this).sum(-1)
    return (each if weight is None else each * (targets @ weight)).sum()


def label_weight_sum(labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """What the sum is divided by: the number of images, or the sum of their class weights. A float32 scalar.

    For class ids this is torch's weighted mean; soft targets count with the weights of their classes. Where all of them
    are classes of weight 0 it is next to nothing, so that their loss, 0, stays 0.
    """
    if weight is None:
        return torch.tensor(float(len(labels)), device=labels.device)
    weight = weight.to(labels.device)
    return (labels.float() @ weight if labels.ndim == 2 else weight[labels]).sum().clamp_min(1e-30)


def log_prior(labels: np.ndarray, num_labels: int) -> Tensor:
    """Logarithms of the classes' shares of the training images, float32 (classes,); a class without images counts as
    having one.

    Added to the logits in training, times tau, they give the logit-adjusted loss of Menon et al., 2021, Long-tail
    learning via logit adjustment, equation 10: the model's own logits are then those of equally frequent classes.
    """
    counts = torch.tensor(class_counts(labels, num_labels), dtype=torch.float32).clamp_min(1)
    return (counts / counts.sum()).log()


def class_counts(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Images of each class, (classes,).

    Raises:
        UsageError: the labels are soft targets.
    """
    if labels.ndim == 2:
        raise UsageError("Soft targets have no counts of classes, so give class_weights as numbers.")
    return np.bincount(labels, minlength=num_labels)


def balanced_class_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """n / (classes x count), as sklearn's `compute_class_weight("balanced")`; 1 for a class without images."""
    counts = class_counts(labels, num_labels)
    weights = np.ones(num_labels)
    weights[counts > 0] = len(labels) / ((counts > 0).sum() * counts[counts > 0])
    return weights
