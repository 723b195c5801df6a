"""Images on disk -> `datasets.DatasetDict` -> tensors. Nothing heavy is imported until one of these names is used."""

from .._lazy import exports

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "BENCHMARKS": "benchmarks",
        "FAMILIES": "transforms",
        "EvaluationImages": "images",
        "TrainingImages": "images",
        "image_processor": "transforms",
        "load_benchmark": "archives",
        "load_image_folder": "folders",
        "load_splits": "sources",
        "training_transform": "transforms",
    },
)
