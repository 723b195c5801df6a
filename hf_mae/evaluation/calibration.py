"""Temperature scaling (Guo et al. 2017): one number divides the logits, so that scores say how often they are right.

The predicted class stays the same. It is fitted on validation logits, and kept in `temperature.json`.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from .metrics import calibration

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


def calibration_sentence(facts: dict[str, Any], split: str) -> str:
    """What a temperature does to the calibration of a split."""
    return (
        f"temperature {facts['temperature']:.3f} on {split}: expected calibration error {facts['ece_before']:.4f} "
        f"before, {facts['ece_after']:.4f} after"
    )
