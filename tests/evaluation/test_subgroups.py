"""Subgroups: assignment of images, and tests of interaction."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import fisher_exact, norm
from sklearn.metrics import f1_score
from support.messages import raises

from hf_mae.evaluation.estimation import estimate_headline_metrics
from hf_mae.evaluation.interaction import interaction_tests
from hf_mae.evaluation.messages import EvaluationMessage
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.subgroups import assign_subgroups, select_classes, share_classes


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
    assert test.num_subgroups == 2 and test.statistic == pytest.approx(z**2, rel=0.05)
    assert test.p_value == pytest.approx(2 * norm.sf(abs(z)), abs=0.02)


def test_of_one_class_it_equals_fishers_exact_test():
    """9 of 10 and 3 of 10 right; the same with two runs, and if each image is a patient."""
    right = [np.arange(10) < 9, np.arange(10) < 3]
    expected = fisher_exact([[9, 1], [3, 7]]).pvalue
    for runs, groups in ((1, None), (2, None), (1, np.arange(10))):
        subgroups = [
            [Predictions(np.zeros(10, dtype=int), np.tile(1 - row.astype(int), (runs, 1)), 2, names)]
            for row, names in zip(right, (groups, None if groups is None else groups + 10))
        ]
        (test,) = accuracy(subgroups)
        assert test.p_value == pytest.approx(expected, abs=0.012)
        assert test.test == ("permutation of images within classes" if groups is None else "permutation of groups")


def test_equal_subgroups_do_not_differ():
    """Also if all predictions of a class are equal, so that nothing of it can be permuted."""
    labels = np.repeat([0, 1], (100, 6))
    predicted = np.where(np.arange(106) % 9 == 0, 1, labels)[None]
    found = interaction_tests([[Predictions(labels, predicted, 2)]] * 2, ("macro_f1", "accuracy", "mcc"))
    assert all(test.p_value > 0.9 for test in found)


def test_other_numbers_of_images_of_a_class_are_no_difference():
    """Both classes are as hard in both subgroups, but one subgroup has mostly images of the hard class."""
    labels = [np.repeat([0, 1], counts) for counts in ((90, 10), (10, 90))]
    rng, p_values = np.random.default_rng(0), []
    for _ in range(20):
        predicted = [np.where(rng.random(100) < np.where(own == 0, 0.95, 0.6), own, 1 - own) for own in labels]
        (test,) = accuracy([[Predictions(own, p[None], 2)] for own, p in zip(labels, predicted)])
        p_values.append(test.p_value)
    assert sum(p <= 0.05 for p in p_values) <= 3


def test_a_difference_is_significant_and_equal_accuracies_are_not():
    groups = np.arange(300) // 10
    rates = (0.9, 0.6, 0.9)
    subgroups = [make_subgroup(300, rate, 1 + n, 100 * n + groups) for n, rate in enumerate(rates)]
    (test,) = accuracy(subgroups)
    assert test.p_value == 1 / 2000 and test.num_subgroups == 3 and test.df is None
    (test,) = accuracy([make_subgroup(300, 0.8, 1, groups), make_subgroup(300, 0.8, 2, 100 + groups)])
    assert test.p_value > 0.05
    assert accuracy([make_subgroup(300, 0.8, 1)]) == []


def test_patients_in_both_subgroups_are_paired():
    """Two halves of the same patients' images, some patients being difficult: the pairing increases the power."""
    hard, images, halves = np.repeat(np.random.default_rng(0).random(40) < 0.5, 30), np.arange(1200), []
    for seed, lower in ((1, 0.0), (2, 0.08)):
        labels = images % 3
        right = np.random.default_rng(seed).random(1200) < np.where(hard, 0.3, 0.95) - lower
        halves.append(Predictions(labels, np.where(right, labels, (labels + 1) % 3)[None], 3, images // 30))
    shifted = [replace(halves[1], groups=number + halves[1].groups) for number in (0, 50, 35)]
    paired, separate, few = (accuracy([[halves[0]], [second]])[0] for second in shifted)
    assert (paired.test, paired.p_value) == ("permutation of images within groups and classes", 0.0005)
    assert separate.test == "permutation of groups" and separate.p_value > 0.05
    assert few.test == "Wald, F" and few.df == (1, 39) and few.p_value > 0.05
    fewer = [fold.select(fold.groups < 10) for fold in (halves[0], replace(halves[1], groups=7 + halves[1].groups))]
    assert accuracy([[fold] for fold in fewer]) == [], "Wald's test needs more patients"


def test_texts_are_subgroups_and_numbers_are_divided_into_bands():
    names, indices = assign_subgroups("x", ["b", "a", "", "b", None, "Unknown", "NaN", float("nan"), "n/a"])
    assert names == ["a", "b", "not known"] and indices.tolist() == [1, 0, 2, 1, 2, 2, 2, 2, 2]
    names, indices = assign_subgroups("x", [str(v) for v in range(30)])
    assert names[:3] == ["below 9.66667", "9.66667 to below 19.3333", "19.3333 and above"]
    assert np.bincount(indices).tolist() == [10, 10, 10]
    assert assign_subgroups("x", ["1", "0", "1"])[0] == ["0", "1", "not known"], "a few numbers are categories"
    assert assign_subgroups("x", ["10", "2", "1"])[0] == ["1", "2", "10", "not known"], "in the order of numbers"
    assert assign_subgroups("x", ["none", "blue"])[0] == ["blue", "none", "not known"], "a stain, for example"
    with raises(EvaluationMessage.TOO_MANY_SUBGROUPS, column="x", count=13):
        assign_subgroups("x", [f"p{v}" for v in range(13)])


@pytest.mark.parametrize("edges", [(50.0, 65.0), (65.0, 50.0), (50.0, 65.0, 50.0)])
@pytest.mark.parametrize("cell", ["", "unknown", "Not known", "nan", "NA", "none", "<NA>", None])
def test_a_cell_without_a_value_is_in_no_band(cell, edges):
    names, indices = assign_subgroups("age", ["20", "50", "49.5", cell, "70", "-3", "6.4e1", ".5"], edges)
    assert names == ["below 50", "50 to below 65", "65 and above", "not known"]
    assert indices.tolist() == [0, 1, 0, 3, 2, 0, 1, 0]


@pytest.mark.parametrize(
    "cell", ["65+", "52,5", "1_0", "inf", "1e999", "1950-02-01", "elderly", "50-60", "\u0665\u0660"]
)
def test_bands_reject_a_cell_that_is_not_a_number_and_name_it(cell):
    for values, edges in (([20, 50, cell, 70], (50.0,)), ([*range(20), cell], ()), ([cell, "x"], (50.0,))):
        with raises(EvaluationMessage.CELL_IS_NOT_A_NUMBER, column="age", value=cell):
            assign_subgroups("age", values, edges)


def test_bands_of_many_equal_values_and_of_large_numbers():
    names, indices = assign_subgroups("count", [0] * 80 + list(range(1, 21)))
    assert names == ["below 1", "1 and above", "not known"] and np.bincount(indices).tolist() == [80, 20]
    days = [20240101 + day for day in range(20)]
    names, _ = assign_subgroups("day", days, (20240105.0, 20240110.0))
    assert names[1] == "20240105 to below 20240110"


def test_scores_of_selected_classes_count_other_predictions_as_errors_only():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([[0, 2, 0, 1, 0, 2]])
    (chosen,) = select_classes([Predictions(labels, predicted, 3)], (0, 1))
    expected = f1_score(labels[:5], predicted[0, :5], labels=[0, 1], average="macro")
    assert estimate_headline_metrics([chosen])["macro_f1"].value == pytest.approx(expected)
    assert share_classes([[chosen], [Predictions(labels[3:], predicted[:, 3:], 3)]]) == (1,)
    assert select_classes([chosen], (2,)) == []
