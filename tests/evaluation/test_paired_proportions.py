"""Score tests and intervals of paired proportions: closed form, numerical maximum, and their scores."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from hf_mae.evaluation.differences import ModelScores, ScoreDifference
from hf_mae.evaluation.intervals import IntervalReason
from hf_mae.evaluation.paired_proportions import PairedDifference, estimate_for_margin
from hf_mae.evaluation.prediction_table import Predictions

pytestmark = pytest.mark.unit


def tango_p_value(images, first, second, limit):
    """Tango (1998), in closed form."""
    b = -first - second + (2 * images - second + first) * limit
    q = ((b**2 + 8 * images * first * limit * (1 - limit)) ** 0.5 - b) / (4 * images)
    return norm.sf((second - first - images * limit) / (images * (2 * q + limit * (1 - limit))) ** 0.5)


@pytest.mark.parametrize(
    "images, first, second", [(57, 8, 3), (100, 0, 5), (505, 20, 0), (44, 1, 0), (20, 0, 0), (9, 4, 5)]
)
def test_one_class_equals_the_closed_form(images, first, second):
    difference = PairedDifference(*np.array([[images, first, second]], dtype=float).T)
    for limit in (-0.3, -0.02, 0.02, 0.1):
        expected = tango_p_value(images, first, second, limit)
        assert difference.p_value_above(limit) == pytest.approx(expected, abs=1e-9)
    low, high = difference.interval()
    assert -1 <= low < difference.value < high <= 1
    assert tango_p_value(images, first, second, low) == pytest.approx(0.025, abs=1e-6)
    assert tango_p_value(images, first, second, high) == pytest.approx(0.975, abs=1e-6)


def test_several_classes_have_the_greatest_likelihood():
    images, first, second, limit = np.array([30.0, 12, 50]), np.array([2.0, 1, 9]), np.array([5.0, 3, 1]), 0.15

    def loss(x):
        equal = np.maximum(1 - x[:3] - x[3:], 1e-12)
        return -(second * np.log(x[:3]) + first * np.log(x[3:]) + (images - first - second) * np.log(equal)).sum()

    constraint = {"type": "eq", "fun": lambda x: (x[:3] - x[3:]).mean() - limit}
    start = np.concatenate([second, first]) / np.tile(images, 2)
    gain, lost = minimize(
        loss, start, bounds=[(1e-9, 1)] * 6, constraints=constraint, method="SLSQP", options={"ftol": 1e-14}
    ).x.reshape(2, 3)
    variance = (gain + lost - (gain - lost) ** 2) / images * (1 + 2 / 3 / (images - 1))
    difference = PairedDifference(images, first, second)
    expected = norm.sf((difference.value - limit) / (variance.sum() ** 0.5 / 3))
    assert difference.p_value_above(limit) == pytest.approx(expected, abs=1e-6)


def make_models(groups=None, runs=1):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    predicted = [np.where(rng.random((runs, 60)) < recall, labels, 1 - labels) for recall in (0.9, 0.8)]
    return [ModelScores([Predictions(labels, rows, 2, groups)]) for rows in predicted]


def test_the_value_is_that_of_the_other_method():
    for name in ("accuracy", "macro_recall", "balanced_accuracy", "sensitivity", "specificity"):
        found, other = estimate_for_margin(*make_models(), name), make_models()
        value = other[1].score(name).value - other[0].score(name).value
        assert isinstance(found, PairedDifference) and found.value == pytest.approx(value)
    for models in (make_models(np.arange(60) // 3), make_models(runs=2)):
        assert isinstance(estimate_for_margin(*models, "accuracy"), ScoreDifference)
    assert isinstance(estimate_for_margin(*make_models(), "macro_f1"), ScoreDifference)


def test_no_test_of_a_precision_without_predictions():
    first, second = make_models()
    fold = first.folds[0]
    constant = ModelScores([Predictions(fold.labels, np.zeros_like(fold.predicted), 2)])
    found = estimate_for_margin(constant, second, "macro_precision")
    assert found.reason is IntervalReason.TOO_FEW_IMAGES and found.interval() is None
    assert estimate_for_margin(first, second, "macro_precision").reason is None
    assert estimate_for_margin(constant, second, "accuracy").reason is None
