"""Settings of the verbs that hand something over: convert, export, export-onnx, push, push-dataset, demo, ..."""

from dataclasses import dataclass

from ..errors import UsageError
from .data import TRANSFORM_FAMILIES, DataSourceArguments, ImageLimitsArguments
from .evaluation import MODEL_HELP
from .options import option


@dataclass
class ConversionArguments:
    """What is converted into what."""

    source: str | None = option(
        None,
        ".pth, .safetensors, a transformers folder, a Hub id, or a name of hf-mae checkpoints.",
        show_in_help=True,
        metavar="SRC",
    )
    destination: str | None = option(None, "The folder to write.", show_in_help=True, metavar="DST")
    to: str = option(
        "auto",
        "A classifier where there is a head or labels are given, else pre-training where there is a decoder, else "
        "the backbone; or one of these.",
        choices=("auto", "pretraining", "classifier", "backbone"),
        show_in_help=True,
    )
    pooling: str = option("auto", "Of a classifier.", choices=("auto", "mean", "cls"), show_in_help=True)
    num_labels: int | None = option(None, "Classes of a fresh head.", show_in_help=True, ge=1)
    labels: str | None = option(None, "Class names, one a line, or JSON.", show_in_help=True, metavar="FILE")
    image_size: int | None = option(None, "Pixels; position embeddings are resized (bicubic).", show_in_help=True, ge=1)
    num_attention_heads: int | None = option(
        None, "Where neither the width nor the checkpoint's args tell.", show_in_help=True, ge=1
    )
    decoder_num_attention_heads: int | None = option(None, "The same for the decoder.", show_in_help=True, ge=1)
    norm_pix_loss: bool | None = option(
        None, "The pre-training target was normalised patches, where the checkpoint does not say.", show_in_help=True
    )
    weights: str | None = option(
        None,
        "Where a file holds both: plain, or ema (averaged). Not given: plain, and what else there is, is said.",
        choices=("plain", "ema"),
        show_in_help=True,
    )
    processor: str = option(
        "auto",
        "The source's image processor, or the reference's; square (every image resized to the input size, as "
        "transformers' run_image_classification.py reads it), or reference (resize, centre crop).",
        choices=("auto", "square", "reference"),
        show_in_help=True,
    )
    verify: bool = option(False, "Run both sides on random input and print the largest difference.", show_in_help=True)
    overwrite: bool = option(False, "Replace a destination that is not empty.", show_in_help=True)


@dataclass
class ExportArguments:
    """What goes back to the reference's layout, or to timm's."""

    source: str | None = option(
        None, "A transformers folder (ViTMAE, ViT, mean-pooling BEiT) or a Hub id.", show_in_help=True, metavar="SRC"
    )
    destination: str | None = option(
        None, "The file (of timm: the folder) to write.", show_in_help=True, metavar="DST.pth"
    )
    to: str = option(
        "reference",
        "A .pth of facebookresearch/mae, or a folder for timm.create_model('local-dir:DST', pretrained=True).",
        choices=("reference", "timm"),
        show_in_help=True,
    )
    overwrite: bool = option(False, "Replace what is there.", show_in_help=True)


@dataclass
class OnnxArguments(DataSourceArguments):
    """What is exported, and on which images it is checked."""

    model_name_or_path: str | None = option(None, MODEL_HELP, show_in_help=True, group="Model", metavar="RUN")
    output_dir: str | None = option(
        None,
        "A new folder for it and what goes with it; not given: the run's own, as onnx/model.onnx.",
        show_in_help=True,
        group="Output",
        metavar="OUT",
    )
    int8: bool = option(False, "Weights in int8 too (dynamic quantisation).", show_in_help=True, group="Output")
    split: str = option(
        "validation", "Of data_dir, on which the exported model is checked.", show_in_help=True, group="Data"
    )
    overwrite: bool = option(False, "Replace the folder.", show_in_help=True, group="Output")
    batch_size: int = option(16, "Images per forward pass of the check.", show_in_help=True, group="Data", ge=1)


@dataclass
class PushArguments:
    """What is pushed where."""

    run: str | None = option(None, "An output folder of finetune or pretrain.", show_in_help=True, metavar="RUN")
    repo_id: str | None = option(
        None, "USER/NAME; not given: the folder's name, of the token's owner.", show_in_help=True
    )
    private: bool = option(False, "A new repository is seen by its owner alone.", show_in_help=True)
    update: bool = option(False, "Add a commit to a repository that has files already.", show_in_help=True)
    ignore_patterns: list[str] | None = option(
        None, "Files that stay here, as 'predictions_*.csv'.", show_in_help=True, metavar="PATTERN"
    )
    demo: bool = option(
        False,
        "A Space of the same name, too: the page of hf-mae demo, which needs transformers alone.",
        show_in_help=True,
    )


@dataclass
class PushDatasetArguments(DataSourceArguments):
    """Which data set is pushed where."""

    repo_id: str | None = option(
        None, "USER/NAME; not given: the folder's name, of the token's owner.", show_in_help=True
    )
    private: bool = option(False, "A new repository is seen by its owner alone.", show_in_help=True)
    license: str | None = option(None, "The Hub's name of the licence, as cc-by-4.0.", show_in_help=True)
    update: bool = option(False, "Add a commit to a repository that has files already.", show_in_help=True)
    output_dir: str | None = option(
        None, "Keep what is written here; without --repo_id nothing is pushed.", show_in_help=True, group="Output"
    )
    overwrite: bool = option(False, "Replace the folder.", show_in_help=True, group="Output")
    seed: int = option(0, "Of val_fraction, as in training.", group="Data", ge=0, le=2**32 - 1)


@dataclass
class ShardArguments(DataSourceArguments):
    """Which data set is packed, and how."""

    output_dir: str | None = option(None, "The folder of the shards.", show_in_help=True, group="Output")
    unlabelled: bool = option(
        False,
        "Pack every image below the folder, without classes and splits: for pretrain.",
        show_in_help=True,
        group="Data",
    )
    shard_size: str = option("500MB", "Of a shard, about.", show_in_help=True, group="Output")
    check: bool = option(False, "Read the shards of a folder again, and say whether they are whole.", show_in_help=True)
    seed: int = option(
        0, "Of the order in which images lie in the shards, and of val_fraction.", group="Data", ge=0, le=2**32 - 1
    )


@dataclass
class DemoArguments(ImageLimitsArguments):
    """Which model is shown, and to whom."""

    model_name_or_path: str | None = option(None, MODEL_HELP, show_in_help=True, metavar="RUN")
    data_dir: str | None = option(None, "Its training images, to show similar ones.", show_in_help=True)
    positive: list[str] | None = option(
        None,
        "Classes that are positive, together: the page says on which side of the operating point an image is.",
        show_in_help=True,
    )
    operating_point: str | None = option(
        None,
        "sensitivity=0.95, specificity=0.9, threshold=0.5 or youden (the default), chosen on the validation split.",
        show_in_help=True,
        metavar="RULE",
    )
    class_notes: str | None = option(
        None, "CSV of class,note: what a class means, in your words.", show_in_help=True, metavar="FILE"
    )
    host: str = option(
        "127.0.0.1", "Address to listen on: this machine alone, unless told otherwise.", show_in_help=True
    )
    port: int = option(7860, "Port to listen on.", show_in_help=True, ge=0, le=65535)
    share: bool = option(False, "A public address through gradio's servers, for 72 hours.", show_in_help=True)


@dataclass
class ReconstructionArguments(ImageLimitsArguments):
    """Which images a masked autoencoder is to complete."""

    images: list[str] | None = option(None, "Files, folders and globs.", show_in_help=True, metavar="IMAGES")
    model_name_or_path: str | None = option(
        None, "An MAE .pth, a folder or a name.", show_in_help=True, aliases=("model",)
    )
    mask_ratio: float | None = option(None, "Share of hidden patches; not given: the model's own.", show_in_help=True)
    seed: int = option(0, "Of the masks.", show_in_help=True, ge=0, le=2**32 - 1)
    output: str = option("reconstructions.png", "The sheet to write.", show_in_help=True)
    transforms: str | None = option(
        None, "Where the model has no image processor.", choices=TRANSFORM_FAMILIES, show_in_help=True
    )
    norm_pix_loss: bool | None = option(
        None, "Whether the decoder predicts normalised patches, where the checkpoint does not say.", show_in_help=True
    )
    num_attention_heads: int | None = option(None, "Where the width does not tell.", show_in_help=True, ge=1)
    decoder_num_attention_heads: int | None = option(None, "Where the width does not tell.", show_in_help=True, ge=1)
    overwrite: bool = option(False, "Replace the sheet.", show_in_help=True)

    def __post_init__(self) -> None:
        if self.mask_ratio is not None and not 0.0 < self.mask_ratio < 1.0:
            raise UsageError(f"--mask_ratio must lie between 0 and 1, not {self.mask_ratio}.")
        if not self.output.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
            raise UsageError(f"--output takes the name of a picture (.png), not {self.output}.")


@dataclass
class ReportArguments:
    """Which runs are reported."""

    runs: list[str] | None = option(
        None, "Output folders of finetune, crossval and evaluate.", show_in_help=True, metavar="RUN"
    )
    benchmark: str | None = option(None, "Show its published rows, also without a run.", show_in_help=True)
    split: str | None = option(
        None,
        "Not given: test where a run has it.",
        choices=("validation", "test", "selection"),
        show_in_help=True,
    )
    positive: list[str] | None = option(
        None,
        "Classes that are positive, together (`--positive adenoma cancer`): against all others.",
        show_in_help=True,
    )
    operating_point: list[str] | None = option(
        None,
        "sensitivity=0.95, specificity=0.9, threshold=0.5 or youden: chosen on the validation split, applied to the "
        "reported one; without --positive, of each class against the rest.",
        show_in_help=True,
        metavar="RULE",
    )
    prevalence: float | None = option(None, "Of PPV and NPV; not given: that of the images.", show_in_help=True)
    subgroups: list[str] | None = option(
        None,
        "Columns of the manifest (device, centre, sex; age:50,65 makes bands): scores of each part, and whether they "
        "differ.",
        show_in_help=True,
        metavar="COLUMN",
    )
    manifest: str | None = option(None, "The table with these columns; not given: the run's own.", show_in_help=True)
    min_subgroup: int = option(20, "Images that a subgroup needs for its scores to be shown.", show_in_help=True, ge=1)
    checklist: str | None = option(
        None,
        "Fill in a reporting checklist, as far as the run's record can answer.",
        choices=("claim", "tripod-ai", "stard-ai"),
        show_in_help=True,
    )
    pdf: bool = option(
        False, "One page for each run, to hand out: what it is, how good, where it fails, mistakes.", show_in_help=True
    )
    output_dir: str | None = option(
        None, "Where the report goes; not given: the run's folder, or ./report for several.", show_in_help=True
    )
