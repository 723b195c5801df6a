"""Parses recipes, flags and Python arguments into the dataclasses of a command; flags override the recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..compat.launchers import override_precision
from ..errors import CommandLineError, UsageError, did_you_mean, summarize_exception
from ..files.archive_members import is_remote
from ..files.redaction import hide_credentials, remember_secret
from .commands import command_options, find_command
from .data import DataArguments, DataSourceArguments, PretrainingDataArguments
from .messages import SettingsMessage
from .models import ModelArguments, PretrainingModelArguments, RunModeArguments
from .options import Option
from .recipes import EXCLUDED_FROM_RECIPES, read_recipe
from .trainer_options import check_explicit_trainer_option, check_trainer_option
from .training import FinetuningFields, MaeTrainingFields, PretrainingFields

# Options whose value must be a local path, not a URL.
LOCAL_PATH_OPTIONS = (
    *("output_dir", "output", "features", "model_name_or_path", "teacher"),
    *("manifest", "exclude_pairs", "corrections", "class_map"),
)


# Options that determine the images, labels and splits.
DATA_OPTIONS = {"seed", *(item.name for cls in (DataSourceArguments, PretrainingDataArguments) for item in fields(cls))}
# Classes of the parts of `Settings`; all others are the options of their command.
PARTS: dict[type, str] = {
    ModelArguments: "model",
    PretrainingModelArguments: "model",
    DataArguments: "data",
    PretrainingDataArguments: "data",
    FinetuningFields: "training",
    PretrainingFields: "training",
    RunModeArguments: "run",
}
# Options of a source of labelled images that do not apply with `benchmark`.
BENCHMARK_CONFLICTS = {
    "class_order": SettingsMessage.CLASS_ORDER_WITH_BENCHMARK,
    "group_column": SettingsMessage.GROUP_COLUMN_WITH_BENCHMARK,
    "manifest": SettingsMessage.MANIFEST_WITH_BENCHMARK,
    "class_level": SettingsMessage.MANIFEST_WITH_BENCHMARK,
    "split_from": SettingsMessage.MANIFEST_WITH_BENCHMARK,
}


@dataclass(frozen=True)
class ParsedOptions:
    """The values of a recipe and of flags, validated without importing torch.

    Args:
        command: name of the command.
        values: explicit values by the name of the option.
        parts: parts of the settings, except `training`.
    """

    command: str
    values: Mapping[str, Any]
    parts: Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """The validated settings of one call of a command.

    Args:
        command: name of the command.
        values: explicit values of recipe and flags.
        overrides: those that differ from the defaults; saved as the recipe of the run.
        model: the checkpoint and the classifier (`ModelArguments`, `PretrainingModelArguments`).
        data: the images (`DataArguments`, `PretrainingDataArguments`).
        training: `FinetuningArguments` or `PretrainingArguments`.
        run: `RunModeArguments`.
        options: the other options of the command.
    """

    command: str
    values: Mapping[str, Any]
    overrides: dict[str, Any]
    model: Any = None
    data: Any = None
    training: Any = None
    run: Any = None
    options: Any = None

    def __post_init__(self) -> None:
        if self.command in ("crossval", "search") and self.training.push_to_hub:
            raise CommandLineError(SettingsMessage.SEVERAL_MODELS_CANNOT_BE_PUSHED, command=self.command)
        if self.command == "crossval" and self.options.centre_column and self.data.benchmark:
            raise CommandLineError(SettingsMessage.CENTRES_WITH_BENCHMARK)
        if self.command == "search" and self.training.world_size > 1:
            raise CommandLineError(SettingsMessage.SEARCH_NEEDS_ONE_PROCESS)
        if isinstance(self.training, FinetuningFields):
            self._check_ordered_options()

    def _check_ordered_options(self) -> None:
        """Checks the options for ordinal classes; those of a benchmark may be ordinal."""
        from .arguments import check_loss_fits_classes, check_selection_metric

        may_be_ordered = bool(self.data.class_order or self.data.benchmark)
        try:
            check_loss_fits_classes(self.training.loss, may_be_ordered)
            check_selection_metric(self.training, may_be_ordered)
        except UsageError as error:
            raise _as_command_line_error(error) from None

    def replace(self, **changes: Any) -> "Settings":
        """Returns settings with other values, validated together; nothing is parsed again."""
        return build_settings(parse_values(self.command, {**self.values, **changes}))


def read_values(command: str, recipe: str | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Reads and validates the values of a recipe and of flags, without importing torch.

    Raises:
        CommandLineError: If a name or value is not valid, or a required argument is missing.
    """
    options = command_options(command)
    aliases = {alias: option.name for option in options.values() for alias in option.aliases}
    values: dict[str, Any] = {}
    for location, given in ((f" in recipe {recipe}", read_recipe(recipe) if recipe else {}), ("", flags)):
        for name, value in given.items():
            name = aliases.get(name, name)
            if name not in options:
                suggestion = did_you_mean(name, options)
                raise CommandLineError(
                    SettingsMessage.UNKNOWN_FLAG, command=command, name=name, location=location, suggestion=suggestion
                )
            value = hide_credentials(options[name].read(value, location))
            if name.endswith("token"):
                remember_secret(value)
            if not location and name in DATA_OPTIONS and value != values.get(name, options[name].default):
                values.pop("data_fingerprint", None)  # of the recipe's data
            values[name] = value
    if find_command(command).is_training:
        _check_trainer_options(command, values, options)
    _check_local_paths(values)
    _check_required(command, values, options)
    return values


def _check_required(command: str, values: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    specification = find_command(command)
    missing = [
        f"{options[name].placeholder} (--{name})"
        if name in specification.positionals
        else f"--{name} {options[name].placeholder}"
        for name in specification.required
        if values.get(name) in (None, "", [])
    ]
    if missing:
        raise CommandLineError(SettingsMessage.MISSING_ARGUMENTS, names=missing, command=command)


def _check_local_paths(values: Mapping[str, Any]) -> None:
    for name in LOCAL_PATH_OPTIONS:
        if is_remote(str(values.get(name) or "")):
            raise CommandLineError(SettingsMessage.URL_NOT_SUPPORTED, name=name, value=values[name])


def _check_trainer_options(command: str, values: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    is_evaluated = PretrainingFields not in find_command(command).arg_classes
    for name, value in values.items():
        check_trainer_option(name, value, options[name].default)
        check_explicit_trainer_option(name, value, options[name].default, is_evaluated)


def parse_options(command: str, recipe: str | None, flags: Mapping[str, Any]) -> ParsedOptions:
    """Parses and validates a recipe and flags, except against the fields of transformers; does not import torch.

    Raises:
        CommandLineError: If a value is not valid, or values contradict each other.
    """
    return parse_values(command, read_values(command, recipe, flags))


def parse_values(command: str, values: Mapping[str, Any]) -> ParsedOptions:
    """Builds the parts of the settings from valid values, except `training`."""
    specification = find_command(command)
    _check_benchmark_options(values, command_options(command))
    parts = {
        PARTS.get(cls, "options"): _build_arguments(cls, {**specification.defaults, **values})
        for cls in specification.arg_classes
        if not issubclass(cls, MaeTrainingFields)
    }
    return ParsedOptions(command, values, parts)


def _check_benchmark_options(values: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """Checks that the benchmark exists, and that options apply with it, or without a benchmark.

    The options of `report` have no images; its benchmark may only be a table of published rows.
    """
    if "exclude_pairs" not in options:
        return
    given = {name for name, value in values.items() if value != options[name].default}
    if "benchmark" not in given:
        if given & {"split_file", "agreement", "fold"}:
            raise CommandLineError(SettingsMessage.BENCHMARK_OPTIONS_WITHOUT_BENCHMARK)
        return
    for name, message in BENCHMARK_CONFLICTS.items():
        if name in given:
            raise CommandLineError(message)
    _check_values_for_benchmark(str(values["benchmark"]), values)


def _check_values_for_benchmark(name: str, values: Mapping[str, Any]) -> None:
    from .benchmarks import find_benchmark

    benchmark = find_benchmark(name)
    fold, agreement = values.get("fold", 1), values.get("agreement")
    if benchmark.folds and not 1 <= fold <= benchmark.folds:
        raise CommandLineError(SettingsMessage.BENCHMARK_UNKNOWN_FOLD, benchmark=name, folds=benchmark.folds, fold=fold)
    agreements = benchmark.split_table.agreements
    if agreement and not agreements:
        raise CommandLineError(SettingsMessage.BENCHMARK_WITHOUT_AGREEMENTS, benchmark=name, agreement=agreement)
    if agreement and agreement not in agreements:
        raise CommandLineError(
            SettingsMessage.BENCHMARK_UNKNOWN_AGREEMENT, benchmark=name, agreements=agreements, agreement=agreement
        )
    if benchmark.has_groups and values.get("group_pattern"):
        raise CommandLineError(SettingsMessage.GROUP_PATTERN_WITH_BENCHMARK, benchmark=name)
    if benchmark.has_split and values.get("val_fraction"):
        raise CommandLineError(SettingsMessage.VAL_FRACTION_WITH_OFFICIAL_SPLIT, benchmark=name)


def build_settings(parsed: ParsedOptions) -> Settings:
    """Adds the training part, which needs transformers, and checks the parts against each other.

    Raises:
        CommandLineError: If values contradict each other.
    """
    specification = find_command(parsed.command)
    defaults, parts = dict(specification.defaults), dict(parsed.parts)
    if specification.is_training:
        from .arguments import get_device_defaults

        defaults |= get_device_defaults()
        fields_class = next(cls for cls in specification.arg_classes if issubclass(cls, MaeTrainingFields))
        explicit = [name for name in ("bf16", "fp16") if name in parsed.values]
        requested = next((name for name in explicit if parsed.values[name]), "no" if explicit else None)
        with override_precision(requested):  # a flag overrides the launcher
            parts["training"] = _build_arguments(_get_training_class(fields_class), {**defaults, **parsed.values})
    training = parts.get("training")
    used_precision = {name: True for name in ("bf16", "fp16") if getattr(training, name, False)}  # maybe the launcher's
    overrides = _non_default_values(parsed.command, {**parsed.values, **used_precision}, defaults)
    return Settings(parsed.command, parsed.values, overrides, **parts)


def parse_settings(command: str, recipe: str | None = None, **flags: Any) -> Settings:
    """Parses the settings of a command.

    Args:
        command: name of the command.
        recipe: name or file of a recipe.
        flags: values by the name of the flag.

    Raises:
        CommandLineError: If a value is not valid, or values contradict each other.
    """
    if recipe is not None and not find_command(command).reads_recipes:
        flags["recipe"] = recipe  # rejected as an unknown flag
        recipe = None
    return build_settings(parse_options(command, recipe, flags))


def _build_arguments(cls: type, values: Mapping[str, Any]) -> Any:
    names = {field.name for field in fields(cls) if field.init}
    try:
        return cls(**{name: value for name, value in values.items() if name in names})
    except UsageError as error:
        raise _as_command_line_error(error) from None
    except (ValueError, ImportError, TypeError) as error:  # raised by transformers
        raise CommandLineError(SettingsMessage.REJECTED_BY_TRANSFORMERS, error=summarize_exception(error)) from None


def _as_command_line_error(error: UsageError) -> CommandLineError:
    """Converts an error to a CommandLineError (exit status 2) with the same message."""
    return CommandLineError(error.code or str(error), **error.attributes)


def _get_training_class(fields_class: type) -> type:
    """Returns the subclass of transformers' `TrainingArguments` with these fields."""
    from .arguments import FinetuningArguments, PretrainingArguments

    return {FinetuningFields: FinetuningArguments, PretrainingFields: PretrainingArguments}[fields_class]


def _non_default_values(command: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    options = command_options(command)
    return {
        name: values[name]
        for name, option in options.items()
        if name in values and name not in EXCLUDED_FROM_RECIPES
        if values[name] != defaults.get(name, option.default)
    }
