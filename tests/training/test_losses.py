"""The loss sums equal the reference's losses (timm, torch) once they are divided."""

import numpy as np
import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn

from hf_mae.training.losses import balanced_class_weights, cross_entropy_sum, label_weight

LOGITS = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 0, 1, 2])
WEIGHT = torch.tensor([0.2, 1.0, 3.0, 0.5, 2.0])


def mean(labels, weight=None, smoothing=0.0):
    return cross_entropy_sum(LOGITS, labels, weight, smoothing) / label_weight(labels, weight)


def test_smoothing_is_timms():
    torch.testing.assert_close(mean(LABELS, smoothing=0.1), LabelSmoothingCrossEntropy(0.1)(LOGITS, LABELS))


def test_soft_targets_are_timms():
    soft = torch.softmax(torch.randn(9, 5), dim=-1)
    torch.testing.assert_close(mean(soft), SoftTargetCrossEntropy()(LOGITS, soft))
    torch.testing.assert_close(mean(soft, smoothing=0.1), SoftTargetCrossEntropy()(LOGITS, soft))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_are_torchs(smoothing):
    expected = nn.CrossEntropyLoss(WEIGHT, label_smoothing=smoothing)(LOGITS, LABELS)
    torch.testing.assert_close(mean(LABELS, WEIGHT, smoothing), expected)


def test_one_hot_soft_targets_equal_class_ids():
    one_hot = nn.functional.one_hot(LABELS, 5).float()
    torch.testing.assert_close(mean(one_hot, WEIGHT), mean(LABELS, WEIGHT))


def test_balanced_weights_are_sklearns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = LABELS.numpy()
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    assert balanced_class_weights(labels, 5) == pytest.approx(expected)
    assert balanced_class_weights(labels, 6)[5] == 1.0
