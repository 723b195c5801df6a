"""The newest checkpoint that is whole is gone on from, and it is said which was passed over, and why."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hf_mae.training.resume import LAUNCH_FILE, find_checkpoint_defect, find_last_checkpoint


def made(folder, update):
    path = folder / f"checkpoint-{update}"
    path.mkdir(parents=True)
    save_file({"a": torch.zeros(100)}, path / "model.safetensors")
    torch.save({"state": torch.zeros(100)}, path / "optimizer.pt")
    (path / LAUNCH_FILE).write_text(json.dumps({"engine": "NO", "processes": 1, "effective_batch": 8}))
    (path / "trainer_state.json").write_text(json.dumps({"global_step": update}))
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "spoil, why",
    [
        (lambda path: (path / "trainer_state.json").unlink(), "was not written to its end"),
        (
            lambda path: (path / "trainer_state.json").write_bytes(b""),
            "trainer_state.json or launch.json cannot be read",
        ),
        (lambda path: (path / "trainer_state.json").write_text('{"global_step": 3}'), "is of update 3"),
        (lambda path: cut(path / LAUNCH_FILE), "launch.json cannot be read"),
        (lambda path: cut(path / "model.safetensors"), "model.safetensors is cut off"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "model.safetensors is cut off"),
        (lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 64), "model.safetensors is cut off"),
        (lambda path: cut(path / "optimizer.pt"), "optimizer.pt is cut off"),
    ],
)
def test_the_newest_whole_one(tmp_path, caplog, spoil, why):
    whole, newest = made(tmp_path, 4), made(tmp_path, 12)
    assert find_last_checkpoint(tmp_path) == newest and find_checkpoint_defect(whole) is None
    spoil(newest)
    assert find_last_checkpoint(tmp_path) == whole
    assert f"{newest} " in caplog.text and why in caplog.text and "it is passed over" in caplog.text
