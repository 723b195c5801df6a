"""Arithmetic of intervals: published formulas, other programs, and the limits of the ranges."""

import numpy as np
import pytest
from scipy import stats

from hf_mae.evaluation.intervals import (
    design_effect,
    effective_wilson_interval,
    log_scale_interval,
    ratio_score_interval,
    score_interval,
    wilson_interval,
)

Z = stats.norm.ppf(0.975)


@pytest.mark.parametrize("right, count", [(9, 20), (57, 57), (0, 8), (5, 8), (496, 505)])
def test_one_proportion_has_wilsons_interval(right, count):
    expected = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx((expected.low, expected.high))
    assert score_interval([right / count], [count], [1.0]) == pytest.approx((expected.low, expected.high), abs=1e-7)
    doubled = score_interval([right / count], [2 * count], [0.5], design=2.0)
    assert np.array(doubled) == pytest.approx(np.array([expected.low, expected.high]) / 2, abs=1e-7)


def test_one_error_has_the_limit_of_a_poisson_mean():
    """Brown, Cai and DasGupta: -log(0.95) / n for one image."""
    low, high = score_interval([59 / 60], [60], [1.0])
    assert high == pytest.approx(1 + np.log(0.95) / 60)
    assert low == pytest.approx(stats.binomtest(59, 60).proportion_ci(method="wilson").low, abs=1e-6)
    assert score_interval([1 / 60], [60], [1.0])[0] == pytest.approx(-np.log(0.95) / 60)


def test_limits_of_two_proportions_are_at_the_critical_value():
    """The constrained estimates are found again by a search over the line of the same sum."""
    x, n = np.array([18.0, 5.0]), np.array([20.0, 9.0])
    low, high = score_interval(x / n, n, [0.5, 0.5])
    for limit in (low, high):
        first = np.linspace(max(0, 2 * limit - 1), min(1, 2 * limit), 200_001)[1:-1]
        p = np.stack([first, 2 * limit - first])
        likelihood = (x[:, None] * np.log(p) + (n - x)[:, None] * np.log(1 - p)).sum(0)
        p = p[:, likelihood.argmax()]
        error = 0.5 * (p * (1 - p) / n * (1 + 0.5 / (n - 1))).sum() ** 0.5
        assert abs((x / n).mean() - limit) == pytest.approx(Z * error, rel=1e-3)


def test_a_class_without_errors_has_uncertainty():
    low, high = score_interval([0.9, 1.0], [200, 8], [0.5, 0.5])
    assert low < 0.82 and 0.95 < high < 0.98
    assert score_interval([1.0, 1.0], [200, 8], [0.5, 0.5])[1] == 1.0
    low, high = score_interval([1.0, 0.0], [500, 5], [0.5, 0.5])
    assert low < 0.5 < 0.65 < high
    assert score_interval([0.5, 0.0], [30, 0], [0.5, 0.5])[1] < 0.4, "a class without images is constant"


def test_f1_has_the_interval_of_the_jaccard_index():
    low, high = score_interval([0.6], [50], [1.0], f1=True)
    jaccard = wilson_interval(0.6, 50)
    assert low < 2 * 0.6 / 1.6 < high
    assert (low, high) == pytest.approx([2 * j / (1 + j) for j in jaccard], abs=0.02)


def test_many_sums_at_once_equal_one_after_the_other():
    rng = np.random.default_rng(0)
    trials = rng.integers(1, 40, (6, 4)).astype(float)
    proportions = np.round(rng.random((6, 4)) * trials) / trials
    weights = np.full((6, 4), 0.25)
    for f1 in (False, True):
        together = np.array(score_interval(proportions, trials, weights, 1.3, 2.1, f1))
        for row in range(6):
            one = score_interval(proportions[row], trials[row], weights[row], 1.3, 2.1, f1)
            assert together[:, row] == pytest.approx(np.array(one), abs=1e-6)


def test_effective_sample_size_of_a_proportion_is_its_number_of_images():
    p, n = 0.8, 200
    interval = effective_wilson_interval(p, p * (1 - p) / n, p)
    expected = wilson_interval(p, n, stats.t.ppf(0.975, n - 1))
    assert interval == pytest.approx(expected)
    shifted = effective_wilson_interval(2 * p - 1, 4 * p * (1 - p) / n, 2 * p - 1, low=-1.0)
    assert shifted == pytest.approx([2 * end - 1 for end in expected])


@pytest.mark.parametrize("value", [-1.0, -0.5, -0.01, 0.0, 0.01, 0.4, 1.0])
def test_agreement_stays_in_its_range_and_contains_the_estimate(value):
    for variance in (1e-4, 0.01, 0.5):
        low, high = effective_wilson_interval(value, variance, 0.9 * value, low=-1.0, chance=0.0)
        assert -1 <= low <= value <= high <= 1 and low < high


def test_koopmans_interval_of_a_ratio():
    """The limits are at the critical value of the score statistic; without an event the upper limit is infinite."""
    low, high = ratio_score_interval(36 / 40, 40, 16 / 80, 80)
    assert (low, high) == pytest.approx((2.94, 7.15), abs=0.01)  # Koopman (1984), example
    low, high = ratio_score_interval(0.9, 60, 0.0, 40)
    assert np.isinf(high) and 5 < low < 20
    assert ratio_score_interval(0.0, 60, 0.5, 40)[0] == 0.0


def test_unbounded_means():
    low, high = log_scale_interval(0.5, 0.0025, 0.5, np.inf)
    assert (low, high) == pytest.approx((0.5 / np.exp(0.196), 0.5 * np.exp(0.196)), rel=1e-3)


def test_design_effect_of_identical_images_is_their_number():
    group = np.repeat(np.arange(50), 4)
    influence = np.repeat(np.random.default_rng(0).normal(size=50), 4)
    design = design_effect(influence, np.ones(200), group, 0.0)
    assert design.factor == pytest.approx(4, rel=0.05) and design.degrees_of_freedom == pytest.approx(49)
    independent = design_effect(np.random.default_rng(1).normal(size=200), np.ones(200), group, 0.0)
    assert 1 <= independent.factor < 1.6
    perfect = design_effect(np.zeros(200), np.ones(200), group, 1e-4)
    assert perfect.factor == pytest.approx(4), "without errors, the images of a patient count as equal"
    uneven = design_effect(influence, np.ones(200), np.minimum(np.arange(200), 20), 0.0)
    assert uneven.degrees_of_freedom < 5
