"""Ensembles: scores, differences between members, and the commands that accept an ensemble as a model."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.cli_process import run_cli
from support.messages import raises, shows
from transformers import pipeline

from hf_mae import ensemble, evaluate, export_onnx, predict, report
from hf_mae.models.loading import load_classifier
from hf_mae.models.messages import ModelMessage
from hf_mae.reporting.run_sentences import NOTE_TEXTS
from hf_mae.runs.completed_run import NoteCode
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.record import CrossvalResult, CrossvalRun, CrossvalSummary
from hf_mae.runs.record_io import read_record, write_record
from hf_mae.settings.messages import SettingsMessage
from hf_mae.workflows.messages import WorkflowMessage


@pytest.fixture(scope="module")
def members(finetuned):
    return [finetuned("mean"), finetuned("cls")]


@pytest.fixture(scope="module")
def ensemble_folder(members, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "both"
    done = run_cli("ensemble", *members, "--output_dir", folder)
    assert "Ensemble (2 models, 3 classes)" in done.stdout
    return folder


@pytest.fixture(scope="module")
def images(toy):
    return sorted((toy / "labelled" / "test").glob("*/*.jpg"))


def mean_scores(folders, image) -> dict[str, float]:
    scores = []
    for folder in folders:
        rows = pipeline("image-classification", model=str(folder), top_k=None)(str(image))
        scores.append({row["label"]: row["score"] for row in rows})
    return {label: sum(member[label] for member in scores) / len(scores) for label in scores[0]}


def copy_with_processor(run: Path, folder: Path, **processor) -> Path:
    """Copies a run, and changes its image processor."""
    shutil.copytree(run, folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | processor))
    return folder


def test_scores_are_the_mean_and_the_code_of_the_card_computes_them(ensemble_folder, members, images, tmp_path):
    predict(
        model_name_or_path=str(ensemble_folder), images=list(map(str, images[:4])), output=str(tmp_path / "scores.csv")
    )
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        expected = mean_scores(members, row["file_name"])
        scores = {row[f"label_{rank}"]: float(row[f"score_{rank}"]) for rank in (1, 2, 3)}
        assert scores == pytest.approx(expected, abs=1e-5)
    (code,) = re.findall(r"```python\n(.*?)```", (ensemble_folder / "README.md").read_text(), re.S)
    variables: dict = {}
    code = code.replace(f"{ensemble_folder.name}/", f"{ensemble_folder}/").replace("image.jpg", str(images[0]))
    exec(code, variables)
    assert variables["scores"] == pytest.approx(mean_scores(members, images[0]), abs=1e-6)


def test_an_ensemble_is_evaluated_calibrated_and_reported(ensemble_folder, members, toy, tmp_path):
    labelled = str(toy / "labelled")
    flags = {"model_name_or_path": str(ensemble_folder), "data_dir": labelled}
    record = evaluate(**flags, split="validation", output_dir=str(tmp_path / "scores"), fit_temperature=True)
    single = [evaluate(**flags | {"model_name_or_path": str(member)}, split="validation") for member in members]
    assert record.images["validation"] == single[0].images["validation"]
    assert record.scores["validation"]["accuracy"] >= min(one.scores["validation"]["accuracy"] for one in single)
    report(runs=[str(tmp_path / "scores")], output_dir=str(tmp_path / "report"))
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Mean of the scores of 2 models." in text
    assert NOTE_TEXTS[NoteCode.SELECTED_ON_EVAL_SPLIT] in text  # the epochs of both members were selected on this split


def test_ensembles_support_tta_and_bf16(ensemble_folder, images, tmp_path):
    model, processor = load_classifier(str(ensemble_folder))
    assert not model.training and len(model.members) == 2
    logits = model(pixel_values=torch.zeros(2, 3, 32, 32)).logits
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2))
    flags = {"model_name_or_path": str(ensemble_folder), "images": [str(images[0])], "tta": True, "bf16": True}
    predict(**flags, output=str(tmp_path / "scores.csv"))
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", ["normalization", "class order"])
def test_different_normalization_and_class_order_are_compensated(members, images, tmp_path, kind):
    if kind == "normalization":
        other = copy_with_processor(
            members[1], tmp_path / "other", image_mean=[0.1, 0.2, 0.3], image_std=[0.3, 0.2, 0.4]
        )
    else:
        other = copy_with_processor(members[1], tmp_path / "other")
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
    by_class = {model.config.id2label[index]: float(score) for index, score in enumerate(scores)}
    assert by_class == pytest.approx(mean_scores([members[0], other], images[0]), abs=1e-5)


def test_incompatible_members_are_rejected(members, tmp_path):
    first = str(members[0])

    def assert_rejected(runs, message, **attributes):
        with raises(message, **attributes):
            ensemble(runs=runs, output_dir=str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    assert_rejected([first], WorkflowMessage.ENSEMBLE_OF_ONE, source=first)
    assert_rejected([first, first], WorkflowMessage.ENSEMBLE_DUPLICATE, source=first)
    other = copy_with_processor(members[1], tmp_path / "other", rescale_factor=0.5)
    assert_rejected([first, str(other)], ModelMessage.ENSEMBLE_PROCESSORS_DIFFER, number=2)
    config = json.loads((other / "config.json").read_text())
    config["id2label"]["0"] = "else"
    (other / "config.json").write_text(json.dumps(config))
    assert_rejected([first, str(other)], ModelMessage.ENSEMBLE_CLASSES_DIFFER, number=2)
    with raises(SettingsMessage.PATH_NOT_FOUND, path=str(tmp_path / "nowhere")):
        ensemble(runs=[first, str(tmp_path / "nowhere")], output_dir=str(tmp_path / "out"))
    done = run_cli("ensemble", first, "--output_dir", tmp_path / "out", status=1)
    assert shows(done.stderr, WorkflowMessage.ENSEMBLE_OF_ONE)


def test_an_ensemble_of_an_ensemble_contains_its_members(ensemble_folder, members, tmp_path):
    third = shutil.copytree(members[0], tmp_path / "third")
    done = ensemble(runs=[str(ensemble_folder), str(third)], output_dir=str(tmp_path / "out"))
    assert [Path(source).name for source in done.sources] == ["member_1", "member_2", "third"]


def test_members_with_different_held_out_images_are_not_evaluated_on_them(members, ensemble_folder, toy, tmp_path):
    """Runs of a cross-validation: some members were trained on any part of its data."""
    cross = tmp_path / "cross"
    for number, member in enumerate(members, 1):
        shutil.copytree(member, cross / f"seed-0_fold-{number}")
    record = json.loads((members[0] / "all_results.json").read_text())
    runs = [CrossvalRun(1.0, 0, number, False) for number in (1, 2)]
    results = [CrossvalResult(run, run.folder, {}, "validation") for run in runs]
    summary = CrossvalSummary("2", results, {}, [], {})
    write_record(replace(read_record(members[0]), kind="crossval", images={}, crossval=summary), cross)
    done = ensemble(runs=[str(cross)], output_dir=str(tmp_path / "folds"))
    assert [Path(source).name for source in done.sources] == ["seed-0_fold-1", "seed-0_fold-2"]
    flags = {"model_name_or_path": str(tmp_path / "folds"), "data_dir": str(toy / "labelled")}
    with raises(RunMessage.MEMBERS_ARE_CROSSVAL_FOLDS):
        evaluate(**flags, split="validation")
    expected = evaluate(**flags | {"model_name_or_path": str(ensemble_folder)}, split="test").scores
    assert evaluate(**flags, split="test").scores == expected
    # Runs with different seeds on predefined splits held out the same images.
    member_record = tmp_path / "folds" / "member_2" / "all_results.json"
    member_record.write_text(json.dumps(json.loads(member_record.read_text()) | {"data": record["data"] | {"seed": 7}}))
    path = tmp_path / "folds" / "ensemble.json"
    path.write_text(path.read_text().replace("true", "false"))
    assert evaluate(**flags, split="validation").images["validation"] == 18
    # Runs with different fractions held out.
    values = json.loads(member_record.read_text())
    values["data"]["val_fraction"] = 0.3
    member_record.write_text(json.dumps(values))
    with raises(RunMessage.HOLDOUTS_OF_MEMBERS_DIFFER):
        evaluate(**flags, split="validation")


def test_an_ensemble_is_exported_and_shown_but_not_explained(ensemble_folder, images, tmp_path):
    pytest.importorskip("onnxscript")
    exported = export_onnx(model_name_or_path=str(ensemble_folder), output_dir=str(tmp_path / "onnx"))
    assert exported.check_results["float32"]["largest_difference"] < 1e-4
    done = run_cli("explain", ensemble_folder, images[0], "--output_dir", tmp_path / "explained", status=1)
    assert shows(done.stderr, WorkflowMessage.EXPLAIN_ENSEMBLE, member=ensemble_folder / "member_1")
    from PIL import Image

    from hf_mae.sharing.demo import Classifier
    from hf_mae.sharing.demo_metadata import build_demo_metadata

    model, processor = load_classifier(str(ensemble_folder))
    page = Classifier(model, processor, build_demo_metadata(ensemble_folder, ["a", "b", "c"]))
    with Image.open(images[0]) as image:
        assert len(page.visualizations(image.convert("RGB"))) == 2
