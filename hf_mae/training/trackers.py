"""What a tracker gets beside the losses and scores that transformers logs: pictures, and the record of the run.

Each is reached by its own package, as a user would reach it (`wandb.log`, `mlflow.log_image`, ...).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import Trainer, TrainerCallback


class TensorBoard:
    """Pictures; the record as text, its scores as scalars."""

    def __init__(self, callback: Any):
        self.writer = callback.tb_writer

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        """Shows a picture at an update."""
        if self.writer is not None:
            self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def log_results(self, file: Path, scores: dict[str, float], step: int) -> None:
        """Keeps the record and the final scores."""
        if self.writer is not None:
            text = file.read_text(encoding="utf-8")
            self.writer.add_text("record", "\n".join(f"    {line}" for line in text.splitlines()), step)
            for name, value in scores.items():
                self.writer.add_scalar(f"final/{name}", value, step)


class WeightsAndBiases:
    """Pictures; the record as a file of the run, its scores in the summary."""

    def __init__(self, callback: Any):
        import wandb

        self.wandb = wandb

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        """Shows a picture at an update."""
        if self.wandb.run is not None:
            self.wandb.run.log({name: self.wandb.Image(image), "train/global_step": step})

    def log_results(self, file: Path, scores: dict[str, float], step: int) -> None:
        """Keeps the record and the final scores."""
        if self.wandb.run is not None:
            self.wandb.run.summary.update({f"final/{name}": value for name, value in scores.items()})
            self.wandb.run.save(str(file), base_path=str(file.parent), policy="now")


class Trackio:
    """Pictures; the record as an artifact of the run, its scores as metrics."""

    def __init__(self, callback: Any):
        import trackio

        self.trackio = trackio

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        """Shows a picture at an update."""
        self.trackio.log({name: self.trackio.Image(image), "train/global_step": step})

    def log_results(self, file: Path, scores: dict[str, float], step: int) -> None:
        """Keeps the record and the final scores."""
        self.trackio.log({f"final/{name}": value for name, value in scores.items()} | {"train/global_step": step})
        self.trackio.log_artifact(file, type="record")


class MLflow:
    """Pictures; the record as an artifact of the run, its scores as metrics."""

    def __init__(self, callback: Any):
        import mlflow

        self.mlflow = mlflow

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        """Shows a picture at an update."""
        if self.mlflow.active_run() is not None:
            self.mlflow.log_image(image, key=name, step=step)

    def log_results(self, file: Path, scores: dict[str, float], step: int) -> None:
        """Keeps the record and the final scores."""
        if self.mlflow.active_run() is not None:
            self.mlflow.log_metrics({f"final/{name}": value for name, value in scores.items()}, step=step)
            self.mlflow.log_artifact(str(file))


# By the name of transformers' callback, whose package need not be installed.
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
    """Hands a picture to every tracker of a running training; call it on the main process.

    Args:
        name: of the series that the picture belongs to, as `reconstructions`.
        step: updates done.
    """
    for tracker in _trackers(trainer):
        tracker.log_image(name, image, step)


def log_record(trainer: Trainer, file: Path, scores: dict[str, float], step: int) -> None:
    """Hands the record of a run to every tracker, when it is written; call it on the main process.

    Args:
        file: the record.
        scores: its scores by name (`test_macro_f1`); trackers get them as `final/NAME`.
        step: updates done.
    """
    for tracker in _trackers(trainer):
        tracker.log_results(file, scores, step)


@contextmanager
def defer_tracker_close(trainer: Trainer) -> Iterator[None]:
    """Trackers close at the end of the training; within this block only at the block's end, so that the figures, which
    are drawn after the training, still reach them."""
    trackers: list[Any] = list(_tracker_callbacks(trainer))
    closings = []

    def put_off(close):
        return lambda *args, **kwargs: closings.append(lambda: close(*args, **kwargs))

    for callback in trackers:
        callback.on_train_end = put_off(callback.on_train_end)
    try:
        yield
    finally:
        for callback in trackers:
            del callback.on_train_end
        for close in closings:
            close()
