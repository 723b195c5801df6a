"""Scores of grades: kappa, absolute error, one-off accuracy, their intervals and tests."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from hf_mae.evaluation.confusion import available_metric_names, headline_metrics, ordinal_metrics
from hf_mae.evaluation.intervals import estimate_headline_metrics, headline_metric_intervals
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.significance import compare_predictions, permutation_tests


def graded(images=400, seed=0, right=0.7, groups=None):
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, images, p=[0.5, 0.25, 0.15, 0.1])
    off = np.where(rng.random((2, images)) < right, 0, rng.choice([-2, -1, 1], (2, images)))
    return Predictions(labels, np.clip(labels + off, 0, 3), 4, groups, ordered=True)


def test_values_are_sklearns():
    data = graded()
    for run, predicted in enumerate(data.predicted):
        found = ordinal_metrics(data.confusion_matrices()[run])
        assert found["qwk"] == pytest.approx(cohen_kappa_score(data.labels, predicted, weights="quadratic"))
        assert found["mae"] == pytest.approx(mean_absolute_error(data.labels, predicted))
        assert found["one_off_accuracy"] == pytest.approx((abs(data.labels - predicted) <= 1).mean())


def test_cohens_own_kind_of_example():
    """Perfect agreement is 1, that of chance 0, and one grade alone says nothing."""
    assert ordinal_metrics(np.diag([3, 4, 5]))["qwk"] == 1.0
    assert ordinal_metrics(np.outer([6, 4], [5, 5]))["qwk"] == pytest.approx(0.0)
    assert ordinal_metrics([[7, 0], [0, 0]])["qwk"] == 0.0


def test_they_join_the_scores_of_grades_alone():
    data = graded()
    names = {"qwk", "mae", "one_off_accuracy"}
    assert names <= set(headline_metric_intervals([data])) and not names & set(
        headline_metric_intervals([replace(data, ordered=False)])
    )
    assert available_metric_names(headline_metrics(np.eye(3), ordered=True))[-3:] == ("qwk", "mae", "one_off_accuracy")
    found = estimate_headline_metrics([data])
    for name in names:
        low, high = found[name].interval
        assert low < found[name].value < high
    assert found["mae"].interval[1] < 3


@pytest.mark.parametrize("grouped", [False, True])
def test_their_intervals_cover(grouped):
    truth = {name: float(v.mean()) for name, v in headline_metrics(graded(200_000).confusion_matrices(), True).items()}
    hits = {name: [] for name in ("qwk", "mae", "one_off_accuracy")}
    for seed in range(60):
        groups = np.arange(400) // 10 if grouped else None
        for name, ends in headline_metric_intervals([graded(seed=1 + seed, groups=groups)]).items():
            if name in hits:
                hits[name].append(ends[0] <= truth[name] <= ends[1])
    assert all(np.mean(of) > 0.85 for of in hits.values()), {name: np.mean(of) for name, of in hits.items()}


def test_models_are_compared_by_them():
    worse, better = graded(seed=0, right=0.6), graded(seed=0, right=0.9)
    found = {entry.score: entry for entry in compare_predictions([worse], [better], 499)}
    assert list(found) == ["macro_f1", "accuracy", "mcc", "qwk", "mae", "one_off_accuracy"]
    assert found["qwk"].difference > 0 > found["mae"].difference and found["mae"].p_value == 1 / 500
    same = permutation_tests([worse], [worse], 99)
    assert same["qwk"] == same["mae"] == 1.0
