"""`configs`: looks up the accelerate configs."""

from pathlib import Path

from ..settings.accelerate_configs import find_launch_config, list_launch_configs
from ..settings.parse import Settings
from .command import command


@command("configs")
def configs(settings: Settings) -> dict[str, Path]:
    """Looks up the files of the accelerate configs by name, or the one of a name."""
    name = settings.options.name
    return {name: find_launch_config(name)} if name else list_launch_configs()
