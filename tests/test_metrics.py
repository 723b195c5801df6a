"""The metrics equal sklearn's, also where classes are absent."""

import numpy as np
import pytest
from sklearn import metrics as sk

from hf_mae import ClassificationMetrics
from hf_mae.metrics import classification_scores, zero_division_notes


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


def test_zero_division_is_said():
    scores = classification_scores([0, 0, 2], [0, 1, 0], ["cecum", "polyps", "pylorus", "z-line"])
    assert scores["zero_division"] == {"precision": ["polyps"], "recall": ["pylorus"], "absent": ["z-line"]}
    assert any("polyps: never predicted" in note for note in zero_division_notes(scores))


def test_nothing_to_score_and_foreign_ids_are_errors():
    with pytest.raises(ValueError, match="nothing to score"):
        classification_scores([], [])
    with pytest.raises(ValueError, match="there are 2 classes"):
        classification_scores([2], [0], ["a", "b"])
