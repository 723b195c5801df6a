"""Agreement of annotators: published examples, statsmodels and krippendorff, and intervals."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from hf_mae.evaluation.agreement import estimate_agreement
from hf_mae.evaluation.intervals import IntervalReason

pytestmark = pytest.mark.unit
# Krippendorff (2011), section C: four observers, twelve units, 0: no label
RELIABILITY_DATA = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
).T
# Example of the article "Fleiss' kappa" of Wikipedia: 14 raters, 10 subjects, 5 categories
FLEISS_COUNTS = [
    *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
    *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
]


def make_labels(images=300, classes=4, accuracy=0.75, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, images)
    return np.where(rng.random((images, 3)) < accuracy, truth[:, None], rng.integers(0, classes, (images, 3)))


def test_alpha_of_a_published_example():
    found = estimate_agreement(RELIABILITY_DATA - 1, list("ABCD"), 5, None, ordered=True)
    assert found.images == 11 and found.alpha.value == pytest.approx(0.743, abs=5e-4)
    assert found.ordinal_alpha.value == pytest.approx(0.815, abs=5e-4)
    # krippendorff 0.9.0
    assert found.alpha.value == pytest.approx(0.743421052631579, abs=1e-12)


def test_fleiss_kappa_of_a_published_example():
    labels = np.array([np.repeat(np.arange(5), row) for row in FLEISS_COUNTS])
    found = estimate_agreement(labels, [str(number) for number in range(14)], 5, None, ordered=False)
    assert found.agreement.value == pytest.approx(0.378, abs=5e-4)
    assert found.fleiss_kappa.value == pytest.approx(0.20993070442195522, abs=1e-12)  # statsmodels 0.15: fleiss_kappa


def test_pairs_equal_scikit_learn_on_the_images_that_both_labelled():
    labels = make_labels()
    labels[np.random.default_rng(1).random(labels.shape) < 0.2] = -1
    for pair in estimate_agreement(labels, "012", 4, None, ordered=True).pairs:
        first, second = labels[:, int(pair.first)], labels[:, int(pair.second)]
        both = (first >= 0) & (second >= 0)
        first, second = first[both], second[both]
        assert pair.images == both.sum() and pair.agreement.value == pytest.approx((first == second).mean())
        assert pair.kappa.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
        assert pair.qwk.value == pytest.approx(cohen_kappa_score(first, second, weights="quadratic"), abs=1e-12)


def test_intervals_agree_with_the_bootstrap_of_patients():
    labels, groups, rng = make_labels(accuracy=0.6), np.arange(300) // 10, np.random.default_rng(2)
    labels = np.where((groups < 15)[:, None], labels[:, :1], labels)  # the annotators agree on half of the patients
    names = ("agreement", "alpha", "ordinal_alpha", "fleiss_kappa")
    draws = []
    for _ in range(100):
        rows = (10 * rng.integers(0, 30, 30)[:, None] + np.arange(10)).ravel()
        draw = estimate_agreement(labels[rows], "012", 4, None, ordered=True)
        draws.append([getattr(draw, name).value for name in names])
    found = estimate_agreement(labels, "012", 4, groups.astype(str), ordered=True)
    independent = estimate_agreement(labels, "012", 4, None, ordered=True)
    for name, error in zip(names, np.std(draws, axis=0)):
        value, (low, high) = getattr(found, name).value, getattr(found, name).interval
        assert low < value < high and high - low == pytest.approx(2 * 2.05 * error, rel=0.2)
        assert high - low > 1.5 * np.diff(getattr(independent, name).interval)[0]


def test_perfect_agreement_and_what_is_undefined():
    labels = np.repeat(np.arange(60)[:, None] % 3, 3, axis=1)
    found = estimate_agreement(labels, "012", 3, None, ordered=False)
    assert found.alpha.value == found.fleiss_kappa.value == 1 and found.ordinal_alpha is None
    assert 0.8 < found.alpha.interval[0] < 0.99 and found.alpha.interval[1] == 1
    found = estimate_agreement(np.zeros((60, 2), dtype=int), "01", 3, None, ordered=False)
    assert found.alpha is found.fleiss_kappa is found.pairs[0].kappa is None and found.agreement.value == 1
    found = estimate_agreement(labels, "012", 3, np.repeat(["a", "b"], 30), ordered=False)
    assert found.alpha.reason is found.pairs[0].kappa.reason is IntervalReason.TOO_FEW_GROUPS
    with pytest.raises(ValueError, match="two annotators"):
        estimate_agreement(np.array([[0, -1], [-1, 1]]), "01", 3, None, ordered=False)
