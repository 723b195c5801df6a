"""The metrics equal sklearn's, also where classes are absent."""

import numpy as np
import pytest
from sklearn import metrics as sk

from hf_mae import ClassificationMetrics
from hf_mae.evaluation.metrics import classification_scores, ranking_scores, zero_division_notes


def cases():
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


@pytest.mark.parametrize("references, predictions", [pytest.param(r, p, id=name) for name, r, p in cases()])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_equal_to_sklearn(references, predictions):
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
    found = ranking_scores(scores, references, [str(i) for i in range(classes)])
    if classes == 2:
        assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(references, scores[:, 1]))
    else:
        assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(references, scores, multi_class="ovr"))
        per_class = [sk.average_precision_score(references == i, scores[:, i]) for i in range(classes)]
        assert found["average_precision"] == pytest.approx(np.mean(per_class))


def test_ranking_scores_are_undefined_where_a_class_is_absent():
    found = ranking_scores(np.full((3, 3), 1 / 3), np.array([0, 1, 1]), ["a", "b", "c"])
    assert found == {"roc_auc": None, "average_precision": None, "undefined_ranking": ["c"]}
    notes = zero_division_notes(classification_scores([0, 1, 1], [0, 1, 1], ["a", "b", "c"]) | found)
    assert any("undefined" in note and "c" in note for note in notes)


def test_zero_division_is_said():
    scores = classification_scores([0, 0, 2], [0, 1, 0], ["cecum", "polyps", "pylorus", "z-line"])
    assert scores["zero_division"] == {"precision": ["polyps"], "recall": ["pylorus"], "absent": ["z-line"]}
    assert any("polyps: never predicted" in note for note in zero_division_notes(scores))


def test_nothing_to_score_and_foreign_ids_are_errors():
    with pytest.raises(ValueError, match="nothing to score"):
        classification_scores([], [])
    with pytest.raises(ValueError, match="there are 2 classes"):
        classification_scores([2], [0], ["a", "b"])
