"""Data pipeline: images on disk -> `datasets.DatasetDict` -> tensors. Modules are imported at first use."""

from .._lazy import exports

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "BENCHMARKS": "benchmarks",
        "FAMILIES": "transforms",
        "EvalDataset": "torch_datasets",
        "TrainDataset": "torch_datasets",
        "image_processor": "transforms",
        "load_benchmark": "benchmark_loading",
        "load_image_folder": "folders",
        "load_splits": "split_loading",
        "training_transform": "transforms",
    },
)
