"""Probability metrics and their intervals, against other libraries and against leaving units out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk

from hf_mae.evaluation.metrics import expected_calibration_error, softmax
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.probability_metrics import (
    binary_auroc,
    binary_average_precision,
    estimate_probability_metrics,
    estimate_ranking,
)
from hf_mae.settings.metrics import METRICS, Metric, MetricKind, metric_names


def make_predictions(images: int, classes: int, runs: int = 1, seed: int = 0, groups=None, temperature: float = 1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    scores = softmax((rng.normal(size=(runs, images, classes)) + 1.5 * np.eye(classes)[labels]) / temperature)
    return Predictions(labels, scores.argmax(-1), classes, groups, scores)


def test_an_added_metric_is_estimated_as_a_mean_over_images(monkeypatch):
    def confidence(scores, labels):
        return scores[np.arange(len(labels)), labels]

    entry = Metric("confidence", "confidence", confidence, MetricKind.PROBABILITY, scale=1.0)
    monkeypatch.setitem(METRICS, "confidence", entry)
    data = make_predictions(200, 3)
    estimate = estimate_probability_metrics([data])["confidence"]
    values = confidence(data.class_scores[0], data.labels)
    assert estimate.value == pytest.approx(values.mean())
    low, high = estimate.interval
    assert high - low == pytest.approx(3.92 * values.std() / 200**0.5, rel=0.05)


def test_values_equal_other_libraries():
    data = make_predictions(300, 4)
    (scores,), labels = data.class_scores, data.labels
    estimates = estimate_probability_metrics([data])
    assert list(estimates) == list(metric_names(MetricKind.PROBABILITY))
    assert estimates["roc_auc"].value == pytest.approx(sk.roc_auc_score(labels, scores, multi_class="ovr"))
    precision = sk.average_precision_score(np.eye(4)[labels], scores, average="macro")
    assert estimates["average_precision"].value == pytest.approx(precision)
    assert estimates["log_loss"].value == pytest.approx(sk.log_loss(labels, scores))
    brier = np.mean([((row - np.eye(4)[label]) ** 2).sum() for row, label in zip(scores, labels)])
    assert estimates["brier"].value == pytest.approx(brier)
    assert estimates["ece"].value == pytest.approx(expected_calibration_error(scores, labels)["ece"])
    each = []
    for label in range(4):
        which = np.ceil(scores[:, label] * 15).astype(int)
        each.append(sum(abs((scores[:, label] - (labels == label))[which == b].sum()) for b in range(1, 16)) / 300)
    assert estimates["classwise_ece"].value == pytest.approx(np.mean(each))
    best = np.sort(scores.max(1))
    right = (scores.argmax(1) == labels)[np.argsort(scores.max(1))]
    parts = zip(np.array_split(best, 15), np.array_split(right, 15))
    assert estimates["adaptive_ece"].value == pytest.approx(sum(abs(s.sum() - r.sum()) for s, r in parts) / 300)


def test_calibration_error_equals_torchmetrics():
    """Expected value: torchmetrics' multiclass_calibration_error(..., n_bins=15, norm="l1") on the same input."""
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(60, 4)), np.arange(60) % 4
    logits[np.arange(60), labels] += 1.5
    scores = softmax(logits)
    estimates = estimate_probability_metrics([Predictions(labels, scores.argmax(-1)[None], 4, None, scores[None])])
    assert estimates["ece"].value == pytest.approx(0.1770823746919632, abs=1e-6)


@pytest.mark.parametrize(
    "function, reference", [(binary_auroc, sk.roc_auc_score), (binary_average_precision, sk.average_precision_score)]
)
def test_influence_of_an_image_is_the_derivative_by_its_weight(function, reference):
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 12, 50) / 12, rng.random(50) < 0.4  # with ties
    ranking = function(scores, positive)
    assert ranking.value == pytest.approx(reference(positive, scores))
    for image in range(50):
        ends = []
        for change in (1e-4, -1e-4):
            weights = np.ones(50)
            weights[image] += change
            ends.append(reference(positive, scores, sample_weight=weights))
        assert ranking.influence[image] == pytest.approx((ends[0] - ends[1]) / 2e-4, abs=1e-6)


def test_bias_of_average_precision_is_corrected():
    """At random scores, the mean of the corrected precision is about the prevalence."""
    rng, corrected = np.random.default_rng(0), []
    for _ in range(2000):
        ranking = binary_average_precision(rng.random(60), np.arange(60) < 6)
        corrected.append(ranking.value - ranking.bias)
    assert np.mean(corrected) == pytest.approx(0.1, abs=0.02)


def test_auroc_is_averaged_over_folds_and_runs():
    folds = [make_predictions(80, 3, runs=2, seed=seed, groups=np.arange(80) // 5 + 10 * seed) for seed in (0, 1)]
    estimate = estimate_ranking(folds, binary_auroc, range(3))
    aurocs = [sk.roc_auc_score(f.labels, run, multi_class="ovr") for f in folds for run in f.class_scores]
    assert estimate.value == pytest.approx(np.mean(aurocs))
    assert estimate.interval[0] < estimate.value < estimate.interval[1]


@pytest.mark.parametrize("positives, lowest, highest", [(5, 0.4, 0.95), (250, 0.95, 0.995)])
def test_a_perfect_ranking_of_few_images_is_uncertain(positives, lowest, highest):
    positive = np.arange(500) < positives
    scores = np.stack([~positive, positive], -1).astype(float)
    data = Predictions(positive.astype(int), positive.astype(int)[None], 2, None, scores[None])
    for function in (binary_auroc, binary_average_precision):
        low, high = estimate_ranking([data], function, [1]).interval
        assert high == 1.0 and low < highest
    assert estimate_ranking([data], binary_auroc, [1]).interval[0] > lowest
    random = replace(data, class_scores=np.full((1, 500, 2), 0.5))
    low, high = estimate_ranking([random], binary_auroc, [1]).interval
    assert low < 0.5 < high


def test_auroc_interval_of_independent_images_is_about_delongs_on_the_logit():
    rng = np.random.default_rng(1)
    positive = np.arange(400) < 150
    scores = np.clip(0.5 + 0.12 * (2 * positive - 1) + rng.normal(0, 0.2, 400), 0.001, 0.999)
    data = Predictions(
        positive.astype(int), (scores > 0.5).astype(int)[None], 2, None, np.stack([1 - scores, scores], -1)[None]
    )
    estimate = estimate_probability_metrics([data])["roc_auc"]
    concordant = (scores[positive][:, None] > scores[~positive]).astype(float)
    auroc = concordant.mean()
    error = np.sqrt(concordant.mean(1).var(ddof=1) / 150 + concordant.mean(0).var(ddof=1) / 250)  # DeLong et al., 1988
    centre, margin = np.log(auroc / (1 - auroc)), norm.ppf(0.975) * error / (auroc * (1 - auroc))
    expected = 1 / (1 + np.exp(-np.array([centre - margin, centre + margin])))
    assert estimate.interval == pytest.approx(expected, abs=5e-3)


def test_intervals_of_patients_are_wider_and_need_three_patients():
    data = make_predictions(200, 3)
    alike = replace(data.select(np.repeat(np.arange(20), 10)), groups=np.repeat(np.arange(20), 10))
    by_image, by_patient = (
        estimate_probability_metrics([replace(alike, groups=None)]),
        estimate_probability_metrics([alike]),
    )
    for name, estimate in by_patient.items():
        assert estimate.value == pytest.approx(by_image[name].value)
        if estimate.interval is not None:
            width = np.ptp(estimate.interval) / np.ptp(by_image[name].interval)
            assert 2 < width < 8, name
    few = estimate_probability_metrics([replace(alike, groups=np.arange(200) % 2)])
    assert all(estimate.interval is None for estimate in few.values())


def test_a_class_without_images_leaves_the_auroc_undefined():
    data = make_predictions(60, 3)
    data = data.select(data.labels != 1)
    assert "roc_auc" not in estimate_probability_metrics([data]) and "brier" in estimate_probability_metrics([data])
    one = make_predictions(60, 3, groups=np.r_[np.zeros(1), np.arange(1, 60)])
    only = replace(one, labels=np.where(np.arange(60) == 0, 1, 2 * (np.arange(60) % 2)))
    assert estimate_probability_metrics([only])["roc_auc"].interval is None, (
        "without its only patient a class has no image"
    )


@pytest.mark.parametrize("decimals", [0, 1, 2, None])  # 0: saturated scores; None: all scores differ
def test_calibration_errors_do_not_depend_on_the_order_of_the_images(decimals):
    data = make_predictions(150, 3)
    confidence = np.random.default_rng(1).uniform(0.4, 1, 150)
    confidence = confidence if decimals is None else np.round(confidence, decimals).clip(0.4)
    scores = np.stack([confidence, *[(1 - confidence) / 2] * 2], -1)
    data = Predictions(np.sort(data.labels), scores.argmax(-1)[None], 3, None, scores[None])
    shuffled = data.select(np.random.default_rng(2).permutation(150))
    for name, estimate in estimate_probability_metrics([data]).items():
        assert estimate_probability_metrics([shuffled])[name].value == pytest.approx(estimate.value, abs=1e-12), name
        assert (estimate.interval is None) == ("ece" in name)


def test_a_log_loss_of_0_has_an_interval():
    labels = np.arange(100) % 4
    data = Predictions(labels, labels[None], 4, None, np.eye(4)[labels][None])
    estimate = estimate_probability_metrics([data])["log_loss"]
    assert estimate.value == 0.0 and estimate.interval[0] == 0.0 and 0.1 < estimate.interval[1] < 2
