"""The registry of metrics: bounds, directions and names."""

import numpy as np
import pytest

from hf_mae.evaluation.metrics import ConfusionMatrices, classification_scores
from hf_mae.settings.metrics import METRICS, MetricKind, is_greater_better, metric_names, selection_metric_names

FROM_MATRICES = metric_names(MetricKind.HEADLINE, MetricKind.ORDINAL, MetricKind.SECONDARY)
RNG = np.random.default_rng(0)
# Balanced, perfect, one class only, a class that is absent, and a class that is never predicted.
MATRICES = np.stack(
    [
        RNG.integers(0, 9, (4, 4)) + 1,
        np.diag([5, 1, 2, 3]),
        np.diag([7, 0, 0, 0]),
        RNG.integers(0, 9, (4, 4)) * np.array([1, 1, 0, 1])[:, None],
        RNG.integers(0, 9, (4, 4)) * np.array([1, 0, 1, 1]),
    ]
)


@pytest.mark.parametrize("name", FROM_MATRICES)
def test_a_metric_of_several_matrices_is_the_metric_of_each(name):
    metric = METRICS[name]
    values = metric.function(ConfusionMatrices(MATRICES))
    np.testing.assert_array_equal(values, [metric.function(ConfusionMatrices(matrix)) for matrix in MATRICES])


@pytest.mark.parametrize("name", FROM_MATRICES)
def test_a_metric_is_within_its_bounds_and_best_for_a_perfect_model(name):
    metric = METRICS[name]
    values = metric.function(ConfusionMatrices(MATRICES))
    low, high = metric.low, metric.upper_bound(MATRICES.shape[-1])
    assert ((low <= values) & (values <= high)).all()
    assert values[1] == (high if metric.greater_is_better else low)


def test_metrics_that_select_the_epoch_are_computed_or_need_grades():
    scores = classification_scores([0, 1, 1], [0, 1, 0])
    assert set(selection_metric_names(False)) - set(scores) == {"f1_auroc_kappa", "ppv_at_recall", "loss"}
    assert set(selection_metric_names(True)) - set(selection_metric_names(False)) == {"qwk", "mae", "one_off_accuracy"}


@pytest.mark.parametrize(
    ("name", "expected"), [("macro_f1", True), ("eval_qwk", True), ("mae", False), ("eval_loss", False), ("own", True)]
)
def test_direction(name, expected):
    assert is_greater_better(name) == expected
