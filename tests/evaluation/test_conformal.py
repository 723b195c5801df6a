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


def images_of_patients(rng: np.random.Generator, patients: int):
    """Scores (images, 3), labels and patients; a few patients have most images, which are easy or hard together."""
    sizes = np.maximum(1, rng.gamma(0.6, 20, patients)).astype(int)
    group = np.repeat(np.arange(patients), sizes)
    labels = rng.choice(3, len(group), p=[0.5, 0.3, 0.2])
    clarity = 2 + rng.normal(0, 2, patients)[group]
    logits = rng.normal(size=(len(group), 3)) + rng.normal(0, 2, (patients, 3))[group]
    return softmax(2 * (logits + clarity[:, None] * np.eye(3)[labels])), labels, group


def test_sets_cover_the_images_of_new_patients():
    """90 +- 2 %, for the mean over patients and over images; images as units give less."""
    coverages = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        calibration, (scores, labels, group) = images_of_patients(rng, 40), images_of_patients(rng, 300)
        for fitted in (ConformalSets.fit(*calibration), ConformalSets.fit(*calibration[:2])):
            covered = fitted.predict_sets(scores, 0.9)[np.arange(len(labels)), labels]
            by_patient = np.bincount(group, covered) / np.bincount(group)
            coverages.append([by_patient.mean(), covered.mean()])
    by_patient, by_image = np.array(coverages)[::2].mean(0), np.array(coverages)[1::2].mean(0)
    assert ((by_patient > 0.88) & (by_patient < 0.92)).all(), by_patient
    assert (by_image < by_patient - 0.01).all()


def test_patients_with_one_image_are_images_and_equal_images_are_patients():
    scores, labels, group = images_of_patients(np.random.default_rng(0), 30)
    single = ConformalSets.fit(scores, labels, np.arange(len(labels)))
    np.testing.assert_allclose(single.p_values(scores), ConformalSets.fit(scores, labels).p_values(scores))
    repeated = ConformalSets.fit(
        np.repeat(scores, 3, axis=0), np.repeat(labels, 3), np.repeat(np.arange(len(labels)), 3)
    )
    np.testing.assert_allclose(repeated.p_values(scores), ConformalSets.fit(scores, labels).p_values(scores))
    few = ConformalSets.fit(scores, labels, group % 4)
    assert few.uninformative_classes(0.95) and not ConformalSets.fit(scores, labels).uninformative_classes(0.95)
    logits = np.log(scores)
    coverage = evaluate_coverage(single, logits, labels, "test", "validation", groups=group)
    covered = single.predict_sets(scores, 0.9)[np.arange(len(labels)), labels]
    assert coverage.patients == 30
    assert coverage.coverage == pytest.approx(np.mean([covered[group == patient].mean() for patient in range(30)]))


def test_coverage_and_size_are_counted():
    logits, labels = long_tailed(np.random.default_rng(1), 600)
    conformal_sets = ConformalSets.fit(softmax(logits[:300]), labels[:300])
    values = evaluate_coverage(conformal_sets, logits[300:], labels[300:], "test", "validation")
    sets = conformal_sets.predict_sets(softmax(logits[300:]), 0.9)
    assert values.coverage == np.mean([row[label] for row, label in zip(sets, labels[300:])])
    assert values.size == sets.sum() / 300 and values.images == 300
    assert values.split == "test" and values.fitted_on == "validation" and values.level == 0.9
