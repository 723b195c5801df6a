"""The temperature of a run, in `temperature.json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..evaluation.calibration import before_and_after, fit_temperature
from ..files.writing import write_json

NAME = "temperature.json"


def fit_and_write(
    folder: Path, logits: np.ndarray, labels: np.ndarray, split: str, averaged_views: bool
) -> dict[str, Any]:
    """Fits on a split and writes `temperature.json`; returns what it holds."""
    temperature = fit_temperature(logits, labels)
    facts = {"temperature": temperature, "fitted_on": split, "images": len(labels), "averaged_views": averaged_views}
    facts |= before_and_after(logits, labels, temperature)
    write_json(folder / NAME, facts)
    return facts


def read_temperature(word: str, averaged_views: bool) -> float:
    """A temperature from a number, a `temperature.json`, or a folder that holds one.

    Args:
        averaged_views: whether it is for scores averaged over views (`--tta`).

    Raises:
        UsageError: there is none, or it was fitted the other way.
    """
    try:
        value = float(word)
    except ValueError:
        path = Path(word) / NAME if Path(word).is_dir() else Path(word)
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            value = float(facts["temperature"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(
                f"--temperature takes a number, a {NAME}, or a folder with one; {path} is none of these (hf-mae "
                "evaluate --fit_temperature --output_dir FOLDER makes one)."
            ) from None
        if facts.get("averaged_views", False) != averaged_views:
            with_tta, without = ("with", "without") if facts.get("averaged_views") else ("without", "with")
            raise UsageError(
                f"{path} was fitted {with_tta} --tta, and this is {without}: fit it the same way."
            ) from None
    if not 0 < value < float("inf"):
        raise UsageError(f"--temperature must be above 0, not {value}.")
    return value
