"""Settings of `search`."""

from dataclasses import dataclass

from ..errors import UsageError
from .messages import SettingsMessage
from .options import option

# Range of each hyper-parameter: (low, high, step); log-uniform without a step. The range of the learning rate is a
# factor of the requested rate, because the rate depends on the batch size.
SEARCH_SPACE: dict[str, tuple[float, float, float | None]] = {
    "learning_rate": (0.1, 10.0, None),
    "layer_decay": (0.5, 1.0, 0.05),
    "drop_path": (0.0, 0.4, 0.1),
    "weight_decay": (0.005, 0.5, None),
    "smoothing": (0.0, 0.2, 0.05),
    "warmup_epochs": (0.0, 10.0, 1.0),
}
DEFAULT_SEARCH_OPTIONS = ("learning_rate", "layer_decay", "drop_path", "weight_decay")


@dataclass
class SearchArguments:
    """The number of trials and the hyper-parameters to tune."""

    option_group = "Search"

    trials: int = option(20, "Number of trials, including those of an interrupted search in the same folder.", ge=1)
    search: list[str] | None = option(
        None,
        f"Hyper-parameters to tune: {', '.join(SEARCH_SPACE)}. Default: {', '.join(DEFAULT_SEARCH_OPTIONS)}.",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.search or ()) - SEARCH_SPACE.keys()):
            raise UsageError(SettingsMessage.UNKNOWN_SEARCH_SETTING, known=list(SEARCH_SPACE), unknown=unknown)
