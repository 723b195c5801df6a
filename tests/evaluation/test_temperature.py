"""Temperature scaling and averaged views: what they do to scores, and how they reach evaluate and predict."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from scipy.special import softmax
from support.cli_process import run_cli

from hf_mae import build_classifier
from hf_mae.cli.main import main
from hf_mae.errors import UsageError
from hf_mae.evaluation.calibration import Temperature, calibration_gain, fit_class_temperatures, fit_temperature
from hf_mae.models.tta import apply_tta, make_views
from hf_mae.runs.temperature import fit_and_write_temperature, read_temperature


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_is_found_and_calibrates(sharpness):
    """Labels drawn from the scores of logits; then the logits are sharpened: the fit takes just that back."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20_000, 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(logits, axis=-1)])
    temperature = fit_temperature(sharpness * logits, labels)
    assert temperature == pytest.approx(sharpness, rel=0.03)
    found = calibration_gain(sharpness * logits, labels, Temperature(temperature))
    assert found["ece_after"] < 0.02 and found["nll_after"] <= found["nll_before"] + 1e-9
    assert found["ece_before"] > 0.05 or sharpness == 1.0


COUNTS = np.array([900, 90, 9])
APART = np.log(COUNTS) - np.log(COUNTS).mean()


def drawn(images, random=0):
    """Logits that favour the classes with many images, and labels drawn from their scores."""
    rng = np.random.default_rng(random)
    logits = 1.5 * rng.normal(size=(images, 3)) + np.array([1.0, 0.0, -1.0])
    return logits, np.array([rng.choice(3, p=row) for row in softmax(logits, axis=-1)])


def test_temperatures_by_class_are_found_and_calibrate():
    """Logits are sharpened by the class that they predict; the fit takes just that back, and predicts the same."""
    logits, labels = drawn(20_000)
    sharpened = np.exp(0.3 + 0.25 * APART)
    given = logits * sharpened[logits.argmax(-1)][:, None]
    found = fit_class_temperatures(given, labels, COUNTS)
    assert found == pytest.approx(sharpened, rel=0.05)
    scaled = Temperature(1.0, found).scale_logits(given)
    np.testing.assert_allclose(scaled, given / np.take(found, given.argmax(-1))[:, None])
    assert (scaled.argmax(-1) == given.argmax(-1)).all()
    one, several = Temperature(fit_temperature(given, labels)), Temperature(1.0, found)
    assert calibration_gain(given, labels, several)["nll_after"] < calibration_gain(given, labels, one)["nll_after"]
    assert calibration_gain(given, labels, several)["ece_after"] < 0.01


def test_one_temperature_is_kept_where_several_tell_no_more():
    logits, labels = drawn(600)
    assert fit_class_temperatures(2 * logits, labels, COUNTS) == ()
    sharpened = logits * np.exp(0.5 * APART)[logits.argmax(-1)][:, None]
    assert fit_class_temperatures(sharpened, labels, COUNTS)
    assert fit_class_temperatures(sharpened, labels, np.array([90, 80, 70])) == ()  # the classes are alike
    assert fit_class_temperatures(sharpened[:4], labels[:4], COUNTS) == ()
    assert len(fit_class_temperatures(sharpened, labels, np.array([900, 90, 0]))) == 3


def test_temperatures_by_class_are_written_and_read_for_their_classes_alone(tmp_path):
    logits, labels = drawn(600)
    logits *= np.exp(0.5 * APART)[logits.argmax(-1)][:, None]
    names = ["a", "b", "c"]
    facts = fit_and_write_temperature(tmp_path, logits, labels, "validation", False, names, COUNTS)
    assert facts == json.loads((tmp_path / "temperature.json").read_text())
    assert list(facts["class_temperatures"]) == names
    read = read_temperature(str(tmp_path), False, names)
    assert read.by_class == tuple(facts["class_temperatures"].values()) and read.value == facts["temperature"]
    assert read_temperature(str(tmp_path), False, names[::-1]).by_class == read.by_class[::-1]
    assert read_temperature(str(tmp_path), False, ["a", "b"]) == Temperature(facts["temperature"])
    assert facts["nll_after"] == calibration_gain(logits, labels, read)["nll_after"] < facts["nll_before"]
    without = fit_and_write_temperature(tmp_path, logits, labels, "validation", False, names)
    assert "class_temperatures" not in without and without["nll_after"] > facts["nll_after"]
    for damaged in ({"a": 0, "b": 1, "c": 1}, {"a": "x", "b": 1, "c": 1}, ["a"]):
        (tmp_path / "temperature.json").write_text(json.dumps(facts | {"class_temperatures": damaged}))
        with pytest.raises(UsageError, match="must be above 0|is none of these"):
            read_temperature(str(tmp_path), False, names)


def test_eight_different_views_that_undo_each_other():
    image = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    seen = make_views(image)
    assert len({tuple(view.flatten().tolist()) for view in seen}) == 8 and torch.equal(seen[0], image)
    for quarter, view in enumerate(seen[:4]):
        assert torch.equal(torch.rot90(view, -quarter, dims=(-2, -1)), image)
        assert torch.equal(seen[quarter + 4].flip(-1), view)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_averaged_scores_are_the_mean_and_do_not_turn_with_the_image(tiny_pth, pooling):
    torch.manual_seed(0)
    model = build_classifier(tiny_pth, pooling=pooling, num_labels=3).eval()
    torch.nn.init.normal_(model.classifier.weight)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        mean = torch.stack([model(pixel_values=view).logits.softmax(-1) for view in make_views(image)]).mean(0)
        plain = model(pixel_values=image).logits.softmax(-1)
        with apply_tta(model):
            averaged = model(pixel_values=image).logits.softmax(-1)
            turned = model(pixel_values=torch.rot90(image, 1, dims=(-2, -1))).logits.softmax(-1)
        again = model(pixel_values=image).logits.softmax(-1)
    torch.testing.assert_close(averaged, mean)
    torch.testing.assert_close(turned, averaged)
    assert (plain - averaged).abs().max() > 1e-3
    assert torch.equal(again, plain) and "forward" not in vars(model)  # the model is as it was


@pytest.fixture
def model(finetuned):
    return finetuned()


@pytest.fixture(scope="module")
def mixed(toy, tmp_path_factory):
    """The toy images with half of the validation labels wrong: nobody is right on all of them."""
    data = shutil.copytree(toy / "labelled", tmp_path_factory.mktemp("mixed") / "labelled")
    names = sorted(path.name for path in (data / "validation").iterdir())
    for one, other in zip(names, names[1:] + names[:1]):
        for path in sorted((data / "validation" / one).glob(f"{one}_*"))[:3]:
            path.rename(data / "validation" / other / f"was_{path.name}")
    return data


def rows_of(path):
    return {row["file_name"]: row for row in csv.DictReader(open(path))}


def test_fit_on_validation_then_use_on_test_and_in_predict(model, toy, mixed, tmp_path):
    common = ["--model_name_or_path", model, "--data_dir", mixed]
    fitted = tmp_path / "fitted"
    done = run_cli("evaluate", *common, "--fit_temperature", "true", "--tta", "true", "--output_dir", fitted)
    facts = json.loads((fitted / "temperature.json").read_text())
    assert facts["fitted_on"] == "validation" and facts["averaged_views"] and facts["nll_after"] <= facts["nll_before"]
    ece = f"{facts['ece_before']:.4f} before, {facts['ece_after']:.4f} after"
    assert ece in done.stdout and "these very images" in done.stdout
    done = run_cli(
        "evaluate", *common, "--split", "test", "--tta", "true", "--temperature", fitted, "--output_dir", fitted
    )
    results = json.loads((fitted / "results_test.json").read_text())
    scaling = results["temperature_scaling"]
    assert scaling["temperature"] == facts["temperature"] and results["ece"] == pytest.approx(scaling["ece_after"])
    assert f"on test: expected calibration error {scaling['ece_before']:.4f} before" in done.stdout
    predicts_the_same(model, mixed / "test", fitted, tmp_path / "out.csv")
    names = sorted(path.name for path in (mixed / "test").iterdir())
    own = dict(zip(names, (0.5, 1.0, 3.0), strict=True))  # by class
    (fitted / "temperature.json").write_text(json.dumps(facts | {"class_temperatures": own}))
    plain = rows_of(fitted / "predictions_test.csv")
    argv = ["--split", "test", "--tta", "true", "--temperature", fitted, "--output_dir", fitted]
    done = run_cli("evaluate", *common, *argv)
    assert f"temperatures by class from 0.500 ({names[0]}) to 3.000 ({names[2]}) on test" in done.stdout
    predicts_the_same(model, mixed / "test", fitted, tmp_path / "by_class.csv")
    for path, row in rows_of(fitted / "predictions_test.csv").items():
        logits = np.log([float(plain[path][f"score:{name}"]) for name in names]) * facts["temperature"]
        expected = softmax(logits / own[row["prediction"]])
        assert [float(row[f"score:{name}"]) for name in names] == pytest.approx(expected.tolist(), abs=1e-5)


def predicts_the_same(model, folder, fitted, out):
    """What `predict` says of a folder is what `evaluate` has just written."""
    run_cli("predict", "--model_name_or_path", model, folder, "--output", out, "--tta", "--temperature", fitted)
    predicted, evaluated = rows_of(out), rows_of(fitted / "predictions_test.csv")
    assert len(predicted) == len(evaluated) == 18
    for path, row in predicted.items():
        same = evaluated[path.removeprefix(f"{folder.parent}/")]
        assert row["label_1"] == same["prediction"]
        assert float(row["score_1"]) == pytest.approx(float(same["score"]), abs=2e-6)


def test_a_run_holds_the_temperature_of_its_validation_split(tiny_pth, mixed, tmp_path):
    model = tmp_path / "run"
    flags = ["--model_name_or_path", tiny_pth, "--data_dir", mixed, "--output_dir", model, "--num_train_epochs", 12]
    flags += ["--learning_rate", 3e-3, "--warmup_epochs", 1, "--per_device_train_batch_size", 20, "--report_to", "none"]
    run_cli("finetune", *flags, "--load_best_model_at_end", "false")
    facts = json.loads((model / "temperature.json").read_text())
    assert facts["images"] == 18 and not facts["averaged_views"]
    assert f"temperature {facts['temperature']:.3f}" in (model / "README.md").read_text()
    names = sorted(path.name for path in (mixed / "validation").iterdir())
    assert read_temperature(str(model), False, names) == Temperature(facts["temperature"])
    with pytest.raises(UsageError, match="was fitted without --tta, and this is with"):
        read_temperature(str(model), True, names)


@pytest.mark.parametrize(
    "logits, labels, why",
    [
        (np.eye(3)[[0, 1, 2] * 9] * 5, [0, 1, 2] * 9, "is the bound of its range"),
        (np.eye(3)[[0, 1, 2] * 9] * 5, [1, 2, 0] * 9, "is the bound of its range"),
        (np.array([[2.0, 0.0]] * 9 + [[0.5, 0.0]]), [0] * 8 + [1, 0], "makes the calibration worse"),
    ],
)
def test_a_temperature_that_is_none_is_not_kept(tmp_path, caplog, logits, labels, why):
    (tmp_path / "temperature.json").write_text("{}")  # of an earlier run
    assert fit_and_write_temperature(tmp_path, logits, np.array(labels), "validation", False, ["a", "b", "c"]) is None
    assert not (tmp_path / "temperature.json").exists() and why in caplog.text


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--temperature", "0"], "must be above 0"),
        (["--temperature", "/absent"], "takes a number, a temperature.json, or a folder"),
        (["--fit_temperature", "true"], "into --output_dir"),
    ],
)
def test_mistakes_are_one_sentence(model, toy, capsys, argv, message):
    common = ["evaluate", "--model_name_or_path", str(model), "--data_dir", str(toy / "labelled")]
    assert main([*common, *argv]) == 1
    assert message in capsys.readouterr().err
