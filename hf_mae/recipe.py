"""Recipes and flags -> dataclasses: a recipe's values come first, flags win, and a mistyped name is an error."""

import dataclasses
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import yaml

from .errors import UsageError, nearest

# Flags of one launch, not of the result: never written into the recipe of a run.
NOT_PART_OF_A_RECIPE = ("resume_from_checkpoint", "overwrite_output_dir", "local_rank", "hub_token")

RECIPES = Path(__file__).parent / "recipes"  # found in a wheel and in an editable install alike


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe that ships with the package, or a path to one's own."""
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    known = recipe_names()
    raise UsageError(f"There is no recipe {name}{nearest(name, known)}: it is a file, or one of {', '.join(known)}.")


def read_recipe(name: str) -> dict[str, Any]:
    path = find_recipe(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold `name: value` lines.")
    return values


def parse(
    verb: str,
    description: str,
    dataclass_types: list[type],
    argv: list[str],
    defaults: dict[str, Any] | None = None,
    required: Iterable[str] = (),
) -> tuple[list[Any], dict[str, Any]]:
    """Fills dataclasses from `defaults`, then `--recipe`, then flags.

    Args:
        defaults: of this verb, where they differ from the dataclasses' own.
        required: fields that must be given by recipe or flag.

    Returns:
        The dataclasses, and what recipe and flags gave where it differs from the defaults.

    Raises:
        UsageError: a name or value that is not known, or a required one that is missing.
    """
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{message} (see hf-mae {verb} --help).")

    parser = Parser(dataclass_types, prog=f"hf-mae {verb}", description=description, allow_abbrev=False)
    parser.add_argument("--recipe", help="A recipe of the package (hf-mae recipes) or a YAML file; flags win over it.")
    fields = {field.name: field for kind in dataclass_types for field in dataclasses.fields(kind) if field.init}
    actions = {action.dest: action for action in parser._actions if action.dest in fields}

    finder = Parser(prog=f"hf-mae {verb}", add_help=False, allow_abbrev=False)
    finder.add_argument("--recipe")
    recipe = finder.parse_known_args(argv)[0].recipe
    values = dict(defaults or {})
    if recipe:
        for name, value in read_recipe(recipe).items():
            if name not in fields:
                raise UsageError(f"The recipe {recipe} has an unknown name: {name}{nearest(name, fields)}.")
            values[name] = _as_flag(value, actions[name], f"The recipe {recipe}")
    for name, value in values.items():
        for action in (a for a in parser._actions if a.dest == name):
            action.default, action.required = value, False

    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        flag = unknown[0].split("=")[0]
        names = [f"--{name}" for name in fields]
        raise UsageError(f"there is no flag {flag}{nearest(flag.replace('-', '_').replace('__', '--', 1), names)}.")
    if missing := [f"--{name}" for name in required if getattr(namespace, name) in (None, "")]:
        raise UsageError(f"missing: {' and '.join(missing)} (see hf-mae {verb} --help).")
    filled = []
    for kind in dataclass_types:
        names = [field.name for field in dataclasses.fields(kind) if field.init]
        try:
            filled.append(kind(**{name: getattr(namespace, name) for name in names}))
        except (ValueError, ImportError) as error:
            raise UsageError(" ".join(str(error).split())) from None
    given = {
        name: value
        for name in fields
        if (value := getattr(namespace, name)) != (defaults or {}).get(name, _default(fields[name]))
        and name not in NOT_PART_OF_A_RECIPE
    }
    return filled, given


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _as_flag(value: Any, action, where: str) -> Any:
    """A YAML value as the flag would have parsed it (YAML reads `1e-3` as text)."""
    if value is None:
        return None
    if action.nargs == "+":
        values = value if isinstance(value, list) else [value]
        return [str(item) if action.type is str else item for item in values]
    if isinstance(value, str) and action.type is not None or isinstance(value, int) and action.type is float:
        try:
            value = action.type(value)
        except Exception:
            raise UsageError(f"{where} gives {action.dest} the value {value!r}, which it cannot take.") from None
    if action.choices is not None and value not in action.choices:
        raise UsageError(
            f"{where} gives {action.dest} the value {value!r}; it takes one of {', '.join(map(str, action.choices))}."
        )
    return value


def recipe_as_run(given: dict[str, Any], comments: dict[str, Any]) -> str:
    """YAML of what recipe and flags gave, so that `--recipe` of it repeats the run.

    Args:
        given: of `parse`.
        comments: facts of the run (effective batch, versions...) for the header.
    """
    header = "".join(f"# {name}: {value}\n" for name, value in comments.items())
    values = {name: value.value if isinstance(value, Enum) else value for name, value in given.items()}
    return header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
