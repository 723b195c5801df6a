"""Scores of probabilities and their intervals, beside the libraries' numbers and beside leaving units out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk

from hf_mae.evaluation.metrics import expected_calibration_error
from hf_mae.evaluation.prediction_table import Predictions, image_level_clusters
from hf_mae.evaluation.probability_metrics import (
    PROBABILITY_TITLES,
    estimate_probability_metrics,
    jackknife_auroc,
    jackknife_binary_auroc,
)
from hf_mae.evaluation.scores import softmax


def scored(images: int, classes: int, runs: int = 1, seed: int = 0, groups=None, temperature: float = 1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    scores = softmax((rng.normal(size=(runs, images, classes)) + 1.5 * np.eye(classes)[labels]) / temperature)
    return Predictions(labels, scores.argmax(-1), classes, groups, scores)


def test_values_are_the_libraries():
    data = scored(300, 4)
    (scores,), labels = data.class_scores, data.labels
    found = estimate_probability_metrics([data])
    assert list(found) == list(PROBABILITY_TITLES)
    assert found["roc_auc"].value == pytest.approx(sk.roc_auc_score(labels, scores, multi_class="ovr"))
    assert found["log_loss"].value == pytest.approx(sk.log_loss(labels, scores))
    brier = np.mean([((row - np.eye(4)[label]) ** 2).sum() for row, label in zip(scores, labels)])
    assert found["brier"].value == pytest.approx(brier)
    assert found["ece"].value == pytest.approx(expected_calibration_error(scores, labels)["ece"])
    each = []
    for label in range(4):
        which = np.ceil(scores[:, label] * 15).astype(int)
        each.append(sum(abs((scores[:, label] - (labels == label))[which == b].sum()) for b in range(1, 16)) / 300)
    assert found["classwise_ece"].value == pytest.approx(np.mean(each))
    best = np.sort(scores.max(1))
    right = (scores.argmax(1) == labels)[np.argsort(scores.max(1))]
    parts = zip(np.array_split(best, 15), np.array_split(right, 15))
    assert found["adaptive_ece"].value == pytest.approx(sum(abs(s.sum() - r.sum()) for s, r in parts) / 300)


def test_the_calibration_error_is_torchmetrics():
    """multiclass_calibration_error(..., n_bins=15, norm="l1") of torchmetrics on the same input."""
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(60, 4)), np.arange(60) % 4
    logits[np.arange(60), labels] += 1.5
    scores = softmax(logits)
    found = estimate_probability_metrics([Predictions(labels, scores.argmax(-1)[None], 4, None, scores[None])])
    assert found["ece"].value == pytest.approx(0.1770823746919632, abs=1e-6)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_area_without_a_unit_is_that_of_the_other_images(grouped):
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 12, 50) / 12, rng.random(50) < 0.4  # with ties
    place = np.arange(50) // 4 if grouped else np.arange(50)
    area, without = jackknife_binary_auroc(scores, positive, place, place.max() + 1)
    assert area == pytest.approx(sk.roc_auc_score(positive, scores))
    for unit, value in enumerate(without):
        others = place != unit
        assert value == pytest.approx(sk.roc_auc_score(positive[others], scores[others]))


def test_folds_and_runs_are_averaged():
    folds = [scored(80, 3, runs=2, seed=seed, groups=np.arange(80) // 5 + 10 * seed) for seed in (0, 1)]
    units, places = image_level_clusters(folds)
    value, without = jackknife_auroc(folds, units, places)
    areas = [sk.roc_auc_score(f.labels, run, multi_class="ovr") for f in folds for run in f.class_scores]
    assert value == pytest.approx(np.mean(areas)) and len(without) == 26, "groups 10 to 15 stand in both"
    shared = int(np.flatnonzero(units.members[0] == units.members[1][0])[0])
    left = [f.select(np.asarray(f.groups) != 10) for f in folds]
    areas = [sk.roc_auc_score(f.labels, run, multi_class="ovr") for f in left for run in f.class_scores]
    assert without[units.members[0][shared]] == pytest.approx(np.mean(areas))


def test_of_images_the_interval_of_an_area_is_delongs_on_the_logit():
    rng = np.random.default_rng(1)
    positive = np.arange(400) < 150
    scores = np.clip(0.5 + 0.12 * (2 * positive - 1) + rng.normal(0, 0.2, 400), 0.001, 0.999)
    data = Predictions(
        positive.astype(int), (scores > 0.5).astype(int)[None], 2, None, np.stack([1 - scores, scores], -1)[None]
    )
    found = estimate_probability_metrics([data])["roc_auc"]
    above = (scores[positive][:, None] > scores[~positive]).astype(float)
    area = above.mean()
    error = np.sqrt(above.mean(1).var(ddof=1) / 150 + above.mean(0).var(ddof=1) / 250)  # DeLong et al., 1988
    centre, reach = np.log(area / (1 - area)), norm.ppf(0.975) * error / (area * (1 - area))
    ends = 1 / (1 + np.exp(-np.array([centre - reach, centre + reach])))
    assert found.interval == pytest.approx(ends, abs=2e-3)


def test_patients_make_intervals_wider_and_few_make_none():
    data = scored(200, 3)
    alike = replace(data.select(np.repeat(np.arange(20), 10)), groups=np.repeat(np.arange(20), 10))
    by_image, by_patient = (
        estimate_probability_metrics([replace(alike, groups=None)]),
        estimate_probability_metrics([alike]),
    )
    for name, found in by_patient.items():
        assert found.value == pytest.approx(by_image[name].value)
        if "ece" not in name:
            width = np.ptp(found.interval) / np.ptp(by_image[name].interval)
            assert 2 < width < 8, name
    few = estimate_probability_metrics([replace(alike, groups=np.arange(200) % 2)])
    assert all(found.interval is None for found in few.values())


def test_a_class_without_images_leaves_the_area_undefined():
    data = scored(60, 3)
    data = data.select(data.labels != 1)
    assert "roc_auc" not in estimate_probability_metrics([data]) and "brier" in estimate_probability_metrics([data])
    one = scored(60, 3, groups=np.r_[np.zeros(1), np.arange(1, 60)])
    only = replace(one, labels=np.where(np.arange(60) == 0, 1, 2 * (np.arange(60) % 2)))
    assert estimate_probability_metrics([only])["roc_auc"].interval is None, "without its one image a class has none"


def test_a_perfectly_calibrated_model_may_have_no_error_at_all():
    """And one that is not has one: the interval leaves 0 out."""
    rng = np.random.default_rng(5)
    holds = []
    for seed in range(40):
        scores = softmax(np.random.default_rng(seed).normal(0, 1.5, (150, 3)))
        labels = (rng.random((150, 1)) > scores.cumsum(1)).sum(1).clip(max=2)
        found = estimate_probability_metrics([Predictions(labels, scores.argmax(1)[None], 3, None, scores[None])])
        assert found["ece"].value > 0.03, "of 150 images there is noise"
        holds.append(found["ece"].interval[0] == 0.0)
    assert np.mean(holds) > 0.9
    sure = scored(400, 3, temperature=0.3)
    assert estimate_probability_metrics([sure])["ece"].interval[0] > 0.05


def test_many_classes_have_no_interval_of_the_class_wise_error():
    found = estimate_probability_metrics([scored(300, 120)])
    assert found["classwise_ece"].interval is None and found["ece"].interval is not None
