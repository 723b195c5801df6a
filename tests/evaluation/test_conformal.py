"""Conformal prediction sets: coverage, p values and sets counted by hand."""

import numpy as np
import pytest

from hf_mae.evaluation.conformal import ConformalSets, evaluate_coverage
from hf_mae.evaluation.metrics import softmax


def long_tailed(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (images, 4) of an overconfident model, and labels of a long-tailed data set."""
    labels = rng.choice(4, count, p=[0.6, 0.25, 0.1, 0.05])
    return 3 * (np.eye(4)[labels] * 1.5 + rng.normal(size=(count, 4)) + [0.5, 0, 0, -0.5]), labels


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_sets_cover_the_true_class_of_each_class_at_the_requested_level(level):
    rng, coverages = np.random.default_rng(0), [[] for _ in range(4)]
    for _ in range(60):
        logits, labels = long_tailed(rng, 2000)
        sets = ConformalSets.fit(softmax(logits[:1000]), labels[:1000]).predict_sets(softmax(logits[1000:]), level)
        for index in range(4):
            rows = labels[1000:] == index
            coverages[index].append(sets[rows, index].mean())
    for coverage in map(np.mean, coverages):
        assert level - 0.01 < coverage < level + 0.025  # at most 1 / (images of the class + 1) above


def test_a_p_value_is_a_rank_among_the_calibration_images_of_the_class():
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]])
    sets = ConformalSets.fit(scores, np.array([0, 0, 0, 1]))
    new = np.array([[0.6, 0.4], [0.95, 0.05], [0.1, 0.9]])
    np.testing.assert_allclose(sets.p_values(new), [[3 / 4, 1 / 2], [1, 1 / 2], [1 / 4, 1]])
    assert sets.predict_sets(new, 0.75).tolist() == [[True, True], [True, True], [False, True]]
    assert sets.uninformative_classes(0.75) == [1] and sets.uninformative_classes(0.9) == [0, 1]
    without_class_1 = ConformalSets.fit(scores, np.zeros(4, int))
    assert without_class_1.p_values(new)[:, 1].tolist() == [1, 1, 1]


def test_coverage_and_size_are_counted():
    logits, labels = long_tailed(np.random.default_rng(1), 600)
    conformal_sets = ConformalSets.fit(softmax(logits[:300]), labels[:300])
    values = evaluate_coverage(conformal_sets, logits[300:], labels[300:], "test", "validation")
    sets = conformal_sets.predict_sets(softmax(logits[300:]), 0.9)
    assert values.coverage == np.mean([row[label] for row, label in zip(sets, labels[300:])])
    assert values.size == sets.sum() / 300 and values.images == 300
    assert values.split == "test" and values.fitted_on == "validation" and values.level == 0.9
