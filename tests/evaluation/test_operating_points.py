"""Operating points, decision curves and metrics per patient, counted by hand and against other libraries."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn.metrics import average_precision_score, cohen_kappa_score, f1_score, roc_auc_score, roc_curve
from support.messages import raises

from hf_mae.evaluation.messages import EvaluationMessage
from hf_mae.evaluation.operating_points import OneVsRest, ThresholdRule, estimate_binary_rates
from hf_mae.evaluation.patients import estimate_by_patient
from hf_mae.evaluation.prediction_table import Predictions


def make_binary(scores, labels, groups=None) -> OneVsRest:
    scores = np.atleast_2d(scores)
    return OneVsRest(
        [Predictions(np.asarray(labels), (scores >= 0.5).astype(int), 2, groups, np.stack([1 - scores, scores], -1))]
    )


SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
LABELS = np.array([1, 1, 0, 1, 0, 1, 0, 0, 1, 0])


@pytest.mark.parametrize(
    "rule, threshold, sensitivity, specificity",
    [
        ("sensitivity=0.8", 0.4, 0.8, 0.6),
        ("sensitivity=0.81", 0.1, 1.0, 0.2),
        ("sensitivity=1", 0.1, 1.0, 0.2),
        ("specificity=0.8", 0.6, 0.6, 0.8),
        ("specificity=1", 0.8, 0.4, 1.0),
        ("threshold=0.55", 0.55, 0.6, 0.8),
        ("youden", 0.4, 0.8, 0.6),  # the most sensitive of equally good thresholds
    ],
)
def test_threshold_rules(rule, threshold, sensitivity, specificity):
    side = make_binary(SCORES, LABELS)
    parsed = ThresholdRule.parse(rule)
    assert str(parsed) == rule and side.choose_thresholds(parsed) == [[threshold]]
    rates = estimate_binary_rates(side.apply_thresholds([[threshold]]))
    assert rates["sensitivity"].value == pytest.approx(sensitivity)
    assert rates["specificity"].value == pytest.approx(specificity)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_is_better(seed):
    """Among thresholds that reach the target, the selected one maximizes the other rate, also with tied scores."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(80) < 0.4).astype(int)
    scores = np.round(rng.random(80) * 0.5 + 0.4 * labels, 1)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    for target in (0.5, 0.9, 0.95):
        side = make_binary(scores, labels)
        rates = estimate_binary_rates(
            side.apply_thresholds(side.choose_thresholds(ThresholdRule.parse(f"sensitivity={target}")))
        )
        assert rates["sensitivity"].value >= target
        assert rates["specificity"].value == pytest.approx(1 - fpr[tpr >= target - 1e-12].min())
        rates = estimate_binary_rates(
            side.apply_thresholds(side.choose_thresholds(ThresholdRule.parse(f"specificity={target}")))
        )
        assert rates["specificity"].value >= target
        assert rates["sensitivity"].value == pytest.approx(tpr[1 - fpr >= target - 1e-12].max())


@pytest.mark.parametrize("text", ["sensitivity", "sensitivity=95", "recall=0.9", "threshold=x", "specificity=nan"])
def test_invalid_rules_are_rejected(text):
    with raises(EvaluationMessage.INVALID_OPERATING_POINT, text=text):
        ThresholdRule.parse(text)


def test_no_threshold_without_positive_images():
    with raises(EvaluationMessage.OPERATING_POINT_NEEDS_BOTH_SIDES, positive=0, total=10):
        make_binary(SCORES, 0 * LABELS).choose_thresholds(ThresholdRule.parse("sensitivity=0.9"))
    assert make_binary(SCORES, 0 * LABELS).auroc() is None


def test_predictive_values_at_another_prevalence_follow_bayes_rule():
    labels = np.repeat([1, 0], [50, 50])
    predicted = np.r_[np.repeat([1, 0], [45, 5]), np.repeat([1, 0], [10, 40])]
    folds = [Predictions(labels, predicted[None], 2)]
    rates = estimate_binary_rates(folds, 0.1)
    assert rates["sensitivity"].value == 0.9 and rates["specificity"].value == 0.8
    assert rates["ppv"].value == pytest.approx(0.9 * 0.1 / (0.9 * 0.1 + 0.2 * 0.9))
    assert rates["npv"].value == pytest.approx(0.8 * 0.9 / (0.8 * 0.9 + 0.1 * 0.1))
    assert rates["ppv"].interval[0] < rates["ppv"].value < rates["ppv"].interval[1]
    same = estimate_binary_rates(folds, 0.5)
    assert same["ppv"].value == pytest.approx(estimate_binary_rates(folds)["ppv"].value)


def test_grouped_classes_equal_sklearn_on_summed_scores():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), (2, 200))
    side = OneVsRest.from_predictions([Predictions(labels, scores.argmax(-1), 4, None, scores)], [1, 3])
    positive = np.isin(labels, [1, 3])
    assert side.prevalence == positive.mean()
    assert side.auroc().value == pytest.approx(np.mean([roc_auc_score(positive, s[:, [1, 3]].sum(1)) for s in scores]))
    assert side.average_precision().value == pytest.approx(
        np.mean([average_precision_score(positive, s[:, [1, 3]].sum(1)) for s in scores])
    )
    agreement = side.estimate_agreement()
    called = [np.isin(s.argmax(1), [1, 3]) for s in scores]
    assert agreement["kappa"].value == pytest.approx(np.mean([cohen_kappa_score(positive, c) for c in called]))
    assert agreement["F1"].value == pytest.approx(np.mean([f1_score(positive, c) for c in called]))


def test_net_benefit_equals_dcurves():
    """Expected values: dcurves 1.1.7 on the same 40 images."""
    rng = np.random.default_rng(7)
    labels = (np.arange(40) % 5 < 2).astype(int)
    scores = np.round(np.clip(0.35 * labels + rng.uniform(0, 0.6, 40), 0.01, 0.99), 3)
    curve = make_binary(scores, labels).decision_curve()
    indices = [curve.thresholds.index(value) for value in (0.1, 0.2, 0.35, 0.5, 0.7)]
    expected = [0.347222, 0.306250, 0.251923, 0.225000, 0.100000]
    assert [curve.net_benefit[index] for index in indices] == pytest.approx(expected, abs=1e-6)
    assert [curve.treat_all[index] for index in indices] == pytest.approx(
        [1 / 3, 0.25, 0.0769231, -0.2, -1.0], abs=1e-6
    )
    low, high = curve.intervals[indices[0]]
    assert low < expected[0] < high
    by_patient = make_binary(scores, labels, np.arange(40) // 10).decision_curve()
    assert by_patient.net_benefit == pytest.approx(curve.net_benefit)
    gains = np.subtract(curve.net_benefit, curve.treat_all)
    assert all(low < gain < high for gain, (low, high) in zip(gains, curve.gain_intervals))


@pytest.mark.parametrize("groups", [None, np.arange(200) // 5])
def test_the_difference_of_net_benefits_has_the_interval_of_a_paired_mean(groups):
    rng = np.random.default_rng(1)
    labels = (np.arange(200) % 5 < 2).astype(int)
    first, second = (np.clip(gain * labels + rng.uniform(0, 0.7, 200), 0.01, 0.99) for gain in (0.1, 0.3))
    one, two = make_binary(first, labels, groups), make_binary(second, labels, groups)
    difference, intervals = one.benefit_difference(two)
    curves = one.decision_curve(), two.decision_curve()
    assert difference == pytest.approx(np.subtract(curves[1].net_benefit, curves[0].net_benefit).tolist())
    index = curves[0].thresholds.index(0.3)
    benefit = np.where(labels == 1, 1.0, -0.3 / 0.7) * ((second >= 0.3).astype(int) - (first >= 0.3))
    low, high = intervals[index]
    if groups is None:
        margin = student.ppf(0.975, 199) * benefit.std(ddof=1) / 200**0.5
        assert (high - low) / 2 == pytest.approx(margin, rel=0.03)
    same, zero = one.benefit_difference(one)
    assert set(same) == {0.0} and all(low < 0 < high for low, high in zero)


def test_patients_are_aggregated_by_mean_or_worst():
    groups = np.array(["b", "b", "a", "a", "a"])
    side = make_binary([0.2, 0.6, 0.1, 0.2, 0.3], [0, 1, 0, 0, 0], groups)
    mean, worst = side.aggregate_by_patient("mean").folds[0], side.aggregate_by_patient("worst").folds[0]
    assert list(mean.groups) == ["a", "b"] and mean.labels.tolist() == [0, 1] == worst.labels.tolist()
    assert mean.class_scores[0, :, 1] == pytest.approx([0.2, 0.4])
    assert worst.class_scores[0, :, 1] == pytest.approx([0.3, 0.6])
    assert worst.predicted.tolist() == [[0, 1]]


def test_headline_metrics_per_patient():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 4).astype(str)
    labels = np.repeat(np.arange(12) % 3, 4)
    scores = rng.dirichlet(np.ones(3), (1, 48))
    data = Predictions(labels, scores.argmax(-1), 3, groups, scores)
    means = np.array([scores[0, groups == name].mean(0) for name in np.unique(groups)])
    truth = np.array([labels[groups == name][0] for name in np.unique(groups)])
    by_patient = estimate_by_patient([data])
    assert set(by_patient) == {"mean"} and by_patient["mean"]["accuracy"].value == pytest.approx(
        (means.argmax(1) == truth).mean()
    )
    mixed = replace(data, labels=rng.integers(0, 3, 48))
    assert estimate_by_patient([mixed]) == {}, "patients have images of several classes"
    grades = estimate_by_patient([replace(mixed, ordered=True)])["worst"]
    worst = [(mixed.labels[groups == n].max(), data.predicted[0, groups == n].max()) for n in np.unique(groups)]
    assert grades["accuracy"].value == pytest.approx(np.mean([a == b for a, b in worst])) and "qwk" in grades
    assert estimate_by_patient([replace(data, groups=None)]) == {}
