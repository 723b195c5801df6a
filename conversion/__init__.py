"""Reference MAE checkpoints (facebookresearch/mae `.pth`) <-> stock transformers weights.

Installed as `hf_mae.conversion`. Needs torch, safetensors and transformers, and knows nothing of training.
Nothing heavy is imported until one of these names is used.
"""

from importlib import import_module

_EXPORTS = {
    "ConversionError": "errors",
    "ConversionReport": "convert",
    "convert_checkpoint": "convert",
    "convert_to_model": "convert",
    "export_checkpoint": "export",
    "export_model": "export",
    "initialize_as_reference": "initialization",
    "read_checkpoint": "checkpoint",
    "reference_image_processor": "preprocessing",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
