"""The table of verbs: what each does, of which settings, with which defaults of its own.

Read by the command line, by recipes, by the flag reference and by the workflows; importing it is quick.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from ..compat.transformers_source import training_argument_fields
from ..errors import CommandLineError, nearest
from .data import DataArguments, PreparationArguments, PretrainingDataArguments
from .evaluation import EvaluationArguments, ExplainArguments, PredictionArguments, ProbeArguments
from .models import HowArguments, ModelArguments, PretrainingModelArguments
from .options import Option, foreign_type, options_of
from .sharing import (
    ConversionArguments,
    DataSetArguments,
    DemoArguments,
    ExportArguments,
    OnnxArguments,
    PushArguments,
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
from .training import FinetuningFields, PretrainingFields, ReferenceFields

# Fields of `TrainingArguments` that `VERB --help` shows, with what they mean here.
SHOWN_OF_TRANSFORMERS = {
    "output_dir": ("Output", "Where the model, its card, scores, predictions and figures go."),
    "resume_from_checkpoint": ("Output", "A checkpoint-N folder, or `last`: go on with an interrupted run."),
    "bf16": ("Training", "Compute in bfloat16 (mixed precision)."),
}
# Where the verbs' defaults differ from the dataclass's: they evaluate and keep the best epoch.
KEEPS_THE_BEST = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "macro_f1",
}
QUIET = Option(
    "quiet", bool, default=False, common=True, help="No log lines; errors and the result alone.", group="Output"
)
JSON = Option("json", bool, default=False, common=True, help="Print the result as JSON, for scripts.", group="Output")
RECIPE = Option("recipe", str, help="A recipe of the package (hf-mae recipes) or a YAML file; flags win over it.")


@dataclass(frozen=True)
class Verb:
    """A verb of the command line, and what a workflow of this name takes.

    Args:
        summary: what it does, in a phrase.
        description: the sentence of its help.
        kinds: the dataclasses that its settings fill; a `ReferenceFields` among them stands for all of
            `TrainingArguments` too.
        required: options that must be given.
        words: options that may be given without a flag, in this order; of the last, if it takes many, any number.
        defaults: where they differ from the dataclasses' own.
        reads_recipes: whether `--recipe` fills its settings.
    """

    name: str
    summary: str
    description: str
    kinds: tuple[type, ...]
    required: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reads_recipes: bool = True

    @property
    def has_result(self) -> bool:
        """Whether it can print what it found as JSON (`--json`)."""
        return self.name in ("finetune", "distill", "plan", "evaluate", "crossval", "search", "probe", "report")

    @property
    def trains(self) -> bool:
        """Whether it takes transformers' `TrainingArguments`."""
        return any(issubclass(kind, ReferenceFields) for kind in self.kinds)


_SOURCE, _MODEL = ("model_name_or_path", "data_dir"), ("model_name_or_path",)
VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "convert",
            "an MAE checkpoint -> transformers weights",
            "Turn an MAE checkpoint into a folder that transformers loads.",
            (ConversionArguments,),
            required=("source", "destination"),
            words=("source", "destination"),
            reads_recipes=False,
        ),
        Verb(
            "export",
            "transformers weights -> a reference .pth, or a timm folder",
            "Turn transformers weights into a reference checkpoint, or a folder that timm loads.",
            (ExportArguments,),
            required=("source", "destination"),
            words=("source", "destination"),
            reads_recipes=False,
        ),
        Verb(
            "prepare",
            "check and cache a data set, and print its table",
            "Check and cache a data set, and print its table.",
            (PreparationArguments,),
            required=("data_dir",),
            words=("data_dir",),
        ),
        Verb(
            "finetune",
            "fine-tune a checkpoint on labelled images",
            "Fine-tune an MAE checkpoint on labelled images.",
            (ModelArguments, DataArguments, FinetuningFields, HowArguments),
            required=_SOURCE,
            words=_SOURCE,
            defaults=KEEPS_THE_BEST,
        ),
        Verb(
            "plan",
            "say what a fine-tuning would do: images, memory, time, what is unusual",
            "Say what `finetune` with the same flags would do, from data, checkpoint and machine; train nothing.",
            (ModelArguments, DataArguments, FinetuningFields, HowArguments),
            required=_SOURCE,
            words=_SOURCE,
            defaults=KEEPS_THE_BEST,
        ),
        Verb(
            "distill",
            "teach one stock model what an ensemble knows",
            "TEACHER MODEL DATA: `finetune` of MODEL on DATA, which learns from the scores of TEACHER, too.",
            (ModelArguments, DataArguments, FinetuningFields, HowArguments),
            required=("teacher", *_SOURCE),
            words=("teacher", *_SOURCE),
            defaults=KEEPS_THE_BEST,
        ),
        Verb(
            "evaluate",
            "score a fine-tuned model on a split",
            "Score a fine-tuned model on a split.",
            (EvaluationArguments,),
            required=_SOURCE,
            words=_SOURCE,
        ),
        Verb(
            "predict",
            "classify image files",
            "RUN IMAGES ...: top classes of images and of videos' frames, in the order given.",
            (PredictionArguments,),
            required=("model_name_or_path", "images"),
            words=("model_name_or_path", "images"),
            reads_recipes=False,
        ),
        Verb(
            "crossval",
            "train and evaluate every fold and seed",
            "Train and evaluate every fold and seed; finished runs are skipped, interrupted ones go on.",
            (CrossvalArguments, ModelArguments, DataArguments, FinetuningFields),
            required=(*_SOURCE, "output_dir"),
            words=_SOURCE,
            defaults=KEEPS_THE_BEST,
        ),
        Verb(
            "search",
            "choose hyper-parameters on a split of their own, and train with the best",
            "Try settings, judged on a share of the training images (--select_on), and train with the best of them.",
            (SearchArguments, ModelArguments, DataArguments, FinetuningFields),
            required=(*_SOURCE, "output_dir"),
            words=_SOURCE,
            defaults=KEEPS_THE_BEST,
        ),
        Verb(
            "ensemble",
            "several runs as one model, whose scores are the mean of theirs",
            "RUN RUN ... --output_dir OUT: one model of several, for evaluate, predict, demo and export-onnx.",
            (EnsembleArguments,),
            required=("runs", "output_dir"),
            words=("runs",),
            reads_recipes=False,
        ),
        Verb(
            "report",
            "runs beside the published rows, with intervals and tests",
            "Runs beside the published rows: report.md, report.tex and report.json.",
            (ReportArguments,),
            words=("runs",),
            reads_recipes=False,
        ),
        Verb(
            "audit",
            "find near-duplicate images, and labels that may be wrong",
            "Find near-duplicate images within and across labels and splits, or with --labels RUN wrong labels.",
            (AuditArguments,),
            required=("output_dir",),
            words=("data_dir",),
        ),
        Verb(
            "checkpoints",
            "list the public checkpoints, or fetch one",
            "List the public checkpoints, show one, or fetch (download and convert) one.",
            (CheckpointsArguments,),
            words=("action", "name"),
            reads_recipes=False,
        ),
        Verb(
            "cache",
            "list, check or remove what is kept between runs",
            "List what is kept between runs (prepared images, downloads), look for damage, or remove a part.",
            (CacheArguments,),
            words=("action", "name"),
            reads_recipes=False,
        ),
        Verb(
            "pretrain",
            "pre-train on unlabelled images",
            "Pre-train a masked autoencoder on unlabelled images.",
            (PretrainingModelArguments, PretrainingDataArguments, PretrainingFields),
            required=("data_dir", "output_dir"),
            words=("data_dir",),
            defaults={"save_strategy": "steps", "save_steps": 0.05, "save_total_limit": 2},
        ),
        Verb(
            "probe",
            "linear probe and k-NN on a checkpoint's frozen features",
            "Linear probe and k-NN on the frozen features of a checkpoint.",
            (ProbeArguments,),
            required=_SOURCE,
            words=_SOURCE,
        ),
        Verb(
            "reconstruct",
            "show what a pre-trained model makes of hidden patches",
            "Sheets of what a masked autoencoder makes of hidden patches.",
            (ReconstructionArguments,),
            required=("model_name_or_path", "images"),
            words=("model_name_or_path", "images"),
            reads_recipes=False,
        ),
        Verb(
            "push",
            "push a finished run to the Hugging Face Hub",
            "Push a finished run to the Hugging Face Hub: model, card, figures, results, in one commit.",
            (PushArguments,),
            required=("run",),
            words=("run",),
            reads_recipes=False,
        ),
        Verb(
            "shard",
            "pack images into tar shards, for volumes that folders are too slow for",
            "Pack a data set into tar shards (WebDataset's layout) with an index: FOLDER OUT, or FOLDER --check.",
            (ShardArguments,),
            required=("data_dir",),
            words=("data_dir", "output_dir"),
        ),
        Verb(
            "push-dataset",
            "push a labelled data set, with its splits and patients, to the Hub",
            "Write a labelled data set as parquet, with its splits, classes and patients, and push it to the Hub.",
            (DataSetArguments,),
            required=("data_dir",),
            words=("data_dir",),
        ),
        Verb(
            "explain",
            "show where a fine-tuned model looks, and its most confident mistakes",
            "Where a classifier looks: RUN [IMAGES ...], or RUN --data_dir D for its most confident mistakes.",
            (ExplainArguments,),
            required=("model_name_or_path", "output_dir"),
            words=("model_name_or_path", "images"),
        ),
        Verb(
            "export-onnx",
            "a fine-tuned model -> ONNX, in float32 and int8",
            "RUN [OUT]: a fine-tuned model for onnxruntime and transformers.js, checked beside PyTorch.",
            (OnnxArguments,),
            required=("model_name_or_path",),
            words=("model_name_or_path", "output_dir"),
        ),
        Verb(
            "demo",
            "try a fine-tuned model in the browser",
            "Try a fine-tuned model in the browser.",
            (DemoArguments,),
            required=_MODEL,
            words=_MODEL,
            reads_recipes=False,
        ),
        Verb(
            "benchmarks",
            "list the benchmarks, or show what one expects",
            "List the benchmarks (sizes, licence, where to get them), or show one and what is to be on disk.",
            (BenchmarksArguments,),
            words=("name",),
            reads_recipes=False,
        ),
        Verb(
            "translate",
            "a command of the reference, RETFound or timm -> the one here",
            "Print the command here for one of main_finetune.py or train.py, and what has no counterpart.",
            (TranslateArguments,),
            required=("command",),
            words=("command",),
            reads_recipes=False,
        ),
        Verb(
            "completion",
            "what a shell needs to complete verbs and flags at TAB",
            'Print what a shell completes at TAB; in ~/.bashrc or ~/.zshrc: eval "$(hf-mae completion bash)" (or zsh).',
            (CompletionArguments,),
            required=("shell",),
            words=("shell",),
            reads_recipes=False,
        ),
        Verb(
            "configs",
            "list the ways to run under accelerate launch, or print a file's path",
            "The ways to run under `accelerate launch --config_file $(hf-mae configs NAME) -m hf_mae finetune ...`.",
            (ConfigsArguments,),
            words=("name",),
            reads_recipes=False,
        ),
        Verb(
            "recipes",
            "list the recipes, or show one",
            "List the recipes of the package, or print one.",
            (RecipesArguments,),
            words=("action", "name"),
            reads_recipes=False,
        ),
    )
}


def find_verb(name: str) -> Verb:
    """The verb of a name.

    Raises:
        CommandLineError: there is none.
    """
    if name not in VERBS:
        raise CommandLineError(f"there is no verb {name}{nearest(name, VERBS)}. See hf-mae --help.")
    return VERBS[name]


@cache
def options_of_verb(name: str) -> dict[str, Option]:
    """Every option of a verb by name: those of this package first, then those that are transformers' own."""
    verb = find_verb(name)
    found = {item.name: item for kind in verb.kinds for item in options_of(kind)}
    if verb.trains:
        for item in training_argument_fields():
            found.setdefault(item.name, _of_transformers(item))
    return {key: replace(item, default=verb.defaults.get(key, item.default)) for key, item in found.items()}


def _of_transformers(item: Any) -> Option:
    kind, many = foreign_type(item.annotation)
    group, text = SHOWN_OF_TRANSFORMERS.get(item.name, ("Of transformers' TrainingArguments", item.help))
    shown = item.name in SHOWN_OF_TRANSFORMERS
    mapping = "dict" in item.annotation
    bounds = BOUNDS.get(item.name, {})
    return Option(item.name, kind, many, item.default, text, common=shown, group=group, mapping=mapping, bounds=bounds)
