"""`METRICS`: the metrics of classification. Flags, logs, tables, tests, model cards and texts are derived from it.

A metric is one entry. The functions import numpy, this module does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..registry import Registry
from .citations import Citation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PPV_AT_RECALL = "ppv_at_recall"
LOSS = "loss"  # the validation loss can select the epoch, too


class MetricKind(Enum):
    """Input of a metric, and the tables that show it."""

    HEADLINE = "headline"  # from confusion matrices; in all tables of results
    ORDINAL = "ordinal"  # like HEADLINE, if the classes are grades in the order of their ids
    SECONDARY = "secondary"  # from confusion matrices; in the record of a run only
    PROBABILITY = "probability"  # from the scores of the classes; in the report
    SELECTION = "selection"  # only to select the epoch


@dataclass(frozen=True)
class Metric:
    """A metric.

    Args:
        name: key in records, and value of `--metric_for_best_model`.
        title: name in tables.
        function: computes the metric (...) from `evaluation.metrics.ConfusionMatrices` (...), for any number of
            matrices at once. For a `PROBABILITY` metric: computes the values (images,) whose mean is the metric, from
            the scores of the classes (images, classes) and class ids (images,). None: `evaluation` has special code.
        kind: its input, and the tables that show it.
        short_title: title in narrow columns.
        methods: name in the description of a study.
        scale: factor for display; 100: per cent.
        low: lower bound.
        high: upper bound; None: the number of classes minus one.
        greater_is_better: direction.
        logged: whether it is computed after every epoch, and can select the epoch.
        in_progress: whether the progress line of an epoch shows it.
        compared: whether reports test its difference between models.
        hub_type: name on the Hugging Face Hub.
        citation: reference for the description of a study.
    """

    name: str
    title: str
    function: Callable[..., Any] | None
    kind: MetricKind = MetricKind.HEADLINE
    short_title: str = ""
    methods: str = ""
    scale: float = 100.0
    low: float = 0.0
    high: float | None = 1.0
    greater_is_better: bool = True
    logged: bool = False
    in_progress: bool = False
    compared: bool = False
    hub_type: str = ""
    citation: Citation | None = None

    def upper_bound(self, num_classes: int) -> float:
        """Returns the upper bound for a number of classes."""
        return float(num_classes - 1) if self.high is None else self.high


def _weighted_kappa(m: Any) -> NDArray[np.float64]:
    import numpy as np

    kappa: NDArray[np.float64] = 1 - m.divide(m.observed_distance, m.expected_distance)
    return np.where(m.expected_distance > 0, kappa, 0.0)


def _brier(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    import numpy as np

    distances: NDArray[np.float64] = ((scores - np.eye(scores.shape[-1])[labels]) ** 2).sum(-1)
    return distances


def _log_loss(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    import numpy as np

    true_scores = scores[np.arange(len(labels)), labels]
    return -np.log(np.clip(true_scores, np.finfo(true_scores.dtype).eps, None))


# In the order of tables.
METRICS: Registry[Metric] = Registry()
for entry in (
    Metric(
        "macro_precision",
        "macro precision",
        lambda m: m.macro(m.precision),
        short_title="macro prec.",
        methods="macro-averaged precision",
        logged=True,
        hub_type="precision",
    ),
    Metric(
        "macro_recall",
        "macro recall",
        lambda m: m.macro(m.recall),
        methods="macro-averaged recall",
        logged=True,
        hub_type="recall",
    ),
    Metric(
        "macro_f1",
        "macro F1",
        lambda m: m.macro(m.f1),
        methods="macro-averaged F1",
        logged=True,
        in_progress=True,
        compared=True,
        hub_type="f1",
    ),
    Metric("accuracy", "accuracy", lambda m: m.correct / m.total, logged=True, in_progress=True, compared=True),
    Metric(
        "mcc",
        "MCC",
        lambda m: m.divide(m.correct * m.total - m.expected, m.spread),
        methods="Matthews correlation coefficient",
        low=-1.0,
        logged=True,
        compared=True,
        hub_type="matthews_correlation",
    ),
    Metric(
        "qwk",
        "QWK",
        _weighted_kappa,
        MetricKind.ORDINAL,
        methods="quadratic weighted kappa",
        low=-1.0,
        logged=True,
        in_progress=True,
        compared=True,
        citation=Citation(
            "cohen1968kappa",
            "article",
            "Cohen, Jacob",
            "Weighted kappa: nominal scale agreement with provision for scaled disagreement or partial credit",
            {"journal": "Psychological Bulletin", "volume": "70", "pages": "213--220", "year": "1968"},
        ),
    ),
    Metric(
        "mae",
        "MAE",
        lambda m: (m.counts * m.distance).sum((-2, -1)) / m.total,
        MetricKind.ORDINAL,
        methods="mean absolute error",
        scale=1.0,
        high=None,
        greater_is_better=False,
        logged=True,
        compared=True,
    ),
    Metric(
        "one_off_accuracy",
        "one-off accuracy",
        lambda m: (m.counts * (m.distance <= 1)).sum((-2, -1)) / m.total,
        MetricKind.ORDINAL,
        short_title="one-\noff",
        logged=True,
        compared=True,
    ),
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        lambda m: m.recall.sum(-1) / (m.support > 0).sum(-1),
        MetricKind.SECONDARY,
        logged=True,
    ),
    Metric(
        "kappa",
        "Cohen's kappa",
        lambda m: m.divide(m.correct / m.total - m.by_chance, 1 - m.by_chance),
        MetricKind.SECONDARY,
        low=-1.0,
        logged=True,
    ),
    # RETFound selects the epoch by it.
    Metric("f1_auroc_kappa", "mean of macro F1, AUROC and kappa", None, MetricKind.SELECTION, logged=True),
    # With `--ppv_at_recall`, of the classes of `--positive`.
    Metric(PPV_AT_RECALL, "PPV at a recall", None, MetricKind.SELECTION, logged=True),
    Metric("roc_auc", "AUROC", None, MetricKind.PROBABILITY, scale=1.0, compared=True),
    Metric("average_precision", "average precision", None, MetricKind.PROBABILITY, "AP", scale=1.0, compared=True),
    Metric(
        "brier",
        "Brier score",
        _brier,
        MetricKind.PROBABILITY,
        scale=1.0,
        high=2.0,
        greater_is_better=False,
        compared=True,
    ),
    Metric(
        "log_loss",
        "log loss",
        _log_loss,
        MetricKind.PROBABILITY,
        scale=1.0,
        high=math.inf,
        greater_is_better=False,
        compared=True,
    ),
    Metric("ece", "ECE", None, MetricKind.PROBABILITY, scale=1.0, greater_is_better=False),
    Metric("classwise_ece", "class-wise ECE", None, MetricKind.PROBABILITY, scale=1.0, greater_is_better=False),
    Metric("adaptive_ece", "adaptive ECE", None, MetricKind.PROBABILITY, scale=1.0, greater_is_better=False),
):
    METRICS.add(entry)


def metric_names(*kinds: MetricKind) -> tuple[str, ...]:
    """Returns the names of the metrics of some kinds, in the order of tables."""
    return tuple(name for name, metric in METRICS.items() if metric.kind in kinds)


def selection_metric_names(ordered: bool) -> tuple[str, ...]:
    """Returns the values of `--metric_for_best_model`; `ordered`: the classes are grades."""
    ordinal = metric_names(MetricKind.ORDINAL)
    return (*(name for name, metric in METRICS.items() if metric.logged and (ordered or name not in ordinal)), LOSS)


def metric_title(name: str | None) -> str:
    """Returns the title of the metric that selects the epoch; its name if it is not in `METRICS`."""
    name = (name or LOSS).removeprefix("eval_")
    return METRICS[name].title if name in METRICS else name


def is_greater_better(name: str | None) -> bool:
    """Whether the greatest value of `--metric_for_best_model` is the best."""
    name = (name or LOSS).removeprefix("eval_")
    return METRICS[name].greater_is_better if name in METRICS else not name.endswith(LOSS)
