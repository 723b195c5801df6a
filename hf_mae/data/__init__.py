"""Images on disk -> `datasets.DatasetDict` -> tensors. Nothing heavy is imported until one of these names is used."""

from importlib import import_module

_EXPORTS = {
    "BENCHMARKS": "benchmarks",
    "FAMILIES": "transforms",
    "EvaluationImages": "images",
    "TrainingImages": "images",
    "image_processor": "transforms",
    "load_benchmark": "archives",
    "load_image_folder": "folders",
    "load_splits": "sources",
    "training_transform": "transforms",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
