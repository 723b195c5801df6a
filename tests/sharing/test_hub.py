"""Pushing to the Hub, with real requests to a fake Hub: from creating the repository to `pipeline()` on it."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard
from support.cli_process import run_cli
from support.fake_hub import USER, FakeHub, hub_environment, run_fake_hub
from support.messages import shows
from support.training import pretrain_flags

from hf_mae.cli.main import main
from hf_mae.runs.identifiers import NameRules
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.public_record import make_portable_recipe, parse_hub_id
from hf_mae.runs.record_io import read_record
from hf_mae.sharing.messages import SharingMessage


@pytest.fixture(scope="module")
def runs(tiny_pth, toy, tmp_path_factory):
    """A completed run in each pooling mode."""
    root = tmp_path_factory.mktemp("runs")
    for pooling in ("mean", "cls"):
        argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", root / pooling]
        assert main(["finetune", *map(str, argv), "--max_steps", "2", "--pooling", pooling]) == 0
    return root


@pytest.fixture
def small(runs):
    return runs / "mean"


@pytest.fixture(scope="module")
def fake_hub(tmp_path_factory):
    """The fake Hub, and the environment of a user who is logged in."""
    with run_fake_hub() as (server, url):
        yield server, hub_environment(url, tmp_path_factory.mktemp("hub"))


@pytest.fixture
def hub(fake_hub):
    """The same, with an empty Hub and an empty cache."""
    server, env = fake_hub
    vars(server).update(vars(FakeHub()))
    shutil.rmtree(env["HF_HOME"], ignore_errors=True)
    return server, env


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_pushed_model_can_be_used_from_the_hub(runs, hub, toy, pooling, tmp_path):
    (server, env), run = hub, runs / pooling
    name = f"{USER}/polyps"
    done = run_cli("push", run, "--repo_id", name, env=env)
    assert f"Pushed {run} to {env['HF_ENDPOINT']}/{name}" in done.stdout and "Uploaded" in done.stderr
    (files,) = server.repos[name]
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md", "all_results.json"} <= set(
        files
    )
    assert {"figures/confusion_matrix_validation.png", "recipe.yaml", "figures/per_class_f1_validation.png"} <= set(
        files
    )
    assert not any(str(run.parent).encode() in content for content in files.values())
    assert not any(path.startswith(("checkpoint-", "runs/")) or path.endswith(".bin") for path in files)
    assert shows(done.stderr, RunMessage.LICENCE_UNKNOWN)
    assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    card = ModelCard(files["README.md"].decode())
    metrics = {result.metric_type for result in card.data.eval_results}
    assert metrics == {"precision", "recall", "f1", "accuracy", "matthews_correlation"}
    recipe = files["recipe.yaml"].decode()
    assert (
        "# data_dir: your path (in the original run: labelled)" in recipe and str(run.parent) not in recipe + card.text
    )
    assert ".eval_results/hf_mae.yaml" not in files, "the data is not from the Hub"
    assert f'pipeline("image-classification", model="{name}")' in card.text
    assert f'model="{run.name}"' in (run / "README.md").read_text()  # the local card does not change
    assert "POST /api/validate-yaml" in server.requests  # the Hub validates the card
    image = toy / "labelled" / "test" / "ring" / "ring_000.jpg"
    # The code snippet of the card works as it is.
    (snippet,) = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
    assert len(snippet.strip().splitlines()) <= 4
    shutil.copy(image, tmp_path / "image.jpg")
    code = (
        f"{snippet}\nimport sys, json; from transformers import pipeline; "
        f"use = lambda model: pipeline('image-classification', model=model, top_k=None)({str(image)!r}); "
        "print(json.dumps([use(model) for model in sys.argv[1:]]))"
    )
    printed, scores = python(code, name, run, env=env, cwd=tmp_path).strip().rsplit("\n", 1)
    assert "'label': " in printed
    remote, local = json.loads(scores)
    assert remote == local and len(remote) == 3


@pytest.mark.unit
def test_a_published_recipe_has_no_local_path():
    private = "/home/jane/a folder with a very long name, so that YAML breaks the line at one of its spaces/"
    values = {
        "model_name_or_path": "user/mae",
        "data_dir": private + "data",
        "split_file": [private + "a.csv", "b.csv"],
    }
    values |= {"output_dir": "run", "benchmark": "limuc-4", "class_order": ["b", "a"], "corrections": private + "c.csv"}
    recipe = "# versions: torch 2\n" + yaml.safe_dump(values, sort_keys=False)
    text = make_portable_recipe(recipe, "finetune", NameRules())
    assert "jane" not in text and text.startswith("# versions: torch 2\n")
    assert "# split_file: your path (in the original run: a.csv b.csv)\n" in text and "original run: data)\n" in text
    unchanged = {name: values[name] for name in ("model_name_or_path", "benchmark", "class_order")}
    assert yaml.safe_load(text) == unchanged


def test_scores_on_a_hub_dataset_are_published_in_the_format_of_the_hub(small, tmp_path):
    from huggingface_hub import parse_eval_result_entries

    from hf_mae.sharing import hub as sharing

    run = tmp_path / "run"
    shutil.copytree(small, run)
    values = json.loads((run / "all_results.json").read_text())
    values["data"]["data_dir"] = "someone/polyps"
    (run / "all_results.json").write_text(json.dumps(values))
    entries = parse_eval_result_entries(yaml.safe_load(sharing._eval_results(read_record(run))))
    scores = {(entry.dataset_id, entry.task_id, entry.notes): entry.value for entry in entries}
    assert scores["someone/polyps", "test", "macro F1, test"] == round(values["scores"]["test"]["macro_f1"], 6)
    assert parse_hub_id("facebook/vit-mae-base") == "facebook/vit-mae-base"
    assert parse_hub_id("./a/b") is parse_hub_id("checkpoint.pth") is parse_hub_id(str(run)) is None


def python(code, *argv, env, cwd=None):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, env=os.environ | env, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_existing_repository_is_only_changed_with_update(small, hub):
    server, env = hub
    run_cli("push", small, "--repo_id", "polyps", "--private", env=env)
    name = f"{USER}/polyps"
    assert name in server.private
    before = dict(server.files(name))
    done = run_cli("push", small, "--repo_id", name, env=env, status=1)
    assert shows(done.stderr, SharingMessage.REPOSITORY_NOT_EMPTY, repo_id=name, count=len(before))
    assert len(server.repos[name]) == 1
    run_cli("push", small, "--repo_id", name, "--update", "--ignore_patterns", "predictions_*.csv", env=env)
    assert len(server.repos[name]) == 2 and "all_results.json" in server.files(name)


def test_an_interrupted_push_changes_nothing_and_resumes(small, hub):
    server, env = hub
    server.break_after_uploads = 1
    done = run_cli("push", small, "--repo_id", f"{USER}/interrupted", env=env, status=1)
    assert shows(done.stderr, SharingMessage.UPLOAD_FAILED) and server.repos[f"{USER}/interrupted"] == []
    sent = set(server.lfs)
    assert sent
    server.break_after_uploads = None
    server.requests.clear()
    run_cli("push", small, "--repo_id", f"{USER}/interrupted", env=env)
    assert len(server.repos[f"{USER}/interrupted"]) == 1
    uploaded = {path.rpartition("/")[2] for path in server.requests if path.startswith("PUT ")}
    assert uploaded == set(server.lfs) - sent, "uploaded files are not sent again"


def test_errors_are_reported_and_nothing_is_pushed(small, hub, tmp_path, toy):
    server, env = hub
    for change, message in (
        ({"HF_TOKEN": "wrong"}, SharingMessage.TOKEN_REJECTED),
        ({"HF_TOKEN": ""}, SharingMessage.TOKEN_MISSING),
        ({"HF_HUB_OFFLINE": "1"}, SharingMessage.HUB_OFFLINE),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, SharingMessage.HUB_UNREACHABLE),
    ):
        unique_env = "HF_TOKEN" not in change
        done = run_cli("push", small, "--repo_id", f"{USER}/none", env=env | change, status=1, unique_env=unique_env)
        assert shows(done.stderr, message) and len(done.stderr.strip().splitlines()) == 1, done.stderr
    server.has_write_access = False
    done = run_cli("push", small, "--repo_id", f"{USER}/none", env=env, status=1)
    assert shows(done.stderr, SharingMessage.TOKEN_WITHOUT_WRITE_ACCESS, repo_id=f"{USER}/none")
    done = run_cli("push", toy, "--repo_id", f"{USER}/none", env=env, status=1)
    assert shows(done.stderr, SharingMessage.RUN_NOT_COMPLETED, run=toy)
    done = run_cli("push", small, "--repo_id", "a/b/c", env=env, status=1)
    assert shows(done.stderr, SharingMessage.INVALID_REPO_ID, repo_id="a/b/c")
    assert server.repos == {}


def test_push_to_hub_checks_before_training_and_pushes_the_complete_run(tiny_pth, toy, hub, tmp_path):
    server, env = hub
    argv = ["finetune", "--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--max_steps", 1]
    argv += ["--push_to_hub", "--hub_model_id", f"{USER}/fresh", "--output_dir", tmp_path / "fresh"]
    done = run_cli(*argv, env=env | {"HF_TOKEN": "wrong"}, status=1)
    assert shows(done.stderr, SharingMessage.TOKEN_REJECTED) and not (tmp_path / "fresh").exists()
    done = run_cli(*argv, env=env)
    assert f"Pushed to {env['HF_ENDPOINT']}/{USER}/fresh" in done.stderr
    (files,) = server.repos[f"{USER}/fresh"]
    assert {"model.safetensors", "README.md", "figures/learning_curves.png"} <= set(files)


def test_a_pretrained_model_is_pushed_and_fine_tuned_from_there(toy, hub, tmp_path):
    server, env = hub
    run_cli("pretrain", *pretrain_flags(toy, tmp_path / "mae", max_steps=1))
    run_cli("push", tmp_path / "mae", "--repo_id", f"{USER}/mae", env=env)
    shutil.rmtree(tmp_path / "mae")
    data = shutil.copytree(toy / "labelled", tmp_path / "data")
    shutil.copy(toy / "unlabelled" / "frame_0000.jpg", data / "test" / "ring" / "frame_0000.jpg")
    argv = ["finetune", "--model_name_or_path", f"{USER}/mae", "--data_dir", data, "--max_steps", 1]
    done = run_cli(*argv, "--output_dir", tmp_path / "ft", env=env)
    assert "1 of the 19 test images" in done.stderr  # the list of pre-training images was pushed with the model
