"""An ensemble: its scores, what it reconciles and refuses, and every verb that takes it as a model."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.cli_process import run_cli
from transformers import pipeline

from hf_mae import ensemble, evaluate, export_onnx, predict, report
from hf_mae.errors import UsageError
from hf_mae.models.loading import load_classifier


@pytest.fixture(scope="module")
def members(finetuned):
    return [finetuned("mean"), finetuned("cls")]


@pytest.fixture(scope="module")
def made(members, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "both"
    done = run_cli("ensemble", *members, "--output_dir", folder)
    assert "An ensemble of 2 models, 3 classes" in done.stdout
    return folder


@pytest.fixture(scope="module")
def images(toy):
    return sorted((toy / "labelled" / "test").glob("*/*.jpg"))


def mean_scores(folders, image) -> dict[str, float]:
    found = []
    for folder in folders:
        answer = pipeline("image-classification", model=str(folder), top_k=None)(str(image))
        found.append({entry["label"]: entry["score"] for entry in answer})
    return {label: sum(one[label] for one in found) / len(found) for label in found[0]}


def changed_copy(run: Path, folder: Path, **processor) -> Path:
    """A run with another image processor."""
    shutil.copytree(run, folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | processor))
    return folder


def test_its_scores_are_the_mean_and_three_stock_lines_give_them(made, members, images, tmp_path):
    predict(model_name_or_path=str(made), images=list(map(str, images[:4])), output=str(tmp_path / "scores.csv"))
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        expected = mean_scores(members, row["file_name"])
        found = {row[f"label_{rank}"]: float(row[f"score_{rank}"]) for rank in (1, 2, 3)}
        assert found == pytest.approx(expected, abs=1e-5)
    (code,) = re.findall(r"```python\n(.*?)```", (made / "README.md").read_text(), re.S)
    told: dict = {}
    exec(code.replace("image.jpg", str(images[0])), told)
    assert told["scores"] == pytest.approx(mean_scores(members, images[0]), abs=1e-6)


def test_it_is_evaluated_calibrated_and_reported(made, members, toy, tmp_path):
    labelled = str(toy / "labelled")
    flags = {"model_name_or_path": str(made), "data_dir": labelled}
    record = evaluate(**flags, split="validation", output_dir=str(tmp_path / "scores"), fit_temperature=True)
    alone = [evaluate(**flags | {"model_name_or_path": str(member)}, split="validation") for member in members]
    assert record.images["validation"] == alone[0].images["validation"]
    assert record.scores["validation"]["accuracy"] >= min(one.scores["validation"]["accuracy"] for one in alone)
    report(runs=[str(tmp_path / "scores")], output_dir=str(tmp_path / "report"))
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Mean of the scores of 2 models." in text
    assert "chosen on the images that are evaluated" in text  # so were both members' epochs


def test_turned_views_and_bf16_are_averaged_within_each_member(made, images, tmp_path):
    model, processor = load_classifier(str(made))
    assert not model.training and len(model.members) == 2
    plain = model(pixel_values=torch.zeros(2, 3, 32, 32)).logits
    torch.testing.assert_close(plain.exp().sum(-1), torch.ones(2))
    flags = {"model_name_or_path": str(made), "images": [str(images[0])], "tta": True, "bf16": True}
    predict(**flags, output=str(tmp_path / "turned.csv"))
    assert len((tmp_path / "turned.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", ["normalisation", "order of the classes"])
def test_what_differs_is_reconciled(members, images, tmp_path, kind):
    if kind == "normalisation":
        other = changed_copy(members[1], tmp_path / "other", image_mean=[0.1, 0.2, 0.3], image_std=[0.3, 0.2, 0.4])
    else:
        other = changed_copy(members[1], tmp_path / "other")
        config = json.loads((other / "config.json").read_text())
        names = [config["id2label"][str(index)] for index in (2, 0, 1)]
        config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        (other / "config.json").write_text(json.dumps(config))
        weights = load_file(other / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            weights[name] = weights[name][[2, 0, 1]].contiguous()
        save_file(weights, other / "model.safetensors", {"format": "pt"})
    ensemble(runs=[str(members[0]), str(other)], output_dir=str(tmp_path / "out"))
    model, processor = load_classifier(str(tmp_path / "out"))
    from PIL import Image

    with Image.open(images[0]) as image, torch.no_grad():
        scores = model(**processor(image.convert("RGB"), return_tensors="pt")).logits.softmax(-1)[0]
    found = {model.config.id2label[index]: float(score) for index, score in enumerate(scores)}
    assert found == pytest.approx(mean_scores([members[0], other], images[0]), abs=1e-5)


def test_what_cannot_be_one_is_refused(members, made, tmp_path):
    first = str(members[0])

    def refused(runs, sentence):
        with pytest.raises(UsageError, match=sentence):
            ensemble(runs=runs, output_dir=str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    refused([first], "is one model: an ensemble has two at least")
    refused([first, first], "named twice")
    smaller = changed_copy(members[1], tmp_path / "other", rescale_factor=0.5)
    refused([first, str(smaller)], "model 2 reads images otherwise than model 1 .rescale_factor 0.5")
    config = json.loads((smaller / "config.json").read_text())
    config["id2label"]["0"] = "else"
    (smaller / "config.json").write_text(json.dumps(config))
    refused([first, str(smaller)], "model 2 has other classes than model 1")
    refused([first, str(tmp_path / "nowhere")], "nowhere")
    damaged = shutil.copytree(made, tmp_path / "damaged")
    (damaged / "ensemble.json").write_text('{"members": [{"folder": "../elsewhere", "source": "x"}]}')
    with pytest.raises(UsageError, match="names no members"):
        load_classifier(str(damaged))
    assert "two at least" in run_cli("ensemble", first, "--output_dir", tmp_path / "out", status=1).stderr


def test_an_ensemble_of_an_ensemble_has_its_members(made, members, tmp_path):
    third = shutil.copytree(members[0], tmp_path / "third")
    done = ensemble(runs=[str(made), str(third)], output_dir=str(tmp_path / "out"))
    assert [Path(source).name for source in done.sources] == ["member_1", "member_2", "third"]


def test_members_that_held_out_other_images_are_not_scored_on_them(members, made, toy, tmp_path):
    """A cross-validation's runs: of any share of its data, some members were trained on."""
    cross = tmp_path / "cross"
    for number, member in enumerate(members, 1):
        shutil.copytree(member, cross / f"seed-0_fold-{number}")
    facts = json.loads((members[0] / "all_results.json").read_text())
    runs = [{"fraction": 1.0, "seed": 0, "fold": number, "several_fractions": False} for number in (1, 2)]
    runs = [
        run | {name: value for name, value in facts["validation"].items() if isinstance(value, float)} for run in runs
    ]
    runs = [run | {"folder": f"seed-0_fold-{run['fold']}", "chosen_on": "validation"} for run in runs]
    summary = {name: facts[name] for name in ("classes", "source", "base", "hardware", "versions", "settings")}
    summary |= {"format": 2, "kind": "crossval", "folds": "2", "runs": runs, "mean_and_std": {}, "pooled": {}}
    (cross / "crossval.json").write_text(json.dumps(summary | {"label_efficiency": []}))
    done = ensemble(runs=[str(cross)], output_dir=str(tmp_path / "folds"))
    assert [Path(source).name for source in done.sources] == ["seed-0_fold-1", "seed-0_fold-2"]
    flags = {"model_name_or_path": str(tmp_path / "folds"), "data_dir": str(toy / "labelled")}
    with pytest.raises(UsageError, match="each run's own fold"):
        evaluate(**flags, split="validation")
    same = evaluate(**flags | {"model_name_or_path": str(made)}, split="test").scores
    assert evaluate(**flags, split="test").scores == same
    # Runs of other seeds on the data's own split held out the same images.
    record = tmp_path / "folds" / "member_2" / "all_results.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"source": facts["source"] | {"seed": 7}}))
    path = tmp_path / "folds" / "ensemble.json"
    path.write_text(path.read_text().replace("true", "false"))
    assert evaluate(**flags, split="validation").images["validation"] == 18
    # Runs of one split, but with other shares held out.
    values = json.loads(record.read_text())
    values["source"]["val_fraction"] = 0.3
    record.write_text(json.dumps(values))
    with pytest.raises(UsageError, match="had other images of this data held out"):
        evaluate(**flags, split="validation")


def test_it_is_exported_shown_and_not_looked_into(made, images, tmp_path):
    pytest.importorskip("onnxscript")
    exported = export_onnx(model_name_or_path=str(made), output_dir=str(tmp_path / "onnx"))
    assert exported.check_results["float32"]["largest_difference"] < 1e-4
    done = run_cli("explain", made, images[0], "--output_dir", tmp_path / "explained", status=1)
    assert "member_1" in done.stderr
    from PIL import Image

    from hf_mae.sharing.demo import Classifier
    from hf_mae.sharing.demo_metadata import build_demo_metadata

    model, processor = load_classifier(str(made))
    page = Classifier(model, processor, build_demo_metadata(made, ["a", "b", "c"]))
    with Image.open(images[0]) as image:
        assert len(page.visualizations(image.convert("RGB"))) == 3
