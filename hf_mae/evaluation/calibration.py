"""Temperature scaling: a number divides the logits of an image, so that scores say how often they are right.

The predicted class stays the same. It is fitted on validation logits, and kept in `temperature.json`: one for all
images (Guo et al. 2017), or where that does better, one for each class by the number of its training images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from .metrics import expected_calibration_error

TEMPERATURE_RANGE = 0.05, 20.0
MIN_IMBALANCE_RATIO = 2  # the images of the smallest class that the largest has, for their number to tell anything
SLOPE_PRIOR_STD = 0.5  # of the prior of how much their logarithm changes that of a temperature
NUM_FOLDS = 5  # in which temperatures by class are tried


@dataclass(frozen=True)
class Temperature:
    """What divides the logits of an image.

    Args:
        value: of every image.
        by_class: in its place, that of the class which is predicted; empty: none.
    """

    value: float = 1.0
    by_class: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], names: Sequence[str]) -> "Temperature":
        """From what a record or `temperature.json` holds, for logits of these classes; for other classes than those
        that it was fitted for, it is one for all."""
        by_class = dict(values.get("class_temperatures") or {})
        own = tuple(float(by_class[name]) for name in names) if set(by_class) == set(names) else ()
        return cls(float(values["temperature"]), own)

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """As a record and `temperature.json` hold it."""
        more = {"class_temperatures": dict(zip(names, self.by_class, strict=True))} if self.by_class else {}
        return {"temperature": self.value} | more

    def divisor(self, predicted: np.ndarray) -> Any:
        """Of logits (images, classes) with these predicted classes (images,): a number, or (images, 1)."""
        return np.take(self.by_class, predicted)[:, None] if self.by_class else self.value

    def scale_logits(self, logits: np.ndarray) -> np.ndarray:
        """Logits (images, classes), divided."""
        scaled: np.ndarray = logits / self.divisor(logits.argmax(-1))
        return scaled


IDENTITY_TEMPERATURE = Temperature()  # which leaves logits as they are


def negative_log_likelihood(
    logits: np.ndarray, labels: np.ndarray, temperature: Temperature = IDENTITY_TEMPERATURE
) -> float:
    """Mean over images, of logits (images, classes) and class ids (images,)."""
    scores = log_softmax(temperature.scale_logits(logits.astype(np.float64)), axis=-1)
    return float(-scores[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least negative log-likelihood, within `RANGE`."""
    low, high = np.log(TEMPERATURE_RANGE)
    found = minimize_scalar(
        lambda value: negative_log_likelihood(logits, labels, Temperature(np.exp(value))),
        bounds=(low, high),
        method="bounded",
    )
    return float(np.exp(found.x))


def fit_class_temperatures(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> tuple[float, ...]:
    """Temperatures of the classes, by the number of their training images; empty where one for all does as well.

    Log T_k = a + b (log n_k - mean log n) of the most likely a and b, where b has a normal prior of mean 0 and
    deviation 1/2, as rare classes have few images to fit to. They are kept where, over five folds, images that did not
    fit them are likelier with them than with one temperature. After Islam et al., 2021, Class-distribution-aware
    calibration for long-tailed visual recognition, whose temperatures divide the logit of each class, and so may change
    what is predicted; these divide all logits of an image by the temperature of the class that is predicted.

    Args:
        logits: (images, classes).
        labels: class ids (images,).
        counts: training images of each class, (classes,).
    """
    from sklearn.model_selection import KFold

    logs = np.log(np.maximum(counts, 1))
    if len(labels) < NUM_FOLDS or np.ptp(logs) < np.log(MIN_IMBALANCE_RATIO):
        return ()
    apart = logs - logs.mean()
    one_for_all = by_counts = 0.0
    for fitting, judging in KFold(NUM_FOLDS, shuffle=True, random_state=0).split(logits):
        single = Temperature(fit_temperature(logits[fitting], labels[fitting]))
        several = _fit_by_class_frequency(logits[fitting], labels[fitting], apart)
        for_judging = logits[judging], labels[judging]
        one_for_all += len(judging) * negative_log_likelihood(*for_judging, single)
        by_counts += len(judging) * negative_log_likelihood(*for_judging, several)
    return _fit_by_class_frequency(logits, labels, apart).by_class if by_counts < one_for_all else ()


def _fit_by_class_frequency(logits: np.ndarray, labels: np.ndarray, centered_log_counts: np.ndarray) -> Temperature:
    """The most likely temperatures, of classes whose images' logarithms are so far from their mean."""
    logits = logits.astype(np.float64)
    each = centered_log_counts[logits.argmax(-1)]
    true = logits[np.arange(len(labels)), labels]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = logits * np.exp(-values[0] - values[1] * each)[:, None]
        scores = log_softmax(scaled, axis=-1)
        own = scores[np.arange(len(labels)), labels]
        slopes = true * np.exp(-values[0] - values[1] * each) - (np.exp(scores) * scaled).sum(-1)  # by log T
        gradient = np.array([slopes.sum(), (slopes * each).sum() + values[1] / SLOPE_PRIOR_STD**2])
        return float(-own.sum() + (values[1] / SLOPE_PRIOR_STD) ** 2 / 2), gradient

    low, high = np.log(TEMPERATURE_RANGE)
    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(low, high), (-3.0, 3.0)]).x
    return Temperature(
        by_class=tuple(np.clip(np.exp(found[0] + found[1] * centered_log_counts), *TEMPERATURE_RANGE).tolist())
    )


def calibration_gain(logits: np.ndarray, labels: np.ndarray, temperature: Temperature) -> dict[str, float]:
    """Expected calibration error and negative log-likelihood without the temperature and with it."""
    found = {}
    for when, value in (("before", IDENTITY_TEMPERATURE), ("after", temperature)):
        found[f"ece_{when}"] = expected_calibration_error(
            softmax(value.scale_logits(logits.astype(np.float64)), axis=-1), labels
        )["ece"]
        found[f"nll_{when}"] = negative_log_likelihood(logits, labels, value)
    return found


def format_calibration_gain(values: Mapping[str, Any], split: str) -> str:
    """What a temperature does to the calibration of a split."""
    return (
        f"{format_temperature(values)} on {split}: expected calibration error {values['ece_before']:.4f} before, "
        f"{values['ece_after']:.4f} after"
    )


def format_temperature(values: Mapping[str, Any]) -> str:
    """A temperature, or the range of several."""
    if not (by_class := values.get("class_temperatures")):
        return f"temperature {values['temperature']:.3f}"
    low, high = (one(by_class, key=by_class.__getitem__) for one in (min, max))
    return f"temperatures by class from {by_class[low]:.3f} ({low}) to {by_class[high]:.3f} ({high})"
