"""Settings of the commands that list and show: recipes, benchmarks, checkpoints, configs, cache, completion."""

from dataclasses import dataclass

from ..errors import UsageError
from .messages import SettingsMessage
from .options import option


@dataclass
class RecipesArguments:
    """The recipe to show."""

    name: str | None = option(None, "Recipe to show: a name of the list or a YAML file. Default: list all.")


@dataclass
class BenchmarksArguments:
    """The benchmark to show."""

    name: str | None = option(None, "Benchmark to show: a name of the list or a YAML file. Default: list all.")


@dataclass
class CompletionArguments:
    """The shell to complete in."""

    shell: str | None = option(None, "Shell.", choices=("bash", "zsh"))


@dataclass
class CheckpointsArguments:
    """The public checkpoint to show or fetch."""

    action: str = option("list", "Action.", choices=("list", "show", "fetch"))
    name: str | None = option(None, "Checkpoint to show or fetch.")

    def __post_init__(self) -> None:
        if self.action != "list" and not self.name:
            raise UsageError(SettingsMessage.NAME_REQUIRED, action=self.action)


@dataclass
class CacheArguments:
    """The part of the cache to check or remove."""

    action: str = option("list", "Action.", choices=("list", "check", "remove"))
    name: str | None = option(None, "Entry of the list to remove, or all for the complete cache.")

    def __post_init__(self) -> None:
        if self.action == "remove" and not self.name:
            raise UsageError(SettingsMessage.NAME_REQUIRED, action=self.action)


@dataclass
class ConfigsArguments:
    """The accelerate config to print the path of."""

    name: str | None = option(None, "Config whose path is printed. Default: list all.")
