"""The table of commands: task, help text, settings and defaults of each.

The command line, recipes, the flag reference and the workflows read it. Importing it does not import torch.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from ..compat.transformers_source import training_argument_fields
from ..errors import CommandLineError, did_you_mean
from ..registry import Registry
from .audit import AuditArguments
from .convert import ConversionArguments, ExportArguments, list_layouts
from .crossval import CrossvalArguments
from .data import DataArguments, PreparationArguments, PretrainingDataArguments
from .demo import DemoArguments
from .ensemble import EnsembleArguments
from .evaluation import EvaluationArguments, ExplainArguments, PredictionArguments, ProbeArguments
from .export_onnx import OnnxArguments
from .information import (
    BenchmarksArguments,
    CacheArguments,
    CheckpointsArguments,
    CompletionArguments,
    ConfigsArguments,
    RecipesArguments,
)
from .messages import SettingsMessage
from .models import ModelArguments, PretrainingModelArguments, RunModeArguments
from .options import Option, dataclass_options, type_from_annotation
from .push import PushArguments, PushDatasetArguments
from .reconstruct import ReconstructionArguments
from .report import ReportArguments
from .sample_size import SampleSizeArguments
from .search import SearchArguments
from .shard import ShardArguments
from .trainer_options import BOUNDS
from .training import FinetuningFields, MaeTrainingFields, PretrainingFields

# Fields of `TrainingArguments` that `hf-mae COMMAND --help` lists: group and help text.
COMMON_TRAINER_OPTIONS = {
    "output_dir": (
        "Output",
        "Output folder for the model, its card, scores, predictions and figures. Default of finetune and "
        "distill: runs/NAME, with the name of the dataset.",
    ),
    "resume_from_checkpoint": ("Output", "Resume an interrupted run: a checkpoint-N folder, or last."),
    "bf16": ("Training", "Train in bfloat16 (mixed precision)."),
}
# Defaults of the fine-tuning commands: evaluate every epoch and keep the best.
BEST_CHECKPOINT_DEFAULTS = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "macro_f1",
}
QUIET = Option(
    "quiet", bool, default=False, show_in_help=True, help="Print errors and the result only.", group="Output"
)
JSON = Option("json", bool, default=False, show_in_help=True, help="Print the result as JSON.", group="Output")
RECIPE = Option(
    "recipe",
    str,
    help="Recipe: a name listed by hf-mae recipes, or a YAML file. Flags override it.",
    metavar="NAME",
)


@dataclass(frozen=True)
class Command:
    """A command of the command line and its workflow.

    Args:
        name: name of the command.
        summary: imperative phrase for `hf-mae --help`.
        task: heading in `hf-mae --help`. The function of a command is in the module of its name in `workflows`.
        arg_classes: dataclasses of its settings; a subclass of `MaeTrainingFields` includes `TrainingArguments`.
        arguments: names of the options that can be given without a flag, in this order (the last may take several
            values), in brackets if they are optional; after `--`, other options that must be given.
        description: first paragraph of its help text. Default: the summary.
        details: returns further text of the paragraph, from a registry.
        defaults: defaults that differ from those of the dataclasses.
        reads_recipes: whether the command has the flag `--recipe`.
        has_json: whether the command has the flag `--json`.
    """

    name: str
    summary: str
    task: str
    arg_classes: tuple[type, ...]
    arguments: str = ""
    description: str = ""
    details: Callable[[], str] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reads_recipes: bool = True
    has_json: bool = False

    def describe(self) -> str:
        """Returns the first paragraph of the help text."""
        text = self.description or f"{self.summary}."
        return f"{text} {self.details()}" if self.details else text

    @property
    def positionals(self) -> list[str]:
        """Names of the options that can be given without a flag, in this order."""
        return [word.strip("[]") for word in self.arguments.split() if not word.startswith("--")]

    @property
    def required(self) -> list[str]:
        """Names of the options that must be given."""
        return [word.removeprefix("--") for word in self.arguments.split() if not word.startswith("[")]

    @property
    def function_name(self) -> str:
        """Name of its function and of the module of `workflows` that contains it."""
        return self.name.replace("-", "_")

    @property
    def is_training(self) -> bool:
        """Whether the command takes the fields of `TrainingArguments`."""
        return any(issubclass(cls, MaeTrainingFields) for cls in self.arg_classes)


_FINETUNING = (ModelArguments, DataArguments, FinetuningFields)
INFORMATION = "Information"  # task of the commands that look up and print
# In the order of `hf-mae --help`.
COMMANDS: Registry[Command] = Registry()
for entry in (
    Command(
        "convert",
        "Convert an MAE checkpoint to transformers weights",
        "Train",
        (ConversionArguments,),
        "model_name_or_path output_dir",
        description="Convert an MAE checkpoint to a folder that transformers loads.",
        details=list_layouts,
        reads_recipes=False,
    ),
    Command(
        "pretrain",
        "Pre-train a masked autoencoder on unlabelled images",
        "Train",
        (PretrainingModelArguments, PretrainingDataArguments, PretrainingFields),
        "data_dir --output_dir",
        defaults={"save_strategy": "steps", "save_steps": 0.05, "save_total_limit": 2},
    ),
    Command(
        "finetune",
        "Fine-tune a checkpoint on labelled images",
        "Train",
        (*_FINETUNING, RunModeArguments),
        "model_name_or_path data_dir",
        defaults=BEST_CHECKPOINT_DEFAULTS,
        has_json=True,
    ),
    Command(
        "plan",
        "Estimate the updates, memory and time of a fine-tuning run",
        "Train",
        (*_FINETUNING, RunModeArguments),
        "model_name_or_path data_dir",
        description="Estimate the updates, memory and time of finetune with the same flags, and print warnings. "
        "Nothing is trained.",
        defaults=BEST_CHECKPOINT_DEFAULTS,
        has_json=True,
    ),
    Command(
        "crossval",
        "Train and evaluate every fold and seed (cross-validation)",
        "Train",
        (CrossvalArguments, *_FINETUNING),
        "model_name_or_path data_dir --output_dir",
        description="Train and evaluate every fold and seed (cross-validation). Completed runs are skipped, "
        "interrupted runs are resumed.",
        defaults=BEST_CHECKPOINT_DEFAULTS,
        has_json=True,
    ),
    Command(
        "search",
        "Tune hyper-parameters, and train with the best",
        "Train",
        (SearchArguments, *_FINETUNING),
        "model_name_or_path data_dir --output_dir",
        description="Tune hyper-parameters on a fraction of the training images (--selection_fraction), and train "
        "with the best.",
        defaults=BEST_CHECKPOINT_DEFAULTS,
        has_json=True,
    ),
    Command(
        "ensemble",
        "Combine several runs into one model that averages their scores",
        "Train",
        (EnsembleArguments,),
        "runs --output_dir",
        description="Combine several runs into one model that averages their scores, for evaluate, predict, demo "
        "and export-onnx.",
        reads_recipes=False,
    ),
    Command(
        "distill",
        "Distill an ensemble or another teacher into one model",
        "Train",
        (*_FINETUNING, RunModeArguments),
        "teacher model_name_or_path data_dir",
        description="Knowledge distillation: fine-tune CHECKPOINT on DATA with the labels and the scores of TEACHER.",
        defaults=BEST_CHECKPOINT_DEFAULTS,
        has_json=True,
    ),
    Command(
        "evaluate",
        "Evaluate a fine-tuned model on a split",
        "Evaluate",
        (EvaluationArguments,),
        "model_name_or_path data_dir",
        has_json=True,
    ),
    Command(
        "report",
        "Compare runs with each other and with published results",
        "Evaluate",
        (ReportArguments,),
        "[runs]",
        description="Compare runs with each other and with published results, with confidence intervals and "
        "significance tests. Writes report.md, report.tex and report.json.",
        reads_recipes=False,
        has_json=True,
    ),
    Command(
        "sample-size",
        "Compute the images and patients that a study needs",
        "Evaluate",
        (SampleSizeArguments,),
        "score --expected",
        description="Compute the images and patients that a study needs for an interval of a given width, or to "
        "compare two models. No data and no model are needed.",
        reads_recipes=False,
        has_json=True,
    ),
    Command(
        "probe",
        "Evaluate frozen features with a linear probe and k-NN",
        "Evaluate",
        (ProbeArguments,),
        "model_name_or_path data_dir",
        description="Evaluate the frozen features of a checkpoint with a linear probe and k-NN.",
        has_json=True,
    ),
    Command(
        "predict",
        "Classify images and video frames",
        "Use",
        (PredictionArguments,),
        "model_name_or_path images",
        description="Classify images and video frames, in the order given.",
        reads_recipes=False,
    ),
    Command(
        "explain",
        "Show saliency maps and the most confident mistakes of a model",
        "Use",
        (ExplainArguments,),
        "model_name_or_path [images] --output_dir",
        description="Show saliency maps of IMAGES (Grad-CAM), or with --data_dir the most confident "
        "mistakes of a model.",
    ),
    Command(
        "demo",
        "Open a fine-tuned model in the browser",
        "Use",
        (DemoArguments,),
        "model_name_or_path",
        reads_recipes=False,
    ),
    Command(
        "reconstruct",
        "Reconstruct masked patches with a pre-trained model",
        "Use",
        (ReconstructionArguments,),
        "model_name_or_path images",
        description="Reconstruct masked patches with a masked autoencoder, and write a figure.",
        reads_recipes=False,
    ),
    Command(
        "push",
        "Push a run to the Hugging Face Hub",
        "Publish",
        (PushArguments,),
        "model_name_or_path",
        description="Push a run to the Hugging Face Hub: model, card, figures and results, in one commit.",
        reads_recipes=False,
    ),
    Command(
        "push-dataset",
        "Push a labelled dataset to the Hugging Face Hub",
        "Publish",
        (PushDatasetArguments,),
        "data_dir",
        description="Write a labelled dataset as parquet with its splits, classes and patients, and push it to the "
        "Hugging Face Hub.",
    ),
    Command(
        "export",
        "Export transformers weights to the original MAE format or timm",
        "Publish",
        (ExportArguments,),
        "model_name_or_path output",
        description="Export transformers weights to a .pth file for the original MAE code (facebookresearch/mae), "
        "or to a folder for timm.",
        reads_recipes=False,
    ),
    Command(
        "export-onnx",
        "Export a fine-tuned model to ONNX, in float32 and int8",
        "Publish",
        (OnnxArguments,),
        "model_name_or_path [output_dir]",
        description="Export a fine-tuned model to ONNX for onnxruntime and transformers.js, and compare its "
        "output with PyTorch.",
    ),
    Command(
        "prepare", "Check and cache a dataset, and print its class counts", "Data", (PreparationArguments,), "data_dir"
    ),
    Command(
        "audit",
        "Find near-duplicate images and label errors",
        "Data",
        (AuditArguments,),
        "[data_dir] --output_dir",
        description="Find near-duplicate images within and across classes and splits, or label errors (--runs).",
    ),
    Command(
        "shard",
        "Pack a dataset into tar shards, for millions of images",
        "Data",
        (ShardArguments,),
        "data_dir [output_dir]",
        description="Pack a dataset into tar shards (WebDataset format) with an index, or check existing shards "
        "(--check).",
    ),
    Command(
        "cache",
        "List, check or remove cached images and downloads",
        "Data",
        (CacheArguments,),
        "[action] [name]",
        reads_recipes=False,
    ),
    Command(
        "checkpoints",
        "List, show or fetch public checkpoints",
        INFORMATION,
        (CheckpointsArguments,),
        "[action] [name]",
        description="List public checkpoints, show one, or fetch (download and convert) one.",
        reads_recipes=False,
    ),
    Command(
        "benchmarks",
        "List the benchmarks, or show one and its expected files",
        INFORMATION,
        (BenchmarksArguments,),
        "[name]",
        description="List the benchmarks (size, licence, download), or show one and its expected files.",
        reads_recipes=False,
    ),
    Command(
        "recipes",
        "List the recipes, or show one",
        INFORMATION,
        (RecipesArguments,),
        "[name]",
        reads_recipes=False,
    ),
    Command(
        "configs",
        "List the accelerate configs, or print the path of one",
        INFORMATION,
        (ConfigsArguments,),
        "[name]",
        description="List the accelerate configs, or print the path of one: accelerate launch --config_file "
        "$(hf-mae configs NAME) -m hf_mae finetune ...",
        reads_recipes=False,
    ),
    Command(
        "completion",
        "Print a shell completion script",
        INFORMATION,
        (CompletionArguments,),
        "shell",
        description='Print a shell completion script. In ~/.bashrc or ~/.zshrc: eval "$(hf-mae completion bash)" '
        "(or zsh).",
        reads_recipes=False,
    ),
):
    COMMANDS.add(entry)


def commands_by_task() -> dict[str, list[Command]]:
    """Returns the commands of each task, in the order of `hf-mae --help`."""
    tasks: dict[str, list[Command]] = {}
    for command in COMMANDS.values():
        tasks.setdefault(command.task, []).append(command)
    return tasks


def find_command(name: str) -> Command:
    """Returns the command of a name.

    Raises:
        CommandLineError: If the name is unknown.
    """
    if name not in COMMANDS:
        raise CommandLineError(SettingsMessage.UNKNOWN_COMMAND, name=name, suggestion=did_you_mean(name, COMMANDS))
    return COMMANDS[name]


def usage(name: str) -> str:
    """Returns the usage line of a command, e.g. `hf-mae predict RUN IMAGES ... [flags]`."""
    command, options = find_command(name), command_options(name)
    words = [f"hf-mae {name}"]
    for argument in command.positionals:
        placeholder = options[argument].placeholder + (" ..." if options[argument].multiple else "")
        words.append(placeholder if argument in command.required else f"[{placeholder}]")
    flags = [argument for argument in command.required if argument not in command.positionals]
    return " ".join([*words, *(f"--{flag} {options[flag].placeholder}" for flag in flags), "[flags]"])


def assign_positionals(name: str, values: Iterable[Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Assigns the arguments without a flag to the options of a command that are not in `flags`.

    The last option may take several values, or one list of them.

    Raises:
        CommandLineError: If there are too many.
    """
    values, assigned = list(values), {}
    for option in (command_options(name)[argument] for argument in find_command(name).positionals):
        if option.name in flags or not values:
            continue
        if option.multiple:
            is_list = len(values) == 1 and isinstance(values[0], list | tuple)
            assigned[option.name], values = values[0] if is_list else values, []
        else:
            assigned[option.name] = values.pop(0)
    if values:
        raise CommandLineError(
            SettingsMessage.UNRECOGNIZED_ARGUMENTS, values=" ".join(map(str, values)), usage=usage(name)
        )
    return assigned


@cache
def command_options(name: str) -> dict[str, Option]:
    """Returns the options of a command by name: those of this package first, then those of transformers."""
    command = find_command(name)
    options = {item.name: item for cls in command.arg_classes for item in dataclass_options(cls)}
    if command.is_training:
        for source_field in training_argument_fields():
            options.setdefault(source_field.name, _option_from_trainer_field(source_field))
    return {key: replace(item, default=command.defaults.get(key, item.default)) for key, item in options.items()}


def command_line_options(name: str) -> dict[str, Option]:
    """Returns the options of a command by name, with those of the command line: the recipe, and how to print."""
    command, options = find_command(name), dict(command_options(name))
    for option in ([RECIPE] if command.reads_recipes else []) + [QUIET] + ([JSON] if command.has_json else []):
        options.setdefault(option.name, option)
    return options


def _option_from_trainer_field(source_field: Any) -> Option:
    name = source_field.name
    value_type, multiple = type_from_annotation(source_field.annotation)
    group, help_text = COMMON_TRAINER_OPTIONS.get(name, ("transformers.TrainingArguments", source_field.help))
    return Option(
        name,
        value_type,
        multiple,
        source_field.default,
        help_text,
        show_in_help=name in COMMON_TRAINER_OPTIONS,
        group=group,
        metavar="PATH" if name == "resume_from_checkpoint" else None,
        mapping="dict" in source_field.annotation,
        bounds=BOUNDS.get(name, {}),
        nullable="None" in source_field.annotation,
    )
