"""Fine-tune masked autoencoder (MAE) checkpoints for image classification with stock transformers models.

`import hf_mae` imports neither torch nor transformers; they are imported with the first name that needs them.
"""

from ._lazy import exports

__version__ = "0.1.0"

# The commands whose function has the name of its module; the other commands print information only.
_COMMANDS = (
    *("audit", "cache", "convert", "crossval", "demo", "distill", "ensemble", "evaluate", "explain", "export"),
    *("export_onnx", "finetune", "plan", "predict", "prepare", "pretrain", "probe", "push", "push_dataset"),
    *("reconstruct", "report", "search", "shard"),
)

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "FinetuningArguments": "settings.arguments",
        "MaeFinetuner": "training.finetuner",
        "MaePretrainer": "training.pretrainer",
        "PretrainingArguments": "settings.arguments",
        "RunRecord": "reporting.notebook",
        "UsageError": "errors",
        "build_classifier": "models.building",
        "compare": "reporting.report",
        "load_image_folder": "data.sources.split_loading",
        "parameter_groups": "training.layer_decay",
        **{name: f"workflows.{name}" for name in _COMMANDS},
    },
)
