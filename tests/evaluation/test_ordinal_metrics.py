"""Ordinal metrics: weighted kappa, absolute error, one-off accuracy, their intervals and tests."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from hf_mae.evaluation.estimation import estimate_headline_metrics, headline_metric_intervals
from hf_mae.evaluation.metrics import available_metric_names, headline_metrics, ordinal_scores
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.significance import compare_predictions, permutation_tests


def make_grades(images=400, seed=0, right=0.7, groups=None):
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, images, p=[0.5, 0.25, 0.15, 0.1])
    off = np.where(rng.random((2, images)) < right, 0, rng.choice([-2, -1, 1], (2, images)))
    return Predictions(labels, np.clip(labels + off, 0, 3), 4, groups, ordered=True)


def test_ordinal_metrics_equal_sklearn():
    data = make_grades()
    for run, predicted in enumerate(data.predicted):
        metrics = ordinal_scores(data.confusion_matrices()[run])
        assert metrics["qwk"] == pytest.approx(cohen_kappa_score(data.labels, predicted, weights="quadratic"))
        assert metrics["mae"] == pytest.approx(mean_absolute_error(data.labels, predicted))
        assert metrics["one_off_accuracy"] == pytest.approx((abs(data.labels - predicted) <= 1).mean())


def test_weighted_kappa_of_perfect_chance_and_undefined_agreement():
    assert ordinal_scores(np.diag([3, 4, 5]))["qwk"] == 1.0
    assert ordinal_scores(np.outer([6, 4], [5, 5]))["qwk"] == pytest.approx(0.0)
    assert ordinal_scores([[7, 0], [0, 0]])["qwk"] == 0.0


def test_ordinal_metrics_are_added_for_grades_only():
    data = make_grades()
    names = {"qwk", "mae", "one_off_accuracy"}
    assert names <= set(headline_metric_intervals([data])) and not names & set(
        headline_metric_intervals([replace(data, ordered=False)])
    )
    assert available_metric_names(headline_metrics(np.eye(3), ordered=True))[-3:] == ("qwk", "mae", "one_off_accuracy")
    estimates = estimate_headline_metrics([data])
    for name in names:
        low, high = estimates[name].interval
        assert low < estimates[name].value < high
    assert estimates["mae"].interval[1] < 3


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_of_ordinal_metrics_cover(grouped):
    truth = {
        name: float(v.mean()) for name, v in headline_metrics(make_grades(200_000).confusion_matrices(), True).items()
    }
    hits = {name: [] for name in ("qwk", "mae", "one_off_accuracy")}
    for seed in range(60):
        groups = np.arange(400) // 10 if grouped else None
        for name, (low, high) in headline_metric_intervals([make_grades(seed=1 + seed, groups=groups)]).items():
            if name in hits:
                hits[name].append(low <= truth[name] <= high)
    coverages = {name: np.mean(values) for name, values in hits.items()}
    assert all(coverage > 0.85 for coverage in coverages.values()), coverages


def test_models_are_compared_by_ordinal_metrics():
    worse, better = make_grades(seed=0, right=0.6), make_grades(seed=0, right=0.9)
    differences = {entry.score: entry for entry in compare_predictions([worse], [better], 499)}
    assert list(differences) == ["macro_f1", "accuracy", "mcc", "qwk", "mae", "one_off_accuracy"]
    assert differences["qwk"].difference > 0 > differences["mae"].difference
    assert differences["mae"].p_value == 1 / 500
    same = permutation_tests([worse], [worse], 99)
    assert same["qwk"] == same["mae"] == 1.0
