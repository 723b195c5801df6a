"""`hf-mae configs [NAME]`: the accelerate configs that ship with the package."""

from pathlib import Path

from .cli import Parser
from .errors import UsageError, nearest

# In a wheel they lie inside the package; in a checkout beside it.
FOLDERS = (Path(__file__).parent / "accelerate_configs", Path(__file__).parents[1] / "accelerate_configs")


def configs() -> dict[str, Path]:
    """The config files by name.

    Raises:
        UsageError: the installation lacks them.
    """
    for folder in FOLDERS:
        if found := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in found}
    raise UsageError(f"{FOLDERS[0]} is missing: install hf_mae again.")


def main(argv: list[str]) -> int:
    parser = Parser(
        "configs",
        "The ways to run under `accelerate launch --config_file $(hf-mae configs NAME) -m hf_mae finetune ...`.",
    )
    parser.add_argument("name", nargs="?", help="print the path of this one alone")
    options = parser.parse_args(argv)
    known = configs()
    if options.name:
        if options.name not in known:
            hint = nearest(options.name, known)
            raise UsageError(f"There is no config {options.name}{hint}: choose one of {', '.join(known)}.")
        print(known[options.name])
        return 0
    print(next(iter(known.values())).parent)
    for name, path in known.items():
        comment = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        print(f"  {name:12} {' '.join(comment).split(': ')[0].split('; ')[0].split(' (')[0]}")
    return 0
