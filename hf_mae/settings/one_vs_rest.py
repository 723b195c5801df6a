"""Options of positive classes against the rest, shared by `finetune`, `evaluate`, `report` and their relatives."""

from dataclasses import dataclass

from ..errors import UsageError
from .messages import SettingsMessage
from .options import Prevalence, dataclass_options, option


@dataclass
class OneVsRestArguments:
    """The positive classes, and the PPV at a recall."""

    option_group = "Positive classes"

    positive: list[str] | None = option(
        None,
        "Classes that count as positive together, against all others (--positive adenoma cancer).",
        metavar="CLASS",
    )
    ppv_at_recall: float | None = option(
        None,
        "Report the PPV at the highest threshold that reaches this recall (0.9), at --prevalence; also as the RARE "
        "challenge estimates it. Without --positive: for each class against the rest.",
        metavar="RECALL",
        gt=0,
        le=1,
    )
    prevalence: Prevalence | None = option(
        None,
        "Prevalence for PPV and NPV: 0.01, 1%, 1/101 or 1:100 (1 positive for 100 negative images). Default: that of "
        "the images.",
        metavar="FRACTION",
    )

    def check_ppv_options(self) -> None:
        """Checks that the options have an effect; `report` has other uses of them, too.

        Raises:
            UsageError: If `ppv_at_recall` is missing.
        """
        if self.ppv_at_recall is None and (self.positive or self.prevalence is not None):
            raise UsageError(SettingsMessage.POSITIVE_WITHOUT_RECALL)


ONE_VS_REST_OPTIONS = {item.name: item for item in dataclass_options(OneVsRestArguments)}  # read values from Python
