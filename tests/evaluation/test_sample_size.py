"""Sample size: published examples, and the half-width that the intervals of the package then have."""

import json
import math

import numpy as np
import pytest
from scipy.stats import norm
from support.messages import shows

from hf_mae.cli.main import main
from hf_mae.evaluation.estimation import Sample, estimate_rate, estimate_score
from hf_mae.evaluation.intervals import wilson_interval
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.probability_metrics import binary_auroc, estimate_ranking
from hf_mae.evaluation.sample_size import (
    Clustering,
    Expectation,
    binormal_auroc_variance,
    size_for_difference,
    size_for_half_width,
)
from hf_mae.settings.messages import SettingsMessage
from hf_mae.workflows.messages import WorkflowMessage

pytestmark = pytest.mark.unit
INDEPENDENT = Clustering()


def draw_half_width(expected, images, rng):
    """The half-width of the interval of one draw of a study."""
    fractions, value = np.array(expected.class_fractions), expected.value
    classes = len(fractions)
    labels, uniform = rng.choice(classes, images, p=fractions), rng.random(images)
    if expected.score == "auroc":
        scores = norm.cdf(norm.ppf(uniform) + 2**0.5 * norm.ppf(value) * (labels == 0))
        is_positive = (labels == 0).astype(int)
        both = np.stack([1 - scores, scores], axis=1)[None]
        found = estimate_ranking([Predictions(is_positive, is_positive[None], 2, None, both)], binary_auroc, [1])
    else:
        recall = np.full(classes, value)
        if expected.score == "ppv":
            false_positives = fractions[0] * expected.sensitivity * (1 - value) / value / fractions[1]
            recall = np.array([expected.sensitivity, 1 - false_positives])
        wrong = (labels + rng.integers(1, classes, images)) % classes
        predicted = np.where(uniform < recall[labels], labels, wrong)
        sample = Sample([Predictions(labels, predicted[None], classes)])
        is_rate = expected.score in ("sensitivity", "specificity", "ppv")
        found = estimate_rate(sample, expected.score, 0) if is_rate else estimate_score(sample, expected.score)
    return (found.interval[1] - found.interval[0]) / 2


@pytest.mark.parametrize(
    "expected, half_width",
    [
        (Expectation("accuracy", 0.9, (0.5, 0.5)), 0.05),
        (Expectation("sensitivity", 0.9, (0.1, 0.9)), 0.05),
        (Expectation("specificity", 0.9, (0.1, 0.9)), 0.02),
        (Expectation("ppv", 0.6, (0.1, 0.9), 0.9), 0.05),
        (Expectation("macro_recall", 0.85, (0.6, 0.2, 0.1, 0.1)), 0.05),
        (Expectation("macro_f1", 0.85, (0.125,) * 8), 0.05),
        (Expectation("auroc", 0.8, (0.5, 0.5)), 0.04),
        (Expectation("auroc", 0.9, (0.1, 0.9)), 0.05),
    ],
)
def test_the_mean_half_width_is_the_requested_one(expected, half_width):
    size = size_for_half_width(expected, half_width, INDEPENDENT)
    rng = np.random.default_rng(0)
    found = [draw_half_width(expected, size.images, rng) for _ in range(15)]
    assert np.mean(found) == pytest.approx(half_width, rel=0.08)


def test_the_number_is_the_smallest_one_and_rounded_up():
    expected, clustering = Expectation("sensitivity", 0.9, (0.1, 0.9)), Clustering(10, 0.3)
    size = size_for_half_width(expected, 0.05, INDEPENDENT)
    for images, is_enough in ((size.images, True), (size.images - 1, False)):
        low, high = wilson_interval(0.9, 0.1 * images)
        assert ((high - low) / 2 <= 0.05) == is_enough
    assert size.patients == size.images and size.interval == pytest.approx(wilson_interval(0.9, 0.1 * size.images))
    by_patient = size_for_half_width(expected, 0.05, clustering)
    assert clustering.design_effect == pytest.approx(3.7) and by_patient.patients == math.ceil(by_patient.images / 10)
    assert 3.7 <= by_patient.images / size.images < 3.8, "Student's t needs a little more"
    assert size_for_half_width(expected, 1e-7, INDEPENDENT) is None


def test_auroc_variance_is_that_of_the_binormal_model():
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(1.5, 1, (4000, 20)), rng.normal(size=(4000, 30))
    areas = (positive[:, :, None] > negative[:, None]).mean((1, 2))
    assert binormal_auroc_variance(norm.cdf(1.5 / 2**0.5), 20, 30) == pytest.approx(areas.var(), rel=0.06)


def test_mcnemar_size_has_the_power():
    """Connor (1987), and the power of the asymptotic test in a simulation."""
    size = size_for_difference(0.05, 0.15, 0.8, INDEPENDENT)
    assert size.images == math.ceil(((1.959964 * 0.15**0.5 + 0.841621 * (0.15 - 0.0025) ** 0.5) / 0.05) ** 2)
    counts = np.random.default_rng(0).multinomial(size.images, [0.1, 0.05, 0.85], 4000)
    significant = (counts[:, 0] - counts[:, 1]) ** 2 > 1.959964**2 * (counts[:, 0] + counts[:, 1])
    assert significant.mean() == pytest.approx(0.8, abs=0.025)
    margin = size_for_difference(0.0, 0.1, 0.9, Clustering(4, 0.5), margin=0.03)
    assert margin.images == math.ceil((1.959964 + 1.281552) ** 2 * 0.1 / 0.03**2 * 2.5)


def test_the_command_prints_assumptions_and_a_table(capsys):
    flags = ["--expected", "0.9", "--prevalence", "1:9", "--images_per_patient", "10"]
    assert main(["sample-size", "sensitivity", *flags]) == 0
    output = capsys.readouterr().out
    assert "prevalence 10 %" in output and "design effect 3.7" in output and "patients" in output
    assert main(["sample-size", "sensitivity", *flags, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    widths = [size["half_width"] for size in plan["sizes"]]
    assert widths == sorted(widths, reverse=True) and plan["required"] in plan["sizes"]
    assert f"{plan['required']['images']} images of {plan['required']['patients']} patients" in output
    assert main(["sample-size", "difference", "--expected", "0.05", "--discordant", "0.15"]) == 0
    assert "McNemar" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, code",
    [
        (["accuracy", "--expected", "-0.1"], SettingsMessage.EXPECTED_SCORE_MISSING),
        (["auroc", "--expected", "0.9"], SettingsMessage.PREVALENCE_MISSING),
        (["difference", "--expected", "0.2", "--discordant", "0.1"], SettingsMessage.DISCORDANT_MISSING),
        (["difference", "--expected", "0", "--discordant", "0.1"], SettingsMessage.DIFFERENCE_WITHOUT_EFFECT),
        (["accuracy", "--expected", "0.9", "--half_width", "1e-7"], WorkflowMessage.SAMPLE_SIZE_TOO_LARGE),
    ],
)
def test_wrong_values_are_explained(argv, code, capsys):
    assert main(["sample-size", *argv]) != 0
    assert shows(capsys.readouterr().err, code)
