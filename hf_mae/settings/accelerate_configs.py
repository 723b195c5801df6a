"""Accelerate configs that ship with the package: one small file per launch mode."""

from pathlib import Path

from ..errors import CommandLineError, UsageError, did_you_mean
from .messages import SettingsMessage

PACKAGE_DIR = Path(__file__).parents[1]
# In a wheel, the folder is inside the package; in a checkout, next to it.
CONFIG_DIRS = (PACKAGE_DIR / "accelerate_configs", PACKAGE_DIR.parent / "accelerate_configs")


def list_launch_configs() -> dict[str, Path]:
    """Returns the config files by name.

    Raises:
        UsageError: If the installation does not contain them.
    """
    for folder in CONFIG_DIRS:
        if paths := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in paths}
    raise UsageError(SettingsMessage.CONFIGS_MISSING, path=CONFIG_DIRS[0])


def find_launch_config(name: str) -> Path:
    """Returns the file of a config.

    Raises:
        CommandLineError: If the name is unknown.
    """
    configs = list_launch_configs()
    if name not in configs:
        suggestion = did_you_mean(name, configs)
        raise CommandLineError(SettingsMessage.UNKNOWN_CONFIG, name=name, suggestion=suggestion, known=list(configs))
    return configs[name]


def describe_launch_config(path: Path) -> str:
    """Returns the first phrase of the comment at the top of a config."""
    comment = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return " ".join(comment).split(": ")[0].split("; ")[0].split(" (")[0]
