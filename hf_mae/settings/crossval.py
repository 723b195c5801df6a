"""Settings of `crossval`."""

from dataclasses import dataclass

from ..errors import UsageError
from .messages import SettingsMessage
from .options import option

EACH = "each:"  # begins the value of `--folds` that names a column


@dataclass
class CrossvalArguments:
    """The folds, seeds and training fractions of the runs."""

    option_group = "Runs"

    folds: str = option(
        "official",
        "Number of folds; official: the folds of a benchmark, or the validation split of the data; each:COLUMN: leave "
        "one centre out (or device, country...), one fold per value of a column of the manifest.",
        metavar="N",
    )
    random_folds: bool = option(
        False,
        "With --folds each:COLUMN, also train as many random folds, and report the gap: how much the scores of unseen "
        "centres are below those of seen ones.",
        hidden=True,
    )
    seeds: list[int] = option([0], "Random seeds; every fold is trained with each of them.", ge=0, le=2**32 - 1)
    train_fractions: list[float] | None = option(
        None,
        "Fractions of the training set (learning curve); every fold and seed is trained with each of them. Default: "
        "--train_fraction.",
        metavar="FRACTION",
        gt=0,
        le=1,
    )

    def __post_init__(self) -> None:
        if self.folds != "official" and not self.folds.isdigit() and not self.centre_column:
            raise UsageError(SettingsMessage.INVALID_FOLDS, value=self.folds)
        if self.random_folds and not self.centre_column:
            raise UsageError(SettingsMessage.RANDOM_FOLDS_WITHOUT_CENTRES)

    @property
    def centre_column(self) -> str | None:
        """Column of the manifest whose values are left out in turn; None: other folds."""
        return self.folds.removeprefix(EACH).strip() or None if self.folds.startswith(EACH) else None
