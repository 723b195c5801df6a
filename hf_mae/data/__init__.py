"""Data pipeline: images on disk -> `datasets.DatasetDict` -> tensors. Modules are imported at first use."""

from .._lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "FAMILIES": "images.transforms",
        "EvalDataset": "images.torch_datasets",
        "TrainDataset": "images.torch_datasets",
        "image_processor": "images.transforms",
        "load_image_folder": "sources.split_loading",
        "load_splits": "sources.split_loading",
        "training_transform": "images.transforms",
    },
)
