"""Temperature scaling: dividing the logits of an image by a number, so that scores match the observed accuracy.

The predicted class does not change. The temperature is fitted on validation logits and stored in `temperature.json`:
one for all images (Guo et al., 2017), or, if that is better, one per class that depends on its number of training
images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from .metrics import expected_calibration_error, softmax

TEMPERATURE_RANGE = 0.05, 20.0
MIN_IMBALANCE_RATIO = 2  # largest class / smallest class; below it, temperatures per class are not tried
SLOPE_PRIOR_STD = 0.5  # standard deviation of the prior of the slope of log temperature against log class size
NUM_FOLDS = 5  # of the cross-validation of temperatures per class


@dataclass(frozen=True)
class Temperature:
    """Divisor of the logits of an image: `value`, or, if it is not empty, that of the predicted class."""

    value: float = 1.0
    by_class: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], names: Sequence[str]) -> "Temperature":
        """Reads a temperature from a record or `temperature.json`.

        Temperatures per class are used only if they were fitted for the classes `names`.
        """
        by_class = dict(values.get("class_temperatures") or {})
        matching = tuple(float(by_class[name]) for name in names) if set(by_class) == set(names) else ()
        return cls(float(values["temperature"]), matching)

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns the fields of a record and of `temperature.json`."""
        more = {"class_temperatures": dict(zip(names, self.by_class, strict=True))} if self.by_class else {}
        return {"temperature": self.value} | more

    def divisor(self, predicted: np.ndarray) -> Any:
        """Returns the divisor of logits (images, classes) with these predicted classes (images,): a number, or (images,
        1)."""
        return np.take(self.by_class, predicted)[:, None] if self.by_class else self.value

    def scale_logits(self, logits: np.ndarray) -> np.ndarray:
        """Divides logits (images, classes) by the temperature."""
        scaled: np.ndarray = logits / self.divisor(logits.argmax(-1))
        return scaled


IDENTITY_TEMPERATURE = Temperature()


def negative_log_likelihood(
    logits: np.ndarray, labels: np.ndarray, temperature: Temperature = IDENTITY_TEMPERATURE
) -> float:
    """Computes the mean over images, from logits (images, classes) and class ids (images,)."""
    log_scores = log_softmax(temperature.scale_logits(logits.astype(np.float64)), axis=-1)
    return float(-log_scores[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fits the temperature with the smallest negative log-likelihood, within `TEMPERATURE_RANGE`."""
    low, high = np.log(TEMPERATURE_RANGE)
    optimum = minimize_scalar(
        lambda value: negative_log_likelihood(logits, labels, Temperature(np.exp(value))),
        bounds=(low, high),
        method="bounded",
    )
    return float(np.exp(optimum.x))


def fit_class_temperatures(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> tuple[float, ...]:
    """Fits temperatures per class that depend on the number of training images; empty if one for all is as good.

    log T_k = a + b (log n_k - mean log n), with the maximum a posteriori a and b; b has a normal prior with mean 0 and
    standard deviation 1/2, as rare classes have few images. They are accepted if, in a five-fold cross-validation,
    their likelihood is higher than with one temperature. After Islam et al., 2021, Class-distribution-aware calibration
    for long-tailed visual recognition. There, a temperature divides the logit of its class, which may change the
    prediction; here, the temperature of the predicted class divides all logits of an image.

    Args:
        logits: (images, classes).
        labels: class ids (images,).
        counts: training images per class (classes,).
    """
    from sklearn.model_selection import KFold

    log_counts = np.log(np.maximum(counts, 1))
    if len(labels) < NUM_FOLDS or np.ptp(log_counts) < np.log(MIN_IMBALANCE_RATIO):
        return ()
    centered = log_counts - log_counts.mean()
    single_loss = by_class_loss = 0.0
    order = np.lexsort([*logits.T, labels])  # the folds do not depend on the order of the images
    logits, labels = logits[order], labels[order]
    for train, test in KFold(NUM_FOLDS, shuffle=True, random_state=0).split(logits):
        single = Temperature(fit_temperature(logits[train], labels[train]))
        by_class = _fit_by_class_frequency(logits[train], labels[train], centered)
        single_loss += len(test) * negative_log_likelihood(logits[test], labels[test], single)
        by_class_loss += len(test) * negative_log_likelihood(logits[test], labels[test], by_class)
    return _fit_by_class_frequency(logits, labels, centered).by_class if by_class_loss < single_loss else ()


def _fit_by_class_frequency(logits: np.ndarray, labels: np.ndarray, centered_log_counts: np.ndarray) -> Temperature:
    """Fits a and b of `fit_class_temperatures`."""
    logits = logits.astype(np.float64)
    covariate = centered_log_counts[logits.argmax(-1)]
    true_logits = logits[np.arange(len(labels)), labels]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        inverse = np.exp(-values[0] - values[1] * covariate)
        scaled = logits * inverse[:, None]
        log_scores = log_softmax(scaled, axis=-1)
        true_log_scores = log_scores[np.arange(len(labels)), labels]
        slopes = true_logits * inverse - (np.exp(log_scores) * scaled).sum(-1)  # derivative by log T
        gradient = np.array([slopes.sum(), (slopes * covariate).sum() + values[1] / SLOPE_PRIOR_STD**2])
        return float(-true_log_scores.sum() + (values[1] / SLOPE_PRIOR_STD) ** 2 / 2), gradient

    low, high = np.log(TEMPERATURE_RANGE)
    a, b = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(low, high), (-3.0, 3.0)]).x
    return Temperature(by_class=tuple(np.clip(np.exp(a + b * centered_log_counts), *TEMPERATURE_RANGE).tolist()))


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling of a model, and its gain on the images of a split.

    Args:
        temperature: for all images.
        class_temperatures: by predicted class, used instead of `temperature`; empty: none.
        ece_before, ece_after: expected calibration error.
        nll_before, nll_after: negative log-likelihood.
        fitted_on: split that the temperature was fitted on, with this number of `images`; None: it was given.
        averaged_views: whether the logits are averaged over views (test-time augmentation).
    """

    temperature: float
    ece_before: float
    nll_before: float
    ece_after: float
    nll_after: float
    class_temperatures: dict[str, float] = field(default_factory=dict)
    fitted_on: str | None = None
    images: int | None = None
    averaged_views: bool = False

    def get_temperature(self, names: Sequence[str]) -> Temperature:
        """Returns the temperature; those per class only if they were fitted for the classes `names`."""
        return Temperature.from_dict(asdict(self), names)


def calibration_gain(logits: np.ndarray, labels: np.ndarray, temperature: Temperature) -> dict[str, Any]:
    """Computes the expected calibration error and negative log-likelihood before and after temperature scaling."""
    values = {}
    for when, used in (("before", IDENTITY_TEMPERATURE), ("after", temperature)):
        scores = softmax(used.scale_logits(logits.astype(np.float64)))
        values[f"ece_{when}"] = expected_calibration_error(scores, labels)["ece"]
        values[f"nll_{when}"] = negative_log_likelihood(logits, labels, used)
    return values
