"""Recipes: YAML files of settings, those of the package and one's own."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import CommandLineError, did_you_mean, summarize_exception

# Flags of one launch, not of the result: never written into the recipe of a run.
EXCLUDED_FROM_RECIPES = (
    *("resume_from_checkpoint", "overwrite_output_dir", "local_rank", "hub_token"),
    *("auto", "dry_run"),  # what was chosen stands there itself
)

RECIPES_DIR = Path(__file__).parents[1] / "recipes"  # found in a wheel and in an editable install alike


def recipe_names() -> list[str]:
    """The recipes of the package."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe that ships with the package, or a path to one's own.

    Raises:
        CommandLineError: there is none.
    """
    for path in (Path(name), RECIPES_DIR / f"{name}.yaml"):
        if path.is_file():
            return path
    known = recipe_names()
    raise CommandLineError(
        f"There is no recipe {name}{did_you_mean(name, known)}: it is a file, or one of {', '.join(known)}."
    )


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe, as YAML reads them.

    Raises:
        CommandLineError: there is no such recipe, or it is not one.
    """
    import yaml

    path = find_recipe(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
        repeats = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader))
        values = {} if repeats else yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CommandLineError(f"{path} is no YAML ({summarize_exception(error)}).") from None
    if repeats:  # a few lines of which can stand for more than any memory holds
        raise CommandLineError(f"{path} repeats values by reference (&name, *name): write them out.")
    if not isinstance(values, dict):
        raise CommandLineError(f"{path} must hold `name: value` lines.")
    return {str(key): value for key, value in values.items()}


def render_recipe(overrides: Mapping[str, Any], comments: Mapping[str, Any]) -> str:
    """YAML of what recipe and flags gave, so that `--recipe` of it repeats the run.

    Args:
        overrides: of `fill.Settings`.
        comments: facts of the run (effective batch, versions...) for the header.
    """
    import yaml

    header = "".join(f"# {name}: {value}\n" for name, value in comments.items())
    values = {name: value.value if isinstance(value, Enum) else value for name, value in overrides.items()}
    return header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
