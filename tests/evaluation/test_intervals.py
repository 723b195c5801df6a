"""Intervals by the jackknife: replicates, coverage, and the results of other programs on the same input."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from sklearn.metrics import recall_score

from hf_mae.evaluation.intervals import estimate_rates_by_class, headline_metric_intervals, jackknife_replicates
from hf_mae.evaluation.metrics import classification_scores, headline_metric_names, headline_metrics
from hf_mae.evaluation.prediction_table import Predictions, clusters_from_predictions


def make_predictions(images: int, classes: int, runs: int, accuracy: float, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, images, p=rng.dirichlet(np.ones(classes)))
    predicted = np.where(rng.random((runs, images)) < accuracy, labels, rng.integers(0, classes, (runs, images)))
    return Predictions(labels, predicted, classes)


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


@pytest.mark.parametrize("grouped", [False, True])
def test_replicates_equal_recomputation_without_the_unit(grouped):
    folds = [make_predictions(60, 3, 2, 0.7, seed) for seed in (0, 1)]
    groups = [np.arange(60) // 7, 5 + np.arange(60) // 7]  # groups 5 to 8 are in both folds
    if grouped:
        folds = [Predictions(f.labels, f.predicted, 3, g) for f, g in zip(folds, groups)]
    clusters = clusters_from_predictions(folds)
    value, replicates = jackknife_replicates(clusters, headline_metrics)
    assert value["macro_f1"] == pytest.approx(
        np.mean([headline_metrics(fold.confusion_matrices())["macro_f1"].mean() for fold in folds])
    )
    if not grouped:
        assert clusters.kind == "images" and clusters.counts.sum() == 120
        image = folds[1].predicted[:, 0]
        reduced = Predictions(folds[1].labels[1:], folds[1].predicted[:, 1:], 3)
        expected = np.mean([headline_metrics(f.confusion_matrices())["mcc"].mean() for f in (folds[0], reduced)])
        patterns = np.unique(np.vstack([folds[1].labels, folds[1].predicted]), axis=1)
        index = np.flatnonzero((patterns == np.r_[folds[1].labels[0], image][:, None]).all(0))[0]
        assert replicates["mcc"][clusters.members[1][index]] == pytest.approx(expected)
        return
    assert clusters.kind == "groups" and len(clusters.counts) == 14
    names = sorted({str(g) for fold in groups for g in fold})
    for group in (0, 6, 12):
        reduced = [
            Predictions(f.labels[g != group], f.predicted[:, g != group], 3).confusion_matrices()
            for f, g in zip(folds, groups)
        ]
        expected = np.mean([headline_metrics(matrices)["accuracy"].mean() for matrices in reduced])
        assert replicates["accuracy"][names.index(str(group))] == pytest.approx(expected)


def test_effective_sample_size_of_unequal_groups_is_smaller():
    even = Predictions(np.zeros(40, int), np.zeros((1, 40), int), 2, np.arange(40) // 4)
    uneven = Predictions(np.zeros(40, int), np.zeros((1, 40), int), 2, np.minimum(np.arange(40), 9))
    assert clusters_from_predictions([even]).n_eff == 10 and clusters_from_predictions([uneven]).n_eff == pytest.approx(
        1600 / (31**2 + 9)
    )


def test_interval_of_a_proportion_is_students_on_the_logit():
    """The jackknife error of a proportion is sqrt(p (1 - p) / (n - 1)); on the logit, it is divided by p (1 - p)."""
    predicted = (np.arange(200) < 40).astype(int)
    low, high = headline_metric_intervals([Predictions(np.zeros(200, int), predicted[None], 2)])["accuracy"]
    margin = stats.t.ppf(0.975, 199) * (1 / (200 * 0.8 * 0.2)) ** 0.5
    centre = np.log(0.8 / 0.2)
    assert [low, high] == pytest.approx(expit([centre - margin, centre + margin]), abs=1e-3)


def test_interval_without_errors_is_the_exact_binomial_one():
    labels = np.arange(60) % 3
    low, high = headline_metric_intervals([Predictions(labels, labels[None], 3)])["accuracy"]
    assert high == 1.0 and low == pytest.approx(stats.binomtest(60, 60).proportion_ci(0.95, "exact").low)
    grouped = Predictions(labels, labels[None], 3, np.arange(60) // 6)
    assert headline_metric_intervals([grouped])["macro_f1"] == pytest.approx((stats.beta.ppf(0.025, 10, 1), 1.0))


def test_two_patients_give_no_interval():
    labels = np.arange(40) % 2
    two = Predictions(labels, (labels * (np.arange(40) > 5))[None], 2, np.arange(40) // 20)
    assert set(headline_metric_intervals([two]).values()) == {None}


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
    assert by_group == pytest.approx(videos, abs=0.02)


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
    assert 274 <= hits <= 294


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
            low, high = rates[name].interval
            wilson = stats.binomtest(round(value * count), count).proportion_ci(method="wilson")
            assert [low, high] == pytest.approx([wilson.low, wilson.high])


def test_rates_of_small_absent_and_perfectly_recognized_classes():
    labels = np.array([0] * 30 + [1] * 20 + [2] * 2)
    predicted = labels.copy()
    predicted[:9] = 1
    zero, one, two = estimate_rates_by_class([Predictions(labels, predicted[None], 4)])[:3]
    assert zero["sensitivity"].value == 0.7 and zero["sensitivity"].interval[0] < 0.7
    assert one["sensitivity"].interval == pytest.approx((20 / (20 + stats.norm.ppf(0.975) ** 2), 1.0))
    assert two["sensitivity"].interval is None and two["sensitivity"].n_eff == 2
    absent = estimate_rates_by_class([Predictions(labels, predicted[None], 4)])[3]
    assert set(absent) == {"specificity", "npv"}
    grouped = Predictions(labels, predicted[None], 3, np.r_[np.arange(30) // 10, np.arange(20) // 2 + 3, 20, 21])
    assert estimate_rates_by_class([grouped])[0]["sensitivity"].n_eff == pytest.approx(3)
