"""The accelerate configs that ship with the package: one small file per way to run."""

from pathlib import Path

from ..errors import CommandLineError, UsageError, did_you_mean

PACKAGE_DIR = Path(__file__).parents[1]
# In a wheel they lie inside the package; in a checkout beside it.
CONFIG_DIRS = (PACKAGE_DIR / "accelerate_configs", PACKAGE_DIR.parent / "accelerate_configs")


def list_launch_configs() -> dict[str, Path]:
    """The config files by name.

    Raises:
        UsageError: the installation lacks them.
    """
    for folder in CONFIG_DIRS:
        if found := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in found}
    raise UsageError(f"{CONFIG_DIRS[0]} is missing: install hf_mae again.")


def find_launch_config(name: str) -> Path:
    """The file of a config.

    Raises:
        CommandLineError: there is none of this name.
    """
    known = list_launch_configs()
    if name not in known:
        raise CommandLineError(
            f"There is no config {name}{did_you_mean(name, known)}: choose one of {', '.join(known)}."
        )
    return known[name]


def describe_launch_config(path: Path) -> str:
    """What a config is for, from the comment at its head."""
    comment = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return " ".join(comment).split(": ")[0].split("; ")[0].split(" (")[0]
