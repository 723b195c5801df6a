"""No score depends on the order of the rows, and rounding does not move a score over a threshold or out of a tie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mae.evaluation.calibration import fit_class_temperatures, fit_temperature
from hf_mae.evaluation.chosen_thresholds import threshold_intervals
from hf_mae.evaluation.confident_learning import label_issues
from hf_mae.evaluation.conformal import ConformalSets
from hf_mae.evaluation.estimation import estimate_headline_metrics, estimate_rates_by_class
from hf_mae.evaluation.interaction import interaction_tests
from hf_mae.evaluation.metrics import merge_ties, score_split, softmax
from hf_mae.evaluation.operating_points import PATIENT_AGGREGATIONS, OneVsRest, ThresholdRule, estimate_binary_rates
from hf_mae.evaluation.patients import estimate_by_patient
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.probability_metrics import estimate_probability_metrics
from hf_mae.evaluation.significance import compare_predictions
from hf_mae.runs.predictions import read_prediction_csv, read_prediction_table, write_predictions

RULES = [ThresholdRule.parse(text) for text in ("sensitivity=0.9", "specificity=0.8", "threshold=0.3", "youden")]
few_seconds = settings(max_examples=10, deadline=None)


def make_scores(seed, digits, classes, images=90):
    """Scores with many ties (1 digit) or few, some of them permutations of others, and their labels."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.dirichlet(np.ones(classes), images), digits)
    scores[:, -1] = 1 - scores[:, :-1].sum(1)  # with rounding errors: 0.30000000000000004
    scores[: images // 3] = scores[images // 3 : 2 * (images // 3), ::-1]
    return np.clip(scores, 0, None), rng.integers(0, classes, images)


def make_predictions(scores, labels, groups=None):
    return Predictions(labels, scores.argmax(-1)[None], scores.shape[1], groups, scores[None], ordered=True)


def flatten(values, name=""):
    """Numbers of nested values, by path."""
    if isinstance(values, dict):
        return {
            key: number for part, value in values.items() for key, number in flatten(value, f"{name}/{part}").items()
        }
    if isinstance(values, (list, tuple)):
        return flatten(dict(enumerate(values)), name)
    if hasattr(values, "__dataclass_fields__"):
        return flatten(vars(values), name)
    return {name: values}


def all_results(scores, labels, groups):
    folds = [make_predictions(scores, labels, groups)]
    worse = make_predictions(np.roll(scores, 1, axis=1), labels, groups)
    half = labels % 2 == 0
    results = {
        "split": score_split(np.log(scores.astype(float) + 1e-9), labels, [str(i) for i in range(scores.shape[1])]),
        "headline": estimate_headline_metrics(folds),
        "rates": estimate_rates_by_class(folds),
        "probability": estimate_probability_metrics(folds),
        "patients": estimate_by_patient(folds),
        "differences": compare_predictions(folds, [worse], permutations=49),
        "subgroups": interaction_tests([[folds[0].select(half)], [folds[0].select(~half)]], ["accuracy"]),
    }
    binary = OneVsRest.from_predictions(folds, [0])
    for way in ("images", *(PATIENT_AGGREGATIONS if groups is not None else ())):
        sides = binary if way == "images" else binary.aggregate_by_patient(way)
        if len(np.unique(sides.folds[0].labels)) == 1:
            continue
        thresholds = {str(rule): sides.choose_thresholds(rule) for rule in RULES}
        rates = [estimate_binary_rates(sides.apply_thresholds(chosen)) for chosen in thresholds.values()]
        intervals = [threshold_intervals(rule, sides) for rule in RULES if rule.is_data_driven]
        curve = sides.decision_curve()
        results[way] = [sides.auroc(), sides.average_precision(), thresholds, intervals, rates]
        results[way] += [sides.recalibrate(), curve.net_benefit, curve.intervals]
    return flatten(results)


@few_seconds
@given(
    seed=st.integers(0, 999),
    digits=st.sampled_from([1, 2, 7]),
    classes=st.sampled_from([2, 3, 9]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    by_patient=st.booleans(),
)
def test_no_score_depends_on_the_order_of_the_rows(seed, digits, classes, dtype, by_patient):
    scores, labels = make_scores(seed, digits, classes)
    scores, rng = scores.astype(dtype), np.random.default_rng(seed)
    groups = rng.integers(0, 25, len(labels)).astype(str) if by_patient else None
    order = rng.permutation(len(labels))
    before = all_results(scores, labels, groups)
    after = all_results(scores[order], labels[order], None if groups is None else groups[order])
    assert list(before) == list(after)
    for name, value in before.items():
        assert after[name] == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value), name


@few_seconds
@given(seed=st.integers(0, 999), digits=st.sampled_from([1, 2]))
def test_no_fit_depends_on_the_order_of_the_rows(seed, digits):
    scores, labels = make_scores(seed, digits, 3, 120)
    labels = np.where(np.random.default_rng(seed).random(120) < 0.7, scores.argmax(1), labels)
    logits, order = np.log(scores + 1e-3), np.random.default_rng(seed).permutation(len(labels))
    counts = np.array([500, 50, 10])
    fits = [
        (fit_temperature(*rows), *fit_class_temperatures(*rows, counts))
        for rows in ((logits, labels), (logits[order], labels[order]))
    ]
    assert fits[0] == pytest.approx(fits[1], rel=1e-4)
    issues = [
        {issue.index for issue in label_issues(*rows)} for rows in ((scores, labels), (scores[order], labels[order]))
    ]
    assert issues[0] == {order[index] for index in issues[1]}
    sets = [
        ConformalSets.fit(*rows).predict_sets(scores, 0.9)
        for rows in ((scores, labels), (scores[order], labels[order]))
    ]
    assert np.array_equal(*sets)


@few_seconds
@given(seed=st.integers(0, 999), digits=st.sampled_from([1, 2, 7]), name=st.sampled_from(["float32", "float64", "csv"]))
def test_a_threshold_gives_the_same_counts_on_the_same_images(seed, digits, name, tmp_path_factory):
    """Chosen on scores in float64, and applied to scores in float32, to those of a file with nine digits, or to
    normalized ones; and the other way round."""
    scores, labels = make_scores(seed, digits, 3)
    if name == "csv":
        folder = tmp_path_factory.mktemp("run")
        files = [f"{i}.png" for i in range(len(labels))]
        write_predictions(folder, "test", files, np.log(scores + 1e-9).astype(np.float32), labels, ["a", "b", "c"])
        tables = read_prediction_table(folder, "test"), read_prediction_csv(folder / "predictions_test.csv")
        first, second = (table.class_scores for table in tables)
    else:
        with np.errstate(divide="ignore"):
            first, second = scores, softmax(np.log(scores.astype(name)))
    for positive in ([0], [1, 2]):
        sides = [OneVsRest.from_predictions([make_predictions(one, labels)], positive) for one in (first, second)]
        for rule in RULES:
            for chosen_on in sides:
                thresholds = chosen_on.choose_thresholds(rule)
                matrices = [side.apply_thresholds(thresholds)[0].confusion_matrices() for side in sides]
                assert np.array_equal(*matrices), rule
        curves = [side.decision_curve().net_benefit for side in sides]
        assert curves[0] == pytest.approx(curves[1], abs=1e-12)


def test_conformal_sets_are_the_same_for_scores_in_another_precision():
    scores, labels = make_scores(0, 2, 3)
    sets = ConformalSets.fit(scores, labels)
    p_values = [sets.p_values(one) for one in (scores, scores.astype(np.float32).astype(float), scores * (1 - 1e-15))]
    assert np.array_equal(p_values[0], p_values[1]) and np.array_equal(p_values[0], p_values[2])


def test_scores_with_rounding_errors_are_ties_and_others_are_not():
    assert len(np.unique(merge_ties(np.array([0.3, 0.1 + 0.2, 0.3 - 1e-16, 0.7])))) == 2
    distinct = np.array([0.0, 1e-300, 1e-20, 1.1e-20, 0.3, 0.3 + 1e-9, 1 - 1e-10, 1.0])
    assert np.array_equal(merge_ties(distinct), distinct)


@pytest.mark.parametrize("score", [0.2, 0.4, 0.6, 0.8, 1 / 3])
def test_a_score_at_the_edge_of_a_calibration_bin_is_below_it_in_every_precision(score):
    scores, labels = np.tile([score, 1 - score], (100, 1)), np.repeat([0, 1], 50)
    errors = [
        estimate_probability_metrics([make_predictions(one, labels)])
        for one in (scores, scores.astype(np.float32), scores * (1 + 4e-16))
    ]
    for name in ("ece", "adaptive_ece", "classwise_ece"):
        assert errors[1][name].value == pytest.approx(errors[0][name].value, abs=1e-6)
        assert errors[2][name].value == pytest.approx(errors[0][name].value, abs=1e-6)
