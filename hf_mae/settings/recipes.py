"""Recipes: YAML files of settings, from the package or from the user."""

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import CommandLineError, did_you_mean, summarize_exception
from .messages import SettingsMessage

# Flags that affect one launch and not its result.
EXCLUDED_FROM_RECIPES = (
    *("resume_from_checkpoint", "overwrite_output_dir", "local_rank", "hub_token"),
    *("auto", "dry_run"),  # the recipe contains the settings that --auto selected
    "data_fingerprint",  # of the recipe that was read; that of the run is added when its recipe is written
)
# Flags that may differ between the runs of a cross-validation or a search that resumes.
WITHOUT_EFFECT_ON_RESULTS = {
    *("output_dir", "cache", "preprocessing_num_workers", "dataloader_num_workers", "dataloader_pin_memory"),
    *("disable_tqdm", "report_to", "logging_steps", "save_total_limit", "use_cpu", "data_dir", "split_file", "trials"),
    "data_fingerprint",
}

RECIPES_DIR = Path(__file__).parents[1] / "recipes"  # valid for a wheel and for an editable install


def list_recipes() -> dict[str, Path]:
    """Returns the files of the recipes of the package, by name."""
    return {path.stem: path for path in sorted(RECIPES_DIR.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Returns the file of a recipe, given its path or the name of a recipe of the package.

    Raises:
        CommandLineError: If the recipe does not exist.
    """
    for path in (Path(name), RECIPES_DIR / f"{name}.yaml"):
        if path.is_file():
            return path
    known = list(list_recipes())
    raise CommandLineError(SettingsMessage.UNKNOWN_RECIPE, name=name, suggestion=did_you_mean(name, known), known=known)


def read_recipe(name: str) -> dict[str, Any]:
    """Reads the settings of a recipe.

    Raises:
        CommandLineError: If the recipe does not exist or is not valid.
    """
    import yaml

    path = find_recipe(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
        has_aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader))
        values = {} if has_aliases else yaml.safe_load(text) or {}
        root = None if has_aliases else yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CommandLineError(SettingsMessage.RECIPE_NOT_YAML, path=path, error=summarize_exception(error)) from None
    if has_aliases:  # a few lines of nested aliases can expand to any size ("billion laughs")
        raise CommandLineError(SettingsMessage.RECIPE_WITH_ALIASES, path=path)
    if not isinstance(values, dict):
        raise CommandLineError(SettingsMessage.RECIPE_NOT_A_MAPPING, path=path)
    names = Counter(str(key.value) for key, _ in root.value) if isinstance(root, yaml.MappingNode) else Counter()
    if repeated := [name for name, count in names.items() if count > 1]:
        raise CommandLineError(SettingsMessage.RECIPE_REPEATS_NAMES, path=path, names=repeated)
    return {str(key): value for key, value in values.items()}


def render_recipe(overrides: Mapping[str, Any], comments: Mapping[str, Any]) -> str:
    """Renders the settings of a run as YAML; the run can be repeated with `--recipe` and this file.

    Args:
        overrides: `overrides` of `parse.Settings`.
        comments: facts of the run (effective batch size, versions, ...) for the header.
    """
    import yaml

    header = "".join(f"# {name}: {value}\n" for name, value in comments.items())
    values = {name: value.value if isinstance(value, Enum) else value for name, value in overrides.items()}
    return header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
