"""Intervals and tests between models: the units that are independent, and the numbers of others on the same input."""

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from sklearn.metrics import accuracy_score, recall_score

from hf_mae.evaluation.confusion import headline_metrics
from hf_mae.evaluation.intervals import estimate_rates_by_class, headline_metric_intervals, jackknife_replicates
from hf_mae.evaluation.metrics import HEADLINE, classification_scores
from hf_mae.evaluation.prediction_table import Predictions, clusters_from_predictions
from hf_mae.evaluation.significance import (
    compare_predictions,
    corrected_resampled_test,
    holm,
    mcnemar,
    permutation_tests,
)


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
        found = headline_metrics(matrix)
        for name in HEADLINE:
            assert found[name] == pytest.approx(expected[name], abs=1e-12)


def test_a_constant_prediction_has_no_correlation():
    data = Predictions(np.array([0, 0, 1]), np.zeros((1, 3), dtype=int), 2)
    assert headline_metrics(data.confusion_matrices())["mcc"][0] == 0.0


# Units


@pytest.mark.parametrize("grouped", [False, True])
def test_a_score_without_a_unit_is_that_of_the_other_images(grouped):
    folds = [drawn(60, 3, 2, 0.7, seed) for seed in (0, 1)]
    groups = [np.arange(60) // 7, 5 + np.arange(60) // 7]  # 5 to 8 stand in both folds
    if grouped:
        folds = [Predictions(f.labels, f.predicted, 3, g) for f, g in zip(folds, groups)]
    units = clusters_from_predictions(folds)
    value, without = jackknife_replicates(units, headline_metrics)
    assert value["macro_f1"] == pytest.approx(
        np.mean([headline_metrics(fold.confusion_matrices())["macro_f1"].mean() for fold in folds])
    )
    if not grouped:
        assert units.kind == "images" and units.counts.sum() == 120
        image = folds[1].predicted[:, 0]
        kept = Predictions(folds[1].labels[1:], folds[1].predicted[:, 1:], 3)
        expected = np.mean([headline_metrics(f.confusion_matrices())["mcc"].mean() for f in (folds[0], kept)])
        kinds = np.unique(np.vstack([folds[1].labels, folds[1].predicted]), axis=1)
        place = np.flatnonzero((kinds == np.r_[folds[1].labels[0], image][:, None]).all(0))[0]
        assert without["mcc"][units.members[1][place]] == pytest.approx(expected)
        return
    assert units.kind == "groups" and len(units.counts) == 14
    names = sorted({str(g) for fold in groups for g in fold})
    for group in (0, 6, 12):
        kept = [
            Predictions(f.labels[g != group], f.predicted[:, g != group], 3).confusion_matrices()
            for f, g in zip(folds, groups)
        ]
        expected = np.mean([headline_metrics(matrices)["accuracy"].mean() for matrices in kept])
        assert without["accuracy"][names.index(str(group))] == pytest.approx(expected)


def test_groups_of_unequal_sizes_are_worth_fewer():
    even = Predictions(np.zeros(40, int), np.zeros((1, 40), int), 2, np.arange(40) // 4)
    uneven = Predictions(np.zeros(40, int), np.zeros((1, 40), int), 2, np.minimum(np.arange(40), 9))
    assert clusters_from_predictions([even]).n_eff == 10 and clusters_from_predictions([uneven]).n_eff == pytest.approx(
        1600 / (31**2 + 9)
    )


# Intervals


def test_of_one_proportion_the_interval_is_that_of_its_logit():
    """The jackknife's error of a share of n is sqrt(p (1 - p) / (n - 1)); on the logit, over p (1 - p)."""
    predicted = (np.arange(200) < 40).astype(int)
    low, high = headline_metric_intervals([Predictions(np.zeros(200, int), predicted[None], 2)])["accuracy"]
    reach = stats.t.ppf(0.975, 199) * (1 / (200 * 0.8 * 0.2)) ** 0.5
    centre = np.log(0.8 / 0.2)
    assert [low, high] == pytest.approx(expit([centre - reach, centre + reach]), abs=1e-3)


def test_where_nothing_is_wrong_the_interval_is_the_exact_one():
    labels = np.arange(60) % 3
    low, high = headline_metric_intervals([Predictions(labels, labels[None], 3)])["accuracy"]
    assert high == 1.0 and low == pytest.approx(stats.binomtest(60, 60).proportion_ci(0.95, "exact").low)
    grouped = Predictions(labels, labels[None], 3, np.arange(60) // 6)
    assert headline_metric_intervals([grouped])["macro_f1"] == pytest.approx((stats.beta.ppf(0.025, 10, 1), 1.0))


def test_too_few_patients_for_an_interval():
    labels = np.arange(40) % 2
    two = Predictions(labels, (labels * (np.arange(40) > 5))[None], 2, np.arange(40) // 20)
    assert set(headline_metric_intervals([two]).values()) == {None}


def test_an_interval_is_that_of_patients_not_of_images():
    """20 videos of 30 equal frames are worth 20 images."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(20), 30), np.repeat(np.arange(20) % 2, 30)
    right = np.repeat(rng.random(20) < 0.7, 30)
    predicted = np.where(right, labels, 1 - labels)[None]
    by_image = headline_metric_intervals([Predictions(labels, predicted, 2)])["accuracy"]
    by_group = headline_metric_intervals([Predictions(labels, predicted, 2, groups)])["accuracy"]
    videos = headline_metric_intervals([Predictions(labels[::30], predicted[:, ::30], 2)])["accuracy"]
    assert np.ptp(by_group) > 3 * np.ptp(by_image)
    assert by_group == pytest.approx(videos, abs=0.02)


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_cover(grouped):
    """A quick look at what scripts/simulate_statistics.py shows: of 300 intervals some 285 hold the true accuracy."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        share = rng.beta(8, 2, size=30) if grouped else np.full(30, 0.8)
        right = rng.random((30, 10)) < share[:, None]
        data = Predictions(np.zeros(300, int), (~right).astype(int).reshape(1, -1), 2, np.repeat(np.arange(30), 10))
        if not grouped:
            data = Predictions(data.labels, data.predicted, 2)
        low, high = headline_metric_intervals([data])["accuracy"]
        hits += low <= 0.8 <= high
    assert 274 <= hits <= 294


def test_rates_of_each_class_are_sklearns_with_an_interval():
    data = drawn(400, 4, 1, 0.7)
    labels, predicted = data.labels, data.predicted[0]
    for label, rates in enumerate(estimate_rates_by_class([data])):
        positive, taken = labels == label, predicted == label
        for name, one, two, wanted in (
            ("sensitivity", positive, taken, 1),
            ("specificity", positive, taken, 0),
            ("ppv", taken, positive, 1),
            ("npv", taken, positive, 0),
        ):
            count = int((one == wanted).sum())
            if count == 0:
                assert name not in rates
                continue
            value = recall_score(one, two, pos_label=wanted)
            assert rates[name].value == pytest.approx(value) and rates[name].n_eff == pytest.approx(count)
            if count < 3:
                assert rates[name].interval is None
                continue
            low, high = rates[name].interval
            wilson = stats.binomtest(round(value * count), count).proportion_ci(method="wilson")
            assert [low, high] == pytest.approx([wilson.low, wilson.high])


def test_a_class_too_small_for_an_interval_and_one_that_is_always_right():
    labels = np.array([0] * 30 + [1] * 20 + [2] * 2)
    predicted = labels.copy()
    predicted[:9] = 1
    zero, one, two = estimate_rates_by_class([Predictions(labels, predicted[None], 4)])[:3]
    assert zero["sensitivity"].value == 0.7 and zero["sensitivity"].interval[0] < 0.7
    assert one["sensitivity"].interval == pytest.approx((20 / (20 + stats.norm.ppf(0.975) ** 2), 1.0))
    assert two["sensitivity"].interval is None and two["sensitivity"].n_eff == 2
    absent = estimate_rates_by_class([Predictions(labels, predicted[None], 4)])[3]
    assert set(absent) == {"specificity", "npv"}
    grouped = Predictions(labels, predicted[None], 3, np.r_[np.arange(30) // 10, np.arange(20) // 2 + 3, 20, 21])
    assert estimate_rates_by_class([grouped])[0]["sensitivity"].n_eff == pytest.approx(3)


# Tests between two models


def test_the_permutation_test_is_all_exchanges_of_few_groups():
    """Of 8 patients all 256 exchanges can be made."""
    rng = np.random.default_rng(3)
    labels, groups = rng.integers(0, 3, 48), np.arange(48) // 6
    first = np.where(rng.random(48) < 0.55, labels, rng.integers(0, 3, 48))
    second = np.where(rng.random(48) < 0.8, labels, rng.integers(0, 3, 48))
    values = []
    for swaps in product([False, True], repeat=8):
        swapped = np.array(swaps)[groups]
        one, two = np.where(swapped, second, first), np.where(swapped, first, second)
        values.append(accuracy_score(labels, two) - accuracy_score(labels, one))
    expected = np.mean(np.abs(values) >= abs(values[0]) - 1e-12)
    one, two = (Predictions(labels, predicted[None], 3, groups) for predicted in (first, second))
    assert permutation_tests([one], [two])["accuracy"] == pytest.approx(expected, abs=0.015)


def test_of_images_the_permutation_test_is_mcnemars():
    data = drawn(300, 3, 1, 0.6)
    better = np.where(np.random.default_rng(1).random(300) < 0.12, data.labels, data.predicted[0])
    test = mcnemar(data.labels, data.predicted[0], better)
    p_value = permutation_tests([data], [Predictions(data.labels, better[None], 3)])["accuracy"]
    assert p_value == pytest.approx(test["p_value"], abs=0.01)


def test_two_models_are_compared_by_score():
    data = drawn(500, 4, 2, 0.6)
    better = np.where(np.random.default_rng(1).random(500) < 0.5, data.labels, data.predicted[0])
    one, two = Predictions(data.labels, data.predicted[:1], 4), Predictions(data.labels, better[None], 4)
    found = {entry.score: entry for entry in compare_predictions([one], [two])}
    assert set(found) == {"macro_f1", "accuracy", "mcc"}
    gain = np.mean(better == data.labels) - np.mean(data.predicted[0] == data.labels)
    assert found["accuracy"].difference == pytest.approx(gain)
    assert found["accuracy"].test == "McNemar, exact" and found["mcc"].test == "permutation within images"
    assert all(entry.interval[0] > 0 and entry.p_value < 0.01 for entry in found.values())
    for entry in compare_predictions([one], [one]):
        assert entry.difference == 0 and entry.interval == (0, 0) and entry.p_value == 1.0
    groups = np.arange(500) // 25
    one, two = (Predictions(p.labels, p.predicted, 4, groups) for p in (one, two))
    assert {entry.test for entry in compare_predictions([one], [two])} == {"permutation within groups"}
    with pytest.raises(ValueError, match="labels differ"):
        compare_predictions([one], [drawn(500, 4, 1, 0.6, seed=9)])


def test_models_with_several_runs():
    data = drawn(200, 3, 5, 0.7)
    one, two = Predictions(data.labels, data.predicted[:2], 3), Predictions(data.labels, data.predicted[2:], 3)
    found = {entry.score: entry for entry in compare_predictions([one], [two])}
    right = (data.predicted == data.labels).mean(1)
    assert found["accuracy"].difference == pytest.approx(right[2:].mean() - right[:2].mean())
    assert found["accuracy"].test == "permutation within images" and found["accuracy"].p_value > 0.05


def test_mcnemar_is_the_binomial_test_of_the_images_on_which_they_differ():
    labels = np.zeros(100, dtype=int)
    first, second = np.zeros(100, dtype=int), np.zeros(100, dtype=int)
    first[:3], second[3:18] = 1, 1  # 3 errors of the one, 15 of the other, none shared
    result = mcnemar(labels, first, second)
    assert (result["only_first"], result["only_second"]) == (15, 3)
    assert result["p_value"] == pytest.approx(2 * sum(comb(18, k) for k in range(4)) / 2**18)
    assert mcnemar(labels, first, first)["p_value"] == 1.0


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
    pair = [Predictions(labels, predicted[None], 2, groups) for predicted in (first, second)]
    assert permutation_tests([pair[0]], [pair[1]])["accuracy"] > 0.2


def test_holm():
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([]) == []


def test_the_corrected_resampled_test():
    """With nothing trained on in common it is Student's; of 10 folds of a tenth the variance is 1/10 + 1/9."""
    differences = [0.02, 0.05, -0.01, 0.03, 0.04, 0.01, 0.00, 0.06, 0.02, 0.03]
    plain = stats.ttest_1samp(differences, 0.0)
    assert corrected_resampled_test(differences, 0, 100)["p_value"] == pytest.approx(plain.pvalue)
    found = corrected_resampled_test(differences, 100, 900)
    assert found["t"] == pytest.approx(plain.statistic * (0.1 / (0.1 + 1 / 9)) ** 0.5) and found["df"] == 9
    assert found["p_value"] == pytest.approx(2 * stats.t.sf(found["t"], 9))
    assert corrected_resampled_test([0.0, 0.0], 1, 1)["p_value"] == 1.0
