"""Logs images and the run record to experiment trackers, in addition to the metrics that transformers logs.

Each tracker is called through the public API of its package (`wandb.log`, `mlflow.log_image`, ...).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import Trainer, TrainerCallback


class TensorBoard:
    """Logs images, the record as text, and its scores as scalars."""

    def __init__(self, callback: Any):
        self.writer = callback.tb_writer

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        """Logs an image at an update."""
        if self.writer is not None:
            self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def log_results(self, file: Path, scores: dict[str, float], step: int) -> None:
        """Logs the record and the final scores."""
        if self.writer is not None:
            text = file.read_text(encoding="utf-8")
            self.writer.add_text("record", "\n".join(f"    {line}" for line in text.splitlines()), step)
            for name, value in scores.items():
                self.writer.add_scalar(f"final/{name}", value, step)


class WeightsAndBiases:
    """Logs images, the record as a file of the run, and its scores in the summary."""

    def __init__(self, callback: Any):
        import wandb

        self.wandb = wandb

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        """Logs an image at an update."""
        if self.wandb.run is not None:
            self.wandb.run.log({name: self.wandb.Image(image), "train/global_step": step})

    def log_results(self, file: Path, scores: dict[str, float], step: int) -> None:
        """Logs the record and the final scores."""
        if self.wandb.run is not None:
            self.wandb.run.summary.update({f"final/{name}": value for name, value in scores.items()})
            self.wandb.run.save(str(file), base_path=str(file.parent), policy="now")


class Trackio:
    """Logs images, the record as an artifact of the run, and its scores as metrics."""

    def __init__(self, callback: Any):
        import trackio

        self.trackio = trackio

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        """Logs an image at an update."""
        self.trackio.log({name: self.trackio.Image(image), "train/global_step": step})

    def log_results(self, file: Path, scores: dict[str, float], step: int) -> None:
        """Logs the record and the final scores."""
        self.trackio.log({f"final/{name}": value for name, value in scores.items()} | {"train/global_step": step})
        self.trackio.log_artifact(file, type="record")


class MLflow:
    """Logs images, the record as an artifact of the run, and its scores as metrics."""

    def __init__(self, callback: Any):
        import mlflow

        self.mlflow = mlflow

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        """Logs an image at an update."""
        if self.mlflow.active_run() is not None:
            self.mlflow.log_image(image, key=name, step=step)

    def log_results(self, file: Path, scores: dict[str, float], step: int) -> None:
        """Logs the record and the final scores."""
        if self.mlflow.active_run() is not None:
            self.mlflow.log_metrics({f"final/{name}": value for name, value in scores.items()}, step=step)
            self.mlflow.log_artifact(str(file))


# By the class name of the callback in transformers, because the package of a tracker may not be installed.
TRACKERS: dict[str, type[TensorBoard] | type[WeightsAndBiases] | type[Trackio] | type[MLflow]] = {
    "TensorBoardCallback": TensorBoard,
    "WandbCallback": WeightsAndBiases,
    "TrackioCallback": Trackio,
    "MLflowCallback": MLflow,
}


def _tracker_callbacks(trainer: Trainer) -> list[TrainerCallback]:
    return [item for item in trainer.callback_handler.callbacks if type(item).__name__ in TRACKERS]


def _trackers(trainer: Trainer) -> list[TensorBoard | WeightsAndBiases | Trackio | MLflow]:
    return [TRACKERS[type(callback).__name__](callback) for callback in _tracker_callbacks(trainer)]


def log_image(trainer: Trainer, name: str, image: Image.Image, step: int) -> None:
    """Logs an image to every tracker during training. Call it on the main process.

    Args:
        name: series of the image, such as `reconstructions`.
        step: number of completed updates.
    """
    for tracker in _trackers(trainer):
        tracker.log_image(name, image, step)


def log_record(trainer: Trainer, file: Path, scores: dict[str, float], step: int) -> None:
    """Logs the record of a run to every tracker. Call it on the main process.

    Args:
        file: path of the record.
        scores: scores by name (`test_macro_f1`), logged as `final/NAME`.
        step: number of completed updates.
    """
    for tracker in _trackers(trainer):
        tracker.log_results(file, scores, step)


@contextmanager
def defer_tracker_close(trainer: Trainer) -> Iterator[None]:
    """Delays the closing of the trackers from the end of training to the end of the block, so that they receive the
    figures that are plotted after training."""
    callbacks: list[Any] = list(_tracker_callbacks(trainer))
    deferred_calls = []

    def defer(close):
        return lambda *args, **kwargs: deferred_calls.append(lambda: close(*args, **kwargs))

    for callback in callbacks:
        callback.on_train_end = defer(callback.on_train_end)
    try:
        yield
    finally:
        for callback in callbacks:
            del callback.on_train_end
        for call in deferred_calls:
            call()
