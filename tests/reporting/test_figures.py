"""Figures and the values that they show."""

import errno
import os
import resource
import time
from contextlib import nullcontext
from unittest.mock import Mock

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image
from sklearn.calibration import calibration_curve
from support.messages import logged

from hf_mae.evaluation.intervals import Estimate
from hf_mae.evaluation.metrics import CALIBRATION_BINS, expected_calibration_error, score_split, softmax
from hf_mae.reporting.figures import evaluation, style
from hf_mae.reporting.figures.study import plot_centres, plot_scatter
from hf_mae.reporting.figures.training import plot_learning_curves
from hf_mae.reporting.messages import ReportingMessage
from hf_mae.runs.record import FIGURES_DIR, Centre, CentreSummary


@pytest.fixture(scope="module")
def evaluated():
    """23 classes of very different sizes; some are never predicted correctly, one is absent."""
    rng = np.random.default_rng(0)
    names = [f"ulcerative-colitis-grade-{index}" for index in range(23)]
    labels = rng.choice(22, 1500, p=rng.dirichlet(np.ones(22) * 0.6))
    logits = rng.normal(0, 1, (1500, 23)) + 3 * np.eye(23)[labels] * rng.uniform(0, 1.6, 23)
    return names, labels, logits, score_split(logits, labels, names)


def test_calibration_equals_sklearn(evaluated):
    _, labels, logits, scores = evaluated
    best, right = softmax(logits).max(1), logits.argmax(1) == labels
    share, mean = calibration_curve(right, best, n_bins=CALIBRATION_BINS)
    filled = [item for item in scores["calibration"] if item["images"]]
    assert [item["accuracy"] for item in filled] == pytest.approx(share.tolist())
    assert [item["score"] for item in filled] == pytest.approx(mean.tolist())
    weights = np.array([item["images"] for item in filled]) / len(labels)
    assert scores["ece"] == pytest.approx((weights * np.abs(share - mean)).sum())


def test_certain_and_correct_predictions_are_perfectly_calibrated():
    scores = expected_calibration_error(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert scores["ece"] == 0.0 and [item["images"] for item in scores["calibration"]] == [0] * 14 + [2]
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([1]))["ece"] == 1.0


def test_all_figures_are_written_as_png_and_pdf(evaluated, tmp_path):
    names, labels, logits, scores = evaluated
    evaluation.plot_split_figures(tmp_path, "test", softmax(logits), labels, names, scores)
    files = list((tmp_path / FIGURES_DIR).iterdir())
    stems = {path.stem for path in files}
    kinds = (
        "confusion_matrix",
        "confusion_matrix_normalised",
        "per_class_f1",
        "roc",
        "precision_recall",
        "reliability",
        "risk_coverage",
    )
    assert stems == {f"{kind}_test" for kind in kinds}
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
                assert min(image.size) > 400 and image.convert("L").getextrema() != (255, 255), path
        else:
            content = path.read_bytes()
            assert path.suffix == ".pdf" and content.startswith(b"%PDF") and content.rstrip().endswith(b"%%EOF")
            assert b"/Type3" not in content, "text stays editable"


def test_curves_are_distinguishable_in_greyscale():
    styles = [(style.line_style(number)["color"], style.line_style(number)["linestyle"]) for number in range(28)]
    assert len(set(styles)) == 28
    grey = [round(float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114))), 2) for colour in style.COLOURS]
    assert len(set(grey)) == len(grey)


def test_a_thousand_classes_are_plotted_in_little_time_and_memory(tmp_path, monkeypatch):
    names = [f"finding {index:03d}" for index in range(1000)]
    labels = np.repeat(np.arange(1000), 2)
    logits = np.random.default_rng(0).normal(size=(2000, 1000)) + 3 * np.eye(1000)[labels]
    texts = {}
    save_figure = style.save_figure

    def save_and_record(figure, path, dpi):
        texts[path.stem] = "\n".join(text.get_text() for text in figure.findobj(Text))
        save_figure(figure, path, dpi)

    monkeypatch.setattr(style, "save_figure", save_and_record)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    scores = score_split(logits, labels, names)
    evaluation.plot_split_figures(tmp_path, "test", softmax(logits), labels, names, scores)
    seconds, grown = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert seconds < 60 and grown < 1e6, "1 GB, and twice the time on an idle machine"
    assert len(list((tmp_path / FIGURES_DIR).iterdir())) == 14
    for path in (tmp_path / FIGURES_DIR).glob("*.png"):
        with Image.open(path) as image:
            assert max(image.size) < 3500, path
    assert "1000 classes by number; too many for names" in texts["confusion_matrix_test"]
    assert "the 60 worst of 1000 classes" in texts["per_class_f1_test"]
    assert "990 other classes" in texts["roc_test"] and texts["roc_test"].count("finding") <= 20


ODD_NAMES = ["$x_1$", "a_b\\c", "100 %", "a|b", "<b>", '"quoted"', "سليلة", "息肉", "🙂", "{", "~^#&"]


def test_class_names_may_have_any_characters(tmp_path, caplog):
    """Names with mathtext, and characters without a font on this machine."""
    labels = np.repeat(np.arange(len(ODD_NAMES)), 3)
    logits = np.random.default_rng(0).normal(size=(len(labels), len(ODD_NAMES)))
    scores = score_split(logits, labels, ODD_NAMES)
    evaluation.plot_split_figures(tmp_path, "test", softmax(logits), labels, ODD_NAMES, scores)
    plot_scatter(np.random.default_rng(0).normal(size=(len(labels), 2)), labels, ODD_NAMES, tmp_path / "map", "$")
    assert len(list(tmp_path.rglob("*.p*"))) == 16 and not logged(caplog.records, ReportingMessage.FIGURE_FAILED)
    assert all(path.stat().st_size > 3000 for path in tmp_path.rglob("*.pdf"))


def test_names_that_begin_with_an_underscore_are_in_the_legends(tmp_path, monkeypatch):
    legends = []

    def record_legends(figure, *args, **kwargs):
        legends.extend(axes.get_legend() for axes in figure.axes if axes.get_legend())

    monkeypatch.setattr(style.PlainTextFigure, "savefig", record_legends)
    monkeypatch.setattr(style, "atomic_write_file", nullcontext)
    names, labels = ["_rest", "__polyp"], np.repeat([0, 1], 6)
    logits = np.random.default_rng(0).normal(size=(12, 2))
    evaluation.plot_split_figures(tmp_path, "test", softmax(logits), labels, names, score_split(logits, labels, names))
    plot_scatter(logits, labels, names, tmp_path / "map", "title")
    texts = ["".join(text.get_text() for text in legend.get_texts()) for legend in legends]
    of_classes = [text for text in texts if "_rest" in text or "__polyp" in text]
    assert len(of_classes) >= 3 and all("_rest" in text and "__polyp" in text for text in of_classes)


def test_a_failed_figure_is_a_warning_and_a_full_disk_is_an_error(tmp_path, caplog, monkeypatch):
    evaluation.plot_roc([{"name": "a", "auc": 0.5, "roc": ([0, 1], [0])}], None, tmp_path / "roc", "test")
    assert logged(caplog.records, ReportingMessage.FIGURE_FAILED, name="roc") and not list(tmp_path.iterdir())
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(style.PlainTextFigure, "savefig", Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left"):
        plot_learning_curves([{"epoch": 1, "loss": 1.0}], tmp_path / "curves")


def test_curves_show_only_classes_that_occur(evaluated):
    names, labels, logits, scores = evaluated
    curves = evaluation.compute_one_vs_rest_curves(softmax(logits), labels, names)
    present = {names[index] for index in np.unique(labels)}
    assert {curve["name"] for curve in curves} == present < set(names)
    assert scores["roc_auc"] is None and set(scores["undefined_ranking"]) == set(names) - present


def test_a_single_class_has_no_curves(tmp_path):
    labels, logits = np.zeros(5, dtype=int), np.array([[2.0, 1.0]] * 5)
    scores = score_split(logits, labels, ["a", "b"])
    evaluation.plot_split_figures(tmp_path, "test", softmax(logits), labels, ["a", "b"], scores)
    assert not list(tmp_path.rglob("roc*")) and (tmp_path / FIGURES_DIR / "reliability_test.png").is_file()


@pytest.mark.parametrize("interval", [(0.5, 0.9), None])
def test_the_forest_plot_has_one_row_per_centre(interval, tmp_path, monkeypatch):
    scores = {"macro_f1": Estimate(0.8, interval)}
    centres = [Centre(f"_centre {number}", number, 10 * number, None, [], scores) for number in (1, 2, 3)]
    drawn = Mock(side_effect=lambda figure, path: None)
    monkeypatch.setattr(style, "save", drawn)
    plot_centres(CentreSummary("centre", centres, 0.1, scores, scores), "macro_f1", tmp_path / "centres")
    (axes,) = drawn.call_args.args[0].axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 5 and "centre 1 (10)" in labels[0] and labels[-1] == "all images"
    assert axes.get_xlabel() == "macro F1 (%)"
