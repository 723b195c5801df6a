"""Settings of `evaluate`, `predict`, `probe` and `explain`."""

from dataclasses import dataclass

from ..compat.launchers import read_launch
from ..errors import CommandLineError, UsageError
from .data import MEAN_STD_HELP, TRANSFORM_FAMILIES, DataSourceArguments, ImageLimitsArguments
from .messages import SettingsMessage
from .models import NUM_HEADS_HELP
from .one_vs_rest import OneVsRestArguments
from .options import option

MODEL_HELP = "A fine-tuned model or an ensemble: a folder or a Hub id."
TTA_HELP = "Test-time augmentation: average the scores over eight rotated and flipped views."
TEMPERATURE_HELP = (
    "Temperature scaling (calibration): a number, a temperature.json file, or a folder that contains one. "
    "Default: no scaling."
)
BF16_HELP = "Compute in bfloat16, which changes scores in about the third digit."


@dataclass
class EvaluationArguments(DataSourceArguments, OneVsRestArguments):
    """The model, the split to evaluate it on, and calibration."""

    option_group = "Evaluation"

    model_name_or_path: str | None = option(None, MODEL_HELP, group="Model", metavar="RUN")
    split: str = option("validation", "Split to evaluate: train, validation or test.", group="Data", metavar="SPLIT")
    class_map: str | None = option(
        None,
        "Class mapping for external validation: a table with the columns data (class of the data) and model (class of "
        "the model). Classes with an empty model are excluded.",
        group="Data",
        metavar="FILE",
        hidden=True,
    )
    output_dir: str | None = option(None, "Output folder for scores, predictions and figures.", group="Output")
    batch_size: int = option(64, "Images per process and forward pass.", ge=1)
    bf16: bool = option(False, BF16_HELP)
    seed: int = option(
        0,
        "Seed of the validation split (--val_fraction); use the seed of the training run.",
        group="Data",
        ge=0,
        le=2**32 - 1,
        hidden=True,
    )
    dataloader_num_workers: int = option(
        0, "Number of processes that load images; 0: the main process.", ge=0, hidden=True
    )
    tta: bool = option(False, TTA_HELP)
    temperature: str | None = option(None, TEMPERATURE_HELP, metavar="VALUE")
    fit_temperature: bool = option(
        False, "Fit the temperature (calibration) on this split and write it to the output folder."
    )
    fit_uncertainty: bool = option(
        False,
        "Fit conformal prediction sets and out-of-distribution detection on this split and write them to the output "
        "folder, for predict --prediction_sets and --ood.",
    )

    def __post_init__(self) -> None:
        self.check_ppv_options()
        if self.fit_temperature and not self.output_dir:
            raise UsageError(SettingsMessage.FIT_TEMPERATURE_WITHOUT_OUTPUT)
        if self.fit_temperature and self.temperature:
            raise UsageError(SettingsMessage.FIT_TEMPERATURE_TWICE)
        if self.fit_uncertainty and not self.output_dir:
            raise UsageError(SettingsMessage.FIT_UNCERTAINTY_WITHOUT_OUTPUT)
        if self.fit_uncertainty and self.class_map:
            raise UsageError(SettingsMessage.FIT_UNCERTAINTY_WITH_CLASS_MAP)


@dataclass
class InputArguments(ImageLimitsArguments):
    """Unlabelled images."""

    option_group = "Data"

    images: list[str] | None = option(
        None,
        "Images and videos: files, folders or globs; tar or zip archives and parquet files, or folders or URLs of "
        "them.",
        metavar="IMAGES",
    )
    fps: float = option(1.0, "Frames per second extracted from videos.", gt=0)


@dataclass
class PredictionArguments(InputArguments):
    """The model, the images to classify, and the output."""

    option_group = "Prediction"

    model_name_or_path: str | None = option(None, MODEL_HELP, group="Model", metavar="RUN")
    output: str | None = option(
        None, "Output file, .csv or .jsonl. Default: CSV on standard output.", group="Output", metavar="FILE"
    )
    top_k: int = option(5, "Number of classes per image.", group="Output", ge=1)
    batch_size: int = option(32, "Images per forward pass.", ge=1)
    preprocessing_num_workers: int | None = option(
        None, "Number of threads that decode images. Default: one per core.", ge=0
    )
    tta: bool = option(False, TTA_HELP)
    temperature: str | None = option(None, TEMPERATURE_HELP, metavar="VALUE")
    prediction_sets: float | None = option(
        None,
        "Conformal prediction: add the set of classes that contains the true class with this probability (coverage), "
        "e.g. 0.9 (class-conditional, calibrated on held-out images).",
        metavar="FRACTION",
        gt=0,
        lt=1,
    )
    ood: bool = option(
        False, "Out-of-distribution detection: add whether an image is unlike the training images, and the p-value."
    )
    uncertainty: str | None = option(
        None,
        "Folder written by evaluate --fit_uncertainty. Default: the folder of the model.",
        metavar="PATH",
        hidden=True,
    )
    bf16: bool = option(False, BF16_HELP)
    resume: bool = option(
        False, "Resume an interrupted run: predict the images that are missing in --output.", group="Output"
    )
    overwrite: bool = option(False, "Replace existing output.", group="Output")
    num_shards: int | None = option(
        None,
        "Number of processes that share the images; the last one to finish merges their output. Default: the "
        "processes of accelerate launch, else 1.",
        group="Output",
        ge=1,
        hidden=True,
    )
    shard_index: int | None = option(
        None, "Index of this process, from 0, with --num_shards.", group="Output", ge=0, hidden=True
    )

    def get_shard(self) -> tuple[int, int]:
        """Returns the index of this process and the number of processes that share the images."""
        if self.num_shards is None and self.shard_index is None:
            launch = read_launch()
            return launch.rank, launch.num_processes
        if self.num_shards is None or self.shard_index is None:
            raise CommandLineError(SettingsMessage.INCOMPLETE_SHARD)
        if self.shard_index >= self.num_shards:
            raise CommandLineError(
                SettingsMessage.SHARD_INDEX_OUT_OF_RANGE, num_shards=self.num_shards, index=self.shard_index
            )
        return self.shard_index, self.num_shards

    def __post_init__(self) -> None:
        if self.get_shard()[1] > 1 and not self.output:
            raise UsageError(SettingsMessage.SHARDS_WITHOUT_OUTPUT)
        if self.output and not self.output.endswith((".csv", ".jsonl")):
            raise UsageError(SettingsMessage.OUTPUT_NOT_A_TABLE, path=self.output)
        if self.resume and not self.output:
            raise UsageError(SettingsMessage.RESUME_WITHOUT_OUTPUT)


@dataclass
class ProbeArguments(DataSourceArguments):
    """The checkpoint to probe, the data, and the probes."""

    option_group = "Model"

    model_name_or_path: str | None = option(
        None, "An MAE .pth file, a folder, a Hub id, or a name listed by hf-mae checkpoints."
    )
    output_dir: str | None = option(None, "Output folder for scores and figures.", group="Output")
    transforms: str = option(
        "endoscopy",
        "Image preprocessing. endoscopy: resize to a square. imagenet: resize and centre crop, as in the original MAE "
        "code.",
        choices=TRANSFORM_FAMILIES,
        group="Data",
    )
    mean_std: list[str] | None = option(None, MEAN_STD_HELP, group="Data", metavar="VALUE", hidden=True)
    image_size: int | None = option(None, "Image size in pixels. Default: that of the checkpoint.", ge=1)
    num_attention_heads: int | None = option(None, NUM_HEADS_HELP, ge=1, hidden=True)
    random_weights: bool = option(
        False, "Initialize the architecture of the checkpoint with random weights (baseline without pre-training)."
    )
    batch_size: int = option(64, "Images per forward pass.", group="Probe", ge=1)
    seed: int = option(0, "Seed of the held-out splits and of the probe.", group="Probe", ge=0, le=2**32 - 1)
    attentive: bool = option(
        False,
        "Add an attentive probe (attention pooling with a learned query over the patch tokens; slower).",
        group="Probe",
    )
    features: str | None = option(
        None, "Write the features of every image to a .parquet or .npz file.", group="Output", metavar="FILE"
    )
    tsne: bool = option(True, "Plot a t-SNE embedding of the features, coloured by class.", group="Output")
    umap: bool = option(False, "Plot a UMAP embedding, too (pip install 'hf_mae[umap]').", group="Output")

    def __post_init__(self) -> None:
        if self.features and not self.features.endswith((".parquet", ".npz")):
            raise UsageError(SettingsMessage.FEATURES_NOT_A_TABLE, path=self.features)


@dataclass
class ExplainArguments(DataSourceArguments, InputArguments):
    """The model and the images to explain."""

    option_group = "Explanation"

    model_name_or_path: str | None = option(
        None, "A fine-tuned ViT: a folder or a Hub id.", group="Model", metavar="RUN"
    )
    split: str = option(
        "validation", "Split of --data_dir whose most confident mistakes are shown.", group="Data", metavar="SPLIT"
    )
    output_dir: str | None = option(None, "Output folder for the figures.", group="Output")
    target: str | None = option(
        None, "Class that Grad-CAM explains. Default: the predicted class of each image.", metavar="CLASS"
    )
    mistakes_per_class: int = option(4, "Number of most confident mistakes per true class.", ge=1)
    batch_size: int = option(16, "Images per forward pass.", ge=1)

    def __post_init__(self) -> None:
        if not self.images and not self.data_dir:
            raise UsageError(SettingsMessage.EXPLAIN_WITHOUT_IMAGES)
