"""What the figures draw, from the numbers that go in."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.calibration import calibration_curve

from hf_mae.evaluation.metrics import CALIBRATION_BINS, calibration
from hf_mae.evaluation.scores import score_split, softmax
from hf_mae.reporting import figures


@pytest.fixture(scope="module")
def evaluated():
    """23 classes of very different sizes, some never right, one absent."""
    rng = np.random.default_rng(0)
    names = [f"ulcerative-colitis-grade-{index}" for index in range(23)]
    labels = rng.choice(22, 1500, p=rng.dirichlet(np.ones(22) * 0.6))
    logits = rng.normal(0, 1, (1500, 23)) + 3 * np.eye(23)[labels] * rng.uniform(0, 1.6, 23)
    return names, labels, logits, score_split(logits, labels, names)


def test_calibration_is_sklearns(evaluated):
    _, labels, logits, scores = evaluated
    best, right = softmax(logits).max(1), logits.argmax(1) == labels
    share, mean = calibration_curve(right, best, n_bins=CALIBRATION_BINS)
    filled = [item for item in scores["calibration"] if item["images"]]
    assert [item["accuracy"] for item in filled] == pytest.approx(share.tolist())
    assert [item["score"] for item in filled] == pytest.approx(mean.tolist())
    weights = np.array([item["images"] for item in filled]) / len(labels)
    assert scores["ece"] == pytest.approx((weights * np.abs(share - mean)).sum())


def test_sure_and_always_right_is_perfectly_calibrated():
    scores = calibration(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert scores["ece"] == 0.0 and [item["images"] for item in scores["calibration"]] == [0] * 14 + [2]
    assert calibration(np.array([[1.0, 0.0]]), np.array([1]))["ece"] == 1.0


def test_every_figure_is_written_whole(evaluated, tmp_path):
    names, labels, logits, scores = evaluated
    figures.figures_of_split(tmp_path, "test", softmax(logits), labels, names, scores)
    stems = {path.stem for path in tmp_path.iterdir()}
    kinds = (
        "confusion_matrix",
        "confusion_matrix_normalised",
        "per_class_f1",
        "roc",
        "precision_recall",
        "reliability",
    )
    assert stems == {f"{kind}_test" for kind in kinds}
    for path in tmp_path.iterdir():
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) > 400 and image.convert("L").getextrema() != (255, 255), path
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_curves_are_only_of_classes_that_occur(evaluated):
    names, labels, logits, scores = evaluated
    curves = figures.one_vs_rest_curves(softmax(logits), labels, names)
    present = {names[index] for index in np.unique(labels)}
    assert {curve["name"] for curve in curves} == present < set(names)
    assert scores["roc_auc"] is None and set(scores["undefined_ranking"]) == set(names) - present


def test_one_class_alone_has_no_curves(tmp_path):
    labels, logits = np.zeros(5, dtype=int), np.array([[2.0, 1.0]] * 5)
    scores = score_split(logits, labels, ["a", "b"])
    figures.figures_of_split(tmp_path, "test", softmax(logits), labels, ["a", "b"], scores)
    assert not list(tmp_path.glob("roc*")) and (tmp_path / "reliability_test.png").is_file()
