"""Images on disk -> `datasets.DatasetDict` -> tensors."""

from .folders import load_image_folder
from .images import EvaluationImages, TrainingImages
from .transforms import FAMILIES, image_processor, training_transform

__all__ = [
    "FAMILIES",
    "EvaluationImages",
    "TrainingImages",
    "image_processor",
    "load_image_folder",
    "training_transform",
]
