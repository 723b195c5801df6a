"""Parts of the images: which there are, and whether a model does equally well in them."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import norm

from hf_mae.evaluation.confusion import headline_metrics
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.subgroups import assign_subgroups, interaction_tests


def part(images, right, seed, groups=None):
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    return [Predictions(labels, np.where(rng.random((1, images)) < right, labels, (labels + 1) % 3), 3, groups)]


accuracy = partial(interaction_tests, score_function=headline_metrics, score_names=("accuracy",))


def test_of_two_parts_of_many_images_it_is_the_test_of_two_proportions():
    one, two = part(900, 0.8, 1), part(700, 0.75, 2)
    (found,) = accuracy([one, two])
    shares = [(p[0].predicted[0] == p[0].labels).mean() for p in (one, two)]
    error = np.sqrt(sum(s * (1 - s) / n for s, n in zip(shares, (900, 700))))
    z = (shares[0] - shares[1]) / error
    assert found.num_subgroups == 2 and found.statistic == pytest.approx(z**2, rel=0.01)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(z)), abs=0.002)


def test_a_difference_is_found_and_none_is_not():
    groups = np.arange(300) // 10
    (found,) = accuracy([part(300, 0.9, 1, groups), part(300, 0.6, 2, 100 + groups), part(300, 0.9, 3, 200 + groups)])
    assert found.p_value < 1e-4 and found.num_subgroups == 3 and found.df == (2, 28.0)
    (none,) = accuracy([part(300, 0.8, 1, groups), part(300, 0.8, 2, 100 + groups)])
    assert none.p_value > 0.05
    assert accuracy([part(300, 0.8, 1)]) == []


def test_patients_who_are_in_both_parts_are_counted_once():
    """Two halves of the same patients' images, of whom some are hard: what they share takes nothing from the test."""
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


def test_words_are_parts_and_numbers_are_bands():
    names, place = assign_subgroups(["b", "a", "", "b", None])
    assert names == ["a", "b", "not known"] and place.tolist() == [1, 0, 2, 1, 2]
    names, place = assign_subgroups([str(v) for v in range(30)])
    assert names[:3] == ["below 9.66667", "9.66667 to below 19.3333", "19.3333 and above"]
    assert np.bincount(place).tolist() == [10, 10, 10]
    names, place = assign_subgroups(["20", "50", "49.5", "", "70"], (50.0, 65.0))
    assert names == ["below 50", "50 to below 65", "65 and above", "not known"] and place.tolist() == [0, 1, 0, 3, 2]
    assert assign_subgroups(["1", "0", "1"])[0] == ["0", "1", "not known"], "few numbers are parts by themselves"
    with pytest.raises(ValueError, match="it has 13 values"):
        assign_subgroups([f"p{v}" for v in range(13)])
