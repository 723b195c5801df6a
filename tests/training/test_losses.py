"""The normalized loss sums equal the losses of timm, torch, scikit-learn and dlordinal."""

import inspect
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from support.messages import raises
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn

from hf_mae.settings.arguments import FinetuningArguments
from hf_mae.settings.losses import LOSSES, cdw_sum, cross_entropy_sum, emd_sum, focal_sum
from hf_mae.settings.messages import SettingsMessage
from hf_mae.training.losses import balanced_class_weights, label_weight_sum, log_prior
from hf_mae.training.messages import TrainingMessage

LOGITS = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 0, 1, 2])
WEIGHT = torch.tensor([0.2, 1.0, 3.0, 0.5, 2.0])


def mean(labels, weight=None, smoothing=0.0):
    return cross_entropy_sum(LOGITS, labels, weight, smoothing) / label_weight_sum(labels, weight)


def test_label_smoothing_equals_timm():
    torch.testing.assert_close(mean(LABELS, smoothing=0.1), LabelSmoothingCrossEntropy(0.1)(LOGITS, LABELS))


def test_soft_labels_equal_timm():
    soft = torch.softmax(torch.randn(9, 5), dim=-1)
    torch.testing.assert_close(mean(soft), SoftTargetCrossEntropy()(LOGITS, soft))
    torch.testing.assert_close(mean(soft, smoothing=0.1), SoftTargetCrossEntropy()(LOGITS, soft))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_equal_torch(smoothing):
    expected = nn.CrossEntropyLoss(WEIGHT, label_smoothing=smoothing)(LOGITS, LABELS)
    torch.testing.assert_close(mean(LABELS, WEIGHT, smoothing), expected)


def test_one_hot_soft_targets_equal_class_ids():
    one_hot = nn.functional.one_hot(LABELS, 5).float()
    torch.testing.assert_close(mean(one_hot, WEIGHT), mean(LABELS, WEIGHT))


def test_balanced_weights_equal_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = LABELS.numpy()
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    assert balanced_class_weights(labels, 5) == pytest.approx(expected)
    assert balanced_class_weights(labels, 6)[5] == 1.0


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_focal_loss_with_gamma_zero_is_cross_entropy(weight):
    soft = torch.softmax(LOGITS.flip(0), dim=-1)
    for labels, smoothing in ((LABELS, 0.0), (LABELS, 0.1), (soft, 0.1)):
        expected = cross_entropy_sum(LOGITS, labels, weight, smoothing)
        torch.testing.assert_close(focal_sum(LOGITS, labels, weight, focal_gamma=0.0, smoothing=smoothing), expected)


def test_focal_loss_of_two_classes_equals_torchvision():
    from torchvision.ops import sigmoid_focal_loss

    logits, labels = LOGITS[:, 0], LABELS % 2
    expected = sigmoid_focal_loss(logits, labels.float(), alpha=-1, gamma=2.0, reduction="sum")
    both = torch.stack([torch.zeros_like(logits), logits], dim=-1)
    torch.testing.assert_close(focal_sum(both, labels, focal_gamma=2.0), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_certain_predictions_has_zero_gradient(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    focal_sum(logits, torch.tensor([0, 1]), focal_gamma=gamma).backward()
    assert torch.equal(logits.grad, torch.zeros(2, 2))


def test_logit_adjustment_gives_the_logits_of_equally_frequent_classes():
    """Bayes: the minimum of the loss of adjusted logits is at log p(x | y), for any class frequencies."""
    labels, prior = np.repeat([0, 1], [90, 10]), log_prior(np.repeat([0, 1], [90, 10]), 2)
    torch.testing.assert_close(prior.exp(), torch.tensor([0.9, 0.1]))
    features = torch.tensor(np.concatenate([np.arange(90) % 3 == 0, np.arange(10) % 2 == 0]).astype(int))  # 1/3 and 1/2
    table = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)  # logits by feature
    optimizer = torch.optim.LBFGS([table], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(table[features] + prior, torch.tensor(labels))
        value.backward()
        return value

    optimizer.step(loss)
    expected = torch.tensor([[2 / 3, 1 / 2], [1 / 3, 1 / 2]], dtype=torch.float64)
    torch.testing.assert_close(table.softmax(-1).detach(), expected / expected.sum(-1, keepdim=True), atol=1e-4, rtol=0)


def test_an_empty_class_has_a_prior_and_soft_labels_are_rejected():
    assert log_prior(np.array([0, 0, 0, 1]), 3).tolist() == pytest.approx(np.log([3 / 5, 1 / 5, 1 / 5]))
    for function in (log_prior, balanced_class_weights):
        with raises(TrainingMessage.CLASS_COUNTS_OF_SOFT_LABELS):
            function(np.eye(3), 3)


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_class_distance_weighted_cross_entropy_equals_its_formula_and_dlordinal(alpha):
    from dlordinal.losses import CDWCELoss

    scores = LOGITS.double().softmax(-1)
    by_hand = -sum(
        abs(grade - label) ** alpha * torch.log(1 - scores[image, grade])
        for image, label in enumerate(LABELS.tolist())
        for grade in range(5)
    )
    loss = cdw_sum(LOGITS, LABELS, cdw_alpha=alpha)
    torch.testing.assert_close(loss.double(), by_hand, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss / len(LABELS), CDWCELoss(5, alpha)(LOGITS, LABELS), rtol=1e-5, atol=0)
    weighted = sum(cdw_sum(LOGITS[[i]], LABELS[[i]], cdw_alpha=alpha) * WEIGHT[LABELS[i]] for i in range(9))
    torch.testing.assert_close(cdw_sum(LOGITS, LABELS, WEIGHT, cdw_alpha=alpha), weighted)


def test_squared_earth_movers_distance_equals_its_formula_and_dlordinal():
    from dlordinal.losses import EMDLoss

    loss = emd_sum(LOGITS, LABELS)
    cumulative = LOGITS.softmax(-1).cumsum(-1)
    steps = (torch.arange(5) >= LABELS[:, None]).float()
    torch.testing.assert_close(loss, ((cumulative - steps) ** 2).sum())
    torch.testing.assert_close(loss / len(LABELS), EMDLoss(5)(LOGITS, LABELS))


@pytest.mark.parametrize("ordinal_sum", [partial(cdw_sum, cdw_alpha=2.0), emd_sum], ids=["cdw", "emd"])
def test_ordinal_losses_are_finite_and_increase_with_the_distance(ordinal_sum):
    certain = torch.tensor([[200.0, 0.0, 0.0, 0.0]], requires_grad=True)
    far = ordinal_sum(certain, torch.tensor([3]))
    near = ordinal_sum(certain, torch.tensor([1]))
    far.backward()
    assert far > 2 * near > 0 and torch.isfinite(far) and torch.isfinite(certain.grad).all()
    assert ordinal_sum(certain, torch.tensor([0])).item() == pytest.approx(0.0, abs=1e-6)
    soft = torch.tensor([[0.0, 0.5, 0.5, 0.0]])
    one_hot = torch.eye(4)[[1]]
    torch.testing.assert_close(ordinal_sum(LOGITS[:1, :4], one_hot), ordinal_sum(LOGITS[:1, :4], torch.tensor([1])))
    assert ordinal_sum(LOGITS[:1, :4], soft) > 0


@pytest.mark.parametrize("name", LOSSES)
def test_the_options_that_a_loss_supports_change_it(name):
    loss = LOSSES[name]
    args = {key: value.default for key, value in loss.parameters.items()}
    plain = loss.function(LOGITS, LABELS, None, **args)
    one_hot = nn.functional.one_hot(LABELS, 5).float()
    if "mixup" in loss.supports:
        torch.testing.assert_close(loss.function(LOGITS, one_hot, None, **args), plain)
    if "class_weights" in loss.supports:
        torch.testing.assert_close(loss.function(LOGITS, LABELS, 2 * torch.ones(5), **args), 2 * plain)
    if "smoothing" in loss.supports:
        assert loss.function(LOGITS, LABELS, None, smoothing=0.2, **args) != plain
    assert set(loss.parameters) <= set(inspect.signature(loss.function).parameters)


@pytest.mark.parametrize(
    ("option", "settings"),
    [("logit_adjustment", {"logit_adjustment": 1.0}), ("class_weights", {"class_weights": "balanced"})]
    + [("mixup", {"mixup": 0.8}), ("mixup", {"cutmix": 1.0})],
)
def test_an_option_that_the_loss_does_not_support_is_rejected(tmp_path, monkeypatch, option, settings):
    arguments = {"output_dir": str(tmp_path), "use_cpu": True, "loss": "focal"} | settings
    FinetuningArguments(**arguments)
    monkeypatch.setitem(LOSSES, "focal", replace(LOSSES["focal"], supports=LOSSES["focal"].supports - {option}))
    with raises(SettingsMessage.OPTION_NOT_SUPPORTED_BY_LOSS, option=option, loss="focal"):
        FinetuningArguments(**arguments)
