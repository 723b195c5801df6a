"""Label errors: found with out-of-fold predictions, reviewed, and corrected in training."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.cli_process import run_cli
from support.messages import raises

from hf_mae import audit, finetune
from hf_mae.data.exclusion_log import Relabelling
from hf_mae.errors import CommandLineError
from hf_mae.evaluation.confident_learning import label_issues
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.out_of_fold import read_out_of_fold_predictions
from hf_mae.settings.messages import SettingsMessage
from hf_mae.workflows.messages import WorkflowMessage


def read_rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_flipped_labels_are_ranked_first():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, 800)
    logits = 4 * np.eye(4)[truth] + generator.normal(size=(800, 4))
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    flipped = generator.choice(800, 40, replace=False)
    labels = truth.copy()
    labels[flipped] = (labels[flipped] + 1 + generator.integers(0, 3, 40)) % 4
    issues = label_issues(scores, labels)
    assert np.isin([issue.index for issue in issues[:40]], flipped).mean() > 0.9
    assert all(issue.suggested == scores[issue.index].argmax() for issue in issues)
    assert [issue.quality for issue in issues] == sorted(issue.quality for issue in issues)
    assert label_issues(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0])) == []  # only one class has images
    few = label_issues(scores[:, [0, 1, 2, 3]], np.where(labels == 3, 0, labels))  # a class without images
    assert all(issue.suggested != 3 for issue in few)


@pytest.fixture(scope="module")
def mislabelled(toy, finetuned, tmp_path_factory):
    """The toy dataset with wrong labels in its validation split, and a run with correct predictions."""
    root = tmp_path_factory.mktemp("mislabelled")
    data = shutil.copytree(toy / "labelled", root / "data")
    run = shutil.copytree(finetuned("mean"), root / "run")
    names = sorted(path.name for path in (data / "validation").iterdir())
    moved, rows = [], read_rows(run / "predictions_validation.csv")
    for row in rows:
        label = row["label"]
        for name in names:
            row[f"score:{name}"] = "0.96" if name == label else "0.02"
        if len(moved) < 2 and label == names[0]:
            original = row["file_name"]
            row |= {"file_name": original.replace(label, names[1], 1), "label": names[1]}
            (data / original).rename(data / row["file_name"])
            moved.append(row["file_name"])
        row |= {"prediction": label, "score": "0.96"}
    with open(run / "predictions_validation.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for name in ("predictions_validation.parquet", "predictions_test.parquet", "predictions_test.csv"):
        (run / name).unlink()
    record = json.loads((run / "all_results.json").read_text())
    record["data"]["data_dir"] = str(data)
    (run / "all_results.json").write_text(json.dumps(record))
    return data, run, moved, names


def test_label_errors_are_found_and_corrected(mislabelled, tiny_pth, tmp_path):
    data, run, moved, names = mislabelled
    done = run_cli("audit", "--runs", run, "--output_dir", tmp_path / "audit")
    assert "18 of 96 images were classified by models that were not trained on them: 2 labels may be wrong" in " ".join(
        done.stdout.split()
    )
    path = tmp_path / "audit" / "label_issues.csv"
    rows = read_rows(path)
    assert sorted(row["file_name"] for row in rows) == sorted(moved)
    assert {(row["label"], row["suggested_label"], row["decision"]) for row in rows} == {(names[1], names[0], "")}
    with Image.open(tmp_path / "audit" / "figures" / "label_issues_1.png") as sheet:
        assert sheet.size[0] == 2 * 212 and sheet.convert("L").getextrema()[0] < 50
    assert all((data / name).is_file() for name in moved)  # the data is not changed
    for row, decision in zip(rows, (names[0], "remove"), strict=True):
        row["decision"] = decision
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    flags = {"model_name_or_path": str(tiny_pth), "data_dir": str(data), "output_dir": str(tmp_path / "run")}
    flags |= {"per_device_train_batch_size": 20, "num_train_epochs": 1, "disable_tqdm": True}
    record = finetune(**flags, corrections=str(path))
    assert record.images["validation"] == 17 and record.data.corrections == str(path)
    assert record.study.relabelled == Relabelling("label_issues.csv", 1)
    assert (tmp_path / "run" / "corrections.csv").read_bytes() == path.read_bytes()
    saved = tmp_path / "run" / "corrections.csv"  # the run can be repeated with its own copy
    finetune(**flags, corrections=str(saved), overwrite_output_dir=True)
    assert saved.read_bytes() == path.read_bytes()
    labels = {row["file_name"]: row["label"] for row in read_rows(tmp_path / "run" / "predictions_validation.csv")}
    assert labels[rows[0]["file_name"]] == names[0] and rows[1]["file_name"] not in labels


def test_scores_of_several_runs_are_averaged(mislabelled, tmp_path):
    _, run, _, names = mislabelled
    other = shutil.copytree(run, tmp_path / "other")
    rows = read_rows(other / "predictions_validation.csv")
    for row in rows:
        row |= {f"score:{name}": str(1 / 3) for name in names}
    with open(other / "predictions_validation.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    predictions = read_out_of_fold_predictions([str(run), str(other)])
    assert len(predictions.scores) == 18
    for scores in predictions.scores.values():
        assert sorted(scores) == pytest.approx([(0.02 + 1 / 3) / 2] * 2 + [(0.96 + 1 / 3) / 2])


def test_invalid_arguments_are_reported(mislabelled, toy, tmp_path):
    data, run, moved, names = mislabelled
    flags = {"output_dir": str(tmp_path / "audit")}
    with raises(RunMessage.NOT_A_TRAINING_RUN, path=data):
        audit(runs=[str(data)], **flags)
    others = tmp_path / "others"
    for name in names:
        (others / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(others / name / "other.png")
    with raises(WorkflowMessage.AUDIT_IMAGES_DIFFER, data_dir=others):
        audit(runs=[str(run)], data_dir=str(others), **flags)
    with raises(SettingsMessage.AUDIT_DATA_MISSING, CommandLineError):
        audit(**flags)
    other = shutil.copytree(run, tmp_path / "other")
    text = (
        (other / "predictions_validation.csv").read_text().replace(f"{moved[0]},{names[1]}", f"{moved[0]},{names[2]}")
    )
    (other / "predictions_validation.csv").write_text(text)
    with raises(RunMessage.LABELS_DIFFER_BETWEEN_RUNS, first=names[1], second=names[2]):
        audit(runs=[str(run), str(other)], **flags)
    with raises(WorkflowMessage.AUDIT_LABEL_DIFFERS, predicted_label=names[2], label=names[1]):
        audit(runs=[str(other)], **flags)
    assert not (tmp_path / "audit").exists()
