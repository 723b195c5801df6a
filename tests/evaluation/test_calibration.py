"""Temperature scaling: fits on simulated logits, and its use in finetune, evaluate and predict."""

import csv
import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import softmax
from support.cli_process import run_cli
from support.messages import logged, raises, shows

from hf_mae.cli.main import main
from hf_mae.evaluation.calibration import Temperature, calibration_gain, fit_class_temperatures, fit_temperature
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.temperature import fit_and_write_temperature, read_temperature
from hf_mae.settings.messages import SettingsMessage


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_fitted_temperature_calibrates(sharpness):
    """Labels are sampled from the scores of logits, and the logits are scaled: the fit recovers the scale."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20_000, 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(logits, axis=-1)])
    temperature = fit_temperature(sharpness * logits, labels)
    assert temperature == pytest.approx(sharpness, rel=0.03)
    gain = calibration_gain(sharpness * logits, labels, Temperature(temperature))
    assert gain["ece_after"] < 0.02 and gain["nll_after"] <= gain["nll_before"] + 1e-9
    assert gain["ece_before"] > 0.05 or sharpness == 1.0


COUNTS = np.array([900, 90, 9])
CENTERED_LOG_COUNTS = np.log(COUNTS) - np.log(COUNTS).mean()


def make_logits(images, seed=0):
    """Logits that favour the classes with many images, and labels sampled from their scores."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(images, 3)) + np.array([1.0, 0.0, -1.0])
    return logits, np.array([rng.choice(3, p=row) for row in softmax(logits, axis=-1)])


def test_fitted_temperatures_per_class_calibrate():
    """Logits are scaled by the predicted class; the fit recovers the scales, and does not change the predictions."""
    logits, labels = make_logits(20_000)
    factors = np.exp(0.3 + 0.25 * CENTERED_LOG_COUNTS)
    sharpened = logits * factors[logits.argmax(-1)][:, None]
    temperatures = fit_class_temperatures(sharpened, labels, COUNTS)
    assert temperatures == pytest.approx(factors, rel=0.05)
    scaled = Temperature(1.0, temperatures).scale_logits(sharpened)
    np.testing.assert_allclose(scaled, sharpened / np.take(temperatures, sharpened.argmax(-1))[:, None])
    assert (scaled.argmax(-1) == sharpened.argmax(-1)).all()
    single, by_class = (
        calibration_gain(sharpened, labels, temperature)
        for temperature in (Temperature(fit_temperature(sharpened, labels)), Temperature(1.0, temperatures))
    )
    assert by_class["nll_after"] < single["nll_after"] and by_class["ece_after"] < 0.01


def test_temperatures_per_class_are_rejected_if_one_temperature_is_as_good():
    logits, labels = make_logits(600)
    assert fit_class_temperatures(2 * logits, labels, COUNTS) == ()
    sharpened = logits * np.exp(0.5 * CENTERED_LOG_COUNTS)[logits.argmax(-1)][:, None]
    assert fit_class_temperatures(sharpened, labels, COUNTS)
    assert fit_class_temperatures(sharpened, labels, np.array([90, 80, 70])) == ()  # class sizes are similar
    assert fit_class_temperatures(sharpened[:4], labels[:4], COUNTS) == ()
    assert len(fit_class_temperatures(sharpened, labels, np.array([900, 90, 0]))) == 3


def test_temperatures_per_class_are_written_and_are_read_for_the_same_classes_only(tmp_path):
    logits, labels = make_logits(600)
    logits *= np.exp(0.5 * CENTERED_LOG_COUNTS)[logits.argmax(-1)][:, None]
    names = ["a", "b", "c"]
    calibration = fit_and_write_temperature(tmp_path, logits, labels, "validation", False, names, COUNTS)
    assert asdict(calibration) == json.loads((tmp_path / "temperature.json").read_text())
    assert list(calibration.class_temperatures) == names
    read = read_temperature(str(tmp_path), False, names)
    assert read.by_class == tuple(calibration.class_temperatures.values()) and read.value == calibration.temperature
    assert read_temperature(str(tmp_path), False, names[::-1]).by_class == read.by_class[::-1]
    assert read_temperature(str(tmp_path), False, ["a", "b"]) == Temperature(calibration.temperature)
    gain = calibration_gain(logits, labels, read)
    assert calibration.nll_after == gain["nll_after"] < calibration.nll_before
    single = fit_and_write_temperature(tmp_path, logits, labels, "validation", False, names)
    assert not single.class_temperatures and single.nll_after > calibration.nll_after
    for damaged, message in (
        ({"a": 0, "b": 1, "c": 1}, RunMessage.TEMPERATURE_NOT_POSITIVE),
        ({"a": "x", "b": 1, "c": 1}, RunMessage.TEMPERATURE_UNREADABLE),
        (["a"], RunMessage.TEMPERATURE_UNREADABLE),
    ):
        (tmp_path / "temperature.json").write_text(json.dumps(asdict(calibration) | {"class_temperatures": damaged}))
        with raises(message):
            read_temperature(str(tmp_path), False, names)


@pytest.fixture
def model(finetuned):
    return finetuned()


@pytest.fixture(scope="module")
def mislabelled(toy, tmp_path_factory):
    """The toy images with half of the validation labels wrong, so that no model is right on all of them."""
    data = shutil.copytree(toy / "labelled", tmp_path_factory.mktemp("mislabelled") / "labelled")
    names = sorted(path.name for path in (data / "validation").iterdir())
    for one, other in zip(names, names[1:] + names[:1]):
        for path in sorted((data / "validation" / one).glob(f"{one}_*"))[:3]:
            path.rename(data / "validation" / other / f"was_{path.name}")
    return data


def read_rows(path):
    return {row["file_name"]: row for row in csv.DictReader(open(path))}


def test_a_temperature_fitted_on_validation_is_used_on_test_and_in_predict(model, mislabelled, tmp_path):
    common = ["--model_name_or_path", model, "--data_dir", mislabelled]
    fitted = tmp_path / "fitted"
    done = run_cli("evaluate", *common, "--fit_temperature", "true", "--tta", "true", "--output_dir", fitted)
    calibration = json.loads((fitted / "temperature.json").read_text())
    assert (
        calibration["fitted_on"] == "validation"
        and calibration["averaged_views"]
        and calibration["nll_after"] <= calibration["nll_before"]
    )
    ece = f"{calibration['ece_before']:.4f} before, {calibration['ece_after']:.4f} after"
    assert ece in done.stdout and "these scores are optimistic" in done.stdout
    done = run_cli(
        "evaluate", *common, "--split", "test", "--tta", "true", "--temperature", fitted, "--output_dir", fitted
    )
    results = json.loads((fitted / "results_test.json").read_text())
    scaling = results["calibration"]
    assert scaling["temperature"] == calibration["temperature"] and results["scores"]["test"]["ece"] == pytest.approx(
        scaling["ece_after"]
    )
    assert f"on test: expected calibration error {scaling['ece_before']:.4f} before" in done.stdout
    assert_predict_equals_evaluate(model, mislabelled / "test", fitted, tmp_path / "out.csv")
    names = sorted(path.name for path in (mislabelled / "test").iterdir())
    by_class = dict(zip(names, (0.5, 1.0, 3.0), strict=True))
    (fitted / "temperature.json").write_text(json.dumps(calibration | {"class_temperatures": by_class}))
    plain = read_rows(fitted / "predictions_test.csv")
    argv = ["--split", "test", "--tta", "true", "--temperature", fitted, "--output_dir", fitted]
    done = run_cli("evaluate", *common, *argv)
    assert f"temperatures per class from 0.500 ({names[0]}) to 3.000 ({names[2]}) on test" in done.stdout
    assert_predict_equals_evaluate(model, mislabelled / "test", fitted, tmp_path / "by_class.csv")
    for path, row in read_rows(fitted / "predictions_test.csv").items():
        logits = np.log([float(plain[path][f"score:{name}"]) for name in names]) * calibration["temperature"]
        expected = softmax(logits / by_class[row["prediction"]])
        assert [float(row[f"score:{name}"]) for name in names] == pytest.approx(expected.tolist(), abs=1e-5)


def assert_predict_equals_evaluate(model, folder, fitted, out):
    """The scores of `predict` on a folder equal those that `evaluate` wrote."""
    run_cli("predict", "--model_name_or_path", model, folder, "--output", out, "--tta", "--temperature", fitted)
    predicted, evaluated = read_rows(out), read_rows(fitted / "predictions_test.csv")
    assert len(predicted) == len(evaluated) == 18
    for path, row in predicted.items():
        other = evaluated[path.removeprefix(f"{folder.parent}/")]
        assert row["label_1"] == other["prediction"]
        assert float(row["score_1"]) == pytest.approx(float(other["score"]), abs=2e-6)


def test_a_run_contains_the_temperature_of_its_validation_split(tiny_pth, mislabelled, tmp_path):
    model = tmp_path / "run"
    flags = [
        "--model_name_or_path",
        tiny_pth,
        "--data_dir",
        mislabelled,
        "--output_dir",
        model,
        "--num_train_epochs",
        12,
    ]
    flags += ["--learning_rate", 3e-3, "--warmup_epochs", 1, "--per_device_train_batch_size", 20, "--report_to", "none"]
    run_cli("finetune", *flags, "--load_best_model_at_end", "false")
    calibration = json.loads((model / "temperature.json").read_text())
    assert calibration["images"] == 18 and not calibration["averaged_views"]
    assert f"temperature {calibration['temperature']:.3f}" in (model / "README.md").read_text()
    names = sorted(path.name for path in (mislabelled / "validation").iterdir())
    assert read_temperature(str(model), False, names) == Temperature(calibration["temperature"])
    with raises(RunMessage.FITTED_WITHOUT_TTA):
        read_temperature(str(model), True, names)


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (np.eye(3)[[0, 1, 2] * 9] * 5, [0, 1, 2] * 9, RunMessage.TEMPERATURE_AT_BOUND),
        (np.eye(3)[[0, 1, 2] * 9] * 5, [1, 2, 0] * 9, RunMessage.TEMPERATURE_AT_BOUND),
        (np.array([[2.0, 0.0]] * 9 + [[0.5, 0.0]]), [0] * 8 + [1, 0], RunMessage.TEMPERATURE_WORSENS_CALIBRATION),
    ],
)
def test_useless_temperatures_are_not_written(tmp_path, caplog, logits, labels, message):
    (tmp_path / "temperature.json").write_text("{}")  # of an earlier run
    assert fit_and_write_temperature(tmp_path, logits, np.array(labels), "validation", False, ["a", "b", "c"]) is None
    assert not (tmp_path / "temperature.json").exists() and logged(caplog.records, message)


@pytest.mark.parametrize(
    "argv, message, status",
    [
        (["--temperature", "0"], RunMessage.TEMPERATURE_NOT_POSITIVE, 1),
        (["--temperature", "/absent"], RunMessage.TEMPERATURE_UNREADABLE, 1),
        (["--fit_temperature", "true"], SettingsMessage.FIT_TEMPERATURE_WITHOUT_OUTPUT, 2),
        (
            ["--fit_temperature", "true", "--temperature", "1", "--output_dir", "x"],
            SettingsMessage.FIT_TEMPERATURE_TWICE,
            2,
        ),
    ],
)
def test_invalid_options_are_rejected(model, toy, capsys, argv, message, status):
    common = ["evaluate", "--model_name_or_path", str(model), "--data_dir", str(toy / "labelled")]
    assert main([*common, *argv]) == status
    assert shows(capsys.readouterr().err, message)
