"""The table of verbs: what each does, of which settings, with which defaults of its own.

Read by the command line, by recipes, by the flag reference and by the workflows; importing it is quick.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from ..compat.transformers_source import training_argument_fields
from ..errors import CommandLineError, did_you_mean
from .data import DataArguments, PreparationArguments, PretrainingDataArguments
from .evaluation import EvaluationArguments, ExplainArguments, PredictionArguments, ProbeArguments
from .models import ModelArguments, PretrainingModelArguments, RunModeArguments
from .options import Option, dataclass_options, type_from_annotation
from .sharing import (
    ConversionArguments,
    DemoArguments,
    ExportArguments,
    OnnxArguments,
    PushArguments,
    PushDatasetArguments,
    ReconstructionArguments,
    ReportArguments,
    ShardArguments,
)
from .studies import (
    AuditArguments,
    BenchmarksArguments,
    CacheArguments,
    CheckpointsArguments,
    CompletionArguments,
    ConfigsArguments,
    CrossvalArguments,
    EnsembleArguments,
    RecipesArguments,
    SearchArguments,
    TranslateArguments,
)
from .trainer_options import BOUNDS
from .training import FinetuningFields, MaeTrainingFields, PretrainingFields

# Fields of `TrainingArguments` that `VERB --help` shows, with what they mean here.
COMMON_TRAINER_OPTIONS = {
    "output_dir": ("Output", "Where the model, its card, scores, predictions and figures go."),
    "resume_from_checkpoint": ("Output", "A checkpoint-N folder, or `last`: go on with an interrupted run."),
    "bf16": ("Training", "Compute in bfloat16 (mixed precision)."),
}
# Where the verbs' defaults differ from the dataclass's: they evaluate and keep the best epoch.
BEST_CHECKPOINT_DEFAULTS = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "macro_f1",
}
QUIET = Option(
    "quiet", bool, default=False, show_in_help=True, help="No log lines; errors and the result alone.", group="Output"
)
JSON = Option(
    "json", bool, default=False, show_in_help=True, help="Print the result as JSON, for scripts.", group="Output"
)
RECIPE = Option("recipe", str, help="A recipe of the package (hf-mae recipes) or a YAML file; flags win over it.")


@dataclass(frozen=True)
class Command:
    """A verb of the command line, and what a workflow of this name takes.

    Args:
        summary: what it does, in a phrase.
        description: the sentence of its help.
        arg_classes: the dataclasses that its settings fill; a `ReferenceFields` among them stands for all of
            `TrainingArguments` too.
        required: options that must be given.
        positionals: options that may be given without a flag, in this order; of the last, if it takes many, any number.
        defaults: where they differ from the dataclasses' own.
        reads_recipes: whether `--recipe` fills its settings.
    """

    name: str
    summary: str
    description: str
    arg_classes: tuple[type, ...]
    required: tuple[str, ...] = ()
    positionals: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reads_recipes: bool = True

    @property
    def has_result(self) -> bool:
        """Whether it can print what it found as JSON (`--json`)."""
        return self.name in ("finetune", "distill", "plan", "evaluate", "crossval", "search", "probe", "report")

    @property
    def is_training(self) -> bool:
        """Whether it takes transformers' `TrainingArguments`."""
        return any(issubclass(kind, MaeTrainingFields) for kind in self.arg_classes)


_MODEL_AND_DATA, _MODEL = ("model_name_or_path", "data_dir"), ("model_name_or_path",)
COMMANDS = {
    verb.name: verb
    for verb in (
        Command(
            "convert",
            "an MAE checkpoint -> transformers weights",
            "Turn an MAE checkpoint into a folder that transformers loads.",
            (ConversionArguments,),
            required=("source", "destination"),
            positionals=("source", "destination"),
            reads_recipes=False,
        ),
        Command(
            "export",
            "transformers weights -> a reference .pth, or a timm folder",
            "Turn transformers weights into a reference checkpoint, or a folder that timm loads.",
            (ExportArguments,),
            required=("source", "destination"),
            positionals=("source", "destination"),
            reads_recipes=False,
        ),
        Command(
            "prepare",
            "check and cache a data set, and print its table",
            "Check and cache a data set, and print its table.",
            (PreparationArguments,),
            required=("data_dir",),
            positionals=("data_dir",),
        ),
        Command(
            "finetune",
            "fine-tune a checkpoint on labelled images",
            "Fine-tune an MAE checkpoint on labelled images.",
            (ModelArguments, DataArguments, FinetuningFields, RunModeArguments),
            required=_MODEL_AND_DATA,
            positionals=_MODEL_AND_DATA,
            defaults=BEST_CHECKPOINT_DEFAULTS,
        ),
        Command(
            "plan",
            "say what a fine-tuning would do: images, memory, time, what is unusual",
            "Say what `finetune` with the same flags would do, from data, checkpoint and machine; train nothing.",
            (ModelArguments, DataArguments, FinetuningFields, RunModeArguments),
            required=_MODEL_AND_DATA,
            positionals=_MODEL_AND_DATA,
            defaults=BEST_CHECKPOINT_DEFAULTS,
        ),
        Command(
            "distill",
            "teach one stock model what an ensemble knows",
            "TEACHER MODEL DATA: `finetune` of MODEL on DATA, which learns from the scores of TEACHER, too.",
            (ModelArguments, DataArguments, FinetuningFields, RunModeArguments),
            required=("teacher", *_MODEL_AND_DATA),
            positionals=("teacher", *_MODEL_AND_DATA),
            defaults=BEST_CHECKPOINT_DEFAULTS,
        ),
        Command(
            "evaluate",
            "score a fine-tuned model on a split",
            "Score a fine-tuned model on a split.",
            (EvaluationArguments,),
            required=_MODEL_AND_DATA,
            positionals=_MODEL_AND_DATA,
        ),
        Command(
            "predict",
            "classify image files",
            "RUN IMAGES ...: top classes of images and of videos' frames, in the order given.",
            (PredictionArguments,),
            required=("model_name_or_path", "images"),
            positionals=("model_name_or_path", "images"),
            reads_recipes=False,
        ),
        Command(
            "crossval",
            "train and evaluate every fold and seed",
            "Train and evaluate every fold and seed; finished runs are skipped, interrupted ones go on.",
            (CrossvalArguments, ModelArguments, DataArguments, FinetuningFields),
            required=(*_MODEL_AND_DATA, "output_dir"),
            positionals=_MODEL_AND_DATA,
            defaults=BEST_CHECKPOINT_DEFAULTS,
        ),
        Command(
            "search",
            "choose hyper-parameters on a split of their own, and train with the best",
            "Try settings, judged on a share of the training images (--selection_fraction), and train with the best of them.",
            (SearchArguments, ModelArguments, DataArguments, FinetuningFields),
            required=(*_MODEL_AND_DATA, "output_dir"),
            positionals=_MODEL_AND_DATA,
            defaults=BEST_CHECKPOINT_DEFAULTS,
        ),
        Command(
            "ensemble",
            "several runs as one model, whose scores are the mean of theirs",
            "RUN RUN ... --output_dir OUT: one model of several, for evaluate, predict, demo and export-onnx.",
            (EnsembleArguments,),
            required=("runs", "output_dir"),
            positionals=("runs",),
            reads_recipes=False,
        ),
        Command(
            "report",
            "runs beside the published rows, with intervals and tests",
            "Runs beside the published rows: report.md, report.tex and report.json.",
            (ReportArguments,),
            positionals=("runs",),
            reads_recipes=False,
        ),
        Command(
            "audit",
            "find near-duplicate images, and labels that may be wrong",
            "Find near-duplicate images within and across labels and splits, or with --labels RUN wrong labels.",
            (AuditArguments,),
            required=("output_dir",),
            positionals=("data_dir",),
        ),
        Command(
            "checkpoints",
            "list the public checkpoints, or fetch one",
            "List the public checkpoints, show one, or fetch (download and convert) one.",
            (CheckpointsArguments,),
            positionals=("action", "name"),
            reads_recipes=False,
        ),
        Command(
            "cache",
            "list, check or remove what is kept between runs",
            "List what is kept between runs (prepared images, downloads), look for damage, or remove a part.",
            (CacheArguments,),
            positionals=("action", "name"),
            reads_recipes=False,
        ),
        Command(
            "pretrain",
            "pre-train on unlabelled images",
            "Pre-train a masked autoencoder on unlabelled images.",
            (PretrainingModelArguments, PretrainingDataArguments, PretrainingFields),
            required=("data_dir", "output_dir"),
            positionals=("data_dir",),
            defaults={"save_strategy": "steps", "save_steps": 0.05, "save_total_limit": 2},
        ),
        Command(
            "probe",
            "linear probe and k-NN on a checkpoint's frozen features",
            "Linear probe and k-NN on the frozen features of a checkpoint.",
            (ProbeArguments,),
            required=_MODEL_AND_DATA,
            positionals=_MODEL_AND_DATA,
        ),
        Command(
            "reconstruct",
            "show what a pre-trained model makes of hidden patches",
            "Sheets of what a masked autoencoder makes of hidden patches.",
            (ReconstructionArguments,),
            required=("model_name_or_path", "images"),
            positionals=("model_name_or_path", "images"),
            reads_recipes=False,
        ),
        Command(
            "push",
            "push a finished run to the Hugging Face Hub",
            "Push a finished run to the Hugging Face Hub: model, card, figures, results, in one commit.",
            (PushArguments,),
            required=("run",),
            positionals=("run",),
            reads_recipes=False,
        ),
        Command(
            "shard",
            "pack images into tar shards, for volumes that folders are too slow for",
            "Pack a data set into tar shards (WebDataset's layout) with an index: FOLDER OUT, or FOLDER --check.",
            (ShardArguments,),
            required=("data_dir",),
            positionals=("data_dir", "output_dir"),
        ),
        Command(
            "push-dataset",
            "push a labelled data set, with its splits and patients, to the Hub",
            "Write a labelled data set as parquet, with its splits, classes and patients, and push it to the Hub.",
            (PushDatasetArguments,),
            required=("data_dir",),
            positionals=("data_dir",),
        ),
        Command(
            "explain",
            "show where a fine-tuned model looks, and its most confident mistakes",
            "Where a classifier looks: RUN [IMAGES ...], or RUN --data_dir D for its most confident mistakes.",
            (ExplainArguments,),
            required=("model_name_or_path", "output_dir"),
            positionals=("model_name_or_path", "images"),
        ),
        Command(
            "export-onnx",
            "a fine-tuned model -> ONNX, in float32 and int8",
            "RUN [OUT]: a fine-tuned model for onnxruntime and transformers.js, checked beside PyTorch.",
            (OnnxArguments,),
            required=("model_name_or_path",),
            positionals=("model_name_or_path", "output_dir"),
        ),
        Command(
            "demo",
            "try a fine-tuned model in the browser",
            "Try a fine-tuned model in the browser.",
            (DemoArguments,),
            required=_MODEL,
            positionals=_MODEL,
            reads_recipes=False,
        ),
        Command(
            "benchmarks",
            "list the benchmarks, or show what one expects",
            "List the benchmarks (sizes, licence, where to get them), or show one and what is to be on disk.",
            (BenchmarksArguments,),
            positionals=("name",),
            reads_recipes=False,
        ),
        Command(
            "translate",
            "a command of the reference, RETFound or timm -> the one here",
            "Print the command here for one of main_finetune.py or train.py, and what has no counterpart.",
            (TranslateArguments,),
            required=("command",),
            positionals=("command",),
            reads_recipes=False,
        ),
        Command(
            "completion",
            "what a shell needs to complete verbs and flags at TAB",
            'Print what a shell completes at TAB; in ~/.bashrc or ~/.zshrc: eval "$(hf-mae completion bash)" (or zsh).',
            (CompletionArguments,),
            required=("shell",),
            positionals=("shell",),
            reads_recipes=False,
        ),
        Command(
            "configs",
            "list the ways to run under accelerate launch, or print a file's path",
            "The ways to run under `accelerate launch --config_file $(hf-mae configs NAME) -m hf_mae finetune ...`.",
            (ConfigsArguments,),
            positionals=("name",),
            reads_recipes=False,
        ),
        Command(
            "recipes",
            "list the recipes, or show one",
            "List the recipes of the package, or print one.",
            (RecipesArguments,),
            positionals=("action", "name"),
            reads_recipes=False,
        ),
    )
}


def find_command(name: str) -> Command:
    """The verb of a name.

    Raises:
        CommandLineError: there is none.
    """
    if name not in COMMANDS:
        raise CommandLineError(f"there is no verb {name}{did_you_mean(name, COMMANDS)}. See hf-mae --help.")
    return COMMANDS[name]


@cache
def command_options(name: str) -> dict[str, Option]:
    """Every option of a verb by name: those of this package first, then those that are transformers' own."""
    verb = find_command(name)
    found = {item.name: item for kind in verb.arg_classes for item in dataclass_options(kind)}
    if verb.is_training:
        for item in training_argument_fields():
            found.setdefault(item.name, _option_from_trainer_field(item))
    return {key: replace(item, default=verb.defaults.get(key, item.default)) for key, item in found.items()}


def _option_from_trainer_field(source_field: Any) -> Option:
    kind, many = type_from_annotation(source_field.annotation)
    group, text = COMMON_TRAINER_OPTIONS.get(
        source_field.name, ("Of transformers' TrainingArguments", source_field.help)
    )
    shown = source_field.name in COMMON_TRAINER_OPTIONS
    mapping = "dict" in source_field.annotation
    bounds = BOUNDS.get(source_field.name, {})
    return Option(
        source_field.name,
        kind,
        many,
        source_field.default,
        text,
        show_in_help=shown,
        group=group,
        mapping=mapping,
        bounds=bounds,
    )
