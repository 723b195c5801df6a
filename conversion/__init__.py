"""Reference MAE checkpoints (facebookresearch/mae `.pth`) <-> stock transformers weights.

Installed as `hf_mae.conversion`. Needs torch, safetensors and transformers, and knows nothing of training: of hf_mae it
uses `errors` and `files` alone. Nothing heavy is imported until one of these names is used.
"""

from hf_mae._lazy import exports

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "ConversionError": "errors",
        "ConversionReport": "report",
        "convert_checkpoint": "convert",
        "convert_to_model": "convert",
        "export_checkpoint": "export",
        "export_model": "export",
        "initialize_mae_weights": "initialization",
        "read_checkpoint": "checkpoint",
        "mae_image_processor": "preprocessing",
    },
)
