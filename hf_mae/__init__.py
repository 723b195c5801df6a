"""Fine-tune masked autoencoder (MAE) checkpoints for image classification with stock transformers models.

`import hf_mae` imports neither torch nor transformers; they are imported with the first name that needs them.
"""

from ._lazy import exports

__version__ = "0.1.0"


def _find_commands() -> dict[str, str]:
    """Returns the commands as functions: name -> module."""
    from .settings.commands import COMMANDS

    return {command.function_name: f"workflows.{command.function_name}" for command in COMMANDS.values()}


__getattr__, __dir__ = exports(
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
    },
    _find_commands,
)
