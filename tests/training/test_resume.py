"""Finding the newest complete checkpoint, and checks before resuming from it."""

import json

import pytest
import torch
from safetensors.torch import save_file
from support.messages import logged, raises

from hf_mae.training.messages import TrainingMessage
from hf_mae.training.resume import (
    LAUNCH_FILE,
    check_training_length,
    find_last_checkpoint,
    require_optimizer_state,
    validate_checkpoint,
)

TRUNCATED = TrainingMessage.CHECKPOINT_FILE_TRUNCATED


def make_checkpoint(folder, step):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"a": torch.zeros(100)}, path / "model.safetensors")
    torch.save({"state": torch.zeros(100)}, path / "optimizer.pt")
    (path / LAUNCH_FILE).write_text(json.dumps({"engine": "NO", "processes": 1, "effective_batch": 8}))
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "damage, message, attributes",
    [
        (lambda path: (path / "trainer_state.json").unlink(), TrainingMessage.CHECKPOINT_INCOMPLETE, {}),
        (
            lambda path: (path / "trainer_state.json").write_bytes(b""),
            TrainingMessage.CHECKPOINT_STATE_UNREADABLE,
            {},
        ),
        (
            lambda path: (path / "trainer_state.json").write_text('{"global_step": 3}'),
            TrainingMessage.CHECKPOINT_STATE_OF_OTHER_STEP,
            {"step": 3},
        ),
        (lambda path: truncate(path / LAUNCH_FILE), TrainingMessage.CHECKPOINT_STATE_UNREADABLE, {}),
        (lambda path: truncate(path / "model.safetensors"), TRUNCATED, {"file": "model.safetensors"}),
        (lambda path: (path / "model.safetensors").write_bytes(b""), TRUNCATED, {"file": "model.safetensors"}),
        (lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 64), TRUNCATED, {}),
        (lambda path: truncate(path / "optimizer.pt"), TRUNCATED, {"file": "optimizer.pt"}),
    ],
)
def test_damaged_checkpoints_are_skipped(tmp_path, caplog, damage, message, attributes):
    complete, newest = make_checkpoint(tmp_path, 4), make_checkpoint(tmp_path, 12)
    assert find_last_checkpoint(tmp_path) == newest
    validate_checkpoint(complete)
    damage(newest)
    assert find_last_checkpoint(tmp_path) == complete
    assert logged(caplog.records, TrainingMessage.CHECKPOINT_SKIPPED)
    with raises(message, path=newest, **attributes):
        validate_checkpoint(newest)


def test_a_checkpoint_without_optimizer_state_is_rejected(tmp_path):
    with raises(TrainingMessage.OPTIMIZER_STATE_MISSING, path=tmp_path):
        require_optimizer_state(tmp_path)
    for name in ("optimizer.pt", "optimizer.bin", "global_step5", "pytorch_model_fsdp_0", "optimizer_0"):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_text("x")
        require_optimizer_state(folder)


@pytest.mark.parametrize(
    "state, epochs, max_steps, message, attributes",
    [
        (
            '{"epoch": 2.0, "num_train_epochs": 2, "global_step": 8}',
            1.0,
            -1,
            TrainingMessage.CHECKPOINT_BEYOND_EPOCHS,
            {"saved": 2.0, "done": 2.0},
        ),
        (
            '{"epoch": 1.0, "num_train_epochs": 5, "global_step": 8}',
            3.0,
            -1,
            TrainingMessage.CHECKPOINT_BEYOND_EPOCHS,
            {"saved": 5.0},
        ),
        (
            '{"epoch": 1.0, "num_train_epochs": 5, "global_step": 8}',
            50.0,
            4,
            TrainingMessage.CHECKPOINT_BEYOND_MAX_STEPS,
            {"step": 8, "max_steps": 4},
        ),
    ],
)
def test_a_run_cannot_be_resumed_with_an_earlier_end(tmp_path, caplog, state, epochs, max_steps, message, attributes):
    (tmp_path / "trainer_state.json").write_text(state)
    with raises(message, **attributes):
        check_training_length(tmp_path, epochs, max_steps)
    check_training_length(tmp_path, 9.0, -1)
    assert logged(caplog.records, TrainingMessage.SCHEDULE_EXTENDED, epochs=9.0)
