"""Images on disk -> `datasets.DatasetDict` -> tensors."""

from .archives import load_benchmark
from .benchmarks import BENCHMARKS
from .folders import load_image_folder
from .images import EvaluationImages, TrainingImages
from .sources import load_splits
from .transforms import FAMILIES, image_processor, training_transform

__all__ = [
    "BENCHMARKS",
    "FAMILIES",
    "EvaluationImages",
    "TrainingImages",
    "image_processor",
    "load_benchmark",
    "load_image_folder",
    "load_splits",
    "training_transform",
]
