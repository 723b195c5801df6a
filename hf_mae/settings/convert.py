"""Settings of `convert` and `export`."""

from dataclasses import dataclass

from .models import DECODER_NUM_HEADS_HELP, NUM_HEADS_HELP
from .options import option


def list_layouts() -> str:
    """Returns the checkpoints that `convert` reads, for its help text."""
    from ..conversion.layouts import supported_layouts  # takes a tenth of the time of other help texts

    return f"It reads: {'; '.join(layout.title for layout in supported_layouts())}."


@dataclass
class ConversionArguments:
    """The source checkpoint, the target format and what the checkpoint does not store."""

    model_name_or_path: str | None = option(
        None, "A .pth or .safetensors file, a transformers folder, a Hub id, or a name listed by hf-mae checkpoints."
    )
    output_dir: str | None = option(None, "Output folder.")
    to: str = option(
        "auto",
        "Target model. auto: a classifier if the checkpoint has a head or if labels are given, else a pre-training "
        "model if it has a decoder, else the backbone.",
        choices=("auto", "pretraining", "classifier", "backbone"),
    )
    pooling: str = option(
        "auto",
        "Pooling of the classifier: mean (patch tokens), cls (class token), or auto (that of a fine-tuned checkpoint, "
        "else mean).",
        choices=("auto", "mean", "cls"),
    )
    num_labels: int | None = option(None, "Number of classes of a new head.", ge=1)
    labels: str | None = option(None, "Class names: a text file with one name per line, or JSON.", metavar="FILE")
    image_size: int | None = option(None, "Image size in pixels; position embeddings are interpolated (bicubic).", ge=1)
    num_attention_heads: int | None = option(None, NUM_HEADS_HELP, ge=1)
    decoder_num_attention_heads: int | None = option(None, DECODER_NUM_HEADS_HELP, ge=1)
    norm_pix_loss: bool | None = option(
        None, "The decoder predicts normalized patches. Set it if the checkpoint does not store it."
    )
    weights: str | None = option(
        None,
        "Weights to use if the file contains both plain and averaged (EMA) weights. Default: plain.",
        choices=("plain", "ema"),
    )
    processor: str = option(
        "auto",
        "Image processor. auto: that of the source, else mae. square: resize every image to the input size, like "
        "transformers' run_image_classification.py. mae: resize and centre crop, like the original MAE code.",
        choices=("auto", "square", "mae"),
    )
    verify: bool = option(
        False,
        "Compare the outputs of the original and the converted model on random input, and print the largest "
        "difference.",
    )
    overwrite: bool = option(False, "Replace existing output.")


@dataclass
class ExportArguments:
    """The transformers model and the format to export it to."""

    model_name_or_path: str | None = option(
        None, "A transformers folder (ViTMAE, ViT or BEiT with mean pooling) or a Hub id.", metavar="RUN"
    )
    output: str | None = option(None, "Output file (FILE.pth); for timm, the output folder.", metavar="FILE.pth")
    to: str = option(
        "mae",
        "mae: a .pth file for facebookresearch/mae. timm: a folder for "
        "timm.create_model('local-dir:FOLDER', pretrained=True).",
        choices=("mae", "timm"),
    )
    overwrite: bool = option(False, "Replace existing output.")
