"""Temperature scaling of a run, in `temperature.json`: one temperature, or one per class."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import numpy as np

from ..errors import UsageError, warn
from ..evaluation.calibration import (
    TEMPERATURE_RANGE,
    Calibration,
    Temperature,
    calibration_gain,
    fit_class_temperatures,
    fit_temperature,
    negative_log_likelihood,
)
from ..files.atomic import write_json
from .messages import RunMessage

logger = logging.getLogger(__name__)

TEMPERATURE_FILE = "temperature.json"


def fit_and_write_temperature(
    folder: Path,
    logits: np.ndarray,
    labels: np.ndarray,
    split: str,
    averaged_views: bool,
    names: Sequence[str],
    counts: np.ndarray | None = None,
) -> Calibration | None:
    """Fits a temperature on a split and writes `temperature.json`; returns its contents.

    Rejects a temperature at the bound of its range, or one that makes the calibration worse: then it writes nothing,
    logs a warning, and returns None.

    Args:
        counts: training images per class, for class-wise temperatures; None: unknown.
    """
    (folder / TEMPERATURE_FILE).unlink(missing_ok=True)
    single = Temperature(fit_temperature(logits, labels))
    by_class = () if counts is None else fit_class_temperatures(logits, labels, counts)
    for temperature in [replace(single, by_class=by_class), single] if by_class else [single]:
        calibration = Calibration(
            **temperature.to_dict(names),
            **calibration_gain(logits, labels, temperature),
            fitted_on=split,
            images=len(labels),
            averaged_views=averaged_views,
        )
        at_bound = _is_at_bound(calibration.temperature, logits, labels)
        before, after = calibration.ece_before, calibration.ece_after
        if not (at_bound or after > before):
            write_json(folder / TEMPERATURE_FILE, asdict(calibration))
            return calibration
    if at_bound:
        warn(logger, RunMessage.TEMPERATURE_AT_BOUND, split=split, value=single.value)
    else:
        code = RunMessage.TEMPERATURE_WORSENS_CALIBRATION
        warn(logger, code, split=split, value=single.value, before=before, after=after)
    return None


def _is_at_bound(value: float, logits: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a temperature is at the bound of its range, or is not better than one of the bounds."""
    low, high = TEMPERATURE_RANGE
    loss = negative_log_likelihood(logits, labels, Temperature(value)) + 1e-9  # constant if all predictions are right
    return not 1.02 * low < value < high / 1.02 or any(
        negative_log_likelihood(logits, labels, Temperature(bound)) <= loss for bound in TEMPERATURE_RANGE
    )


def read_temperature(source: str, averaged_views: bool, names: Sequence[str]) -> Temperature:
    """Reads a temperature from a number, a `temperature.json`, or a folder that contains one.

    Args:
        averaged_views: whether it is used with test-time augmentation (`--tta`).
        names: class names of the logits.

    Raises:
        UsageError: If the source is invalid, or the temperature was fitted with another setting of `--tta`.
    """
    try:
        temperature = Temperature(float(source))
    except ValueError:
        path = Path(source) / TEMPERATURE_FILE if Path(source).is_dir() else Path(source)
        try:
            calibration = msgspec.json.decode(path.read_bytes(), type=Calibration)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            raise UsageError(RunMessage.TEMPERATURE_UNREADABLE, file=TEMPERATURE_FILE, path=path) from None
        temperature = calibration.get_temperature(names)
        if calibration.averaged_views != averaged_views:
            raise UsageError(
                RunMessage.FITTED_WITHOUT_TTA if averaged_views else RunMessage.FITTED_WITH_TTA, path=path
            ) from None
    for value in (temperature.value, *temperature.by_class):
        if not 0 < value < float("inf"):
            raise UsageError(RunMessage.TEMPERATURE_NOT_POSITIVE, value=value)
    return temperature
