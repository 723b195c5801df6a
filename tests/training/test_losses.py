"""The loss sums equal the reference's losses (timm, torch) once they are divided."""

import numpy as np
import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn

from hf_mae.errors import UsageError
from hf_mae.training.losses import (
    balanced_class_weights,
    cross_entropy_sum,
    focal_sum,
    label_weight_sum,
    log_prior,
    ordinal_sum,
)

LOGITS = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 0, 1, 2])
WEIGHT = torch.tensor([0.2, 1.0, 3.0, 0.5, 2.0])


def mean(labels, weight=None, smoothing=0.0):
    return cross_entropy_sum(LOGITS, labels, weight, smoothing) / label_weight_sum(labels, weight)


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


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_focal_loss_without_its_power_is_cross_entropy(weight):
    soft = torch.softmax(LOGITS.flip(0), dim=-1)
    for labels, smoothing in ((LABELS, 0.0), (LABELS, 0.1), (soft, 0.1)):
        expected = cross_entropy_sum(LOGITS, labels, weight, smoothing)
        torch.testing.assert_close(focal_sum(LOGITS, labels, 0.0, weight, smoothing), expected)


def test_focal_loss_of_two_classes_is_torchvisions():
    from torchvision.ops import sigmoid_focal_loss

    logits, labels = LOGITS[:, 0], LABELS % 2
    expected = sigmoid_focal_loss(logits, labels.float(), alpha=-1, gamma=2.0, reduction="sum")
    both = torch.stack([torch.zeros_like(logits), logits], dim=-1)
    torch.testing.assert_close(focal_sum(both, labels, 2.0), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_what_is_surely_right_has_no_gradient(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    focal_sum(logits, torch.tensor([0, 1]), gamma).backward()
    assert torch.equal(logits.grad, torch.zeros(2, 2))


def test_logits_of_equally_frequent_classes_come_of_the_adjusted_loss():
    """Bayes: of p(x | y) alone, the loss of adjusted logits is least at log p(x | y), whatever the classes' shares."""
    labels, prior = np.repeat([0, 1], [90, 10]), log_prior(np.repeat([0, 1], [90, 10]), 2)
    torch.testing.assert_close(prior.exp(), torch.tensor([0.9, 0.1]))
    seen = torch.tensor(np.concatenate([np.arange(90) % 3 == 0, np.arange(10) % 2 == 0]).astype(int))  # 1/3 and 1/2
    table = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)  # logits of what is seen
    optimizer = torch.optim.LBFGS([table], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(table[seen] + prior, torch.tensor(labels))
        value.backward()
        return value

    optimizer.step(loss)
    expected = torch.tensor([[2 / 3, 1 / 2], [1 / 3, 1 / 2]], dtype=torch.float64)
    torch.testing.assert_close(table.softmax(-1).detach(), expected / expected.sum(-1, keepdim=True), atol=1e-4, rtol=0)


def test_a_class_without_images_has_a_prior_and_soft_targets_have_none():
    assert log_prior(np.array([0, 0, 0, 1]), 3).tolist() == pytest.approx(np.log([3 / 5, 1 / 5, 1 / 5]))
    for given in (log_prior, balanced_class_weights):
        with pytest.raises(UsageError, match="Soft targets have no counts"):
            given(np.eye(3), 3)


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_class_distance_weighted_cross_entropy_is_the_papers_and_dlordinals(alpha):
    from dlordinal.losses import CDWCELoss

    scores = LOGITS.double().softmax(-1)
    by_hand = -sum(
        abs(grade - label) ** alpha * torch.log(1 - scores[image, grade])
        for image, label in enumerate(LABELS.tolist())
        for grade in range(5)
    )
    found = ordinal_sum(LOGITS, LABELS, "cdw", alpha)
    torch.testing.assert_close(found.double(), by_hand, rtol=1e-5, atol=0)
    torch.testing.assert_close(found / len(LABELS), CDWCELoss(5, alpha)(LOGITS, LABELS), rtol=1e-5, atol=0)
    own = sum(ordinal_sum(LOGITS[[i]], LABELS[[i]], "cdw", alpha) * WEIGHT[LABELS[i]] for i in range(9))
    torch.testing.assert_close(ordinal_sum(LOGITS, LABELS, "cdw", alpha, WEIGHT), own)


def test_squared_earth_movers_distance_is_the_papers_and_dlordinals():
    from dlordinal.losses import EMDLoss

    found = ordinal_sum(LOGITS, LABELS, "emd", 0.0)
    cumulative = LOGITS.softmax(-1).cumsum(-1)
    steps = (torch.arange(5) >= LABELS[:, None]).float()
    torch.testing.assert_close(found, ((cumulative - steps) ** 2).sum())
    torch.testing.assert_close(found / len(LABELS), EMDLoss(5)(LOGITS, LABELS))


@pytest.mark.parametrize("loss", ["cdw", "emd"])
def test_losses_of_grades_are_finite_and_know_what_is_far(loss):
    sure = torch.tensor([[200.0, 0.0, 0.0, 0.0]], requires_grad=True)
    far = ordinal_sum(sure, torch.tensor([3]), loss, 2.0)
    near = ordinal_sum(sure, torch.tensor([1]), loss, 2.0)
    far.backward()
    assert far > 2 * near > 0 and torch.isfinite(far) and torch.isfinite(sure.grad).all()
    assert ordinal_sum(sure, torch.tensor([0]), loss, 2.0).item() == pytest.approx(0.0, abs=1e-6)
    soft = torch.tensor([[0.0, 0.5, 0.5, 0.0]])
    one_hot = torch.eye(4)[[1]]
    torch.testing.assert_close(
        ordinal_sum(LOGITS[:1, :4], one_hot, loss, 2.0), ordinal_sum(LOGITS[:1, :4], torch.tensor([1]), loss, 2.0)
    )
    assert ordinal_sum(LOGITS[:1, :4], soft, loss, 2.0) > 0
