"""Expected cost of the decisions of a model, from a table of costs (Ferrer, 2022, arXiv:2209.05355).

The expected cost is the mean cost of the images. The normalised one is divided by the cost of the best single decision
for all images, so that a model with a normalised cost of 1 is as useful as no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .differences import ModelScore, ModelScores, subtract_scores
from .estimation import Influence, Sample
from .intervals import (
    QUANTILE,
    Estimate,
    Floats,
    IntervalReason,
    t_quantile,
    weighted_count_interval,
)
from .metrics import safe_divide
from .prediction_table import Predictions
from .significance import PERMUTATION_TEST, Difference, permutation_tests

DECISIONS = ("argmax", "bayes")
SCORE = "expected_cost"  # name of the normalised expected cost in comparisons


@dataclass(frozen=True)
class Costs:
    """Costs of decisions.

    Args:
        matrix: cost of each decision (column) for each true class (row), not negative (classes, classes).
        priors: prevalence of each class where the model is used (classes,), with sum 1; None: that of the images.
    """

    matrix: Floats
    priors: Floats | None = None

    def decide(self, predictions: Predictions) -> Predictions:
        """Replaces the predicted classes by the Bayes decisions: those with the smallest expected cost, given the
        scores. Of equal costs, the first class is the decision.

        With priors, scores are multiplied by the ratio of the prior to the mean score of a class (Saerens et al., 2002,
        Neural Computation 14:21).
        """
        scores = predictions.known_scores
        if self.priors is not None:
            scores = scores * safe_divide(self.priors, scores.mean(1, keepdims=True))
        scores = scores / scores.sum(-1, keepdims=True)
        return replace(predictions, predicted=(scores @ self.matrix).argmin(-1))

    def class_weights(self, matrices: Floats) -> Floats:
        """Returns the priors of the classes that have images (..., classes), with sum 1."""
        support: Floats = matrices.sum(-1)
        weights = support if self.priors is None else np.where(support > 0, self.priors, 0.0)
        return safe_divide(weights, weights.sum(-1, keepdims=True))

    def value(self, matrices: Floats) -> Floats:
        """Computes the expected cost (...) from confusion matrices (..., classes, classes)."""
        costs = safe_divide((matrices * self.matrix).sum(-1), matrices.sum(-1))
        cost: Floats = (self.class_weights(matrices) * costs).sum(-1)
        return cost

    def single_decision(self, matrices: Floats) -> Floats:
        """Computes the expected cost (...) of the best single decision for all images."""
        smallest: Floats = (self.class_weights(matrices) @ self.matrix).min(-1)
        return smallest

    def normalized(self, matrices: Floats) -> Floats:
        """Computes the normalised expected cost (...); 0 if a single decision costs nothing."""
        return safe_divide(self.value(matrices), self.single_decision(matrices))

    def derivatives(self, matrices: Floats, normalize: bool) -> Floats:
        """Differentiates the (normalised) expected cost with respect to the cells (..., classes, classes)."""
        value, single = self.value(matrices)[..., None, None], self.single_decision(matrices)[..., None, None]
        if self.priors is not None:
            support = matrices.sum(-1)
            costs = safe_divide((matrices * self.matrix).sum(-1), support)[..., None]
            slopes: Floats = safe_divide(self.class_weights(matrices), support)[..., None] * (self.matrix - costs)
            return safe_divide(slopes, single) if normalize else slopes
        total = matrices.sum((-2, -1))[..., None, None]
        slopes = (self.matrix - value) / total
        if not normalize:
            return slopes
        best = (self.class_weights(matrices) @ self.matrix).argmin(-1)
        single_slopes = (self.matrix[:, best].T[..., None] - single) / total
        return safe_divide(slopes * single - value * single_slopes, single**2)

    def bounds(self, matrices: Floats, normalize: bool) -> tuple[Floats, Floats]:
        """Computes the smallest and the greatest expected cost (...) of any decisions for the images."""
        weights = self.class_weights(matrices)
        scale = self.single_decision(matrices) if normalize else np.ones(matrices.shape[:-2])
        low, high = (safe_divide(weights @ ends, scale) for ends in (self.matrix.min(-1), self.matrix.max(-1)))
        return low, high

    def error_weights(self, matrices: Floats, normalize: bool) -> Floats:
        """Computes what each image with a needless cost adds to the expected cost (..., cells); 0 without images."""
        needless = self.matrix - self.matrix.min(-1, keepdims=True)
        weights = safe_divide(self.class_weights(matrices), matrices.sum(-1))[..., None] * needless
        if normalize:
            weights = safe_divide(weights, self.single_decision(matrices)[..., None, None])
        needed: Floats = weights[..., needless > 0]
        return needed


@dataclass(frozen=True)
class ExpectedCost:
    """Expected cost of decisions.

    Args:
        decisions: one of `DECISIONS`: `argmax` (the predicted class) or `bayes`.
        normalized: None if a single decision costs nothing.
        with_priors: whether the classes have the given priors, not those of the images.
        classes_without_images: ids of the classes with a prior that have no image; the other priors are scaled.
    """

    decisions: str
    expected_cost: Estimate
    normalized: Estimate | None
    with_priors: bool
    classes_without_images: tuple[int, ...] = ()


def estimate_expected_costs(folds: Sequence[Predictions], costs: Costs) -> list[ExpectedCost]:
    """Estimates the expected costs of the predicted classes and, if the scores are known, of the Bayes decisions, as
    means over folds and runs."""
    return [_estimate_expected_cost(name, decided, costs) for name, decided in decide_by_rule(folds, costs).items()]


def decide_by_rule(folds: Sequence[Predictions], costs: Costs) -> dict[str, list[Predictions]]:
    """Returns the predictions with the decisions of each rule, by its name in `DECISIONS`; `bayes` only with scores."""
    decided = {"argmax": list(folds)}
    if all(fold.class_scores is not None for fold in folds):
        decided["bayes"] = [costs.decide(fold) for fold in folds]
    return decided


def _estimate_expected_cost(decisions: str, folds: list[Predictions], costs: Costs) -> ExpectedCost:
    sample = Sample(folds)
    priors = np.zeros(sample.num_classes) if costs.priors is None else costs.priors
    missing = {
        label for matrices in sample.matrices for label in np.flatnonzero((matrices.sum((0, -1)) == 0) & (priors > 0))
    }
    is_free = any((costs.single_decision(matrices) <= 0).any() for matrices in sample.matrices)
    return ExpectedCost(
        decisions,
        _estimate(sample, costs, normalize=False),
        None if is_free else _estimate(sample, costs, normalize=True),
        costs.priors is not None,
        tuple(sorted(map(int, missing))),
    )


def _estimate(sample: Sample, costs: Costs, normalize: bool) -> Estimate:
    function = costs.normalized if normalize else costs.value
    value = sample.value(function)
    if sample.reason is not None:
        return Estimate(value, None, sample.reason)
    influence = _influence(sample, costs, normalize)
    if influence.variance == 0:
        return Estimate(value, None, IntervalReason.NOT_ESTIMABLE)
    design = influence.design(sample.group)
    ends = [costs.bounds(matrices, normalize) for matrices in sample.matrices]
    low, high = (float(np.mean([end.mean() for end in side])) for side in zip(*ends))
    weights = np.array([costs.error_weights(matrices, normalize) for matrices in sample.matrices]) / len(sample.folds)
    independent = sample.group is None
    above_low = weighted_count_interval(
        value - low,
        influence.variance * design.factor,
        float((weights**2).mean() ** 0.5 if independent else weights.max()) * design.factor,
        QUANTILE if independent else t_quantile(design.degrees_of_freedom),
    )
    return Estimate(value, (low + above_low[0], min(low + above_low[1], high)))


def _smoothed(sample: Sample) -> list[Floats]:
    """Returns the smoothed matrices of each fold, without images of classes that have none."""
    return [
        smoothed * (matrices.sum(-1, keepdims=True) > 0) for smoothed, matrices in zip(sample.smoothed, sample.matrices)
    ]


def _influence(sample: Sample, costs: Costs, normalize: bool) -> Influence:
    smoothed = _smoothed(sample)
    return sample.influence([costs.derivatives(matrices, normalize) for matrices in smoothed], smoothed)


def compare_expected_costs(first: list[Predictions], second: list[Predictions], costs: Costs) -> dict[str, Difference]:
    """Computes the differences of the normalised expected costs of two models, second minus first, with intervals and
    permutation tests, by the name of the decisions.

    Args:
        first, second: one entry per fold, of the same images in the same order; each may have several runs.

    Returns:
        The decisions that both models have; empty if a single decision costs nothing.
    """
    differences = {}
    decided = decide_by_rule(first, costs), decide_by_rule(second, costs)
    for name in [name for name in DECISIONS if all(name in by_rule for by_rule in decided)]:
        before, after = (by_rule[name] for by_rule in decided)
        models = ModelScores(before), ModelScores(after)
        matrices = models[0].sample.matrices
        if any((costs.single_decision(counts) <= 0).any() for counts in matrices):
            continue
        width = float(np.mean([np.subtract(*costs.bounds(counts, True)[::-1]).mean() for counts in matrices]))
        one, two = (
            ModelScore(
                model.sample.value(costs.normalized),
                _influence(model.sample, costs, normalize=True),
                width,
                from_counts=True,
            )
            for model in models
        )
        found = subtract_scores(models[0], one, models[1], two)
        p_value = permutation_tests(before, after, scores=lambda m: {SCORE: costs.normalized(m)})[SCORE]
        units = models[0].sample.units
        test = PERMUTATION_TEST.format(units=units)
        differences[name] = Difference(SCORE, units, found.value, found.interval(), p_value, test, found.reason)
    return differences
