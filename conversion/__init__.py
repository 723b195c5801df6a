"""Conversion between original MAE checkpoints (`.pth` of facebookresearch/mae) and stock transformers weights.

Installed as `hf_mae.conversion`. It needs torch, safetensors and transformers, and is independent of training. These
libraries are imported when one of the names below is used.
"""

from hf_mae._lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "ConversionError": "messages",
        "ConversionReport": "report",
        "convert_checkpoint": "convert",
        "convert_to_model": "convert",
        "export_checkpoint": "export",
        "export_model": "export",
        "initialize_mae_weights": "initialization",
        "read_checkpoint": "reading",
        "mae_image_processor": "preprocessing",
    },
)
