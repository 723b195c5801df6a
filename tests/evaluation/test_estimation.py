"""Estimates of scores: values of scikit-learn, influences as numeric derivatives, and intervals of special samples."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaincinv
from sklearn.metrics import recall_score

from hf_mae.evaluation.estimation import (
    DERIVATIVES,
    PROPORTIONS,
    Sample,
    class_f1,
    class_rate,
    estimate_class_f1,
    estimate_headline_metrics,
    estimate_rates_by_class,
    estimate_score,
    headline_metric_intervals,
    numeric_derivatives,
    score_influence,
)
from hf_mae.evaluation.intervals import IntervalReason
from hf_mae.evaluation.metrics import (
    ConfusionMatrices,
    classification_scores,
    headline_metric_names,
    headline_metrics,
    softmax,
)
from hf_mae.evaluation.prediction_table import Predictions, clusters_from_predictions
from hf_mae.evaluation.probability_metrics import estimate_probability_metrics
from hf_mae.settings.metrics import METRICS, Metric, MetricKind

NAMES = [*PROPORTIONS, *DERIVATIVES]


def make_predictions(images: int, classes: int, runs: int, accuracy: float, seed: int = 0, groups=None) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, images, p=rng.dirichlet(np.ones(classes)))
    predicted = np.where(rng.random((runs, images)) < accuracy, labels, rng.integers(0, classes, (runs, images)))
    return Predictions(labels, predicted, classes, groups, ordered=True)


@pytest.mark.parametrize("classes", [2, 5, 23])
def test_metrics_of_confusion_matrices_equal_those_of_predictions(classes):
    data = make_predictions(300, classes + 2, 3, 0.6)  # two classes may be absent
    for run, matrix in enumerate(data.confusion_matrices()):
        expected = classification_scores(data.predicted[run], data.labels, [str(i) for i in range(classes + 2)])
        metrics = headline_metrics(matrix)
        for name in headline_metric_names(False):
            assert metrics[name] == pytest.approx(expected[name], abs=1e-12)


def test_mcc_of_a_constant_prediction_is_0():
    data = Predictions(np.array([0, 0, 1]), np.zeros((1, 3), dtype=int), 2)
    assert headline_metrics(data.confusion_matrices())["mcc"][0] == 0.0


def test_derivatives_equal_numeric_ones():
    matrices = ConfusionMatrices(1 + np.random.default_rng(0).poisson(6, (2, 4, 4)))
    for name, score in PROPORTIONS.items():
        found = score.derivatives(matrices, score.weights(matrices))
        assert found == pytest.approx(numeric_derivatives(matrices, METRICS[name].function), abs=1e-9), name
    for name, derivatives in DERIVATIVES.items():
        assert derivatives(matrices) == pytest.approx(numeric_derivatives(matrices, METRICS[name].function), abs=1e-9)
    for score in (class_f1(1), *(class_rate(name, 2) for name in ("sensitivity", "specificity", "ppv", "npv"))):

        def value(m, score=score):
            numerator, denominator = score.counts(m)
            values = numerator / denominator
            return ((2 * values / (1 + values) if score.f1 else values) * score.weights(m)).sum(-1)

        found = score.derivatives(matrices, score.weights(matrices))
        assert found == pytest.approx(numeric_derivatives(matrices, value), abs=1e-9)


def test_an_added_metric_has_an_interval(monkeypatch):
    entry = Metric("worst_recall", "worst recall", lambda m: (m.recall**-2).mean(-1) ** -0.5)
    monkeypatch.setitem(METRICS, "worst_recall", entry)
    estimate = estimate_score(Sample([make_predictions(300, 3, 1, 0.7)]), "worst_recall")
    assert estimate.interval[0] < estimate.value < estimate.interval[1]


def test_estimates_are_means_over_folds_and_runs():
    folds = [make_predictions(60, 3, 2, 0.7, seed) for seed in (0, 1)]
    for name, estimate in estimate_headline_metrics(folds).items():
        each = [headline_metrics(fold.confusion_matrices(), True)[name].mean() for fold in folds]
        assert estimate.value == pytest.approx(np.mean(each))
        assert estimate.interval[0] < estimate.value < estimate.interval[1]


def test_several_runs_reduce_the_variance():
    data = make_predictions(300, 3, 4, 0.7)
    one = Predictions(data.labels, data.predicted[:1], 3)
    width = np.ptp(headline_metric_intervals([data])["accuracy"]) / np.ptp(headline_metric_intervals([one])["accuracy"])
    assert 0.4 < width < 0.7, "errors are independent between these runs: 1/2"


def test_accuracy_has_wilsons_interval_whatever_the_classes():
    for first, second in ((196, 60), (128, 128)):
        labels = np.repeat([0, 1], 200)
        predicted = np.r_[np.arange(200) >= first, np.arange(200) < second].astype(int)
        interval = headline_metric_intervals([Predictions(labels, predicted[None], 2)])["accuracy"]
        expected = stats.binomtest(256, 400).proportion_ci(method="wilson")
        assert interval == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("grouped", [False, True])
def test_perfect_and_constant_predictions_have_intervals(grouped):
    labels = np.arange(60) % 3
    groups = np.arange(60) // 6 if grouped else None
    for predicted in (labels, np.zeros(60, int), (labels + 1) % 3):
        data = Predictions(labels, predicted[None], 3, groups, ordered=True)
        sample = Sample([data])
        for name in NAMES:
            estimate = estimate_score(sample, name)
            low, high = estimate.interval
            assert METRICS[name].low <= low <= estimate.value <= high <= METRICS[name].upper_bound(3), name
            assert high - low > 0.005, name
        assert 0 <= estimate_class_f1([data], 0).interval[0] < estimate_class_f1([data], 0).interval[1] <= 1


def test_a_small_class_without_errors_has_uncertainty():
    labels = np.repeat([0, 1], [200, 8])
    predicted = np.where(np.arange(208) < 20, 1, labels)
    low, high = headline_metric_intervals([Predictions(labels, predicted[None], 2)])["macro_recall"]
    assert low < 0.85 and high > 0.96


def test_classes_without_images_are_named():
    labels = np.array([0] * 30 + [1] * 20 + [2] * 10)
    predicted = np.where(labels == 2, 0, labels)
    predicted[:2] = 3
    estimates = estimate_headline_metrics([Predictions(labels, predicted[None], 5)])
    assert estimates["macro_precision"].classes_without_images == (2,)
    assert estimates["macro_recall"].classes_without_images == (3,)
    assert estimates["macro_f1"].classes_without_images == estimates["accuracy"].classes_without_images == ()


def test_two_patients_give_no_interval():
    labels = np.arange(40) % 2
    two = Predictions(labels, (labels * (np.arange(40) > 5))[None], 2, np.arange(40) // 20)
    for estimate in estimate_headline_metrics([two]).values():
        assert estimate.interval is None and estimate.reason is IntervalReason.TOO_FEW_GROUPS
    assert estimate_rates_by_class([two])[0]["sensitivity"].reason is IntervalReason.TOO_FEW_GROUPS
    few = estimate_headline_metrics([Predictions(labels[:2], labels[None, :2], 2)])["accuracy"]
    assert few.interval is None and few.reason is IntervalReason.TOO_FEW_IMAGES


def test_interval_of_patients_is_not_that_of_their_images():
    """20 videos of 30 equal frames contain as much information as 20 images."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(20), 30), np.repeat(np.arange(20) % 2, 30)
    right = np.repeat(rng.random(20) < 0.7, 30)
    predicted = np.where(right, labels, 1 - labels)[None]
    by_image = headline_metric_intervals([Predictions(labels, predicted, 2)])["accuracy"]
    by_group = headline_metric_intervals([Predictions(labels, predicted, 2, groups)])["accuracy"]
    videos = headline_metric_intervals([Predictions(labels[::30], predicted[:, ::30], 2)])["accuracy"]
    assert np.ptp(by_group) > 3 * np.ptp(by_image)
    assert by_group == pytest.approx(videos, abs=0.04)


def test_a_group_in_two_folds_is_one_group():
    folds = [make_predictions(60, 3, 1, 0.7, seed, np.arange(60) // 7 + 5 * seed) for seed in (0, 1)]
    sample = Sample(folds)
    assert sample.units == "groups" and len(np.unique(sample.group)) == 14
    influence = score_influence(sample, "macro_f1")
    assert influence.values.shape == (120,) and influence.variance > 0


def test_effective_sample_size_of_unequal_groups_is_smaller():
    even = Predictions(np.zeros(40, int), np.zeros((1, 40), int), 2, np.arange(40) // 4)
    uneven = Predictions(np.zeros(40, int), np.zeros((1, 40), int), 2, np.minimum(np.arange(40), 9))
    assert clusters_from_predictions([even]).n_eff == Sample([even]).n_eff == 10
    assert clusters_from_predictions([uneven]).n_eff == pytest.approx(1600 / (31**2 + 9))


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_cover(grouped):
    """About 285 of 300 intervals contain the true accuracy (simulation: scripts/studies/simulate_statistics.py)."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        accuracy = rng.beta(8, 2, size=30) if grouped else np.full(30, 0.8)
        right = rng.random((30, 10)) < accuracy[:, None]
        data = Predictions(np.zeros(300, int), (~right).astype(int).reshape(1, -1), 2, np.repeat(np.arange(30), 10))
        if not grouped:
            data = Predictions(data.labels, data.predicted, 2)
        low, high = headline_metric_intervals([data])["accuracy"]
        hits += low <= 0.8 <= high
    assert 274 <= hits <= 296


def test_rates_of_each_class_equal_sklearn_with_wilson_intervals():
    data = make_predictions(400, 4, 1, 0.7)
    labels, predicted = data.labels, data.predicted[0]
    for label, rates in enumerate(estimate_rates_by_class([data])):
        positive, called = labels == label, predicted == label
        for name, condition, outcome, expected in (
            ("sensitivity", positive, called, 1),
            ("specificity", positive, called, 0),
            ("ppv", called, positive, 1),
            ("npv", called, positive, 0),
        ):
            count = int((condition == expected).sum())
            if count == 0:
                assert name not in rates
                continue
            value = recall_score(condition, outcome, pos_label=expected)
            assert rates[name].value == pytest.approx(value) and rates[name].n_eff == pytest.approx(count)
            if count < 3:
                assert rates[name].interval is None
                continue
            wilson = stats.binomtest(round(value * count), count).proportion_ci(method="wilson")
            low, high = wilson.low, wilson.high
            for errors, right in ((count * (1 - value), False), (count * value, True)):
                if 0.5 < errors < (2.5 if count <= 50 else 3.5):  # Brown, Cai and DasGupta
                    limit = gammaincinv(round(errors), 0.05) / count
                    low, high = (min(low, limit), high) if right else (low, max(high, 1 - limit))
            assert rates[name].interval == pytest.approx((low, high), abs=1e-6)


def test_rates_of_small_absent_and_perfectly_recognized_classes():
    labels = np.array([0] * 30 + [1] * 20 + [2] * 2)
    predicted = labels.copy()
    predicted[:9] = 1
    zero, one, two = estimate_rates_by_class([Predictions(labels, predicted[None], 4)])[:3]
    assert zero["sensitivity"].value == 0.7 and zero["sensitivity"].interval[0] < 0.7
    assert one["sensitivity"].interval == pytest.approx((20 / (20 + stats.norm.ppf(0.975) ** 2), 1.0))
    assert two["sensitivity"].interval is None and two["sensitivity"].n_eff == 2
    assert two["sensitivity"].reason is IntervalReason.TOO_FEW_IMAGES
    absent = estimate_rates_by_class([Predictions(labels, predicted[None], 4)])[3]
    assert set(absent) == {"specificity", "npv"}
    grouped = Predictions(labels, predicted[None], 3, np.r_[np.arange(30) // 10, np.arange(20) // 2 + 3, 20, 21])
    assert estimate_rates_by_class([grouped])[0]["sensitivity"].n_eff == pytest.approx(3)


@st.composite
def samples(draw):
    """Predictions with scores of 2 to 5 classes (some may be absent), of independent images or of patients."""
    classes, images = draw(st.integers(2, 5)), draw(st.integers(3, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.choice(classes, images, p=rng.dirichlet(np.full(classes, draw(st.sampled_from([0.3, 1.0, 30.0])))))
    logits = rng.normal(size=(images, classes)) + draw(st.sampled_from([0.0, 2.0, 20.0])) * np.eye(classes)[labels]
    logits[:, 0] += draw(st.sampled_from([0.0, 0.0, 50.0]))  # 50: a model that always predicts class 0
    scores = softmax(np.round(logits, draw(st.integers(0, 3))))
    groups = rng.integers(0, draw(st.integers(3, 20)), images) if draw(st.booleans()) else None
    return Predictions(labels, scores.argmax(1)[None], classes, groups, scores[None], ordered=True)


def all_estimates(data: Predictions) -> dict:
    """Estimates by name, also those of each class."""
    estimates = {**estimate_headline_metrics([data]), **estimate_probability_metrics([data])}
    for label, rates in enumerate(estimate_rates_by_class([data])):
        estimates |= {f"{name} {label}": rate for name, rate in rates.items()}
        estimates[f"f1 {label}"] = estimate_class_f1([data], label)
    return estimates


@settings(max_examples=40, deadline=None, derandomize=True)
@given(samples())
def test_each_interval_contains_its_estimate_and_stays_in_the_range(data):
    for name, estimate in all_estimates(data).items():
        if estimate.interval is None:
            assert estimate.reason is not None, name
            continue
        low, high = estimate.interval
        metric = METRICS.get(name)
        lowest, highest = (metric.low, metric.upper_bound(data.num_classes)) if metric else (0.0, 1.0)
        assert lowest <= low + 1e-12 and high - 1e-12 <= highest, name
        assert low - 1e-12 <= estimate.value <= high + 1e-12, name
        assert high - low > 1e-6 or (name == "log_loss" and high > 1.01 * low), name


@settings(max_examples=15, deadline=None, derandomize=True)
@given(samples(), st.randoms(use_true_random=False))
def test_intervals_do_not_depend_on_the_order_of_images_and_classes(data, random):
    estimates = all_estimates(data)
    rows, classes = list(range(len(data.labels))), list(range(data.num_classes))
    random.shuffle(rows)
    random.shuffle(classes)
    shuffled, place = data.select(np.array(rows)), np.argsort(classes)
    renamed = replace(
        shuffled,
        labels=place[shuffled.labels],
        predicted=place[shuffled.predicted],
        class_scores=shuffled.class_scores[..., classes],
    )
    others = all_estimates(renamed)
    for name, estimate in estimates.items():
        if name.endswith("ece") or (name in METRICS and METRICS[name].kind is MetricKind.ORDINAL):
            continue  # a calibration error is that of the predicted class: the first one of equal scores
        stem, _, label = name.partition(" ")
        other = others[f"{stem} {place[int(label)]}" if label else name]
        assert other.value == pytest.approx(estimate.value, abs=1e-9), name
        assert other.reason == estimate.reason, name
        assert other.interval == (estimate.interval and pytest.approx(estimate.interval, abs=1e-6)), name
