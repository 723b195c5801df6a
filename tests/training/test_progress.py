"""The progress line of each epoch, and the bar on a terminal."""

import logging
from types import SimpleNamespace

import pytest

from hf_mae.training import progress
from hf_mae.training.progress import Progress, _format_clock


class Clock:
    """Replaces the clock of the module."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def make_args(**more):
    defaults = {
        "disable_tqdm": True,
        "max_steps": -1,
        "num_train_epochs": 2,
        "logging_strategy": "epoch",
        "images_per_update": 32,
    }
    return SimpleNamespace(**defaults | {"eval_strategy": "epoch"} | more)


def run_epochs(args, clock, epochs=(0, 1), updates=10, evaluation=None, log_every=None, start=0):
    """Calls the callback as the Trainer does: an update takes 0.1 s in the first epoch and 0.2 s later."""
    state = SimpleNamespace(global_step=start, max_steps=20, is_world_process_zero=True, epoch=start / updates)
    losses = [0.0]  # sum over updates
    callback = Progress(sum_losses=lambda: losses[0])
    callback.on_train_begin(args, state, None)
    for epoch in epochs:
        callback.on_epoch_begin(args, state, None)
        for _ in range(updates - state.global_step % updates):
            clock.now += 0.1 if epoch == 0 else 0.2
            state.global_step += 1
            losses[0] += 0.6 if epoch == 0 else 0.2
            state.epoch = state.global_step / updates
            callback.on_step_end(args, state, None)
            if log_every and state.global_step % log_every == 0:
                callback.on_log(args, state, None, {"loss": state.global_step / 10})
        callback.on_epoch_end(args, state, None)
        if args.logging_strategy == "epoch":
            callback.on_log(args, state, None, {"loss": 9.0, "grad_norm": 1.0})
        if evaluation:
            clock.now += 3.0
            callback.on_log(args, state, None, evaluation)
    callback.on_train_end(args, state, None)


EVALUATION = {"eval_loss": 0.58, "eval_macro_f1": 0.712, "eval_accuracy": 0.73, "eval_mcc": 0.5}


def test_each_epoch_has_one_line_with_its_own_rate(clock, caplog):
    caplog.set_level(logging.INFO)
    run_epochs(make_args(), clock, evaluation=EVALUATION)
    scores = "val loss 0.58  macro F1 71.2  accuracy 73.0"
    assert caplog.messages == [
        f"epoch 1/2  train loss 0.60  {scores}  320 images/s  0:04 left",
        f"epoch 2/2  train loss 0.20  {scores}  160 images/s  0:00 left",
    ]


@pytest.mark.parametrize("log_every", [None, 4, 10, 20])
def test_train_loss_is_that_of_the_epoch_for_any_logging_interval(clock, caplog, log_every):
    caplog.set_level(logging.INFO)
    run_epochs(make_args(logging_strategy="steps"), clock, evaluation=EVALUATION, log_every=log_every)
    assert [line.split("  ")[1] for line in caplog.messages] == ["train loss 0.60", "train loss 0.20"]


def test_pretraining_has_no_validation_columns(clock, caplog):
    caplog.set_level(logging.INFO)
    for logging_strategy in ("epoch", "steps"):
        caplog.clear()
        run_epochs(make_args(eval_strategy="no", logging_strategy=logging_strategy), clock)
        assert caplog.messages[0] == "epoch 1/2  train loss 0.6000  320 images/s  0:01 left"
        assert len(caplog.messages) == 2


def test_a_training_in_updates_has_one_line_per_log(clock, caplog):
    caplog.set_level(logging.INFO)
    args = make_args(eval_strategy="no", logging_strategy="steps", max_steps=20)
    run_epochs(args, clock, epochs=(0,), updates=20, log_every=10)
    assert caplog.messages == [
        "update 10/20  train loss 0.6000  320 images/s  0:01 left",
        "update 20/20  train loss 0.6000  320 images/s  0:00 left",
    ]


def test_train_loss_is_omitted_after_resuming_within_an_epoch(clock, caplog):
    caplog.set_level(logging.INFO)
    run_epochs(make_args(), clock, evaluation=EVALUATION, start=5)
    assert ["train loss" in line for line in caplog.messages] == [False, True]


def test_a_terminal_has_a_bar(monkeypatch, clock):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    args = make_args(disable_tqdm=False, images_per_update=8)
    state = SimpleNamespace(global_step=0, max_steps=10, is_world_process_zero=True, epoch=0.5)
    callback = Progress(sum_losses=float)
    callback.on_train_begin(args, state, None)
    callback.on_log(args, state, None, {"loss": "0.5", "eval_loss": 0.4, "eval_macro_f1": 0.625, "epoch": 1.0})
    state.global_step, clock.now = 4, clock.now + 2
    callback.on_step_end(args, state, None)
    assert callback._bar.n == 4
    assert callback._bar.postfix == "16 images/s  train loss 0.50  val loss 0.40  macro F1 62.5"
    callback.on_train_end(args, state, None)
    assert callback._bar is None


def test_times_have_minutes_and_seconds():
    assert _format_clock(59) == "0:59" and _format_clock(80) == "1:20" and _format_clock(3725) == "1:02:05"
