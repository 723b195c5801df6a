"""`hf-mae shard`, and every verb on what it writes: the same numbers as from the folder."""

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
from support.paths import ROOT

from hf_mae.cli.main import main
from hf_mae.runs.record_io import read_record

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


def both(verb, first, shards, toy, tmp_path, kind, *flags):
    """The output folders of a verb on the folder and on the shards."""
    for name, source in (("folder", toy / kind), ("shards", shards / kind)):
        argv = [verb, *first, "--data_dir", source, "--output_dir", tmp_path / name, *flags]
        assert main([str(word) for word in argv]) == 0
    return tmp_path / "folder", tmp_path / "shards"


@pytest.mark.parametrize("verb, kind", [("finetune", "labelled"), ("pretrain", "unlabelled")])
def test_training_gives_the_same_weights(verb, kind, shards, toy, tiny_pth, tmp_path):
    model = ["--model_name_or_path", tiny_pth]
    folder, packed = both(verb, model, shards, toy, tmp_path, kind, *QUICK)
    ours, theirs = (load_file(place / "model.safetensors") for place in (packed, folder))
    assert all(ours[name].equal(theirs[name]) for name in theirs) and set(ours) == set(theirs)
    if verb == "finetune":
        found = [read_record(place) for place in (packed, folder)]
        assert found[0].data.fingerprint == found[1].data.fingerprint
        assert found[0].scores == found[1].scores
        rows = [list(csv.reader((place / "predictions_test.csv").open())) for place in (packed, folder)]
        assert rows[0] == rows[1]


def test_a_finished_model_gives_the_same_scores(shards, toy, finetuned, tmp_path):
    model = ["--model_name_or_path", finetuned()]
    folder, packed = both("evaluate", model, shards, toy, tmp_path / "evaluate", "labelled", "--split", "test")
    assert (packed / "predictions_test.csv").read_bytes() == (folder / "predictions_test.csv").read_bytes()
    folder, packed = both("probe", model, shards, toy, tmp_path / "probe", "labelled")
    ours, theirs = (json.loads((place / "probe.json").read_text()) for place in (packed, folder))
    assert (ours["cls"], ours["mean"]) == (theirs["cls"], theirs["mean"])
    named = {}
    for source in (toy / "labelled", shards / "labelled"):
        table = tmp_path / f"{source.parent.name}.csv"
        assert main(["predict", *map(str, model), str(source), "--output", str(table)]) == 0
        rows = list(csv.reader(table.open()))[1:]
        named[source] = {row[0].removeprefix(f"{source}/"): row[1:] for row in rows}
    ours, theirs = named[shards / "labelled"], named[toy / "labelled"]
    assert set(ours) == set(theirs) and len(ours) > 20
    for name, row in theirs.items():  # in another order, so that a batch's last digit may differ
        assert ours[name][0] == row[0] and float(ours[name][1]) == pytest.approx(float(row[1]), abs=1e-6)


def test_the_command_says_what_it_made_and_what_is_damaged(toy, tmp_path):
    out = tmp_path / "out"
    said = run_cli("shard", toy / "labelled", out, "--shard_size", "20KB").stdout
    assert said.startswith(f"{out}: ") and "shards, train " in said and "images, " in said
    assert "shards whole, " in run_cli("shard", out, "--check").stdout
    assert "exists and is not empty" in run_cli("shard", toy / "labelled", out, status=1).stderr
    with open(sorted(out.glob("*.tar"))[1], "r+b") as file:
        file.seek(700)
        file.write(b"?")
    assert "is missing or damaged" in run_cli("shard", out, "--check", status=1).stderr
    assert "needs the folder to write to" in run_cli("shard", toy / "labelled", status=2).stderr
    assert "--shard_size is a size" in run_cli("shard", toy / "labelled", out, "--shard_size", "big", status=2).stderr
    assert "holds no index.parquet" in run_cli("shard", toy / "labelled", "--check", status=1).stderr


@pytest.mark.parametrize("flags", [["--streaming"], []], ids=["streamed", "indexed"])
def test_a_pretraining_that_is_killed_in_an_epoch_goes_on_bit_for_bit(flags, shards, tiny_pth, tmp_path):
    """SIGKILL at an update that nobody chose, with two workers; epochs of 7 updates."""
    argv = ["pretrain", "--model_name_or_path", tiny_pth, "--data_dir", shards / "unlabelled", *flags, *QUICK[2:]]
    argv += ["--max_steps", 60, "--save_steps", 3, "--save_strategy", "steps", "--dataloader_num_workers", 2]
    argv += ["--reconstruction_steps", 0, "--output_dir"]
    run_cli(*argv, tmp_path / "whole")
    running = subprocess.Popen(
        [sys.executable, "-m", "hf_mae", *map(str, [*argv, tmp_path / "cut"])],
        cwd=ROOT.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    while not last_of(tmp_path / "cut"):
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert 3 <= last_of(tmp_path / "cut") < 60
    run_cli(*argv, tmp_path / "cut", "--resume_from_checkpoint", "last")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def last_of(folder):
    """The update of the newest whole checkpoint; 0: there is none."""
    found = [path.parent.name for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max((int(name.split("-")[1]) for name in found), default=0)


def test_streams_say_what_they_need(shards, toy, tiny_pth, tmp_path):
    argv = ["pretrain", "--model_name_or_path", tiny_pth, "--streaming", "--output_dir", tmp_path / "run", "--data_dir"]
    shutil.copytree(shards / "unlabelled", tmp_path / "plain", ignore=shutil.ignore_patterns("index.parquet"))
    assert "tell the updates, --max_steps N" in run_cli(*argv, tmp_path / "plain", status=1).stderr
    steps = ["--max_steps", 2, "--dataloader_num_workers", 50]
    assert "for 50 loaders" in run_cli(*argv, shards / "unlabelled", *steps, status=1).stderr
    assert "holds no .tar or .parquet" in run_cli(*argv, toy / "unlabelled", *steps, status=1).stderr
