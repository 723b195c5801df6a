"""Figures and scores reach the trackers."""

import json
import sqlite3
from pathlib import Path

import pytest
from support.cli_process import run_cli


def flags(tiny_pth, toy, out, tracker):
    argv = ["finetune", "--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", out]
    return [
        *argv,
        "--max_steps",
        2,
        "--eval_strategy",
        "steps",
        "--eval_steps",
        1,
        "--save_strategy",
        "steps",
        "--save_steps",
        1,
        *tracker,
    ]


def test_tensorboard_is_the_default_and_gets_the_figures(tiny_pth, toy, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_cli(*flags(tiny_pth, toy, tmp_path / "run", []))
    (folder,) = (tmp_path / "run" / "runs").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    shown = events.Tags()
    assert {"confusion_matrix_validation", "confusion_matrix_test", "learning_curves"} <= set(shown["images"])
    assert "eval/macro_f1" in shown["scalars"]
    (picture,) = events.Images("confusion_matrix_validation")
    assert picture.step == 2 and picture.encoded_image_string.startswith(b"\x89PNG")


def test_trackio(tiny_pth, toy, tmp_path):
    pytest.importorskip("trackio")
    env = {"TRACKIO_DIR": str(tmp_path / "trackio")}
    argv = flags(tiny_pth, toy, tmp_path / "run", ["--report_to", "trackio"])
    run_cli(*argv, "--project", "polyps", env=env)
    (database,) = Path(env["TRACKIO_DIR"]).glob("polyps*.db")
    rows = sqlite3.connect(database).execute("select metrics from metrics").fetchall()
    logged = {name: value for (text,) in rows for name, value in json.loads(text).items()}
    assert "eval/macro_f1" in logged
    assert logged["confusion_matrix_validation"]["_type"] == "trackio.image"


def test_a_tracker_that_is_not_installed(tiny_pth, toy, tmp_path):
    done = run_cli(*flags(tiny_pth, toy, tmp_path / "run", ["--report_to", "comet_ml"]), status=2)
    assert "comet_ml" in done.stderr and "pip install comet_ml" in done.stderr
