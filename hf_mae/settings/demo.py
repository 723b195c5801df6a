"""Settings of `demo`."""

from dataclasses import dataclass

from .data import ImageLimitsArguments
from .evaluation import MODEL_HELP
from .options import option


@dataclass
class DemoArguments(ImageLimitsArguments):
    """The model to serve and the address to serve it at."""

    model_name_or_path: str | None = option(None, MODEL_HELP, metavar="RUN")
    data_dir: str | None = option(None, "Training images of the model, to show the most similar ones.")
    positive: list[str] | None = option(
        None,
        "Classes that count as positive together; the page shows on which side of the operating point an image is.",
        metavar="CLASS",
    )
    operating_point: str | None = option(
        None,
        "Decision threshold: sensitivity=0.95, specificity=0.9, threshold=0.5 or youden, selected on the validation "
        "split. Default: youden.",
        metavar="RULE",
    )
    class_notes: str | None = option(
        None, "CSV file with the columns class and note: a description of each class.", metavar="FILE"
    )
    host: str = option("127.0.0.1", "Address to listen on. The default accepts connections from this machine only.")
    port: int = option(7860, "Port to listen on.", ge=0, le=65535)
    share: bool = option(False, "Create a public URL through gradio's servers (72 hours).")
    publish_images: bool = option(False, "Show the training images (--data_dir) also with --share and --host.")
