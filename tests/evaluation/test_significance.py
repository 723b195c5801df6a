"""Significance tests between two models: the independent units, and the results of other programs on the same input."""

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

from hf_mae.evaluation.differences import BINARY_SCORES, RANKING_FUNCTIONS, ModelScores, estimate_difference
from hf_mae.evaluation.intervals import IntervalReason
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.significance import (
    compare_predictions,
    corrected_resampled_test,
    holm,
    mcnemar,
    permutation_tests,
    score_permutation_tests,
)
from hf_mae.settings.metrics import MetricKind, metric_names


def make_predictions(images: int, classes: int, runs: int, accuracy: float, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, images, p=rng.dirichlet(np.ones(classes)))
    predicted = np.where(rng.random((runs, images)) < accuracy, labels, rng.integers(0, classes, (runs, images)))
    return Predictions(labels, predicted, classes)


def test_permutation_test_equals_all_permutations_of_few_patients():
    """With 8 patients there are 256 permutations."""
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


def test_permutation_test_of_independent_images_equals_mcnemar():
    data = make_predictions(300, 3, 1, 0.6)
    better = np.where(np.random.default_rng(1).random(300) < 0.12, data.labels, data.predicted[0])
    test = mcnemar(data.labels, data.predicted[0], better)
    p_value = permutation_tests([data], [Predictions(data.labels, better[None], 3)])["accuracy"]
    assert p_value == pytest.approx(test["p_value"], abs=0.01)


def test_compare_predictions_reports_differences_intervals_and_tests():
    data = make_predictions(500, 4, 2, 0.6)
    better = np.where(np.random.default_rng(1).random(500) < 0.5, data.labels, data.predicted[0])
    one, two = Predictions(data.labels, data.predicted[:1], 4), Predictions(data.labels, better[None], 4)
    differences = {entry.score: entry for entry in compare_predictions([one], [two])}
    assert set(differences) == {"macro_f1", "accuracy", "mcc"}, "without scores of the classes"
    gain = np.mean(better == data.labels) - np.mean(data.predicted[0] == data.labels)
    assert differences["accuracy"].difference == pytest.approx(gain)
    assert differences["accuracy"].test == "McNemar, exact" and differences["mcc"].test == "permutation within images"
    assert all(entry.interval[0] > 0 and entry.p_value < 0.01 for entry in differences.values())
    for entry in compare_predictions([one], [one]):
        assert entry.difference == 0 and entry.p_value == 1.0
        assert entry.interval[0] == -entry.interval[1] and 0.001 < entry.interval[1] < 0.05
    groups = np.arange(500) // 25
    one, two = (Predictions(p.labels, p.predicted, 4, groups) for p in (one, two))
    assert {entry.test for entry in compare_predictions([one], [two])} == {"permutation within groups"}
    with pytest.raises(ValueError, match="labels of the two models differ"):
        compare_predictions([one], [make_predictions(500, 4, 1, 0.6, seed=9)])


def make_scores(images, classes, sharpness, seed, groups=None, runs=1):
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    logits = rng.normal(0, 1, (runs, images, classes))
    logits[:, np.arange(images), labels] += sharpness
    scores = softmax(logits, axis=-1)
    return Predictions(labels, scores.argmax(-1), classes, groups, scores)


@pytest.mark.parametrize("classes, runs", [(2, 1), (3, 2)])
def test_tests_of_scores_equal_all_exchanges_of_few_patients(classes, runs):
    """With 7 patients there are 128 exchanges of their scores; AUROC and average precision: of the ranks of the scores.
    The test of the average precision is exact, but its statistic is the difference to first order only."""
    groups = np.arange(28) // 4
    one, two = (make_scores(28, classes, sharpness, seed, groups, runs) for seed, sharpness in ((1, 0.3), (2, 1.0)))
    values = {"roc_auc": [], "average_precision": [], "brier": [], "log_loss": []}
    for swaps in product([False, True], repeat=7):
        swapped = np.array(swaps)[groups][:, None]
        for name, found in values.items():
            models = [model.class_scores for model in (one, two)]
            if name in RANKING_FUNCTIONS:
                models = [stats.rankdata(scores, axis=1) for scores in models]
            pair = np.where(swapped, models[1], models[0]), np.where(swapped, models[0], models[1])
            score = {
                "roc_auc": lambda run: roc_auc_score(np.eye(classes)[one.labels], run, average="macro"),
                "average_precision": lambda run: average_precision_score(np.eye(classes)[one.labels], run),
                "brier": lambda run: ((run - np.eye(classes)[one.labels]) ** 2).sum(-1).mean(),
                "log_loss": lambda run: log_loss(one.labels, run),
            }[name]
            first, second = ([score(run) for run in runs] for runs in pair)
            found.append(np.mean(second) - np.mean(first))
    p_values = score_permutation_tests(ModelScores([one]), ModelScores([two]))
    for name, found in values.items():
        expected = np.mean(np.abs(found) >= abs(found[0]) - 1e-12)
        assert p_values[name] == pytest.approx(expected, abs=0.1 if name == "average_precision" else 0.015), name


def test_the_difference_of_aurocs_has_delongs_interval():
    """Computed here with DeLong's covariance; the smoothing and Student's t make the interval a little wider."""
    one, two = (make_scores(400, 2, sharpness, seed) for seed, sharpness in ((1, 0.8), (2, 1.1)))
    positive = one.labels == 1
    components = []
    for model in (one, two):
        scores = model.class_scores[0, :, 1]
        wins = (scores[positive][:, None] > scores[~positive]).astype(float)
        components.append((wins.mean(1), wins.mean(0)))
    variance = sum(np.var(second - first, ddof=1) / 200 for first, second in zip(*components))
    found = estimate_difference(ModelScores([one], binary=True), ModelScores([two], binary=True), "roc_auc")
    assert found.value == pytest.approx(components[1][0].mean() - components[0][0].mean())
    assert variance < found.variance < 1.08 * variance
    low, high = found.interval()
    assert found.p_value_above(low) == pytest.approx(0.025) and found.p_value_above(high) == pytest.approx(0.975)
    assert found.interval(0.9)[0] > low


@pytest.mark.parametrize("groups", [None, np.arange(120) // 6])
def test_every_difference_of_two_classes_has_an_interval_around_it(groups):
    """Also if the models are perfect, equal, or opposite."""
    labels = np.arange(120) % 2
    perfect, opposite = labels, 1 - labels
    some = np.where(np.arange(120) % 7 == 0, opposite, labels)
    for predicted in product((perfect, some, opposite), repeat=2):
        folds = [Predictions(labels, p[None], 2, groups, np.eye(2)[p][None] * 0.8 + 0.1) for p in predicted]
        for prevalence, names in ((None, (*BINARY_SCORES, *metric_names(MetricKind.HEADLINE))), (0.05, ("ppv", "npv"))):
            models = [ModelScores([fold], prevalence, binary=True) for fold in folds]
            for name in (*names, "roc_auc", "average_precision", "brier", "log_loss"):
                found = estimate_difference(*models, name)
                low, high = found.interval()
                assert low <= found.value <= high and high - low > 1e-6, (name, found)


def test_a_rate_without_denominator_has_no_difference_and_few_images_no_interval():
    labels = np.array([0] * 38 + [1] * 2)
    models = [ModelScores([Predictions(labels, p[None], 2)]) for p in (labels, np.zeros(40, dtype=int))]
    assert estimate_difference(*models, "ppv") is None
    found = estimate_difference(*models, "sensitivity")
    assert (found.value, found.interval(), found.reason) == (-1.0, None, IntervalReason.TOO_FEW_IMAGES)
    assert found.p_value_above(0.0) is None


def test_a_class_that_is_never_predicted_has_no_difference_of_ppv_at_a_prevalence():
    labels = np.arange(60) % 2
    folds = [Predictions(labels, p[None], 2) for p in (labels, np.zeros(60, dtype=int))]
    models = [ModelScores([fold], 0.1, binary=True) for fold in folds]
    assert estimate_difference(*models, "ppv").reason is IntervalReason.TOO_FEW_IMAGES
    assert estimate_difference(*models, "npv").reason is None


def test_a_difference_in_a_small_class_has_few_degrees_of_freedom():
    labels = np.repeat([0, 1], [300, 6])
    wrong = (range(20), 301, 302), (range(30, 50), 303)
    first, second = (np.where(np.isin(np.arange(306), np.r_[ids]), 1 - labels, labels) for ids in wrong)
    models = [ModelScores([Predictions(labels, p[None], 2)]) for p in (first, second)]
    assert 5 < estimate_difference(*models, "macro_recall").degrees_of_freedom < 20
    assert estimate_difference(*models, "accuracy").degrees_of_freedom > 100


@pytest.mark.parametrize("classes, patients", [(2, 0), (22, 0), (4, 20)])
def test_equally_good_models_rarely_differ(classes, patients):
    """In about 5 % of samples (2,000 of each of more scenarios: scripts/studies/simulate_statistics.py)."""
    rng, shares, significant, outside = np.random.default_rng(classes), np.geomspace(20, 1, classes), {}, {}
    for _ in range(150):
        groups = np.arange(300) % patients if patients else None
        labels = rng.choice(classes, 300, p=shares / shares.sum())
        recall = rng.beta(4, 1, patients)[groups] if patients else 0.8
        predicted = np.where(rng.random((2, 300)) < recall, labels, rng.integers(0, classes, (2, 300)))
        pair = [[Predictions(labels, one[None], classes, groups)] for one in predicted]
        for found in compare_predictions(*pair, 199, int(rng.integers(2**31))):
            significant.setdefault(found.score, []).append(found.p_value <= 0.05)
            outside.setdefault(found.score, []).append(not found.interval[0] <= 0 <= found.interval[1])
    for name in ("macro_f1", "accuracy", "mcc"):
        assert np.mean(significant[name]) < 0.1 and np.mean(outside[name]) < 0.1, name


def test_models_with_different_numbers_of_runs():
    data = make_predictions(200, 3, 5, 0.7)
    one, two = Predictions(data.labels, data.predicted[:2], 3), Predictions(data.labels, data.predicted[2:], 3)
    differences = {entry.score: entry for entry in compare_predictions([one], [two])}
    right = (data.predicted == data.labels).mean(1)
    assert differences["accuracy"].difference == pytest.approx(right[2:].mean() - right[:2].mean())
    assert differences["accuracy"].test == "permutation within images" and differences["accuracy"].p_value > 0.05


def test_mcnemar_is_the_binomial_test_of_discordant_images():
    labels = np.zeros(100, dtype=int)
    first, second = np.zeros(100, dtype=int), np.zeros(100, dtype=int)
    first[:3], second[3:18] = 1, 1  # 3 errors of the first, 15 of the second, none shared
    result = mcnemar(labels, first, second)
    assert (result["only_first"], result["only_second"]) == (15, 3)
    assert result["p_value"] == pytest.approx(2 * sum(comb(18, k) for k in range(4)) / 2**18)
    assert mcnemar(labels, first, first)["p_value"] == 1.0


def test_mcnemar_counts_each_patient_once():
    """40 patients with 25 identical images each: without groups, 50 images differ; with groups, two patients."""
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


def test_holm_equals_r():
    """Expected values: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") in R."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([]) == []


def test_corrected_resampled_test():
    """Without shared training images it is Student's t test; for 10-fold cross-validation the factor is 1/10 + 1/9."""
    differences = [0.02, 0.05, -0.01, 0.03, 0.04, 0.01, 0.00, 0.06, 0.02, 0.03]
    plain = stats.ttest_1samp(differences, 0.0)
    assert corrected_resampled_test(differences, 0, 100)["p_value"] == pytest.approx(plain.pvalue)
    result = corrected_resampled_test(differences, 100, 900)
    assert result["t"] == pytest.approx(plain.statistic * (0.1 / (0.1 + 1 / 9)) ** 0.5) and result["df"] == 9
    assert result["p_value"] == pytest.approx(2 * stats.t.sf(result["t"], 9))
    assert corrected_resampled_test([0.0, 0.0], 1, 1)["p_value"] == 1.0


@pytest.mark.parametrize("groups", [None, np.arange(40) // 4])
def test_a_score_that_no_prediction_changes_has_no_interval_of_differences(groups):
    """Two grades are at most one apart, so the one-off accuracy is always 1."""
    labels = np.arange(40) % 2
    models = [np.where(np.arange(40) % step == 0, 1 - labels, labels) for step in (5, 7)]
    first, second = ([Predictions(labels, model[None], 2, groups, ordered=True)] for model in models)
    by_score = {difference.score: difference for difference in compare_predictions(first, second, 99)}
    one_off = by_score["one_off_accuracy"]
    assert (one_off.difference, one_off.interval, one_off.reason) == (0, None, IntervalReason.NOT_ESTIMABLE)
    assert by_score["qwk"].interval is not None
