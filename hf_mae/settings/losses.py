"""`LOSSES`: the losses of fine-tuning. Choices, checks, flags of hyper-parameters and texts are derived from it.

A loss is one entry. Its function returns a sum over images, in float32: `MaeFinetuner` divides it by the number of
images (or by the sum of their class weights) of the effective batch. The functions import torch, this module does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..registry import Registry
from .citations import Citation
from .options import option

if TYPE_CHECKING:
    from torch import Tensor

# Options that a loss may not support.
SMOOTHING, CLASS_WEIGHTS, LOGIT_ADJUSTMENT, SOFT_LABELS = "smoothing", "class_weights", "logit_adjustment", "mixup"
ALL_OPTIONS = frozenset({SMOOTHING, CLASS_WEIGHTS, LOGIT_ADJUSTMENT, SOFT_LABELS})


@dataclass(frozen=True)
class Loss:
    """A loss.

    Args:
        name: value of `--loss`.
        help: help text, a phrase.
        function: computes the sum of the losses of images from logits (images, classes), class ids (images,) or soft
            labels (images, classes), the weights of the classes (classes,) or None, and, as keyword arguments,
            `smoothing` and the `parameters`.
        methods: phrase for the description of a study; it may contain `{cite}` and `{NAME}` of a parameter.
        parameters: hyper-parameters (numbers): name of the flag -> `settings.options.option(...)` with its bounds.
        needs_ordered_classes: whether the classes must be grades, in the order of their ids.
        supports: those of `ALL_OPTIONS` that the loss supports. Label smoothing is off if it is not supported.
        citation: reference.
    """

    name: str
    help: str
    function: Callable[..., Tensor]
    methods: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs_ordered_classes: bool = False
    supports: frozenset[str] = ALL_OPTIONS
    citation: Citation | None = None

    def compute(self, logits: Tensor, labels: Tensor, weight: Tensor | None, args: Any) -> Tensor:
        """Computes the sum over the images with the hyper-parameters of `FinetuningArguments`."""
        names = [*self.parameters, *([SMOOTHING] if SMOOTHING in self.supports else [])]
        return self.function(logits, labels, weight, **{name: getattr(args, name) for name in names})

    @property
    def help_text(self) -> str:
        """The help text, with what the loss needs."""
        needs = ", for ordinal classes (--class_order)" if self.needs_ordered_classes else ""
        lacks = "" if SMOOTHING in self.supports else ", without label smoothing"
        return f"{self.name}: {self.help}{needs}{lacks}"


LOSSES: Registry[Loss] = Registry()


def cross_entropy_sum(logits: Tensor, labels: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Computes the sum of the (weighted, smoothed) cross-entropy over the images, in float32.

    Args:
        logits: (batch, classes).
        labels: class ids (batch,), or soft labels (batch, classes), which are not smoothed.
        weight: class weights (classes,).
        smoothing: as in timm's LabelSmoothingCrossEntropy and torch's `label_smoothing`.
    """
    from torch.nn.functional import cross_entropy

    if labels.ndim == 2:
        return cross_entropy(logits.float(), labels.float(), weight, reduction="sum")
    return cross_entropy(logits.float(), labels, weight, reduction="sum", label_smoothing=smoothing)


LOSSES.add(Loss("cross_entropy", "cross-entropy", cross_entropy_sum, "cross-entropy"))


def focal_sum(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, *, focal_gamma: float, smoothing: float = 0.0
) -> Tensor:
    """Computes the sum of the focal loss over the images, in float32: -sum_k y_k (1 - p_k)^gamma log p_k.

    Gamma 0 gives `cross_entropy_sum`. Source: Lin et al., 2017, Focal loss for dense object detection, equation 4, with
    a softmax and a weight (alpha) per class.

    Args:
        logits: (batch, classes).
        labels: class ids (batch,), or soft labels (batch, classes), which are not smoothed.
        weight: class weights (classes,).
    """
    from torch.nn.functional import one_hot

    classes = logits.shape[-1]
    targets = labels.float()
    if labels.ndim == 1:
        targets = one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    log_probs = logits.float().log_softmax(-1)
    losses = -targets * (1 - log_probs.exp()).clamp_min(0) ** focal_gamma * log_probs
    return (losses if weight is None else losses * weight).sum()


LOSSES.add(
    Loss(
        "focal",
        "focal loss, for class imbalance (Lin et al., 2017)",
        focal_sum,
        "the focal loss {cite} with a gamma of {focal_gamma:g}",
        parameters={
            "focal_gamma": option(2.0, "Focusing parameter gamma of the focal loss.", hidden=True, ge=0),
        },
        citation=Citation(
            "lin2017focal",
            "inproceedings",
            "Lin, Tsung-Yi and Goyal, Priya and Girshick, Ross and He, Kaiming and Dollar, Piotr",
            "Focal loss for dense object detection",
            {"booktitle": "ICCV", "year": "2017", "doi": "10.1109/ICCV.2017.324"},
        ),
    )
)


def cdw_sum(logits: Tensor, labels: Tensor, weight: Tensor | None = None, *, cdw_alpha: float) -> Tensor:
    """Computes the sum over the images of -sum_i |i - c|^alpha log(1 - p_i), for the true grade c, in float32.

    Source: Polat et al., 2022, Class distance weighted cross-entropy loss for ulcerative colitis severity estimation,
    equation 2.

    Args:
        logits: (batch, grades).
        labels: grades (batch,), or soft labels (batch, grades), which weight the loss of each grade.
        weight: class weights (grades,).
    """
    import torch

    grades = logits.shape[-1]
    targets = _to_soft_labels(labels, grades)
    ranks = torch.arange(grades, device=logits.device)
    distances = (ranks[:, None] - ranks).abs().float() ** cdw_alpha  # 0 at the true grade, 1 next to it
    others = logits.float()[:, None].masked_fill(torch.eye(grades, dtype=torch.bool, device=logits.device), -torch.inf)
    log_complement = others.logsumexp(-1) - logits.float().logsumexp(-1, keepdim=True)  # log(1 - p_i)
    losses = -(targets @ distances * log_complement).sum(-1)
    return (losses if weight is None else losses * (targets @ weight)).sum()


LOSSES.add(
    Loss(
        "cdw",
        "class-distance-weighted cross-entropy (Polat et al., 2022)",
        cdw_sum,
        "class distance weighted cross-entropy {cite}",
        parameters={
            "cdw_alpha": option(5.0, "Power of the distance between grades in the cdw loss.", hidden=True, gt=0),
        },
        needs_ordered_classes=True,
        supports=frozenset({CLASS_WEIGHTS, SOFT_LABELS}),
        citation=Citation(
            "polat2022cdw",
            "inproceedings",
            "Polat, Gorkem and Ergenc, Ilkay and Kani, Haluk Tarik and others",
            "Class distance weighted cross-entropy loss for ulcerative colitis severity estimation",
            {"booktitle": "MIUA", "year": "2022", "doi": "10.1007/978-3-031-12053-4_12"},
        ),
    )
)


def emd_sum(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Computes the sum over the images of sum_i (P_i - Y_i)^2 of cumulative probabilities and labels, in float32.

    Source: Hou et al., 2016, Squared earth mover's distance-based loss for training deep neural networks; without the
    constant factor, as in dlordinal.

    Args:
        logits: (batch, grades).
        labels: grades (batch,), or soft labels (batch, grades).
        weight: class weights (grades,).
    """
    targets = _to_soft_labels(labels, logits.shape[-1])
    losses = (logits.float().log_softmax(-1).exp().cumsum(-1) - targets.cumsum(-1)).square().sum(-1)
    return (losses if weight is None else losses * (targets @ weight)).sum()


LOSSES.add(
    Loss(
        "emd",
        "squared earth mover's distance (Hou et al., 2016)",
        emd_sum,
        "the squared earth mover's distance {cite}",
        needs_ordered_classes=True,
        supports=frozenset({CLASS_WEIGHTS, SOFT_LABELS}),
        citation=Citation(
            "hou2016emd",
            "article",
            "Hou, Le and Yu, Chen-Ping and Samaras, Dimitris",
            "Squared earth mover's distance-based loss for training deep neural networks",
            {"journal": "arXiv:1611.05916", "year": "2016"},
        ),
    )
)


def _to_soft_labels(labels: Tensor, classes: int) -> Tensor:
    """Returns float labels (batch, classes) of class ids (batch,) or soft labels."""
    from torch.nn.functional import one_hot

    return labels.float() if labels.ndim == 2 else one_hot(labels, classes).float()
