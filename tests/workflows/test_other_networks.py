"""Networks of timm and transformers beside ours: the same command, splits, figures, tables and tests."""

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
from transformers import AutoModelForImageClassification, ConvNextConfig, pipeline

from hf_mae import crossval, evaluate, explain, finetune, predict, probe, report
from hf_mae.compat.timm import MIN_TIMM_VERSION
from hf_mae.data import image_processor
from hf_mae.errors import UsageError
from hf_mae.reporting.console import format_probe_table

pytestmark = pytest.mark.skipif(
    Version(timm.__version__) < Version(MIN_TIMM_VERSION), reason=f"networks of timm need timm {MIN_TIMM_VERSION}"
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
def timms(settings, toy, tmp_path_factory):
    """A network of timm that has learnt the toy set, from the shell."""
    out = tmp_path_factory.mktemp("timms") / "run"
    named = [word for name, value in settings.items() for word in (f"--{name}", value)]
    done = run_cli("finetune", "timm/test_convnext3", "--random_weights", "true", "--output_dir", out, *named)
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


def test_the_pipeline_says_what_the_run_says(timms, toy):
    with open(timms / "predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    classifier = pipeline("image-classification", model=str(timms), top_k=None)
    for row in rows[::6]:
        answer = {one["label"]: one["score"] for one in classifier(str(toy / "labelled" / row["file_name"]))}
        assert answer == pytest.approx({label: float(row[f"score:{label}"]) for label in answer}, abs=1e-5)
    card = (timms / "README.md").read_text()
    assert "TimmWrapperForImageClassification" in card and "masked-autoencoder" not in card


def test_a_network_is_fetched_from_the_hub_by_its_name(toy, tmp_path):
    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model("test_vit", num_classes=0), tmp_path / "repo", safe_serialization=True)
    with fake_hub.run_fake_hub() as (hub, url):
        hub.repos["timm/test_vit.of_ours"] = [{path.name: path.read_bytes() for path in (tmp_path / "repo").iterdir()}]
        env = fake_hub.hub_environment(url, tmp_path)
        flags = ["--image_size", 64, "--num_train_epochs", 1, "--warmup_epochs", 0, "--output_dir", tmp_path / "run"]
        done = run_cli("finetune", "timm/test_vit.of_ours", toy / "labelled", *flags, env=env)
    assert "test_vit of 6 blocks, 64 pixels" in done.stderr and "no head of 3 classes" in done.stderr
    assert "base_model: timm/test_vit.of_ours" in (tmp_path / "run" / "README.md").read_text()
    with torch.no_grad():
        model = AutoModelForImageClassification.from_pretrained(tmp_path / "run").eval()
        assert model(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3)


def test_it_is_evaluated_and_predicts_like_any_other(timms, toy, tmp_path):
    record = json.loads((timms / "all_results.json").read_text())
    again = evaluate(model_name_or_path=str(timms), data_dir=str(toy / "labelled"), split="test")
    assert again.scores["test"]["macro_f1"] == pytest.approx(record["test"]["macro_f1"], abs=1e-12)
    images = [str(path) for path in sorted((toy / "labelled" / "test").glob("*/*.jpg"))[:2]]
    predict(model_name_or_path=str(timms), images=images, output=str(tmp_path / "p.csv"), sets=0.9, outliers=True)
    assert "outlier_p" in (tmp_path / "p.csv").read_text().splitlines()[0]
    pytest.importorskip("captum")
    with pytest.raises(UsageError, match=r"test_convnext3 of 4 blocks: explain is for ViTs"):
        explain(model_name_or_path=str(timms), images=images, output_dir=str(tmp_path / "explained"))


def test_it_stands_beside_ours_in_one_report_that_calls_each_what_it_is(timms, finetuned, toy, tmp_path):
    made = report(runs=[str(finetuned("mean")), str(timms)], output_dir=str(tmp_path / "both"))
    text = (tmp_path / "both" / "report.md").read_text()
    assert made and "McNemar" in text and finetuned("mean").name in text
    evaluate(model_name_or_path=str(timms), data_dir=str(toy / "labelled"), output_dir=str(tmp_path / "scores"))
    for run in (timms, tmp_path / "scores"):
        report(runs=[str(run)], output_dir=str(tmp_path / "own"))
        study = (tmp_path / "own" / "study.md").read_text()
        assert "The network test_convnext3 of 4 blocks was" in study
        assert "masked autoencoder" not in study and "vision transformer" not in study
    report(runs=[str(finetuned("mean"))], output_dir=str(tmp_path / "ours"))
    assert "pre-trained as a masked autoencoder" in (tmp_path / "ours" / "study.md").read_text()


def test_an_interrupted_training_goes_on_to_the_bit(convnext, settings, tmp_path):
    whole, parts = (settings | {"model_name_or_path": str(convnext), "output_dir": str(tmp_path / n)} for n in "ab")
    finetune(**whole)
    finetune(**parts)
    for step in (6, 9):
        for path in (tmp_path / "b" / f"checkpoint-{step}").glob("*"):
            path.unlink()
        (tmp_path / "b" / f"checkpoint-{step}").rmdir()
    finetune(**parts, resume_from_checkpoint="true")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_cross_validation_of_another_network_has_the_same_folds(convnext, tiny_pth, settings, toy, tmp_path):
    short = settings | {"data_dir": str(toy / "labelled" / "train"), "num_train_epochs": 1, "folds": 2, "seeds": [0]}
    files = []
    for name, source in (("ours", tiny_pth), ("theirs", convnext)):
        short["image_size"] = 64 if name == "theirs" else None
        given = {key: value for key, value in short.items() if value is not None}
        crossval(**given, model_name_or_path=str(source), output_dir=str(tmp_path / name))
        found = sorted((tmp_path / name).rglob("predictions_*.csv"))
        rows = [list(csv.DictReader(path.open(newline=""))) for path in found]
        files.append([sorted(row["file_name"] for row in part) for part in rows])
    assert len(files[0]) >= 2 and files[0] == files[1]


def test_what_batch_norms_and_other_networks_cannot_do_is_refused(settings, tmp_path):
    given = settings | {"random_weights": True, "output_dir": str(tmp_path / "out"), "num_train_epochs": 1}
    resnet = given | {"model_name_or_path": "timm/test_resnet"}
    for flag in ({"ema": 0.9}, {"freeze_backbone": True}):
        with pytest.raises(UsageError, match=f"--{next(iter(flag))} is for networks without batch norm"):
            finetune(**resnet, **flag)
    with pytest.raises(UsageError, match="--patch_dropout is for an MAE ViT"):
        finetune(**given, model_name_or_path="timm/test_convnext3", patch_dropout=0.5)
    assert not np.any([path.suffix == ".safetensors" for path in tmp_path.rglob("*")])


def test_a_probe_reads_what_the_head_reads(convnext, settings, tmp_path, capsys):
    """Frozen, of a folder and of timm's own; the head makes the network's own logits of these features."""
    data = {"data_dir": settings["data_dir"], "image_size": 64}
    found = probe(model_name_or_path=str(convnext), **data, output_dir=str(tmp_path), features=str(tmp_path / "x.npz"))
    assert found.network == "convnext of 5 blocks" and set(found.probe) == {"pooled", "parts"}
    assert 0 <= found.probe["pooled"]["linear"]["macro_f1"] <= 1 and "pooled    linear" in format_probe_table(found)
    assert (tmp_path / "probe.json").is_file() and list(tmp_path.glob("*.png"))
    model = AutoModelForImageClassification.from_pretrained(convnext).eval()
    written = np.load(tmp_path / "x.npz")
    opened = Image.open(f"{data['data_dir']}/{written['file_name'][0]}").convert("RGB")
    pixels = image_processor("endoscopy", 64)([opened], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected, logits = model(pixels).logits, model.classifier(torch.from_numpy(written["pooled"][:1]))
    torch.testing.assert_close(logits, expected)
    random = {"model_name_or_path": "timm/test_vit", "random_weights": True}
    seeds = [probe(**random, **data, seed=seed).probe["pooled"]["knn"] for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    for flag in ("layers", "attentive"):
        with pytest.raises(UsageError, match=f"--{flag} is for an MAE ViT, and timm/test_vit is another network"):
            probe(**random, **data, **{flag: True})
