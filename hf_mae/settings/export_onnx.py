"""Settings of `export-onnx`."""

from dataclasses import dataclass

from ..errors import UsageError
from .data import DataSourceArguments
from .evaluation import MODEL_HELP
from .messages import SettingsMessage
from .options import option


@dataclass
class OnnxArguments(DataSourceArguments):
    """The model to export and the images to check it on."""

    option_group = "Output"

    model_name_or_path: str | None = option(None, MODEL_HELP, group="Model", metavar="RUN")
    output_dir: str | None = option(None, "New output folder. Default: onnx/ in the folder of the run.")
    int8: bool = option(False, "Also export int8 weights (dynamic quantization).")
    split: str = option(
        "validation", "Split of DATA on which the exported model is checked.", group="Data", metavar="SPLIT"
    )
    overwrite: bool = option(False, "Replace existing output.")
    batch_size: int = option(16, "Images per forward pass of the check.", group="Data", ge=1)

    def __post_init__(self) -> None:
        if self.int8 and not self.data_dir:
            raise UsageError(SettingsMessage.INT8_NEEDS_DATA)
