"""`recipes`: looks up the recipes."""

from pathlib import Path

from ..settings.parse import Settings
from ..settings.recipes import find_recipe, list_recipes
from .command import command


@command("recipes")
def recipes(settings: Settings) -> dict[str, Path]:
    """Looks up the files of the recipes by name, or the one of a name or path."""
    name = settings.options.name
    return {name: find_recipe(name)} if name else list_recipes()
