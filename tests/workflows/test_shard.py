"""`hf-mae shard`, and commands on its output: the same results as from the folder."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file
from support.cli_process import run_cli
from support.messages import shows
from support.paths import ROOT

from hf_mae.cli.main import main
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.messages import DataMessage
from hf_mae.runs.record_io import read_record
from hf_mae.settings.messages import SettingsMessage
from hf_mae.training.messages import TrainingMessage

QUICK = ["--num_train_epochs", "1", "--per_device_train_batch_size", "10", "--report_to", "none", "--disable_tqdm", "1"]


@pytest.fixture(scope="module")
def shards(toy, tmp_path_factory):
    """The toy images as folders and as shards: labelled and not."""
    root = tmp_path_factory.mktemp("shards")
    assert main(["shard", str(toy / "labelled"), str(root / "labelled"), "--shard_size", "20KB"]) == 0
    assert (
        main(["shard", str(toy / "unlabelled"), str(root / "unlabelled"), "--unlabelled", "--shard_size", "20KB"]) == 0
    )
    return root


def run_on_both(command, first, shards, toy, tmp_path, kind, *flags):
    """Runs a command on the folder and on the shards; returns the output folders."""
    for name, source in (("folder", toy / kind), ("shards", shards / kind)):
        argv = [command, *first, "--data_dir", source, "--output_dir", tmp_path / name, *flags]
        assert main([str(word) for word in argv]) == 0
    return tmp_path / "folder", tmp_path / "shards"


@pytest.mark.parametrize("command, kind", [("finetune", "labelled"), ("pretrain", "unlabelled")])
def test_training_gives_the_same_weights(command, kind, shards, toy, tiny_pth, tmp_path):
    model = ["--model_name_or_path", tiny_pth]
    folder, packed = run_on_both(command, model, shards, toy, tmp_path, kind, *QUICK)
    weights, expected = (load_file(path / "model.safetensors") for path in (packed, folder))
    assert all(weights[name].equal(expected[name]) for name in expected) and set(weights) == set(expected)
    if command == "finetune":
        records = [read_record(path) for path in (packed, folder)]
        assert records[0].data.fingerprint == records[1].data.fingerprint
        assert records[0].scores == records[1].scores
        rows = [list(csv.reader((path / "predictions_test.csv").open())) for path in (packed, folder)]
        assert rows[0] == rows[1]


def test_a_trained_model_gives_the_same_scores(shards, toy, finetuned, tmp_path):
    model = ["--model_name_or_path", finetuned()]
    folder, packed = run_on_both("evaluate", model, shards, toy, tmp_path / "evaluate", "labelled", "--split", "test")
    assert (packed / "predictions_test.csv").read_bytes() == (folder / "predictions_test.csv").read_bytes()
    folder, packed = run_on_both("probe", model, shards, toy, tmp_path / "probe", "labelled")
    probes = [json.loads((path / "probe.json").read_text())["probe"] for path in (packed, folder)]
    assert (probes[0]["cls"], probes[0]["mean"]) == (probes[1]["cls"], probes[1]["mean"])
    predictions = {}
    for source in (toy / "labelled", shards / "labelled"):
        table = tmp_path / f"{source.parent.name}.csv"
        assert main(["predict", *map(str, model), str(source), "--output", str(table)]) == 0
        rows = list(csv.reader(table.open()))[1:]
        predictions[source] = {row[0].removeprefix(f"{source}/"): row[1:] for row in rows}
    from_shards, from_folder = predictions[shards / "labelled"], predictions[toy / "labelled"]
    assert set(from_shards) == set(from_folder) and len(from_shards) > 20
    for name, row in from_folder.items():  # the order differs, so the last digit of a batch may differ
        assert from_shards[name][0] == row[0] and float(from_shards[name][1]) == pytest.approx(float(row[1]), abs=1e-6)


def test_the_command_prints_a_summary_and_reports_damage(toy, tmp_path):
    out = tmp_path / "out"
    printed = run_cli("shard", toy / "labelled", out, "--shard_size", "20KB").stdout
    assert printed.startswith(f"{out}: ") and "shards, train " in printed and "images, " in printed
    assert "complete shards, " in run_cli("shard", out, "--check").stdout
    failed = run_cli("shard", toy / "labelled", out, status=1)
    assert shows(failed.stderr, ImageMessage.SHARD_FOLDER_NOT_EMPTY, folder=out)
    with open(sorted(out.glob("*.tar"))[1], "r+b") as file:
        file.seek(700)
        file.write(b"?")
    assert shows(run_cli("shard", out, "--check", status=1).stderr, ImageMessage.DAMAGED_SHARDS, count=1, folder=out)
    failed = run_cli("shard", toy / "labelled", status=2)
    assert shows(failed.stderr, SettingsMessage.SHARD_OUTPUT_MISSING)
    assert (
        "Invalid size 'big' for --shard_size"
        in run_cli("shard", toy / "labelled", out, "--shard_size", "big", status=2).stderr
    )
    failed = run_cli("shard", toy / "labelled", "--check", status=1)
    assert shows(failed.stderr, ImageMessage.INVALID_SHARD_INDEX, folder=toy / "labelled")


@pytest.mark.parametrize("flags", [["--streaming"], []], ids=["streamed", "indexed"])
def test_pretraining_killed_in_an_epoch_resumes_bit_for_bit(flags, shards, tiny_pth, tmp_path):
    """SIGKILL at a random update, with two workers; epochs of 7 updates."""
    argv = ["pretrain", "--model_name_or_path", tiny_pth, "--data_dir", shards / "unlabelled", *flags, *QUICK[2:]]
    argv += ["--max_steps", 60, "--save_steps", 3, "--save_strategy", "steps", "--dataloader_num_workers", 2]
    argv += ["--reconstruction_steps", 0, "--output_dir"]
    run_cli(*argv, tmp_path / "uninterrupted")
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_mae", *map(str, [*argv, tmp_path / "killed"])],
        cwd=ROOT.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    while not last_checkpoint_step(tmp_path / "killed"):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert 3 <= last_checkpoint_step(tmp_path / "killed") < 60
    run_cli(*argv, tmp_path / "killed", "--resume_from_checkpoint", "last")
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "uninterrupted"))
    assert all(weights[name].equal(expected[name]) for name in expected)


def last_checkpoint_step(folder):
    """The update of the newest complete checkpoint, or 0."""
    names = [path.parent.name for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max((int(name.split("-")[1]) for name in names), default=0)


def test_streams_that_cannot_be_read_are_reported(shards, toy, tiny_pth, tmp_path):
    argv = ["pretrain", "--model_name_or_path", tiny_pth, "--streaming", "--output_dir", tmp_path / "run", "--data_dir"]
    shutil.copytree(shards / "unlabelled", tmp_path / "plain", ignore=shutil.ignore_patterns("index.parquet"))
    failed = run_cli(*argv, tmp_path / "plain", status=1)
    assert shows(failed.stderr, TrainingMessage.STREAM_LENGTH_UNKNOWN)
    steps = ["--max_steps", 2, "--dataloader_num_workers", 50]
    failed = run_cli(*argv, shards / "unlabelled", *steps, status=1)
    assert shows(failed.stderr, TrainingMessage.TOO_FEW_STREAM_FILES, num_loaders=50)
    failed = run_cli(*argv, toy / "unlabelled", *steps, status=1)
    assert shows(failed.stderr, DataMessage.NO_STREAM_FILES)
