"""Settings of the verbs that look at many runs or many images: crossval and audit; and of the lists."""

from dataclasses import dataclass

from .data import DataSourceArguments
from .options import option

PAIRS_PER_SHEET = 24


@dataclass
class CrossvalArguments:
    """Which runs."""

    folds: str = option(
        "official",
        "official (a benchmark's, or the data's own validation split), or a number of folds.",
        show_in_help=True,
        group="Runs",
    )
    seeds: list[int] = option(
        [0], "Seeds, each a run of every fold.", show_in_help=True, group="Runs", ge=0, le=2**32 - 1
    )
    train_fractions: list[float] | None = option(
        None,
        "Shares of the training labels, each a run of every fold and seed.",
        show_in_help=True,
        group="Runs",
        gt=0,
        le=1,
    )


# What may be searched, and how: (smallest, largest, step); without a step on a logarithmic scale. The learning rate is
# a factor of what is asked for, since its size depends on the batch.
SEARCH_SPACE: dict[str, tuple[float, float, float | None]] = {
    "learning_rate": (0.1, 10.0, None),
    "layer_decay": (0.5, 1.0, 0.05),
    "drop_path": (0.0, 0.4, 0.1),
    "weight_decay": (0.005, 0.5, None),
    "smoothing": (0.0, 0.2, 0.05),
    "warmup_epochs": (0.0, 10.0, 1.0),
}
DEFAULT_SEARCH_OPTIONS = ("learning_rate", "layer_decay", "drop_path", "weight_decay")  # where --search does not say


@dataclass
class SearchArguments:
    """How much is tried."""

    trials: int = option(
        20, "Trials, with those of an interrupted search in the same folder.", show_in_help=True, group="Search", ge=1
    )
    search: list[str] | None = option(
        None,
        f"What is searched: {', '.join(SEARCH_SPACE)}. Not given: {', '.join(DEFAULT_SEARCH_OPTIONS)}.",
        show_in_help=True,
        group="Search",
        metavar="NAME",
    )


@dataclass
class EnsembleArguments:
    """Which models become one."""

    runs: list[str] | None = option(
        None,
        "Runs of finetune with the same classes, Hub ids, or a cross-validation, which stands for its runs.",
        show_in_help=True,
        group="Runs",
        metavar="RUN",
    )
    output_dir: str | None = option(None, "The folder of the ensemble.", show_in_help=True, group="Output")
    overwrite: bool = option(False, "Replace the folder.", show_in_help=True, group="Output")


@dataclass
class AuditArguments(DataSourceArguments):
    """What is audited, and how near a duplicate is."""

    output_dir: str | None = option(
        None, "Where the CSVs and the contact sheets go.", show_in_help=True, group="Output"
    )
    unlabelled: bool = option(
        False, "data_dir is any tree of images, without classes.", show_in_help=True, group="Data"
    )
    labels: list[str] | None = option(
        None,
        "Runs, or a cross-validation: which labels may be wrong, by models that were not trained on the image.",
        show_in_help=True,
        group="Audit",
        metavar="RUN",
    )
    max_hash_distance: int = option(
        8, "Bits of 64 by which the hashes of a candidate may differ.", show_in_help=True, group="Audit", ge=0, le=64
    )
    min_similarity: float = option(
        0.6, "Structural similarity (0 to 1) that confirms a candidate.", show_in_help=True, group="Audit", ge=0, le=1
    )
    min_detail: float = option(
        0.5, "And correlation of the fine detail (0 to 1).", show_in_help=True, group="Audit", ge=0, le=1
    )
    max_sheets: int = option(
        20,
        f"Contact sheets at most, of {PAIRS_PER_SHEET} pairs or images each.",
        show_in_help=True,
        group="Output",
        ge=0,
    )


@dataclass
class RecipesArguments:
    """Which recipes are listed or shown."""

    action: str = option("list", "What to do.", choices=("list", "show"), show_in_help=True)
    name: str | None = option(None, "Of the recipe to show.", show_in_help=True)


@dataclass
class BenchmarksArguments:
    """Which benchmarks are listed."""

    name: str | None = option(
        None, "Show this one (of the list, or a YAML file): what it is and expects.", show_in_help=True
    )


@dataclass
class CompletionArguments:
    """For which shell completion is printed."""

    shell: str | None = option(None, "The shell.", choices=("bash", "zsh"), show_in_help=True)


@dataclass
class TranslateArguments:
    """Which command is translated."""

    command: list[str] | None = option(
        None,
        "The command, in quotes: of facebookresearch/mae's or RETFound's main_finetune.py, or timm's train.py.",
        show_in_help=True,
        metavar="COMMAND",
    )


@dataclass
class CheckpointsArguments:
    """Which public checkpoints are listed, shown or fetched."""

    action: str = option("list", "What to do.", choices=("list", "show", "fetch"), show_in_help=True)
    name: str | None = option(None, "Of the checkpoint to show or fetch.", show_in_help=True)


@dataclass
class CacheArguments:
    """What is done with what is kept."""

    action: str = option("list", "What to do.", choices=("list", "check", "remove"), show_in_help=True)
    name: str | None = option(None, "Of the part to remove, as the list has it; all: everything.", show_in_help=True)


@dataclass
class ConfigsArguments:
    """Which accelerate configs are listed."""

    name: str | None = option(None, "Print the path of this one alone.", show_in_help=True)
