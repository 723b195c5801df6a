"""Settings of `crossval`."""

from dataclasses import dataclass

from ..errors import UsageError
from .messages import SettingsMessage
from .options import option


@dataclass
class CrossvalArguments:
    """The folds, seeds and training fractions of the runs."""

    option_group = "Runs"

    folds: str = option(
        "official",
        "Number of folds, or official: the folds of a benchmark, or the validation split of the data.",
        metavar="N",
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
        if self.folds != "official" and not self.folds.isdigit():
            raise UsageError(SettingsMessage.INVALID_FOLDS, value=self.folds)
