"""The accelerate configs that ship with the package: one small file per way to run."""

from pathlib import Path

from ..errors import CommandLineError, UsageError, nearest

PACKAGE = Path(__file__).parents[1]
# In a wheel they lie inside the package; in a checkout beside it.
FOLDERS = (PACKAGE / "accelerate_configs", PACKAGE.parent / "accelerate_configs")


def launch_configs() -> dict[str, Path]:
    """The config files by name.

    Raises:
        UsageError: the installation lacks them.
    """
    for folder in FOLDERS:
        if found := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in found}
    raise UsageError(f"{FOLDERS[0]} is missing: install hf_mae again.")


def find_config(name: str) -> Path:
    """The file of a config.

    Raises:
        CommandLineError: there is none of this name.
    """
    known = launch_configs()
    if name not in known:
        raise CommandLineError(f"There is no config {name}{nearest(name, known)}: choose one of {', '.join(known)}.")
    return known[name]


def describe(path: Path) -> str:
    """What a config is for, from the comment at its head."""
    comment = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return " ".join(comment).split(": ")[0].split("; ")[0].split(" (")[0]
