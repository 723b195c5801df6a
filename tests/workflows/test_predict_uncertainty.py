"""Prediction sets and out-of-distribution detection, from training to a table of predictions."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from support.cli_process import run_cli
from support.messages import raises

from hf_mae import evaluate, predict
from hf_mae.errors import CommandLineError
from hf_mae.models.loading import load_classifier
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.predictions import read_prediction_table
from hf_mae.runs.uncertainty_io import read_uncertainty
from hf_mae.settings.messages import SettingsMessage


def read_rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def images(toy):
    return [str(path) for path in sorted((toy / "labelled" / "test").glob("*/*.jpg"))]


@pytest.fixture(scope="module")
def noise_image(tmp_path_factory):
    """An image of noise, unlike the training images."""
    path = tmp_path_factory.mktemp("noise") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def test_predict_reports_prediction_sets_and_out_of_distribution_images(finetuned, images, noise_image, tmp_path):
    run = finetuned("mean")
    table = read_prediction_table(run, "validation")
    names = table.class_names
    values = json.loads((run / "uncertainty.json").read_text())["true_class_scores"]
    for index, name in enumerate(names):
        expected = sorted(table.class_scores[table.labels == index, index])
        assert values[name] == pytest.approx(expected, rel=1e-5)
    done = run_cli(
        "predict", run, *images, noise_image, "--prediction_sets", 0.8, "--ood", "--output", tmp_path / "scores.csv"
    )
    assert f"Predicted {len(images) + 1} of {len(images) + 1} images" in done.stderr
    predictions = read_rows(tmp_path / "scores.csv")
    assert list(predictions[0])[-4:] == ["prediction_set", "ood_p_value", "ood", "error"]
    assert predictions[-1]["ood"] == "yes"
    assert sum(row["ood"] == "yes" for row in predictions[:-1]) < len(images) / 2
    # The sets are those of the scores, highest score first.
    uncertainty = read_uncertainty(run, names)
    for row in predictions:
        scores = np.array([[float(row[f"score_{rank}"]) for rank in (1, 2, 3)]])
        order = [names.index(row[f"label_{rank}"]) for rank in (1, 2, 3)]
        by_class = np.empty((1, 3))
        by_class[0, order] = scores[0]
        members = uncertainty.conformal_sets.predict_sets(by_class, 0.8)[0]
        assert row["prediction_set"] == " | ".join(names[index] for index in order if members[index])
    card = (run / "README.md").read_text()
    assert "with a nominal coverage of 90 % for each class" in " ".join(card.split())
    assert (run / "figures" / "risk_coverage_test.png").is_file()
    assert 0 <= json.loads((run / "all_results.json").read_text())["scores"]["test"]["aurc"] < 1


def test_prediction_sets_do_not_depend_on_the_temperature(finetuned, images, tmp_path):
    flags = {"model_name_or_path": str(finetuned("mean")), "images": images[:5], "prediction_sets": 0.8}
    predict(**flags, output=str(tmp_path / "plain.csv"))
    predict(**flags, output=str(tmp_path / "scaled.jsonl"), temperature="3", ood=True)
    plain = [row["prediction_set"] for row in read_rows(tmp_path / "plain.csv")]
    scaled = [json.loads(line) for line in (tmp_path / "scaled.jsonl").read_text().splitlines() if "file_name" in line]
    assert [" | ".join(row["prediction_set"]) for row in scaled] == plain
    assert all(isinstance(row["ood"], bool) and 0 < row["ood_p_value"] <= 1 for row in scaled)


def test_evaluate_fits_the_same_uncertainty_as_training(finetuned, images, toy, tmp_path):
    run = finetuned("cls")
    flags = {"model_name_or_path": str(run), "data_dir": str(toy / "labelled"), "output_dir": str(tmp_path / "fitted")}
    evaluate(**flags, split="validation", fit_uncertainty=True)
    names = read_prediction_table(run, "validation").class_names
    fitted, trained = read_uncertainty(tmp_path / "fitted", names), read_uncertainty(run, names)
    for one, other in zip(
        fitted.conformal_sets.calibration_scores, trained.conformal_sets.calibration_scores, strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(fitted.ood.calibration_distances, trained.ood.calibration_distances, rtol=1e-3)
    flags = {"model_name_or_path": str(run), "images": images[:2], "output": str(tmp_path / "scores.csv")}
    predict(**flags, prediction_sets=0.9, uncertainty=str(tmp_path / "fitted"))
    with raises(RunMessage.FITTED_WITHOUT_TTA):
        predict(**flags | {"overwrite": True}, prediction_sets=0.9, tta=True)


def test_invalid_options_are_rejected(finetuned, images, toy, tmp_path):
    run = str(finetuned("mean"))
    flags = {"model_name_or_path": run, "images": images[:1], "output": str(tmp_path / "scores.csv")}
    with raises(SettingsMessage.OUT_OF_BOUNDS, CommandLineError, name="prediction_sets"):
        predict(**flags, prediction_sets=90)
    with raises(RunMessage.UNCERTAINTY_MISSING, path=tmp_path):
        predict(**flags, prediction_sets=0.9, uncertainty=str(tmp_path))
    with raises(SettingsMessage.FIT_UNCERTAINTY_WITHOUT_OUTPUT):
        evaluate(model_name_or_path=run, data_dir=str(toy / "labelled"), split="test", fit_uncertainty=True)
    assert not (tmp_path / "scores.csv").exists()


def test_the_demo_shows_the_prediction_set_and_a_warning(finetuned, images, noise_image):
    from hf_mae.sharing.demo import Classifier

    run = finetuned("mean")
    model, processor = load_classifier(str(run))
    names = [model.config.id2label[index] for index in range(3)]
    page = Classifier(model, processor, uncertainty=read_uncertainty(run, names))
    for path, is_ood in ((noise_image, True), (images[0], False)):
        image = page.read(path)
        remarks = page.remarks(image, page.logits(image))
        assert remarks[0].startswith("Prediction set (90 % coverage): ")
        assert (len(remarks) == 2) == is_ood
    assert Classifier(model, processor).remarks(image, page.logits(image)) == []
