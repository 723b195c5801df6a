"""Datasets written as parquet: `datasets` and `finetune` read the original images and labels."""

import csv

import pytest
import yaml
from datasets import ClassLabel, load_dataset
from support.cli_process import run_cli
from support.fake_hub import USER, hub_environment, run_fake_hub
from support.messages import shows

from hf_mae import load_image_folder, push_dataset
from hf_mae.files.messages import FileMessage
from hf_mae.sharing import dataset_export
from hf_mae.sharing.messages import SharingMessage
from hf_mae.workflows.messages import WorkflowMessage


@pytest.fixture
def patients(toy, tmp_path):
    """A manifest of the toy images, with four images per patient."""
    path = tmp_path / "patients.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "split", "group"])
        for index, image in enumerate(sorted((toy / "labelled").rglob("*.jpg"))):
            split, label = image.parts[-3:-1]
            writer.writerow([image.relative_to(toy / "labelled"), label, split, f"{split} {index // 4}"])
    return path


def read_rows(splits):
    columns = ("labels", "file_name", "group")
    return {
        split: [tuple(row[name] for name in columns) for row in data.select_columns(columns)]
        for split, data in splits.items()
    }


def test_written_datasets_equal_the_original(toy, patients, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_export, "SHARD_BYTES", 20_000)
    out = tmp_path / "set"
    written_to = push_dataset(
        data_dir=str(toy / "labelled"), manifest=str(patients), output_dir=str(out), allow_identifiers=True
    )
    assert written_to == str(out) and len(list(out.glob("data/train-*-of-*.parquet"))) > 1
    before = load_image_folder(str(toy / "labelled"), manifest=str(patients))
    after = load_image_folder(str(out))
    assert read_rows(before) == read_rows(after)
    for split in before:
        assert before[split].features["labels"] == after[split].features["labels"]
        assert all(one["image"].tobytes() == two["image"].tobytes() for one, two in zip(before[split], after[split]))
    loaded = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded["train"].features["label"], ClassLabel) and set(loaded) == set(before)
    files = [row["image"]["bytes"] for row in loaded["test"].cast_column("image", dataset_export.Image(decode=False))]
    assert files == [(toy / "labelled" / name).read_bytes() for name in before["test"]["file_name"]]


def test_the_card_counts_images_and_patients(toy, patients, tmp_path):
    out = tmp_path / "polyps"
    argv = [
        "--manifest",
        patients,
        "--pseudonym_key",
        tmp_path / "key.json",
        "--output_dir",
        out,
        "--license",
        "cc-by-4.0",
    ]
    run_cli("push-dataset", toy / "labelled", *argv)
    _, head, text = (out / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["license"] == "cc-by-4.0" and head["task_categories"] == ["image-classification"]
    assert head["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train-*.parquet"}
    with open(patients, newline="") as file:
        groups = {(row["split"], row["group"]) for row in csv.DictReader(file)}
    counts = ", ".join(f"{s} {sum(split == s for split, _ in groups)}" for s in ("train", "validation", "test"))
    assert "| all | 60 | 18 | 18 |" in text and f"{counts}; none in more than one split" in text
    again = run_cli("push-dataset", toy / "labelled", *argv, status=1)
    assert shows(again.stderr, FileMessage.FOLDER_NOT_EMPTY, path=out)


def test_datasets_are_pushed_in_one_commit(toy, tmp_path):
    with run_fake_hub() as (server, url):
        env = hub_environment(url, tmp_path)
        done = run_cli("push-dataset", toy / "labelled", "--repo_id", f"{USER}/polyps", "--private", env=env)
        assert f"to {url}/datasets/{USER}/polyps" in done.stdout and shows(
            done.stderr, WorkflowMessage.PUSH_WITHOUT_GROUPS
        )
        (files,) = server.repos[f"datasets/{USER}/polyps"]
        again = run_cli("push-dataset", toy / "labelled", "--repo_id", f"{USER}/polyps", status=1, env=env)
    assert set(files) == {"README.md", *(f"data/{s}-00000-of-00001.parquet" for s in ("train", "validation", "test"))}
    assert server.private == {f"datasets/{USER}/polyps"}
    assert shows(again.stderr, SharingMessage.REPOSITORY_NOT_EMPTY, repo_id=f"{USER}/polyps", count=4)
