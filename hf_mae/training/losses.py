"""Losses as sums over images, and the normalizers to divide them by.

Separate sums and normalizers give the mean over the effective batch, however it is split into micro-batches and
processes.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UsageError
from .messages import TrainingMessage


def cross_entropy_sum(logits: Tensor, labels: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Computes the sum of the (weighted, smoothed) cross-entropy over the images, in float32.

    Args:
        logits: (batch, classes).
        labels: class ids (batch,), or soft labels (batch, classes), which are not smoothed.
        weight: class weights (classes,).
        smoothing: as in timm's LabelSmoothingCrossEntropy and torch's `label_smoothing`.
    """
    if labels.ndim == 2:
        return F.cross_entropy(logits.float(), labels.float(), weight, reduction="sum")
    return F.cross_entropy(logits.float(), labels, weight, reduction="sum", label_smoothing=smoothing)


def focal_sum(
    logits: Tensor, labels: Tensor, gamma: float, weight: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Computes the sum of the focal loss over the images, in float32: -sum_k y_k (1 - p_k)^gamma log p_k.

    Gamma 0 gives `cross_entropy_sum`. Source: Lin et al., 2017, Focal loss for dense object detection, equation 4, with
    a softmax and a weight (alpha) per class.

    Args:
        logits: (batch, classes).
        labels: class ids (batch,), or soft labels (batch, classes), which are not smoothed.
        weight: class weights (classes,).
    """
    classes = logits.shape[-1]
    targets = labels.float()
    if labels.ndim == 1:
        targets = F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    log_probs = logits.float().log_softmax(-1)
    losses = -targets * (1 - log_probs.exp()).clamp_min(0) ** gamma * log_probs
    return (losses if weight is None else losses * weight).sum()


def ordinal_sum(logits: Tensor, labels: Tensor, loss: str, alpha: float, weight: Tensor | None = None) -> Tensor:
    """Computes the sum of a loss for ordered classes (grades) over the images, in float32.

    - `cdw`: -sum_i |i - c|^alpha log(1 - p_i) for the true grade c (Polat et al., 2022, Class distance weighted
      cross-entropy loss for ulcerative colitis severity estimation, equation 2).
    - `emd`: sum_i (P_i - Y_i)^2 of cumulative probabilities and labels (Hou et al., 2016, Squared earth mover's
      distance-based loss for training deep neural networks; without the constant factor, as in dlordinal).

    Args:
        logits: (batch, grades).
        labels: grades (batch,), or soft labels (batch, grades), which weight the `cdw` of each grade.
        weight: class weights (grades,).
    """
    grades = logits.shape[-1]
    targets = labels.float() if labels.ndim == 2 else F.one_hot(labels, grades).float()
    if loss == "emd":
        losses = (logits.float().log_softmax(-1).exp().cumsum(-1) - targets.cumsum(-1)).square().sum(-1)
    else:
        ranks = torch.arange(grades, device=logits.device)
        distances = (ranks[:, None] - ranks).abs().float() ** alpha  # 0 at the true grade, 1 next to it
        others = logits.float()[:, None].masked_fill(
            torch.eye(grades, dtype=torch.bool, device=logits.device), -torch.inf
        )
        log_complement = others.logsumexp(-1) - logits.float().logsumexp(-1, keepdim=True)  # log(1 - p_i)
        losses = -(targets @ distances * log_complement).sum(-1)
    return (losses if weight is None else losses * (targets @ weight)).sum()


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


def balanced_class_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Computes n / (classes x count), as scikit-learn's `compute_class_weight("balanced")`; 1 for an empty class."""
    counts = class_counts(labels, num_labels)
    weights = np.ones(num_labels)
    weights[counts > 0] = len(labels) / ((counts > 0).sum() * counts[counts > 0])
    return weights
