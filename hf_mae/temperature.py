"""Temperature scaling (Guo et al. 2017): one number divides the logits, so that scores say how often they are right.

The predicted class stays the same. It is fitted on validation logits, and kept in `temperature.json`.
"""

import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from .errors import UsageError
from .metrics import calibration
from .results import write_json

NAME = "temperature.json"
RANGE = 0.05, 20.0


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean over images, of logits (images, classes) and class ids (images,)."""
    scores = log_softmax(logits.astype(np.float64) / temperature, axis=-1)
    return float(-scores[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least negative log-likelihood, within `RANGE`."""
    low, high = np.log(RANGE)
    found = minimize_scalar(
        lambda value: negative_log_likelihood(logits, labels, np.exp(value)), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def before_and_after(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    """Expected calibration error and negative log-likelihood without the temperature and with it."""
    found = {}
    for when, value in (("before", 1.0), ("after", temperature)):
        found[f"ece_{when}"] = calibration(softmax(logits.astype(np.float64) / value, axis=-1), labels)["ece"]
        found[f"nll_{when}"] = negative_log_likelihood(logits, labels, value)
    return found


def fit_and_write(folder: Path, logits: np.ndarray, labels: np.ndarray, split: str, averaged_views: bool) -> dict:
    """Fits on a split and writes `temperature.json`; returns what it holds."""
    temperature = fit_temperature(logits, labels)
    facts = {"temperature": temperature, "fitted_on": split, "images": len(labels), "averaged_views": averaged_views}
    facts |= before_and_after(logits, labels, temperature)
    write_json(folder / NAME, facts)
    return facts


def sentence(facts: dict, split: str) -> str:
    """What a temperature does to the calibration of a split."""
    return (
        f"temperature {facts['temperature']:.3f} on {split}: expected calibration error {facts['ece_before']:.4f} "
        f"before, {facts['ece_after']:.4f} after"
    )


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
