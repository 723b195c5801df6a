"""The temperature of a run, or those of its classes, in `temperature.json`."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..evaluation.calibration import (
    TEMPERATURE_RANGE,
    Temperature,
    calibration_gain,
    fit_class_temperatures,
    fit_temperature,
    negative_log_likelihood,
)
from ..files.atomic import write_json

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
) -> dict[str, Any] | None:
    """Fits on a split and writes `temperature.json`; returns what it holds.

    A temperature at the bound of its range, or one that makes the calibration worse, is none: then nothing is written,
    None is returned, and the reason is logged.

    Args:
        names: of the classes.
        counts: their training images, by which there may be a temperature for each class; None: they are not known.
    """
    (folder / TEMPERATURE_FILE).unlink(missing_ok=True)  # of an earlier run, or of other weights
    single = Temperature(fit_temperature(logits, labels))
    by_class = () if counts is None else fit_class_temperatures(logits, labels, counts)
    for temperature in [replace(single, by_class=by_class), single] if by_class else [single]:
        facts = temperature.to_dict(names) | {
            "fitted_on": split,
            "images": len(labels),
            "averaged_views": averaged_views,
        }
        facts |= calibration_gain(logits, labels, temperature)
        why = get_rejection_reason(facts, logits, labels)
        if not why:
            write_json(folder / TEMPERATURE_FILE, facts)
            return facts
    logger.warning("No temperature is kept: the one fitted on %s, %.3f, %s.", split, single.value, why)
    return None


def get_rejection_reason(calibration: dict[str, Any], logits: np.ndarray, labels: np.ndarray) -> str:
    """Why a fitted temperature is of no use; empty where it is."""
    low, high = TEMPERATURE_RANGE
    single = (
        negative_log_likelihood(logits, labels, Temperature(calibration["temperature"])) + 1e-9
    )  # flat, if all are right
    if not 1.02 * low < calibration["temperature"] < high / 1.02 or any(
        negative_log_likelihood(logits, labels, Temperature(bound)) <= single for bound in TEMPERATURE_RANGE
    ):
        return "is the bound of its range, so these images tell none: too few, nearly all right, or all guessed"
    if calibration["ece_after"] > calibration["ece_before"]:
        return f"makes the calibration worse (error {calibration['ece_before']:.4f} before, {calibration['ece_after']:.4f} after)"
    return ""


def read_temperature(source: str, averaged_views: bool, names: Sequence[str]) -> Temperature:
    """A temperature from a number, a `temperature.json`, or a folder that holds one.

    Args:
        averaged_views: whether it is for scores averaged over views (`--tta`).
        names: of the classes whose logits it is for.

    Raises:
        UsageError: there is none, or it was fitted the other way.
    """
    try:
        found = Temperature(float(source))
    except ValueError:
        path = Path(source) / TEMPERATURE_FILE if Path(source).is_dir() else Path(source)
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            found = Temperature.from_dict(facts, names)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(
                f"--temperature takes a number, a {TEMPERATURE_FILE}, or a folder with one; {path} is none of these (hf-mae "
                "evaluate --fit_temperature --output_dir FOLDER makes one)."
            ) from None
        if facts.get("averaged_views", False) != averaged_views:
            with_tta, without = ("with", "without") if facts.get("averaged_views") else ("without", "with")
            raise UsageError(
                f"{path} was fitted {with_tta} --tta, and this is {without}: fit it the same way."
            ) from None
    for value in (found.value, *found.by_class):
        if not 0 < value < float("inf"):
            raise UsageError(f"--temperature must be above 0, not {value}.")
    return found
