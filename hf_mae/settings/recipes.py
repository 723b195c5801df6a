"""Recipes: YAML files of settings, from the package or from the user."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import CommandLineError, did_you_mean
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
    from .yaml_files import read_yaml

    return read_yaml(find_recipe(name))


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
