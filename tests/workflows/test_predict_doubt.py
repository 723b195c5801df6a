"""What a model does not know, from its training to a table of predictions."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from support.cli_process import run_cli

from hf_mae import evaluate, predict
from hf_mae.errors import UsageError
from hf_mae.models.loading import load_classifier
from hf_mae.runs.predictions import read_prediction_rows
from hf_mae.runs.uncertainty_io import read_uncertainty


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def images(toy):
    return [str(path) for path in sorted((toy / "labelled" / "test").glob("*/*.jpg"))]


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """Noise, which is like none of the drawings."""
    path = tmp_path_factory.mktemp("strange") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def test_a_run_says_what_it_does_not_know(finetuned, images, strange, tmp_path):
    run = finetuned("mean")
    rows, names = read_prediction_rows(run / "predictions_validation.csv")
    values = json.loads((run / "doubt.json").read_text())["scores_of_the_true_class"]
    for name in names:
        own = sorted(float(row[f"score:{name}"]) for row in rows if row["label"] == name)
        assert values[name] == pytest.approx(own, rel=1e-5)
    done = run_cli(
        "predict", run, *images, strange, "--prediction_sets", 0.8, "--ood", "--output", tmp_path / "scores.csv"
    )
    assert f"{len(images) + 1} of {len(images) + 1} images predicted" in done.stderr
    found = rows_of(tmp_path / "scores.csv")
    assert list(found[0])[-4:] == ["set", "outlier_p", "outlier", "error"]
    assert found[-1]["outlier"] == "yes"
    assert sum(row["outlier"] == "yes" for row in found[:-1]) < len(images) / 2
    # The sets are those of the scores, the likeliest class first.
    plain = read_uncertainty(run, names)
    for row in found:
        scores = np.array([[float(row[f"score_{rank}"]) for rank in (1, 2, 3)]])
        order = [names.index(row[f"label_{rank}"]) for rank in (1, 2, 3)]
        by_class = np.empty((1, 3))
        by_class[0, order] = scores[0]
        held = plain.conformal_sets.predict_sets(by_class, 0.8)[0]
        assert row["set"] == " | ".join(names[index] for index in order if held[index])
    card = (run / "README.md").read_text()
    assert "Sets of classes that should hold the true one in 90 % of the images of each class" in card
    assert (run / "risk_coverage_test.png").is_file() and 0 <= json.loads((run / "all_results.json").read_text())[
        "test"
    ]["aurc"] < 1


def test_a_temperature_changes_no_set_and_other_tables_hold_them_too(finetuned, images, tmp_path):
    flags = {"model_name_or_path": str(finetuned("mean")), "images": images[:5], "sets": 0.8}
    predict(**flags, output=str(tmp_path / "plain.csv"))
    predict(**flags, output=str(tmp_path / "cooled.jsonl"), temperature="3", outliers=True)
    plain = [row["set"] for row in rows_of(tmp_path / "plain.csv")]
    cooled = [json.loads(line) for line in (tmp_path / "cooled.jsonl").read_text().splitlines() if "file_name" in line]
    assert [" | ".join(row["set"]) for row in cooled] == plain
    assert all(isinstance(row["outlier"], bool) and 0 < row["outlier_p"] <= 1 for row in cooled)


def test_it_is_fitted_for_another_model_on_other_images(finetuned, images, toy, tmp_path):
    run = finetuned("cls")
    flags = {"model_name_or_path": str(run), "data_dir": str(toy / "labelled"), "output_dir": str(tmp_path / "fitted")}
    evaluate(**flags, split="validation", fit_doubt=True)
    _, names = read_prediction_rows(run / "predictions_validation.csv")
    ours, theirs = read_uncertainty(tmp_path / "fitted", names), read_uncertainty(run, names)
    for one, other in zip(
        ours.conformal_sets.calibration_scores, theirs.conformal_sets.calibration_scores, strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(ours.ood.calibration_distances, theirs.ood.calibration_distances, rtol=1e-3)
    flags = {"model_name_or_path": str(run), "images": images[:2], "output": str(tmp_path / "scores.csv")}
    predict(**flags, sets=0.9, doubt=str(tmp_path / "fitted"))
    with pytest.raises(UsageError, match="fitted without --tta"):
        predict(**flags | {"overwrite": True}, sets=0.9, tta=True)


def test_mistakes_are_one_sentence(finetuned, images, toy, tmp_path):
    run = str(finetuned("mean"))
    flags = {"model_name_or_path": run, "images": images[:1], "output": str(tmp_path / "scores.csv")}
    with pytest.raises(UsageError, match="must be above 0 and below 1, not 90"):
        predict(**flags, sets=90)
    with pytest.raises(UsageError, match="does not say what its model does not know"):
        predict(**flags, sets=0.9, doubt=str(tmp_path))
    with pytest.raises(UsageError, match="--output_dir"):
        evaluate(model_name_or_path=run, data_dir=str(toy / "labelled"), split="test", fit_doubt=True)
    assert not (tmp_path / "scores.csv").exists()


def test_the_page_says_so_of_an_image(finetuned, images, strange):
    from hf_mae.sharing.demo import Classifier

    run = finetuned("mean")
    model, processor = load_classifier(str(run))
    names = [model.config.id2label[index] for index in range(3)]
    page = Classifier(model, processor, uncertainty=read_uncertainty(run, names))
    for path, flagged in ((strange, True), (images[0], False)):
        image = page.read(path)
        told = page.remarks(image, page.logits(image))
        assert told[0].startswith("Set that holds the class of 90 % of images: ")
        assert (len(told) == 2) == flagged
    assert Classifier(model, processor).remarks(image, page.logits(image)) == []
