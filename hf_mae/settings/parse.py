"""Recipes, flags and arguments of workflows -> the dataclasses of a verb: a recipe's values come first, flags win."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import CommandLineError, UsageError, did_you_mean, summarize_exception
from ..files.archive_members import is_remote
from .commands import command_options, find_command
from .data import CACHE_LIMIT_ENV, MAX_PIXELS_ENV, parse_byte_size
from .recipes import EXCLUDED_FROM_RECIPES, read_recipe
from .trainer_options import check_explicit_trainer_option, check_trainer_option
from .training import FinetuningFields, MaeTrainingFields, PretrainingFields

LOCAL_PATH_OPTIONS = (
    *("output_dir", "output", "destination", "features", "source", "model_name_or_path", "teacher"),
    *("manifest", "exclude_pairs", "corrections", "class_map"),
)
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class Settings:
    """The filled settings of one call of a verb.

    Args:
        arguments: the verb's dataclasses, in the order of its table.
        overrides: what recipe and flags gave where it differs from the defaults: what a recipe of the run holds.
    """

    command: str
    arguments: tuple[Any, ...]
    overrides: dict[str, Any]


def read_values(command: str, recipe: str | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a recipe and flags give, checked and as their types, without anything that has to be imported.

    Raises:
        CommandLineError: a name or value that is not known, or a required one that is missing.
    """
    options = command_options(command)
    values: dict[str, Any] = {}
    for name, value in (read_recipe(recipe) if recipe else {}).items():
        if name not in options:
            raise CommandLineError(f"The recipe {recipe} has an unknown name: {name}{did_you_mean(name, options)}.")
        values[name] = options[name].read(value, f"The recipe {recipe}")
    spelled = {other: item.name for item in options.values() for other in item.aliases}
    for name, value in flags.items():
        name = spelled.get(name, name)
        if name not in options:
            raise CommandLineError(f"{command} takes no {name}{did_you_mean(name, options)}.")
        values[name] = options[name].read(value, f"hf-mae {command}")
    if find_command(command).is_training:
        _check_trainer_options(values, options)
    _check_local_paths(values)
    missing = [f"--{name}" for name in find_command(command).required if values.get(name) in (None, "", [])]
    if missing:
        raise CommandLineError(f"missing: {' and '.join(missing)} (see hf-mae {command} --help).")
    return values


def _check_local_paths(values: Mapping[str, Any]) -> None:
    for name in LOCAL_PATH_OPTIONS:
        if is_remote(str(values.get(name) or "")):
            raise CommandLineError(
                f"--{name} {values[name]} is a URL, and only data (--data_dir, IMAGES) is read from URLs: name a place "
                "on this machine."
            )


def _check_trainer_options(values: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    for name, value in values.items():
        try:
            check_trainer_option(name, value, options[name].default)
            check_explicit_trainer_option(name, value)
        except UsageError as error:
            raise CommandLineError(str(error)) from None


def parse_settings(command: str, recipe: str | None = None, **flags: Any) -> Settings:
    """The settings of a verb, from a recipe and from flags (spelled as on the command line).

    Raises:
        CommandLineError: as of `read_values`, or the values do not go together.
    """
    values = read_values(command, recipe, flags)
    defaults = dict(find_command(command).defaults)
    if find_command(command).is_training:
        from .device_defaults import get_device_defaults

        defaults |= get_device_defaults()
    if "max_pixels" in values:
        _export_max_pixels(values["max_pixels"])
    if values.get("cache_limit"):
        parse_byte_size(values["cache_limit"])
        os.environ[CACHE_LIMIT_ENV] = values["cache_limit"]
    parts = tuple(
        _build_arguments(_resolve_class(light), defaults | values) for light in find_command(command).arg_classes
    )
    return Settings(command, parts, _non_default_values(command, values, defaults))


def _export_max_pixels(max_pixels: int) -> None:
    """The bound holds for the processes and threads that this one starts, too: so it stands in the environment."""
    os.environ[MAX_PIXELS_ENV] = str(max_pixels)


def check_consistency(command: str, values: Mapping[str, Any]) -> None:
    """Refuses values that do not go together, as far as dataclasses tell that need no import.

    Raises:
        CommandLineError: they do not.
    """
    for kind in find_command(command).arg_classes:
        if not issubclass(kind, MaeTrainingFields):
            _build_arguments(kind, values)


def _build_arguments(cls: type, values: Mapping[str, Any]) -> Any:
    own = {field.name for field in fields(cls) if field.init}
    try:
        return cls(**{name: value for name, value in values.items() if name in own})
    except UsageError as error:
        raise CommandLineError(str(error)) from None
    except (ValueError, ImportError, TypeError) as error:  # what transformers says of its own fields
        raise CommandLineError(summarize_exception(error)) from None


def _resolve_class(cls: type) -> type:
    """The dataclass that joins light training fields with transformers' own."""
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
    """Refuses a model or data set that can only be a path, and is not there, before anything is imported for it.

    Raises:
        UsageError: it does not exist.
    """
    for name in ("data_dir", "model_name_or_path", "source", "manifest"):
        value = values.get(name)
        if isinstance(value, str) and looks_like_path(value) and not (is_remote(value) or os.path.exists(value)):
            raise UsageError(f"{value} does not exist.")


def looks_like_path(name: str) -> bool:
    """Whether a name cannot be that of something on the Hub (`NAME` or `OWNER/NAME`)."""
    starts = name.startswith((os.sep, ".", "~"))
    ends = name.endswith((os.sep, *WEIGHT_SUFFIXES, ".csv", ".jsonl"))
    return starts or ends or name.count("/") > 1 or os.path.isdir(name.split("/")[0])
