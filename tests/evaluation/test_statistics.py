"""Bootstrap intervals and tests between runs, against sklearn, scipy and plain resampling."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from hf_mae.evaluation.confusion import scores_of
from hf_mae.evaluation.metrics import HEADLINE, classification_scores
from hf_mae.evaluation.statistics import Predictions, bootstrap_intervals, mcnemar, paired_bootstrap, resampled_scores


def drawn(images: int, classes: int, runs: int, right: float, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, images, p=rng.dirichlet(np.ones(classes)))
    predicted = np.where(rng.random((runs, images)) < right, labels, rng.integers(0, classes, (runs, images)))
    return Predictions(labels, predicted, classes)


@pytest.mark.parametrize("classes", [2, 5, 23])
def test_scores_from_a_confusion_matrix_are_sklearns(classes):
    data = drawn(300, classes + 2, 3, 0.6)  # two classes may be absent
    for run, matrix in enumerate(data.confusion_matrices()):
        expected = classification_scores(data.predicted[run], data.labels, [str(i) for i in range(classes + 2)])
        found = scores_of(matrix)
        for name in HEADLINE:
            assert found[name] == pytest.approx(expected[name], abs=1e-12)


def test_a_constant_prediction_has_no_correlation():
    data = Predictions(np.array([0, 0, 1]), np.zeros((1, 3), dtype=int), 2)
    assert scores_of(data.confusion_matrices())["mcc"][0] == 0.0


def test_the_interval_is_that_of_drawing_images_one_by_one():
    data = drawn(400, 4, 1, 0.7)
    low, high = bootstrap_intervals([data], seed=1)["macro_f1"]
    rng = np.random.default_rng(2)
    values = []
    for _ in range(2000):
        index = np.concatenate(
            [rng.choice(np.flatnonzero(data.labels == c), (data.labels == c).sum()) for c in range(4)]
        )
        values.append(classification_scores(data.predicted[0][index], data.labels[index])["macro_f1"])
    assert [low, high] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.006)


def test_accuracy_of_one_class_agrees_with_scipy():
    rng = np.random.default_rng(0)
    data = Predictions(np.zeros(200, dtype=int), (rng.random((1, 200)) < 0.2).astype(int), 2)
    low, high = bootstrap_intervals([data])["accuracy"]
    theirs = bootstrap((data.predicted[0] == 0,), np.mean, method="percentile", random_state=0).confidence_interval
    assert [low, high] == pytest.approx([theirs.low, theirs.high], abs=0.008)


def test_the_draws_are_seeded_and_keep_every_class():
    data = drawn(60, 5, 2, 0.5)
    first, again, other = (resampled_scores(data, 200, seed) for seed in (0, 0, 1))
    assert np.array_equal(first["mcc"], again["mcc"]) and not np.array_equal(first["mcc"], other["mcc"])
    assert first["mcc"].shape == (2, 200)
    perfect = Predictions(data.labels, data.labels[None], 5)
    assert np.all(resampled_scores(perfect, 200)["macro_recall"] == 1.0)


def test_whole_groups_are_drawn():
    """20 videos of 30 equal frames: the interval is that of 20 videos, not of 600 images."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(20), 30), np.repeat(np.arange(20) % 2, 30)
    right = np.repeat(rng.random(20) < 0.7, 30)
    predicted = np.where(right, labels, 1 - labels)[None]
    by_image = bootstrap_intervals([Predictions(labels, predicted, 2)])["accuracy"]
    by_group = bootstrap_intervals([Predictions(labels, predicted, 2, groups)])["accuracy"]
    videos = bootstrap_intervals([Predictions(labels[::30], predicted[:, ::30], 2)])["accuracy"]
    assert np.ptp(by_group) > 3 * np.ptp(by_image)
    assert by_group == pytest.approx(videos, abs=0.051)


def test_mcnemar_is_the_binomial_test_of_the_images_on_which_they_differ():
    labels = np.zeros(100, dtype=int)
    first, second = np.zeros(100, dtype=int), np.zeros(100, dtype=int)
    first[:3], second[3:18] = 1, 1  # 3 errors of the one, 15 of the other, none shared
    result = mcnemar(labels, first, second)
    assert (result["only_first"], result["only_second"]) == (15, 3)
    assert result["p_value"] == pytest.approx(2 * sum(_binomial(18, k) for k in range(4)) / 2**18)
    assert mcnemar(labels, first, first)["p_value"] == 1.0


def _binomial(n: int, k: int) -> int:
    from math import comb

    return comb(n, k)


def test_the_paired_difference():
    data = drawn(500, 4, 2, 0.6)
    better = np.where(np.random.default_rng(1).random(500) < 0.5, data.labels, data.predicted[0])
    same = Predictions(data.labels, data.predicted[:1], 4)
    result = paired_bootstrap([same], [Predictions(data.labels, better[None], 4)])
    gain = np.mean(better == data.labels) - np.mean(same.predicted[0] == data.labels)
    assert result["accuracy"]["difference"] == pytest.approx(gain)
    assert result["accuracy"]["low"] > 0 and result["accuracy"]["p_value"] < 0.01
    equal = paired_bootstrap([same], [same])["macro_f1"]
    assert equal["difference"] == equal["low"] == equal["high"] == 0.0 and equal["p_value"] == 1.0


def test_mcnemar_counts_each_patient_once():
    """40 patients of 25 images that say the same: without names 50 images are evidence; with them, two patients."""
    groups = np.repeat(np.arange(40), 25)
    labels = groups % 2
    first, second = np.where(np.isin(groups, (3, 8)), 1 - labels, labels), labels.copy()
    second[groups == 39] = np.where(np.arange(25) < 1, 1 - labels[groups == 39], labels[groups == 39])
    by_image, by_patient = mcnemar(labels, first, second), mcnemar(labels, first, second, groups)
    assert by_image["only_second"] == 50 and by_image["p_value"] < 1e-10 and by_image["units"] == "images"
    assert (by_patient["only_first"], by_patient["only_second"], by_patient["units"]) == (1, 2, "groups")
    assert by_patient["p_value"] == 1.0
