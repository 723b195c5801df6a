"""Logs images and the run record to experiment trackers, in addition to the metrics that transformers logs.

Each tracker is called through the public API of its package (`wandb.log`, `mlflow.log_image`, ...).
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import Trainer, TrainerCallback

from ..errors import first_error_line, warn
from .messages import TrainingMessage

logger = logging.getLogger(__name__)

INTEGRATIONS = "transformers.integrations.integration_utils"  # module of the callbacks of trackers
# Callbacks of transformers; by name, because the package of a tracker may not be installed.
TRACKERS = ("TensorBoardCallback", "WandbCallback", "TrackioCallback", "MLflowCallback")
# Without them, MLflow waits four minutes for a server that does not answer.
WAITING = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


def guard_trackers(trainer: Trainer) -> None:
    """Makes the training continue without a tracker after its first error (no login, no network, a full disk)."""
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__module__ == INTEGRATIONS:
            for event in (name for name in dir(TrainerCallback) if name.startswith("on_")):
                setattr(callback, event, partial(_call_tracker, callback, getattr(callback, event)))


def _call_tracker(callback: Any, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function of a tracker; at its first error, warns and ignores the tracker from then on."""
    if getattr(callback, "has_failed", False):
        return None
    try:
        with _wait_briefly():
            return call(*args, **kwargs)
    except Exception as error:  # trackers raise any class
        callback.has_failed = True
        name = type(callback).__name__.removesuffix("Callback")
        warn(logger, TrainingMessage.TRACKER_FAILED, tracker=name, reason=first_error_line(error))
        return None


@contextmanager
def _wait_briefly() -> Iterator[None]:
    """Limits the time for which a tracker waits for its server, unless the user has set it."""
    added = {name: value for name, value in WAITING.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _for_each_tracker(trainer: Trainer, log: Callable[[Any], None]) -> None:
    for callback in _tracker_callbacks(trainer):
        _call_tracker(callback, log, callback)


def _tracker_callbacks(trainer: Trainer) -> list[Any]:
    return [item for item in trainer.callback_handler.callbacks if type(item).__name__ in TRACKERS]


def log_image(trainer: Trainer, name: str, image: Image.Image, step: int) -> None:
    """Logs an image to every tracker during training. Call it on the main process.

    Args:
        name: series of the image, such as `reconstructions`.
        step: number of completed updates.
    """

    def log(callback: Any) -> None:
        match type(callback).__name__:
            case "TensorBoardCallback" if callback.tb_writer is not None:
                callback.tb_writer.add_image(name, np.asarray(image), step, dataformats="HWC")
            case "WandbCallback" if (run := import_module("wandb").run) is not None:
                run.log({name: import_module("wandb").Image(image), "train/global_step": step})
            case "TrackioCallback":
                trackio = import_module("trackio")
                trackio.log({name: trackio.Image(image), "train/global_step": step})
            case "MLflowCallback" if (mlflow := import_module("mlflow")).active_run() is not None:
                mlflow.log_image(image, key=name, step=step)

    _for_each_tracker(trainer, log)


def log_record(trainer: Trainer, file: Path, scores: dict[str, float], step: int) -> None:
    """Logs the record of a run (a text or a file) to every tracker. Call it on the main process.

    Args:
        file: path of the record.
        scores: scores by name (`test_macro_f1`), logged as `final/NAME`.
        step: number of completed updates.
    """
    final = {f"final/{name}": value for name, value in scores.items()}

    def log(callback: Any) -> None:
        match type(callback).__name__:
            case "TensorBoardCallback" if (writer := callback.tb_writer) is not None:
                lines = file.read_text(encoding="utf-8").splitlines()
                writer.add_text("record", "\n".join(f"    {line}" for line in lines), step)
                for name, value in final.items():
                    writer.add_scalar(name, value, step)
            case "WandbCallback" if (run := import_module("wandb").run) is not None:
                run.summary.update(final)
                run.save(str(file), base_path=str(file.parent), policy="now")
            case "TrackioCallback":
                trackio = import_module("trackio")
                trackio.log(final | {"train/global_step": step})
                trackio.log_artifact(file, type="record")
            case "MLflowCallback" if (mlflow := import_module("mlflow")).active_run() is not None:
                mlflow.log_metrics(final, step=step)
                mlflow.log_artifact(str(file))

    _for_each_tracker(trainer, log)


@contextmanager
def defer_tracker_close(trainer: Trainer) -> Iterator[None]:
    """Delays the closing of the trackers from the end of training to the end of the block, so that they receive the
    figures that are plotted after training."""
    callbacks = _tracker_callbacks(trainer)
    deferred_calls = []

    def defer(close):
        return lambda *args, **kwargs: deferred_calls.append(lambda: close(*args, **kwargs))

    closing = [callback.on_train_end for callback in callbacks]
    for callback in callbacks:
        callback.on_train_end = defer(callback.on_train_end)
    try:
        yield
    finally:
        for callback, close in zip(callbacks, closing, strict=True):
            callback.on_train_end = close
        for call in deferred_calls:
            call()
