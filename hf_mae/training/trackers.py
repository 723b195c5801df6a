"""Pictures for whatever tracker a run reports to: TensorBoard, trackio, Weights & Biases, MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image
from transformers import Trainer

from ..compat.trackers import PICTURE_LOGGERS


def log_picture(trainer: Trainer, name: str, picture: Image.Image, step: int) -> None:
    """Hands a picture to every tracker of a running training; call it on the main process.

    Args:
        name: of the series that the picture belongs to, as `reconstructions`.
        step: updates done.
    """
    for callback in trainer.callback_handler.callbacks:
        if log := PICTURE_LOGGERS.get(type(callback).__name__):
            log(callback, name, picture, step)


@contextmanager
def kept_open(trainer: Trainer) -> Iterator[None]:
    """Trackers close at the end of the training; within this block only at the block's end, so that the figures, which
    are drawn after the training, still reach them."""
    trackers = [
        callback for callback in trainer.callback_handler.callbacks if type(callback).__name__ in PICTURE_LOGGERS
    ]
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
