"""Parses recipes, flags and Python arguments into the dataclasses of a command; flags override the recipe."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import CommandLineError, UsageError, did_you_mean, summarize_exception
from ..files.archive_members import is_remote
from .commands import command_options, find_command
from .data import CACHE_LIMIT_ENV, MAX_PIXELS_ENV, parse_byte_size
from .messages import SettingsMessage
from .options import Option
from .recipes import EXCLUDED_FROM_RECIPES, read_recipe
from .trainer_options import check_explicit_trainer_option, check_trainer_option
from .training import FinetuningFields, MaeTrainingFields, PretrainingFields

# Options whose value must be a local path, not a URL.
LOCAL_PATH_OPTIONS = (
    *("output_dir", "output", "features", "model_name_or_path", "teacher"),
    *("manifest", "exclude_pairs", "corrections", "class_map"),
)
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class Settings:
    """The parsed settings of one call of a command.

    Args:
        command: name of the command.
        arguments: the dataclasses of the command, in the order of the table of commands.
        overrides: values of the recipe and flags that differ from the defaults; saved as the recipe of the run.
    """

    command: str
    arguments: tuple[Any, ...]
    overrides: dict[str, Any]


def read_values(command: str, recipe: str | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Reads and validates the values of a recipe and of flags, without importing torch.

    Raises:
        CommandLineError: If a name or value is not valid, or a required argument is missing.
    """
    options = command_options(command)
    values: dict[str, Any] = {}
    for name, value in (read_recipe(recipe) if recipe else {}).items():
        if name not in options:
            suggestion = did_you_mean(name, options)
            raise CommandLineError(
                SettingsMessage.UNKNOWN_FLAG_IN_RECIPE,
                recipe=recipe,
                name=name,
                suggestion=suggestion,
                command=command,
            )
        values[name] = options[name].read(value, f" in recipe {recipe}")
    aliases = {alias: option.name for option in options.values() for alias in option.aliases}
    for name, value in flags.items():
        name = aliases.get(name, name)
        if name not in options:
            suggestion = did_you_mean(name, options)
            raise CommandLineError(SettingsMessage.UNKNOWN_FLAG, command=command, name=name, suggestion=suggestion)
        values[name] = options[name].read(value)
    if find_command(command).is_training:
        _check_trainer_options(values, options)
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


def _check_trainer_options(values: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    for name, value in values.items():
        try:
            check_trainer_option(name, value, options[name].default)
            check_explicit_trainer_option(name, value)
        except UsageError as error:
            raise _as_command_line_error(error) from None


def parse_settings(command: str, recipe: str | None = None, **flags: Any) -> Settings:
    """Parses the settings of a command.

    Args:
        command: name of the command.
        recipe: name or file of a recipe.
        flags: values by the name of the flag.

    Raises:
        CommandLineError: If a value is not valid, or values contradict each other.
    """
    values = read_values(command, recipe, flags)
    defaults = dict(find_command(command).defaults)
    if find_command(command).is_training:
        from .device_defaults import get_device_defaults

        defaults |= get_device_defaults()
    # Set in the environment, so that the limits also apply to the processes that this one starts.
    if "max_pixels" in values:
        os.environ[MAX_PIXELS_ENV] = str(values["max_pixels"])
    if values.get("cache_limit"):
        parse_byte_size(values["cache_limit"])
        os.environ[CACHE_LIMIT_ENV] = values["cache_limit"]
    arguments = tuple(
        _build_arguments(_resolve_class(cls), defaults | values) for cls in find_command(command).arg_classes
    )
    return Settings(command, arguments, _non_default_values(command, values, defaults))


def check_consistency(command: str, values: Mapping[str, Any]) -> None:
    """Checks values against each other, with the dataclasses that do not import torch.

    Raises:
        CommandLineError: If values contradict each other.
    """
    for cls in find_command(command).arg_classes:
        if not issubclass(cls, MaeTrainingFields):
            _build_arguments(cls, values)


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


def _resolve_class(cls: type) -> type:
    """Returns the subclass of transformers' `TrainingArguments` for training fields; other classes unchanged."""
    if not issubclass(cls, MaeTrainingFields):
        return cls
    from .arguments import FinetuningArguments, PretrainingArguments

    return {FinetuningFields: FinetuningArguments, PretrainingFields: PretrainingArguments}[cls]


def _non_default_values(command: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    options = command_options(command)
    return {
        name: values[name]
        for name, option in options.items()
        if name in values and name not in EXCLUDED_FROM_RECIPES
        if values[name] != defaults.get(name, option.default)
    }


def check_paths_exist(values: Mapping[str, Any]) -> None:
    """Checks that models and datasets that can only be local paths exist, before anything heavy is imported.

    Raises:
        UsageError: If a path does not exist.
    """
    for name in ("data_dir", "model_name_or_path", "manifest"):
        value = values.get(name)
        if isinstance(value, str) and looks_like_path(value) and not (is_remote(value) or os.path.exists(value)):
            raise UsageError(SettingsMessage.PATH_NOT_FOUND, path=value)


def looks_like_path(name: str) -> bool:
    """Whether a name is a path and cannot be a Hub id (`NAME` or `OWNER/NAME`)."""
    has_path_prefix = name.startswith((os.sep, ".", "~"))
    has_path_suffix = name.endswith((os.sep, *WEIGHT_SUFFIXES, ".csv", ".jsonl"))
    return has_path_prefix or has_path_suffix or name.count("/") > 1 or os.path.isdir(name.split("/")[0])
