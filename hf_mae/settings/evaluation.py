"""Settings of the verbs that look at a finished model: evaluate, predict, probe, explain."""

import os
import re
from dataclasses import dataclass

from ..errors import CommandLineError, UsageError
from .data import TRANSFORM_FAMILIES, DataSourceArguments, ImageLimitsArguments
from .options import option

MODEL_HELP = "A fine-tuned model: a folder or a Hub id."


@dataclass
class EvaluationArguments(DataSourceArguments):
    """What is evaluated on what."""

    model_name_or_path: str | None = option(None, MODEL_HELP, show_in_help=True, group="Model")
    split: str = option("validation", "train, validation or test.", show_in_help=True, group="Data")
    class_map: str | None = option(
        None,
        "External validation: a table with the columns data and model, which of the data's classes is which of the "
        "model's (an empty model: left out).",
        group="Data",
    )
    output_dir: str | None = option(
        None, "Where scores, predictions and figures go.", show_in_help=True, group="Output"
    )
    batch_size: int = option(64, "Images per process and forward pass.", show_in_help=True, group="Evaluation", ge=1)
    bf16: bool = option(
        False, "Compute in bfloat16; scores then differ in the third digit.", show_in_help=True, group="Evaluation"
    )
    seed: int = option(0, "Of val_fraction, as in training.", group="Data", ge=0, le=2**32 - 1)
    num_workers: int = option(0, "Processes that load images.", group="Evaluation", ge=0)
    tta: bool = option(
        False, "Average the scores over eight turned and mirrored views.", show_in_help=True, group="Evaluation"
    )
    temperature: str | None = option(
        None,
        "Divide the logits: a number, a temperature.json, or a folder with one.",
        show_in_help=True,
        group="Evaluation",
    )
    fit_temperature: bool = option(
        False, "Fit the temperature on this split, and write it into the output folder.", group="Evaluation"
    )
    fit_uncertainty: bool = option(
        False,
        "Fit on this split what `predict --prediction_sets` and `--ood` need, and write it into the output folder.",
        group="Evaluation",
    )


@dataclass
class InputArguments(ImageLimitsArguments):
    """Images that nothing needs to be known of."""

    images: list[str] | None = option(
        None,
        "Image and video files, folders and globs; tar and zip archives, parquet files, and folders and URLs of them.",
        show_in_help=True,
        group="Data",
        metavar="IMAGES",
    )
    fps: float = option(1.0, "Frames a second that are taken of videos.", show_in_help=True, group="Data", gt=0)


@dataclass
class PredictionArguments(InputArguments):
    """Which images are classified by which model."""

    model_name_or_path: str | None = option(None, MODEL_HELP, show_in_help=True, group="Model")
    output: str | None = option(
        None, "FILE.csv or FILE.jsonl; not given: CSV on the standard output.", show_in_help=True, group="Output"
    )
    top_k: int = option(5, "Classes for each image.", show_in_help=True, group="Output", ge=1)
    batch_size: int = option(32, "Images per forward pass.", show_in_help=True, group="Prediction", ge=1)
    num_workers: int | None = option(
        None, "Threads that decode; not given: one for each core.", show_in_help=True, group="Prediction", ge=0
    )
    tta: bool = option(
        False, "Average the scores over eight turned and mirrored views.", show_in_help=True, group="Prediction"
    )
    temperature: str | None = option(
        None,
        "Divide the logits: a number, a temperature.json, or a folder with one.",
        show_in_help=True,
        group="Prediction",
    )
    prediction_sets: float | None = option(
        None,
        "Also the set of classes that holds the true one this often, as 0.9 (of each class, by held-out images).",
        show_in_help=True,
        group="Prediction",
        metavar="LEVEL",
        gt=0,
        lt=1,
    )
    ood: bool = option(
        False, "Also whether an image is unlike the training images.", show_in_help=True, group="Prediction"
    )
    uncertainty: str | None = option(
        None, "Where --prediction_sets and --ood were fitted; not given: the model's folder.", group="Prediction"
    )
    bf16: bool = option(
        False, "Compute in bfloat16; scores then differ in the third digit.", show_in_help=True, group="Prediction"
    )
    resume: bool = option(
        False, "Go on with the output: predict what it lacks, and append.", show_in_help=True, group="Output"
    )
    overwrite: bool = option(False, "Replace the output file.", show_in_help=True, group="Output")
    part: str | None = option(
        None,
        "2/8: predict the second eighth; the process that ends last puts all parts together. Not given: as "
        "`accelerate launch` says, else all.",
        group="Output",
        metavar="I/N",
    )

    def get_shard(self) -> tuple[int, int]:
        """Which part, from 0, of how many: as asked for, or of the processes that were launched together."""
        if self.part is None:
            launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
            return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if launched else (0, 1)
        found = re.fullmatch(r"(\d+)/(\d+)", self.part)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise CommandLineError(f"--part takes I/N, as 2/8 for the second of eight, not {self.part}.")
        return int(found[1]) - 1, int(found[2])

    def __post_init__(self) -> None:
        if self.get_shard()[1] > 1 and not self.output:
            raise UsageError("Several processes that predict together need --output, a file on a disk of all of them.")
        if self.output and not self.output.endswith((".csv", ".jsonl")):
            raise UsageError(f"--output takes a name that ends in .csv or .jsonl, not {self.output}.")
        if self.resume and not self.output:
            raise UsageError("--resume goes on with a file: name it with --output.")


@dataclass
class ProbeArguments(DataSourceArguments):
    """Which checkpoint is probed, on what."""

    model_name_or_path: str | None = option(
        None, "An MAE .pth, a folder, a Hub id, or a name of hf-mae checkpoints.", show_in_help=True, group="Model"
    )
    output_dir: str | None = option(None, "Where scores and figures go.", show_in_help=True, group="Output")
    transforms: str = option(
        "endoscopy",
        "Family of the evaluation's transform.",
        choices=TRANSFORM_FAMILIES,
        show_in_help=True,
        group="Data",
    )
    mean_std: list[str] | None = option(None, "As for finetune.", group="Data")
    image_size: int | None = option(
        None, "Pixels; not given: the checkpoint's.", show_in_help=True, group="Model", ge=1
    )
    num_attention_heads: int | None = option(None, "Where the width does not tell.", group="Model", ge=1)
    random_weights: bool = option(
        False, "Take the checkpoint's sizes alone, and fresh weights (of the seed).", show_in_help=True, group="Model"
    )
    batch_size: int = option(64, "Images per forward pass.", show_in_help=True, group="Probe", ge=1)
    seed: int = option(0, "Of held-out shares and of the probe.", show_in_help=True, group="Probe", ge=0, le=2**32 - 1)
    attentive: bool = option(
        False,
        "Also an attentive probe: a learned query that looks at the tokens (slower: it trains on turned images).",
        show_in_help=True,
        group="Probe",
    )
    layers: bool = option(
        False,
        "Also features of earlier blocks; layer and pooling are chosen where the linear probe's rate is.",
        show_in_help=True,
        group="Probe",
    )
    features: str | None = option(
        None, "FILE.parquet or FILE.npz: the features of every image.", show_in_help=True, group="Output"
    )
    tsne: bool = option(True, "Draw a t-SNE of the features, coloured by class.", show_in_help=True, group="Output")
    umap: bool = option(False, "Draw a UMAP too (pip install 'hf_mae[umap]').", show_in_help=True, group="Output")

    def __post_init__(self) -> None:
        if self.features and not self.features.endswith((".parquet", ".npz")):
            raise UsageError(f"--features takes a name that ends in .parquet or .npz, not {self.features}.")


@dataclass
class ExplainArguments(DataSourceArguments, InputArguments):
    """What is explained."""

    model_name_or_path: str | None = option(None, MODEL_HELP, show_in_help=True, group="Model", metavar="RUN")
    split: str = option("validation", "Of data_dir, whose mistakes are shown.", show_in_help=True, group="Data")
    output_dir: str | None = option(None, "Where the pictures go.", show_in_help=True, group="Output")
    target: str | None = option(
        None,
        "Class that Grad-CAM explains. Not given: the predicted one of each image.",
        show_in_help=True,
        group="Explanation",
    )
    mistakes_per_class: int = option(
        4, "Most confident mistakes of each true class.", show_in_help=True, group="Explanation", ge=1
    )
    batch_size: int = option(16, "Images per forward pass.", show_in_help=True, group="Explanation", ge=1)
