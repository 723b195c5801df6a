"""`sample-size`: images and patients for the half-width of an interval, or the power of a comparison."""

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UsageError
from ..evaluation.sample_size import (
    HALF_WIDTH_FACTORS,
    Clustering,
    Expectation,
    SampleSize,
    size_for_difference,
    size_for_half_width,
)
from ..settings.parse import Settings
from ..settings.sample_size import SampleSizeArguments
from .command import command
from .messages import WorkflowMessage


@dataclass(frozen=True)
class SampleSizePlan:
    """Result of `sample_size`.

    Args:
        required: the size for the requested half-width or power.
        sizes: sizes for other half-widths, the widest first; empty for a power.
        design_effect: factor of the variance, because the images of a patient are correlated.
        settings: the assumptions.
    """

    required: SampleSize
    sizes: list[SampleSize]
    design_effect: float
    settings: SampleSizeArguments

    def to_dict(self) -> dict[str, Any]:
        """Converts the plan to the values of `--json`."""
        return asdict(self)


@command("sample-size")
def sample_size(settings: Settings) -> SampleSizePlan:
    """Computes the images and patients of a study before any image or model exists."""
    options: SampleSizeArguments = settings.options
    clustering = Clustering(options.images_per_patient, options.correlation)
    if options.score == "difference":
        required = size_for_difference(
            options.expected or 0.0, options.discordant or 0.0, options.power, clustering, options.margin
        )
        return SampleSizePlan(required, [], clustering.design_effect, options)
    expected = Expectation(str(options.score), options.expected or 0.0, _class_fractions(options), options.sensitivity)
    widths = [factor * options.half_width for factor in HALF_WIDTH_FACTORS]
    found = [size_for_half_width(expected, width, clustering) for width in widths]
    requested = found[HALF_WIDTH_FACTORS.index(1.0)]
    if requested is None:
        raise UsageError(WorkflowMessage.SAMPLE_SIZE_TOO_LARGE, half_width=options.half_width)
    return SampleSizePlan(requested, [size for size in found if size], clustering.design_effect, options)


def _class_fractions(options: SampleSizeArguments) -> tuple[float, ...]:
    """Returns the fractions of the classes that the score depends on."""
    if options.prevalence is not None and options.score not in ("macro_recall", "macro_f1"):
        return options.prevalence, 1 - options.prevalence
    fractions = options.class_fractions or [1.0] * options.num_classes
    return tuple(fraction / sum(fractions) for fraction in fractions)
