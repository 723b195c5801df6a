"""PPV at a recall and a prevalence: the closed form, its interval, and the estimate of the RARE challenge."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import precision_recall_curve, roc_curve

from hf_mae.evaluation import ppv_at_recall as module
from hf_mae.evaluation.intervals import IntervalReason
from hf_mae.evaluation.operating_points import OneVsRest
from hf_mae.evaluation.ppv_at_recall import estimate_as_challenge, estimate_ppv_at_recall, estimate_split_ppv
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.settings.one_vs_rest import OneVsRestArguments


def make_images(scores, labels, groups=None) -> OneVsRest:
    scores = np.atleast_2d(scores)
    return OneVsRest(
        [Predictions(np.asarray(labels), (scores >= 0.5).astype(int), 2, groups, np.stack([1 - scores, scores], -1))]
    )


def draw(seed, positives=31, negatives=586, digits=None):
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [positives, negatives])
    scores = norm.cdf(rng.normal(size=len(labels)) + 1.5 * labels - 1)
    return (scores if digits is None else np.round(scores, digits)), labels


FAMILY = [(0, 31, 586, None), (1, 30, 300, 1), (2, 1, 250, None), (3, 3, 101, 2), (4, 5, 99, 1), (5, 200, 50, None)]


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("seed, positives, negatives, digits", FAMILY)
def test_closed_form_equals_the_first_point_of_the_roc_curve_that_reaches_the_recall(
    recall, seed, positives, negatives, digits
):
    scores, labels = draw(seed, positives, negatives, digits)
    false, reached, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    first = np.flatnonzero(reached >= recall - 1e-12)[0]
    prevalence = 1 / 101
    expected = reached[first] * prevalence / (reached[first] * prevalence + false[first] * (1 - prevalence))
    found = estimate_ppv_at_recall(make_images(scores, labels), recall, prevalence)
    assert found.estimate.value == pytest.approx(expected, abs=1e-12)
    assert (found.reached, found.thresholds) == (pytest.approx(reached[first]), [thresholds[first]])
    if positives < 2:
        assert found.estimate.reason is IntervalReason.TOO_FEW_IMAGES
    else:
        low, high = found.estimate.interval
        assert 0 <= low <= found.estimate.value <= high <= 1 and low < high


@pytest.mark.parametrize("recall", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("seed, positives, negatives, digits", FAMILY)
def test_challenge_estimate_equals_the_code_of_the_challenge(recall, seed, positives, negatives, digits, monkeypatch):
    """A second implementation, from the definition: scikit-learn's curve of each resample, and `numpy.interp`."""
    monkeypatch.setattr(module, "RESAMPLES", 50)
    scores, labels = draw(seed, positives, negatives, digits)
    positive, negative = scores[labels == 1], scores[labels == 0]
    drawn, values = max(1, int(negatives / 100)), []
    for draws in np.random.default_rng(0).integers(positives, size=(50, drawn)):
        sample = np.repeat([0, 1], [negatives, drawn]), np.r_[negative, positive[draws]]
        precisions, recalls, _ = precision_recall_curve(*sample)
        values.append(np.interp(recall, recalls[::-1], precisions[::-1]))
    found = estimate_as_challenge(make_images(scores, labels).folds, recall, 1 / 101)
    expected = np.median(values), np.percentile(values, 2.5), np.percentile(values, 97.5)
    assert (found.median, found.low, found.high) == pytest.approx(expected, abs=1e-12)


def test_a_perfect_model_and_a_constant_one():
    labels = np.repeat([1, 0], [50, 1000])
    perfect = estimate_ppv_at_recall(make_images(labels * 0.8 + 0.1, labels), 0.9, 0.01)
    assert (perfect.estimate.value, perfect.challenge.median, perfect.challenge.low) == (1, 1, 1)
    assert 0.5 < perfect.estimate.interval[0] < perfect.estimate.interval[1] == 1
    constant = estimate_ppv_at_recall(make_images(0 * labels + 0.5, labels), 0.9, 0.01)
    assert constant.reached == 1 and constant.estimate.value == pytest.approx(0.01)
    assert constant.estimate.interval[0] < 0.01 <= constant.estimate.interval[1] < 0.02
    assert estimate_ppv_at_recall(make_images(0.5 + 0 * labels, 0 * labels), 0.9, 0.01) is None


def test_runs_and_folds_are_averaged_and_the_order_of_rows_has_no_effect():
    scores, labels = draw(0, digits=2)
    first, second = (estimate_ppv_at_recall(make_images(draw(seed, digits=2)[0], labels), 0.9, 0.01) for seed in (0, 1))
    runs = make_images(np.stack([draw(seed, digits=2)[0] for seed in (0, 1)]), labels)
    mean = (first.estimate.value + second.estimate.value) / 2
    assert estimate_ppv_at_recall(runs, 0.9, 0.01).estimate.value == pytest.approx(mean)
    folds = OneVsRest([make_images(draw(seed, digits=2)[0], labels).folds[0] for seed in (0, 1)])
    found = estimate_ppv_at_recall(folds, 0.9, 0.01)
    assert found.estimate.value == pytest.approx(mean) and len(found.thresholds) == 2
    order = np.random.default_rng(0).permutation(len(labels))
    assert estimate_ppv_at_recall(make_images(scores[order], labels[order]), 0.9, 0.01).estimate == first.estimate


def test_results_of_a_split_are_of_the_positive_classes_or_of_each_class():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 3, 90), rng.dirichlet(np.ones(3), 90)
    options = OneVsRestArguments(["b", "c"], 0.9, 1 / 101)
    found = estimate_split_ppv(labels, scores, ["a", "b", "c"], None, options)
    expected = estimate_ppv_at_recall(make_images(scores[:, 1:].sum(-1), (labels > 0).astype(int)), 0.9, 1 / 101)
    assert found["ppv_at_recall"] == found["ppv"][0]["estimate"]["value"] == pytest.approx(expected.estimate.value)
    each = estimate_split_ppv(labels, scores, ["a", "b", "c"], None, OneVsRestArguments(None, 0.9))
    assert [result["classes"] for result in each["ppv"]] == [["a"], ["b"], ["c"]] and len(each) == 1
    assert [result["prevalence"] for result in each["ppv"]] == pytest.approx(np.bincount(labels) / 90)


@pytest.mark.parametrize("patients", [None, (30, 60)])
def test_interval_covers_the_value_of_new_images_and_patients(patients, monkeypatch):
    """200 draws per case; `scripts/studies/simulate_ppv.py` has the table."""
    monkeypatch.setattr(module, "RESAMPLES", 1)
    rng, covered, within = np.random.default_rng(1), [], 0.3**0.5
    false = norm.sf(2 + norm.ppf(0.1))
    expected = 0.9 / 101 / (0.9 / 101 + false * 100 / 101)
    for _ in range(200):
        labels = np.repeat([1, 0], [150, 900])
        values, groups = rng.normal(size=1050), None
        if patients:
            groups = np.r_[rng.integers(patients[0], size=150), patients[0] + rng.integers(patients[1], size=900)]
            values = 0.7**0.5 * values + within * rng.normal(size=sum(patients))[groups]
        found = estimate_ppv_at_recall(make_images(norm.cdf(values + 2 * labels), labels, groups), 0.9, 1 / 101)
        low, high = found.estimate.interval
        covered.append(low <= expected <= high)
    assert np.mean(covered) >= 0.93
