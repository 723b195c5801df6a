"""transformers' callbacks of trackers: how each takes a picture. Verified with transformers 5.17 to 5.24.

TensorBoard and trackio run in the tests; wandb and mlflow are held by the names of the attributes alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image


def _tensorboard(callback: Any, name: str, picture: Image.Image, step: int) -> None:
    if callback.tb_writer is not None:
        callback.tb_writer.add_image(name, np.asarray(picture), step, dataformats="HWC")


def _wandb(callback: Any, name: str, picture: Image.Image, step: int) -> None:
    callback._wandb.log({name: callback._wandb.Image(picture), "train/global_step": step})


def _trackio(callback: Any, name: str, picture: Image.Image, step: int) -> None:
    callback._trackio.log({name: callback._trackio.Image(picture), "train/global_step": step})


def _mlflow(callback: Any, name: str, picture: Image.Image, step: int) -> None:
    callback._ml_flow.log_image(picture, key=name, step=step)


# By the name of transformers' callback, whose module need not be installed.
PICTURE_LOGGERS: dict[str, Callable[[Any, str, Image.Image, int], None]] = {
    "TensorBoardCallback": _tensorboard,
    "WandbCallback": _wandb,
    "TrackioCallback": _trackio,
    "MLflowCallback": _mlflow,
}
