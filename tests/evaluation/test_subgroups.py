"""Subgroups: assignment of images, and tests of interaction."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import norm

from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.subgroups import assign_subgroups, interaction_tests


def make_subgroup(images, right, seed, groups=None):
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    return [Predictions(labels, np.where(rng.random((1, images)) < right, labels, (labels + 1) % 3), 3, groups)]


accuracy = partial(interaction_tests, score_names=("accuracy",))


def test_with_two_subgroups_it_equals_the_test_of_two_proportions():
    one, two = make_subgroup(900, 0.8, 1), make_subgroup(700, 0.75, 2)
    (test,) = accuracy([one, two])
    proportions = [(p[0].predicted[0] == p[0].labels).mean() for p in (one, two)]
    error = np.sqrt(sum(s * (1 - s) / n for s, n in zip(proportions, (900, 700))))
    z = (proportions[0] - proportions[1]) / error
    assert test.num_subgroups == 2 and test.statistic == pytest.approx(z**2, rel=0.01)
    assert test.p_value == pytest.approx(2 * norm.sf(abs(z)), abs=0.002)


def test_a_difference_is_significant_and_equal_accuracies_are_not():
    groups = np.arange(300) // 10
    rates = (0.9, 0.6, 0.9)
    subgroups = [make_subgroup(300, rate, 1 + n, 100 * n + groups) for n, rate in enumerate(rates)]
    (test,) = accuracy(subgroups)
    assert test.p_value < 1e-4 and test.num_subgroups == 3 and test.df == (2, 28.0)
    (test,) = accuracy([make_subgroup(300, 0.8, 1, groups), make_subgroup(300, 0.8, 2, 100 + groups)])
    assert test.p_value > 0.05
    assert accuracy([make_subgroup(300, 0.8, 1)]) == []


def test_patients_in_both_subgroups_are_paired():
    """Two halves of the same patients' images, some patients being difficult: the pairing increases the power."""
    rng = np.random.default_rng(0)
    hard = np.repeat(rng.random(20) < 0.5, 10)
    halves = []
    for seed in (1, 2):
        labels = np.arange(200) % 3
        right = np.random.default_rng(seed).random(200) < np.where(hard, 0.3, 0.95)
        halves.append([Predictions(labels, np.where(right, labels, (labels + 1) % 3)[None], 3, np.arange(200) // 10)])
    paired = accuracy(halves)[0]
    others = [halves[0], [Predictions(f.labels, f.predicted, 3, 50 + np.asarray(f.groups)) for f in halves[1]]]
    assert paired.statistic > 3 * accuracy(others)[0].statistic


def test_texts_are_subgroups_and_numbers_are_divided_into_bands():
    names, indices = assign_subgroups(["b", "a", "", "b", None])
    assert names == ["a", "b", "not known"] and indices.tolist() == [1, 0, 2, 1, 2]
    names, indices = assign_subgroups([str(v) for v in range(30)])
    assert names[:3] == ["below 9.66667", "9.66667 to below 19.3333", "19.3333 and above"]
    assert np.bincount(indices).tolist() == [10, 10, 10]
    names, indices = assign_subgroups(["20", "50", "49.5", "", "70"], (50.0, 65.0))
    assert names == ["below 50", "50 to below 65", "65 and above", "not known"] and indices.tolist() == [0, 1, 0, 3, 2]
    assert assign_subgroups(["1", "0", "1"])[0] == ["0", "1", "not known"], "a few numbers are categories"
    with pytest.raises(ValueError, match="13 different values"):
        assign_subgroups([f"p{v}" for v in range(13)])
