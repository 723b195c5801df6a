"""Recipes, flags and arguments of workflows -> the dataclasses of a verb: a recipe's values come first, flags win."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import CommandLineError, UsageError, nearest, one_line
from ..files.members import is_remote
from .data import CACHE_LIMIT_VARIABLE, MAX_PIXELS_VARIABLE, bytes_of
from .recipes import NOT_PART_OF_A_RECIPE, read_recipe
from .trainer_options import refuse_option, refuse_written_option
from .training import FinetuningFields, PretrainingFields, ReferenceFields
from .verbs import find_verb, options_of_verb

PLACES_HERE = (
    *("output_dir", "output", "destination", "features", "source", "model_name_or_path", "teacher"),
    *("manifest", "exclude_pairs", "corrections", "class_map"),
)
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class Settings:
    """The filled settings of one call of a verb.

    Args:
        parts: the verb's dataclasses, in the order of its table.
        given: what recipe and flags gave where it differs from the defaults: what a recipe of the run holds.
    """

    verb: str
    parts: tuple[Any, ...]
    given: dict[str, Any]


def read_values(verb: str, recipe: str | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a recipe and flags give, checked and as their types, without anything that has to be imported.

    Raises:
        CommandLineError: a name or value that is not known, or a required one that is missing.
    """
    options = options_of_verb(verb)
    values: dict[str, Any] = {}
    for name, value in (read_recipe(recipe) if recipe else {}).items():
        if name not in options:
            raise CommandLineError(f"The recipe {recipe} has an unknown name: {name}{nearest(name, options)}.")
        values[name] = options[name].read(value, f"The recipe {recipe}")
    spelled = {other: item.name for item in options.values() for other in item.also}
    for name, value in flags.items():
        name = spelled.get(name, name)
        if name not in options:
            raise CommandLineError(f"{verb} takes no {name}{nearest(name, options)}.")
        values[name] = options[name].read(value, f"hf-mae {verb}")
    if find_verb(verb).trains:
        _refuse_trainer_options(values, options)
    _refuse_urls(values)
    missing = [f"--{name}" for name in find_verb(verb).required if values.get(name) in (None, "", [])]
    if missing:
        raise CommandLineError(f"missing: {' and '.join(missing)} (see hf-mae {verb} --help).")
    return values


def _refuse_urls(values: Mapping[str, Any]) -> None:
    for name in PLACES_HERE:
        if is_remote(str(values.get(name) or "")):
            raise CommandLineError(
                f"--{name} {values[name]} is a URL, and only data (--data_dir, IMAGES) is read from URLs: name a place "
                "on this machine."
            )


def _refuse_trainer_options(values: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    for name, value in values.items():
        try:
            refuse_option(name, value, options[name].default)
            refuse_written_option(name, value)
        except UsageError as error:
            raise CommandLineError(str(error)) from None


def fill(verb: str, recipe: str | None = None, **flags: Any) -> Settings:
    """The settings of a verb, from a recipe and from flags (spelled as on the command line).

    Raises:
        CommandLineError: as of `read_values`, or the values do not go together.
    """
    values = read_values(verb, recipe, flags)
    defaults = dict(find_verb(verb).defaults)
    if find_verb(verb).trains:
        from .machine import machine_defaults

        defaults |= machine_defaults()
    if "max_pixels" in values:
        _bound_pixels(values["max_pixels"])
    if values.get("cache_limit"):
        bytes_of(values["cache_limit"])
        os.environ[CACHE_LIMIT_VARIABLE] = values["cache_limit"]
    parts = tuple(_filled(_whole_kind(light), defaults | values) for light in find_verb(verb).kinds)
    return Settings(verb, parts, _differing(verb, values, defaults))


def _bound_pixels(largest: int) -> None:
    """The bound holds for the processes and threads that this one starts, too: so it stands in the environment."""
    os.environ[MAX_PIXELS_VARIABLE] = str(largest)


def refuse_misfits(verb: str, values: Mapping[str, Any]) -> None:
    """Refuses values that do not go together, as far as dataclasses tell that need no import.

    Raises:
        CommandLineError: they do not.
    """
    for kind in find_verb(verb).kinds:
        if not issubclass(kind, ReferenceFields):
            _filled(kind, values)


def _filled(kind: type, values: Mapping[str, Any]) -> Any:
    own = {field.name for field in fields(kind) if field.init}
    try:
        return kind(**{name: value for name, value in values.items() if name in own})
    except UsageError as error:
        raise CommandLineError(str(error)) from None
    except (ValueError, ImportError, TypeError) as error:  # what transformers says of its own fields
        raise CommandLineError(one_line(error)) from None


def _whole_kind(light: type) -> type:
    """The dataclass that joins light training fields with transformers' own."""
    if not issubclass(light, ReferenceFields):
        return light
    from .arguments import FinetuningArguments, PretrainingArguments

    return {FinetuningFields: FinetuningArguments, PretrainingFields: PretrainingArguments}[light]


def _differing(verb: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    options = options_of_verb(verb)
    return {
        name: values[name]
        for name, option in options.items()
        if name in values and name not in NOT_PART_OF_A_RECIPE
        if values[name] != defaults.get(name, option.default)
    }


def refuse_missing_paths(values: Mapping[str, Any]) -> None:
    """Refuses a model or data set that can only be a path, and is not there, before anything is imported for it.

    Raises:
        UsageError: it does not exist.
    """
    for name in ("data_dir", "model_name_or_path", "source", "manifest"):
        value = values.get(name)
        if isinstance(value, str) and can_only_be_a_path(value) and not (is_remote(value) or os.path.exists(value)):
            raise UsageError(f"{value} does not exist.")


def can_only_be_a_path(name: str) -> bool:
    """Whether a name cannot be that of something on the Hub (`NAME` or `OWNER/NAME`)."""
    starts = name.startswith((os.sep, ".", "~"))
    ends = name.endswith((os.sep, *WEIGHT_SUFFIXES, ".csv", ".jsonl"))
    return starts or ends or name.count("/") > 1 or os.path.isdir(name.split("/")[0])
