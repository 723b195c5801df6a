"""Networks of timm and transformers: trained, evaluated, compared and probed with the commands for MAE ViTs."""

import csv
import json

import numpy as np
import pytest
import timm
import torch
from packaging.version import Version
from PIL import Image
from safetensors.torch import load_file
from support import fake_hub
from support.cli_process import run_cli
from support.messages import raises
from transformers import AutoModelForImageClassification, ConvNextConfig, pipeline

from hf_mae import crossval, evaluate, explain, finetune, predict, probe, report
from hf_mae.compat.timm import MIN_TIMM_VERSION
from hf_mae.data import image_processor
from hf_mae.models.messages import ModelMessage
from hf_mae.models.network import Network
from hf_mae.reporting.console import build_probe_summary
from hf_mae.reporting.renderers import terminal
from hf_mae.runs.record_io import read_record
from hf_mae.training.messages import TrainingMessage
from hf_mae.workflows.messages import WorkflowMessage

pytestmark = pytest.mark.skipif(
    Version(timm.__version__) < Version(MIN_TIMM_VERSION), reason=f"needs timm {MIN_TIMM_VERSION}"
)


@pytest.fixture(scope="module")
def settings(toy) -> dict:
    return {
        "data_dir": str(toy / "labelled"),
        "image_size": 64,
        "num_train_epochs": 3,
        "warmup_epochs": 0,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 20,
        "disable_tqdm": True,
    }


@pytest.fixture(scope="module")
def timm_run(settings, toy, tmp_path_factory):
    """A network of timm, trained on the toy images from the command line."""
    out = tmp_path_factory.mktemp("timm") / "run"
    flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
    done = run_cli("finetune", "timm/test_convnext3", "--random_weights", "true", "--output_dir", out, *flags)
    assert "model       test_convnext3 of 4 blocks, 64 pixels" in done.stderr
    assert "hf-mae predict" in done.stdout and "hf-mae explain" not in done.stdout
    return out


@pytest.fixture(scope="module")
def convnext(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("convnext")
    config = ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], image_size=64)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    return folder


def test_pipeline_scores_equal_those_of_the_run(timm_run, toy):
    with open(timm_run / "predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    classifier = pipeline("image-classification", model=str(timm_run), top_k=None)
    for row in rows[::6]:
        scores = {item["label"]: item["score"] for item in classifier(str(toy / "labelled" / row["file_name"]))}
        assert scores == pytest.approx({label: float(row[f"score:{label}"]) for label in scores}, abs=1e-5)
    card = (timm_run / "README.md").read_text()
    assert "TimmWrapperForImageClassification" in card and "masked-autoencoder" not in card


def test_a_network_is_downloaded_from_the_hub(toy, tmp_path):
    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model("test_vit", num_classes=0), tmp_path / "repo", safe_serialization=True)
    with fake_hub.run_fake_hub() as (hub, url):
        hub.repos["timm/test_vit.tiny"] = [{path.name: path.read_bytes() for path in (tmp_path / "repo").iterdir()}]
        env = fake_hub.hub_environment(url, tmp_path)
        flags = ["--image_size", 64, "--num_train_epochs", 1, "--warmup_epochs", 0, "--output_dir", tmp_path / "run"]
        done = run_cli("finetune", "timm/test_vit.tiny", toy / "labelled", *flags, env=env)
    assert "test_vit of 6 blocks, 64 pixels" in done.stderr and "no head of 3 classes" in done.stderr
    assert "base_model: timm/test_vit.tiny" in (tmp_path / "run" / "README.md").read_text()
    with torch.no_grad():
        model = AutoModelForImageClassification.from_pretrained(tmp_path / "run").eval()
        assert model(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3)


def test_other_networks_are_evaluated_and_predict(timm_run, toy, tmp_path):
    record = json.loads((timm_run / "all_results.json").read_text())
    evaluated = evaluate(model_name_or_path=str(timm_run), data_dir=str(toy / "labelled"), split="test")
    assert evaluated.scores["test"]["macro_f1"] == pytest.approx(record["scores"]["test"]["macro_f1"], abs=1e-12)
    images = [str(path) for path in sorted((toy / "labelled" / "test").glob("*/*.jpg"))[:2]]
    predict(
        model_name_or_path=str(timm_run), images=images, output=str(tmp_path / "p.csv"), prediction_sets=0.9, ood=True
    )
    assert "ood_p_value" in (tmp_path / "p.csv").read_text().splitlines()[0]
    with raises(WorkflowMessage.EXPLAIN_NEEDS_VIT, model="test_convnext3 of 4 blocks"):
        explain(model_name_or_path=str(timm_run), images=images, output_dir=str(tmp_path / "explained"))


def test_a_report_compares_networks_and_describes_each(timm_run, finetuned, toy, tmp_path):
    result = report(runs=[str(finetuned("mean")), str(timm_run)], output_dir=str(tmp_path / "both"))
    text = (tmp_path / "both" / "report.md").read_text()
    assert result and "McNemar" in text and finetuned("mean").name in text
    evaluate(model_name_or_path=str(timm_run), data_dir=str(toy / "labelled"), output_dir=str(tmp_path / "scores"))
    for run in (timm_run, tmp_path / "scores"):
        report(runs=[str(run)], output_dir=str(tmp_path / "own"))
        study = (tmp_path / "own" / "study.md").read_text()
        assert "The network test_convnext3 of 4 blocks was" in study
        assert "masked autoencoder" not in study and "vision transformer" not in study
    report(runs=[str(finetuned("mean"))], output_dir=str(tmp_path / "mae"))
    assert "pre-trained as a masked autoencoder" in (tmp_path / "mae" / "study.md").read_text()


def test_a_resumed_training_gives_identical_weights(convnext, settings, tmp_path):
    complete, interrupted = (
        settings | {"model_name_or_path": str(convnext), "output_dir": str(tmp_path / n)} for n in "ab"
    )
    finetune(**complete)
    finetune(**interrupted)
    for step in (6, 9):
        for path in (tmp_path / "b" / f"checkpoint-{step}").glob("*"):
            path.unlink()
        (tmp_path / "b" / f"checkpoint-{step}").rmdir()
    finetune(**interrupted, resume_from_checkpoint="true")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_cross_validations_of_different_networks_have_the_same_folds(convnext, tiny_pth, settings, toy, tmp_path):
    short = settings | {"data_dir": str(toy / "labelled" / "train"), "num_train_epochs": 1, "folds": 2, "seeds": [0]}
    files = []
    for name, source in (("mae", tiny_pth), ("convnext", convnext)):
        short["image_size"] = 64 if name == "convnext" else None
        flags = {key: value for key, value in short.items() if value is not None}
        crossval(**flags, model_name_or_path=str(source), output_dir=str(tmp_path / name))
        tables = sorted((tmp_path / name).rglob("predictions_*.csv"))
        rows = [list(csv.DictReader(path.open(newline=""))) for path in tables]
        files.append([sorted(row["file_name"] for row in fold) for fold in rows])
    assert len(files[0]) >= 2 and files[0] == files[1]


def test_options_that_a_network_does_not_support_are_rejected(settings, tmp_path):
    flags = settings | {"random_weights": True, "output_dir": str(tmp_path / "out"), "num_train_epochs": 1}
    resnet = flags | {"model_name_or_path": "timm/test_resnet"}
    for option in ({"ema_decay": 0.9}, {"freeze_backbone": True}):
        with raises(TrainingMessage.BATCH_NORM_UNSUPPORTED, flag=f"--{next(iter(option))}"):
            finetune(**resnet, **option)
    with raises(ModelMessage.PATCH_DROPOUT_NEEDS_MAE):
        finetune(**flags, model_name_or_path="timm/test_convnext3", patch_dropout=0.5)
    assert not np.any([path.suffix == ".safetensors" for path in tmp_path.rglob("*")])


def test_a_probe_uses_the_input_of_the_head(convnext, settings, tmp_path):
    """The head of the network computes its logits from the written features."""
    data = {"data_dir": settings["data_dir"], "image_size": 64}
    record = probe(model_name_or_path=str(convnext), **data, output_dir=str(tmp_path), features=str(tmp_path / "x.npz"))
    assert record.network == Network("convnext", 5) and set(record.probe) == {"pooled"}
    assert read_record(tmp_path, record.file_name).probe == record.probe
    assert 0 <= record.probe["pooled"]["linear"]["macro_f1"] <= 1
    assert "pooled    linear" in terminal.render(build_probe_summary(record))
    assert (tmp_path / "probe.json").is_file() and list((tmp_path / "figures").glob("*.png"))
    model = AutoModelForImageClassification.from_pretrained(convnext).eval()
    features = np.load(tmp_path / "x.npz")
    image = Image.open(f"{data['data_dir']}/{features['file_name'][0]}").convert("RGB")
    pixels = image_processor("endoscopy", 64)([image], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected, logits = model(pixels).logits, model.classifier(torch.from_numpy(features["pooled"][:1]))
    torch.testing.assert_close(logits, expected)
    random = {"model_name_or_path": "timm/test_vit", "random_weights": True}
    results = [probe(**random, **data, seed=seed).probe["pooled"]["knn"] for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]
    with raises(WorkflowMessage.PROBE_FLAG_NEEDS_MAE, flag="attentive", source="timm/test_vit"):
        probe(**random, **data, attentive=True)
