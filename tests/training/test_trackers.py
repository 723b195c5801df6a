"""Trackers receive figures, scores and the record. Each tracker runs without a network."""

import json
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from support.cli_process import run_cli
from transformers import TrainerCallback

from hf_mae.runs.record_io import read_record
from hf_mae.training import trackers
from hf_mae.training.messages import TrainingMessage


def flags(tiny_pth, toy, out, *tracker):
    argv = ["finetune", "--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", out]
    steps = ["--eval_strategy", "steps", "--eval_steps", 1, "--save_strategy", "steps", "--save_steps", 1]
    return [*argv, "--max_steps", 2, *steps, *tracker]


def test_tensorboard_is_the_default_and_receives_the_figures(tiny_pth, toy, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_cli(*flags(tiny_pth, toy, tmp_path / "run"))
    (folder,) = (tmp_path / "run" / "runs").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"confusion_matrix_validation", "confusion_matrix_test", "learning_curves"} <= set(tags["images"])
    assert {"eval/macro_f1", "final/test_macro_f1"} <= set(tags["scalars"])
    (image,) = events.Images("confusion_matrix_validation")
    assert image.step == 2 and image.encoded_image_string.startswith(b"\x89PNG")
    (text,) = events.Tensors("record/text_summary")
    record = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert json.loads(text.tensor_proto.string_val[0]) == record


def test_trackio(tiny_pth, toy, tmp_path):
    env = {"TRACKIO_DIR": str(tmp_path / "trackio")}
    run_cli(*flags(tiny_pth, toy, tmp_path / "run", "--report_to", "trackio", "--project", "polyps"), env=env)
    (database,) = Path(env["TRACKIO_DIR"]).glob("polyps*.db")
    rows = sqlite3.connect(database).execute("select metrics from metrics").fetchall()
    logged = {name: value for (text,) in rows for name, value in json.loads(text).items()}
    assert {"eval/macro_f1", "final/test_macro_f1"} <= set(logged)
    assert logged["confusion_matrix_validation"]["_type"] == "trackio.image"
    record = (tmp_path / "run" / "all_results.json").read_bytes()
    assert any(file.is_file() and file.read_bytes() == record for file in Path(env["TRACKIO_DIR"]).rglob("*"))


def test_mlflow(tiny_pth, toy, tmp_path):
    env = {"MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    run_cli(*flags(tiny_pth, toy, tmp_path / "run", "--report_to", "mlflow"), env=env)
    (artifact,) = (tmp_path / "mlruns").rglob("artifacts/all_results.json")
    assert artifact.read_bytes() == (tmp_path / "run" / "all_results.json").read_bytes()
    assert any("confusion_matrix_validation" in file.name for file in artifact.parent.rglob("*.png"))
    (final,) = (tmp_path / "mlruns").rglob("metrics/final/test_macro_f1")
    macro_f1 = read_record(tmp_path / "run").scores["test"]["macro_f1"]
    assert float(final.read_text().split()[1]) == pytest.approx(macro_f1)


def test_weights_and_biases(tiny_pth, toy, tmp_path):
    env = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    run_cli(*flags(tiny_pth, toy, tmp_path / "run", "--report_to", "wandb"), env=env)
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert (folder / "files" / "all_results.json").read_bytes() == (tmp_path / "run" / "all_results.json").read_bytes()
    assert list(folder.rglob("confusion_matrix_validation*.png"))
    (written,) = folder.glob("*.wandb")
    assert b"final/test_macro_f1" in written.read_bytes()


def test_a_tracker_that_is_not_installed_is_rejected(tiny_pth, toy, tmp_path):
    done = run_cli(*flags(tiny_pth, toy, tmp_path / "run", "--report_to", "comet_ml"), status=2)
    assert "comet_ml" in done.stderr and "pip install comet_ml" in done.stderr


def test_a_tracker_is_ignored_after_its_first_error(caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "9")  # the user's

    class MLflowCallback(TrainerCallback):
        __module__ = trackers.INTEGRATIONS
        calls: ClassVar[list[str]] = []

        def on_train_begin(self, args, state, control, **kwargs):
            self.calls.append("begin")
            assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"  # 6 s; 7 retries of the default: 4 minutes
            assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "9"

        def on_log(self, args, state, control, **kwargs):
            self.calls.append("log")
            raise ConnectionError("no route to host")

    class Other(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            raise KeyError

    callbacks = [MLflowCallback(), Other()]
    trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=callbacks))
    trackers.guard_trackers(trainer)
    for event in ("on_train_begin", "on_log", "on_log", "on_train_begin"):
        getattr(callbacks[0], event)(None, None, None)
    with trackers.defer_tracker_close(trainer):
        trackers.log_image(trainer, "x", None, 1)
    assert MLflowCallback.calls == ["begin", "log"] and "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert [record.code for record in caplog.records] == [TrainingMessage.TRACKER_FAILED]
    with pytest.raises(KeyError):  # an error of another callback ends the training
        callbacks[1].on_log(None, None, None)
