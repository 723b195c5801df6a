"""Settings of `sample-size`."""

from dataclasses import dataclass

from ..errors import UsageError
from .messages import SettingsMessage
from .options import Prevalence, option

SCORES = ("accuracy", "sensitivity", "specificity", "ppv", "macro_recall", "macro_f1", "auroc", "difference")


@dataclass
class SampleSizeArguments:
    """The expected scores, and the required precision or power."""

    option_group = "Study"

    score: str | None = option(
        None,
        f"Score whose interval is planned: {', '.join(SCORES[:-1])}; difference: accuracy of two models on the same "
        "images.",
        choices=SCORES,
        metavar="SCORE",
    )
    expected: float | None = option(
        None, "Expected score; for difference: second model minus first.", metavar="FRACTION", gt=-1, lt=1
    )
    half_width: float = option(0.05, "Half the width of the 95 % interval.", metavar="FRACTION", gt=0, lt=0.5)
    prevalence: Prevalence | None = option(
        None, "Prevalence of the positive class: 0.1, 10% or 1:9 (sensitivity, specificity, ppv, auroc)."
    )
    sensitivity: float = option(0.9, "Expected sensitivity, for ppv.", metavar="FRACTION", gt=0, le=1)
    num_classes: int = option(2, "Number of classes of equal size, for macro_recall and macro_f1.", ge=2)
    class_fractions: list[float] | None = option(
        None, "Fraction of the images (any unit) of each class, instead of --num_classes.", metavar="FRACTION", gt=0
    )
    images_per_patient: float = option(1.0, "Mean number of images per patient or video.", ge=1)
    correlation: float = option(
        0.3,
        "Intraclass correlation of right and wrong predictions within a patient, with --images_per_patient.",
        ge=0,
        le=1,
    )
    discordant: float | None = option(
        None,
        "Fraction of the images on which exactly one model is right, for difference.",
        metavar="FRACTION",
        gt=0,
        le=1,
    )
    power: float = option(0.8, "Probability of a significant difference.", metavar="FRACTION", gt=0.5, lt=1)
    margin: float | None = option(
        None, "Margin of a test of non-inferiority, for difference.", metavar="FRACTION", gt=0, lt=1
    )

    def __post_init__(self) -> None:
        is_difference = self.score == "difference"
        if self.expected is None or (not is_difference and self.expected <= 0):
            raise UsageError(SettingsMessage.EXPECTED_SCORE_MISSING, score=self.score)
        if self.score in ("sensitivity", "specificity", "ppv", "auroc") and self.prevalence is None:
            raise UsageError(SettingsMessage.PREVALENCE_MISSING, score=self.score)
        if is_difference and (self.discordant is None or self.discordant < abs(self.expected)):
            raise UsageError(SettingsMessage.DISCORDANT_MISSING, difference=abs(self.expected))
        if is_difference and self.expected + (self.margin or 0) <= 0 and (self.margin or self.expected == 0):
            raise UsageError(SettingsMessage.DIFFERENCE_WITHOUT_EFFECT)
