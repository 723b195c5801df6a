"""Classification and ranking metrics against scikit-learn, also with absent classes; risk-coverage curves."""

import numpy as np
import pytest
from sklearn import metrics as sk

from hf_mae.evaluation.hf_evaluate import ClassificationMetrics
from hf_mae.evaluation.metrics import classification_scores, ranking_scores, risk_coverage
from hf_mae.reporting.run_sentences import describe_undefined_scores


def make_cases():
    generator = np.random.default_rng(0)
    for number in range(12):
        classes = int(generator.integers(2, 24))
        references, predictions = generator.integers(0, classes, (2, int(generator.integers(1, 300))))
        yield f"random-{number}", references, predictions
    references = np.array([0, 0, 1, 1, 2, 2])
    yield "never-predicted", references, np.array([0, 0, 1, 1, 0, 1])
    yield "absent-from-split", np.array([0, 0, 1, 1, 1, 0]), np.array([0, 2, 1, 1, 2, 0])
    yield "gap-in-the-ids", np.array([0, 0, 5, 5]), np.array([0, 5, 5, 3])
    yield "one-class", np.zeros(5, int), np.zeros(5, int)
    yield "all-wrong", np.array([0, 1]), np.array([1, 0])


@pytest.mark.parametrize("references, predictions", [pytest.param(r, p, id=name) for name, r, p in make_cases()])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_classification_metrics_equal_sklearn(references, predictions):
    scores = ClassificationMetrics().compute(predictions=predictions, references=references)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(references, predictions))
    assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(references, predictions))
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(references, predictions))
    for average in ("macro", "micro"):
        for name, function in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            expected = function(references, predictions, average=average, zero_division=0)
            assert scores[f"{average}_{name}"] == pytest.approx(expected), (average, name)
    labels = range(int(max(references.max(), predictions.max())) + 1)
    assert scores["confusion_matrix"] == sk.confusion_matrix(references, predictions, labels=labels).tolist()
    report = sk.classification_report(references, predictions, labels=labels, output_dict=True, zero_division=0)
    for label in labels:
        ours, theirs = scores["per_class"][str(label)], report[str(label)]
        assert (ours["precision"], ours["recall"], ours["f1"]) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"])
        )
        assert ours["support"] == theirs["support"]


@pytest.mark.parametrize("classes", [2, 5, 23])
def test_ranking_scores_equal_sklearn(classes):
    generator = np.random.default_rng(classes)
    scores = generator.dirichlet(np.ones(classes), 200)
    references = np.concatenate([np.arange(classes), generator.integers(0, classes, 200 - classes)])
    metrics = ranking_scores(scores, references, [str(i) for i in range(classes)])
    if classes == 2:
        assert metrics["roc_auc"] == pytest.approx(sk.roc_auc_score(references, scores[:, 1]))
    else:
        assert metrics["roc_auc"] == pytest.approx(sk.roc_auc_score(references, scores, multi_class="ovr"))
        per_class = [sk.average_precision_score(references == i, scores[:, i]) for i in range(classes)]
        assert metrics["average_precision"] == pytest.approx(np.mean(per_class))


def test_ranking_scores_are_undefined_if_a_class_is_absent():
    metrics = ranking_scores(np.full((3, 3), 1 / 3), np.array([0, 1, 1]), ["a", "b", "c"])
    assert metrics == {"roc_auc": None, "average_precision": None, "undefined_ranking": ["c"]}
    notes = describe_undefined_scores(classification_scores([0, 1, 1], [0, 1, 1], ["a", "b", "c"]) | metrics)
    assert any("undefined" in note and "c" in note for note in notes)


def test_zero_divisions_are_reported():
    scores = classification_scores([0, 0, 2], [0, 1, 0], ["cecum", "polyps", "pylorus", "z-line"])
    assert scores["zero_division"] == {"precision": ["polyps"], "recall": ["pylorus"], "absent": ["z-line"]}
    assert any("polyps: never predicted" in note for note in describe_undefined_scores(scores))


def test_empty_arrays_and_unknown_class_ids_are_errors():
    with pytest.raises(ValueError, match="are empty"):
        classification_scores([], [])
    with pytest.raises(ValueError, match="there are 2 classes"):
        classification_scores([2], [0], ["a", "b"])


def test_risk_is_counted_from_the_highest_score_and_is_independent_of_the_order_of_ties():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.3, 0.7], [0.6, 0.4]])
    labels = np.array([0, 1, 0, 0, 1])  # of the two images with 0.7, one is right; the last image is wrong
    curve = risk_coverage(scores, labels)
    assert curve["aurc"] == pytest.approx(np.mean([0, 0, 0.5 / 3, 1 / 4, 2 / 5]))
    assert curve == risk_coverage(scores[::-1], labels[::-1])
    assert curve["risk_coverage"][-1] == {"coverage": 1.0, "risk": pytest.approx(0.4)}
    assert curve["risk_coverage"][0]["risk"] == 0
