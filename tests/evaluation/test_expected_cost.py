"""Expected cost of decisions: equal to the package expected-cost 1.0, and its intervals."""

import numpy as np
import pytest

from hf_mae.evaluation.expected_cost import Costs, compare_expected_costs, estimate_expected_costs
from hf_mae.evaluation.intervals import IntervalReason, weighted_count_interval
from hf_mae.evaluation.prediction_table import Predictions

pytestmark = pytest.mark.unit
LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
SCORES = np.array(
    [
        *([0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.2, 0.7, 0.1], [0.4, 0.35, 0.25], [0.8, 0.15, 0.05]),
        *([0.3, 0.6, 0.1], [0.55, 0.4, 0.05], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6], [0.45, 0.15, 0.4]),
    ]
)
COSTS = np.array([[0, 1, 2], [4, 0.5, 1], [10, 5, 0]])
PRIORS = np.array([0.7, 0.2, 0.1])


def make_predictions(labels=LABELS, scores=SCORES, groups=None):
    return Predictions(labels, scores.argmax(-1)[None], scores.shape[-1], groups, scores[None])


@pytest.mark.parametrize(
    "priors, expected",
    [
        # average_cost and average_cost_for_bayes_decisions (log posteriors) of expected-cost 1.0
        (None, {"argmax": (1.65, 1.2692307692307692), "bayes": (0.8, 0.6153846153846154)}),
        # the same with priors; scores: log_likelihoods = log(SCORES / SCORES.mean(0))
        (
            PRIORS,
            {"argmax": (1.0066666666666666, 0.7743589743589744), "bayes": (0.8033333333333332, 0.617948717949)},
        ),
    ],
)
def test_it_equals_the_package_expected_cost(priors, expected):
    found = {cost.decisions: cost for cost in estimate_expected_costs([make_predictions()], Costs(COSTS, priors))}
    for decisions, (value, normalized) in expected.items():
        assert found[decisions].expected_cost.value == pytest.approx(value, abs=1e-12)
        assert found[decisions].normalized.value == pytest.approx(normalized, abs=1e-12)


def test_with_equal_costs_it_is_the_error_rate_and_decisions_are_the_predicted_classes():
    labels = np.array([0, 1] * 20)
    scores = np.where(np.arange(40)[:, None] < 10, [0.7, 0.3], np.eye(2)[labels] * 0.6 + 0.2)
    argmax, bayes = estimate_expected_costs([make_predictions(labels, scores)], Costs(1 - np.eye(2)))
    assert argmax.expected_cost == bayes.expected_cost
    assert argmax.expected_cost.value == pytest.approx(5 / 40) and argmax.normalized.value == pytest.approx(5 / 20)
    low, high = argmax.expected_cost.interval
    assert 0.03 < low < 0.06 and 0.24 < high < 0.30, "Wilson's interval of 5 of 40 is [0.055, 0.261]"


@pytest.mark.parametrize("priors", [None, PRIORS])
@pytest.mark.parametrize("normalize", [True, False])
def test_derivatives(priors, normalize):
    costs, matrix = Costs(COSTS, priors), np.random.default_rng(0).uniform(1, 9, (3, 3))
    function = costs.normalized if normalize else costs.value
    steps = 1e-6 * np.eye(9).reshape(9, 3, 3)
    numeric = (function(matrix + steps) - function(matrix - steps)) / 2e-6
    assert costs.derivatives(matrix, normalize).ravel() == pytest.approx(numeric, rel=1e-6, abs=1e-8)


def test_models_are_compared_by_patient():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 3, 300), np.arange(300) // 10
    good, bad = (2 * np.eye(3)[labels] + sd * rng.normal(size=(300, 3)) for sd in (0.7, 2))
    good, bad = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) for logits in (good, bad))
    first, second = (make_predictions(labels, scores, groups) for scores in (good, bad))
    differences = compare_expected_costs([first], [second], Costs(COSTS))
    for name, cost in zip(
        ("argmax", "bayes"), zip(*(estimate_expected_costs([p], Costs(COSTS)) for p in (first, second)))
    ):
        difference = differences[name]
        assert difference.difference == pytest.approx(cost[1].normalized.value - cost[0].normalized.value)
        assert 0 < difference.interval[0] < difference.difference and difference.p_value < 0.01
        assert difference.units == "groups" and difference.test == "permutation within groups"
    same = compare_expected_costs([first], [first], Costs(COSTS))["bayes"]
    assert same.p_value == 1 and same.interval[0] < 0 < same.interval[1]


def test_what_cannot_be_estimated():
    one_class = make_predictions(np.zeros(10, dtype=int), SCORES)
    argmax, _ = estimate_expected_costs([one_class], Costs(COSTS, PRIORS))
    assert argmax.normalized is None and argmax.classes_without_images == (1, 2), "the decision 0 costs nothing"
    assert compare_expected_costs([one_class], [one_class], Costs(COSTS)) == {}
    few = make_predictions(groups=np.array(["a"] * 6 + ["b"] * 4))
    assert estimate_expected_costs([few], Costs(COSTS))[1].normalized.reason is IntervalReason.TOO_FEW_GROUPS
    without_scores = Predictions(LABELS, SCORES.argmax(-1)[None], 3)
    assert [cost.decisions for cost in estimate_expected_costs([without_scores], Costs(COSTS))] == ["argmax"]


def test_gamma_interval_of_one_weight_is_that_of_a_poisson_count():
    """The exact interval of 7 events is [2.814, 14.423] (Garwood, 1936)."""
    low, high = weighted_count_interval(7.0, 7.0, 1.0)
    assert (low, high) == pytest.approx((2.8144, 14.4227), abs=1e-4)
    assert weighted_count_interval(0.0, 0.5, 1.0)[0] == 0
