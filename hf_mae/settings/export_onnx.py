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

    model_name_or_path: str | None = option(None, MODEL_HELP, show_in_help=True, group="Model", metavar="RUN")
    output_dir: str | None = option(
        None, "New output folder. Default: onnx/ in the folder of the run.", show_in_help=True, group="Output"
    )
    int8: bool = option(False, "Also export int8 weights (dynamic quantization).", show_in_help=True, group="Output")
    split: str = option(
        "validation",
        "Split of DATA on which the exported model is checked.",
        show_in_help=True,
        group="Data",
        metavar="SPLIT",
    )
    overwrite: bool = option(False, "Replace existing output.", show_in_help=True, group="Output")
    batch_size: int = option(16, "Images per forward pass of the check.", show_in_help=True, group="Data", ge=1)

    def __post_init__(self) -> None:
        if self.int8 and not self.data_dir:
            raise UsageError(SettingsMessage.INT8_NEEDS_DATA)
