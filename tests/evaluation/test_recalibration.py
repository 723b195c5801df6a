"""Calibration intercept, slope and curve, against scikit-learn and simulations."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from hf_mae.evaluation.intervals import IntervalReason
from hf_mae.evaluation.recalibration import recalibrate


def simulate(seed, images=400, slope=1.0, intercept=0.0, patients=0):
    """Scores, outcomes with the given recalibration (correlated within patients), and patients."""
    rng = np.random.default_rng([seed, images, patients])
    linear, noise, group = rng.normal(-1, 1.5, images), rng.normal(size=images), None
    if patients:
        _, group = np.unique(rng.choice(patients, images), return_inverse=True)
        noise = 0.3**0.5 * rng.normal(size=patients)[group] + 0.7**0.5 * noise
    return expit(linear), norm.cdf(noise) < expit(intercept + slope * linear), group


def test_the_fit_equals_scikit_learn():
    scores, positive, _ = simulate(0, slope=0.6, intercept=0.4)
    fit = recalibrate([[scores]], [positive], None, None)
    model = LogisticRegression(C=1e12, tol=1e-12, max_iter=1000).fit(logit(scores)[:, None], positive)
    assert fit.slope.value == pytest.approx(model.coef_[0, 0], rel=1e-5)
    grid = np.array(fit.curve.scores)
    np.testing.assert_allclose(fit.curve.fitted, model.predict_proba(logit(grid)[:, None])[:, 1], atol=1e-5)
    shifted = expit(logit(scores) + fit.intercept.value)  # with the intercept, the mean score is the observed fraction
    assert shifted.mean() == pytest.approx(positive.mean(), abs=1e-9)
    assert all(low < value < high for low, value, high in zip(fit.curve.low, fit.curve.fitted, fit.curve.high))
    assert len(fit.curve.group_scores) == 10


@pytest.mark.parametrize("patients", [0, 20])
def test_intervals_and_bands_contain_the_truth(patients):
    """95 % of 150 simulations: at least 90 % with Monte Carlo error; images as units contain it less often."""
    inside = np.zeros(4)
    for seed in range(150):
        scores, positive, group = simulate(seed, patients=patients)
        fit = recalibrate([[scores]], [positive], group, None)
        by_image = recalibrate([[scores]], [positive], None, None)
        middle = np.searchsorted(fit.curve.scores, 0.3)
        truth = fit.curve.scores[middle]
        inside += [
            fit.intercept.interval[0] <= 0 <= fit.intercept.interval[1],
            fit.slope.interval[0] <= 1 <= fit.slope.interval[1],
            fit.curve.low[middle] <= truth <= fit.curve.high[middle],
            by_image.intercept.interval[0] <= 0 <= by_image.intercept.interval[1],
        ]
    assert (inside[:3] >= 0.9 * 150).all(), inside
    assert (inside[3] < 0.85 * 150) == bool(patients)


def test_mean_of_folds_and_runs():
    parts = [simulate(seed) for seed in range(4)]
    folds = [[parts[0][0], parts[1][0]], [parts[2][0], parts[3][0]]]
    outcomes = [parts[0][1], parts[2][1]]
    single = [recalibrate([[run]], [y], None, None) for runs, y in zip(folds, outcomes) for run in runs]
    fit = recalibrate(folds, outcomes, None, None)
    assert fit.slope.value == pytest.approx(np.mean([one.slope.value for one in single]))
    assert fit.intercept.value == pytest.approx(np.mean([one.intercept.value for one in single]))


def test_undefined_and_missing_intervals():
    scores, positive, _ = simulate(0)
    assert recalibrate([[scores]], [np.zeros(400, bool)], None, None) is None
    assert recalibrate([[scores]], [scores > 0.5], None, None) is None, "the scores separate the sides"
    assert recalibrate([[np.full(400, 0.3)]], [positive], None, None) is None, "no slope"
    fit = recalibrate([[scores]], [positive], None, IntervalReason.TOO_FEW_IMAGES)
    assert fit.slope.interval is None and fit.slope.reason == IntervalReason.TOO_FEW_IMAGES and fit.curve.low == []
    extreme = recalibrate([[np.where(scores > 0.5, 1.0, 0.0)]], [positive], None, None)
    assert 0 < extreme.slope.value < 0.2
