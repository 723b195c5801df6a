"""Fine-tune masked-autoencoder checkpoints for image classification with stock transformers.

`import hf_mae` imports nothing heavy; torch and transformers come with the first name that needs them.
"""

from importlib import import_module

__version__ = "0.1.0"

_EXPORTS = {
    "FinetuningArguments": "arguments",
    "PretrainingArguments": "arguments",
    "MaeFinetuner": "trainer",
    "MaePretrainer": "trainer",
    "load_image_folder": "data",
    "build_classifier": "models",
    "build_pretrainer": "models",
    "parameter_groups": "optim",
    "ClassificationMetrics": "metrics",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
