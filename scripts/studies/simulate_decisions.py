"""Simulates the intervals of thresholds, net benefit, expected costs and agreement, and the level of tests at a margin.

Run `python scripts/studies/simulate_decisions.py [--only thresholds] [--draws 2000]`. Each cell is the share of 95 %
intervals that contain the true value (in per cent), their mean width, and [the share without an interval]. Seeds are
fixed; the tables are in docs/coverage.md.
"""

import argparse
from collections import defaultdict

import numpy as np
from scipy.special import expit
from scipy.stats import loggamma, norm

from hf_mae.evaluation import chosen_thresholds, expected_cost
from hf_mae.evaluation.agreement import estimate_agreement
from hf_mae.evaluation.chosen_thresholds import intervals_with_choice, threshold_intervals
from hf_mae.evaluation.differences import ModelScores
from hf_mae.evaluation.estimation import matrix_function
from hf_mae.evaluation.expected_cost import Costs, compare_expected_costs, estimate_expected_costs
from hf_mae.evaluation.metrics import ConfusionMatrices
from hf_mae.evaluation.operating_points import THRESHOLDS, OneVsRest, ThresholdRule, estimate_binary_rates
from hf_mae.evaluation.paired_proportions import estimate_for_margin
from hf_mae.evaluation.prediction_table import Predictions

Interval = tuple[float, float] | None


class Tally:
    """Coverage and width of intervals by column."""

    def __init__(self) -> None:
        self.covered: dict[str, list[bool]] = defaultdict(list)
        self.widths: dict[str, list[float]] = defaultdict(list)
        self.missing: dict[str, int] = defaultdict(int)

    def add(self, column: str, interval: Interval, truth: float) -> None:
        """Adds an interval."""
        if interval is None:
            self.missing[column] += 1
            self.covered.setdefault(column, [])
            return
        self.covered[column].append(interval[0] - 1e-9 <= truth <= interval[1] + 1e-9)
        self.widths[column].append(interval[1] - interval[0])

    def print_row(self, title: str) -> None:
        """Prints a row of a table."""
        cells = []
        for column, covered in self.covered.items():
            missing = self.missing[column] / (len(covered) + self.missing[column])
            text = f"{100 * np.mean(covered):.1f} ({np.mean(self.widths[column]):.3f})" if covered else "-"
            cells.append(text + (f" [{100 * missing:.1f}]" if missing else ""))
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


def draw_patients(rng: np.random.Generator, images: int, patients: int) -> np.ndarray:
    """Draws the patient of each image; patients have unequal numbers of images."""
    sizes = rng.lognormal(0, 0.5, patients)
    return np.sort(rng.choice(patients, images, p=sizes / sizes.sum()))


def draw_uniform(rng: np.random.Generator, images: int, groups: np.ndarray | None, correlation: float) -> np.ndarray:
    """Draws uniform numbers, whose normal quantiles are correlated within patients."""
    if groups is None:
        return rng.random(images)
    between = rng.normal(size=groups.max() + 1)[groups]
    return norm.cdf(correlation**0.5 * between + (1 - correlation) ** 0.5 * rng.normal(size=images))


# Thresholds and net benefit: images, fraction of positive ones, distributions of positive and negative logits, patients
BINARY_SCENARIOS = {
    "100, 10 % positive": (100, 0.1, norm(2, 1), norm(0, 1), 0),
    "100, 25 %": (100, 0.25, norm(2, 1), norm(0, 1), 0),
    "57, 50 %, weak": (57, 0.5, norm(1, 1), norm(0, 1), 0),
    "500, 5 %": (500, 0.05, norm(2, 1), norm(0, 1), 0),
    "500, 10 %, unequal variances": (500, 0.1, norm(2, 2), norm(0, 1), 0),
    "250, 10 %, skewed": (250, 0.1, loggamma(4), loggamma(1), 0),
    "500, 30 %, strong": (500, 0.3, norm(3, 1), norm(0, 1), 0),
    "400, 20 %, 40 patients": (400, 0.2, norm(2, 1), norm(0, 1), 40),
    "200, 30 %, 15 patients": (200, 0.3, norm(2, 1), norm(0, 1), 15),
}


def draw_binary(rng: np.random.Generator, images: int, fraction: float, positive, negative, patients: int, models=1):
    """Draws the scores of one model, or of several whose scores of an image are correlated."""
    groups = draw_patients(rng, images, patients) if patients else None
    is_positive, found = rng.random(images) < fraction, []
    shared = norm.ppf(draw_uniform(rng, images, groups, 0.3))
    for _ in range(models):
        own = norm.ppf(draw_uniform(rng, images, groups, 0.3))
        uniform = norm.cdf(shared if models == 1 else 0.5**0.5 * (shared + own))
        scores = expit(np.where(is_positive, positive.ppf(uniform), negative.ppf(uniform)) - 1)
        predicted = (scores > 0.5)[None].astype(int)
        both = np.stack([1 - scores, scores], 1)[None]
        found.append(OneVsRest([Predictions(is_positive.astype(int), predicted, 2, groups, both)]))
    return found


def true_threshold(rule: ThresholdRule, positive, negative) -> float:
    """Returns the logit of the threshold that is chosen on infinitely many images."""
    if rule.kind == "sensitivity":
        return positive.isf(rule.target)
    if rule.kind == "specificity":
        return negative.ppf(rule.target)
    levels = np.linspace(-8, 8, 200_001)
    return levels[(positive.sf(levels) - negative.sf(levels)).argmax()]


def simulate_thresholds(draws: int) -> None:
    """Thresholds chosen on these images, and (rates) the sensitivity and specificity on 500 others, with the choice."""
    chosen_thresholds.DRAWS = 200
    rules = [ThresholdRule.parse(text) for text in ("sensitivity=0.9", "specificity=0.9", "youden")]
    print("| images |" + "".join(f" {rule} | sensitivity | specificity |" for rule in rules) + "\n|---|" + "---:|" * 9)
    for seed, (title, (images, fraction, positive, negative, patients)) in enumerate(BINARY_SCENARIOS.items()):
        rng, tally = np.random.default_rng(seed), Tally()
        truths = [true_threshold(rule, positive, negative) for rule in rules]
        for _ in range(draws):
            (selection,) = draw_binary(rng, images, fraction, positive, negative, patients)
            (evaluated,) = draw_binary(rng, 500, fraction, positive, negative, patients)
            for rule, truth in zip(rules, truths):
                intervals = threshold_intervals(rule, selection)
                tally.add(str(rule), intervals[0], expit(truth - 1))
                chosen = evaluated.get_thresholds(rule, selection)
                rates = estimate_binary_rates(evaluated.apply_thresholds(chosen))
                found = intervals_with_choice(evaluated, intervals, rates)
                tally.add(f"{rule} sensitivity", found.get("sensitivity"), positive.sf(truth))
                tally.add(f"{rule} specificity", found.get("specificity"), negative.cdf(truth))
        tally.print_row(title)


BENEFIT_THRESHOLDS = (0.05, 0.1, 0.2, 0.5, 0.8)


def simulate_benefits(draws: int) -> None:
    """Net benefit of one model, and the difference of two equally good models, by threshold probability."""
    indices = [int(np.abs(THRESHOLDS - threshold).argmin()) for threshold in BENEFIT_THRESHOLDS]
    titles = [f"{kind} at {value:g}" for kind in ("benefit", "difference") for value in BENEFIT_THRESHOLDS]
    print(f"| images | {' | '.join(titles)} |\n|---|" + "---:|" * len(titles))
    for seed, (title, (images, fraction, positive, negative, patients)) in enumerate(BINARY_SCENARIOS.items()):
        rng, tally = np.random.default_rng(seed), Tally()
        levels = np.log(THRESHOLDS / (1 - THRESHOLDS)) + 1
        odds = THRESHOLDS / (1 - THRESHOLDS)
        truth = fraction * positive.sf(levels) - (1 - fraction) * odds * negative.sf(levels)
        for _ in range(draws):
            first, second = draw_binary(rng, images, fraction, positive, negative, patients, models=2)
            curve, (_, differences) = first.decision_curve(), first.benefit_difference(second)
            for index in indices:
                tally.add(f"benefit {index}", curve.intervals[index], truth[index])
            for index in indices:
                tally.add(f"difference {index}", differences[index], 0.0)
        tally.print_row(title)


# Expected costs: priors, probabilities of the predictions by class, costs, images, patients, priors of the use
def _recall_matrix(classes: int, recall: float) -> np.ndarray:
    return np.eye(classes) * recall + (1 - np.eye(classes)) * (1 - recall) / (classes - 1)


TWO, GRADES = np.array([[0, 1], [20, 0]]), (np.arange(5)[:, None] - np.arange(5)) ** 2.0
SKEWED = [0.6, 0.2, 0.1, 0.07, 0.03]
COST_SCENARIOS = {
    "2 classes 1:1, 57, recall .9 .8": ([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], TWO, 57, 0, None),
    "2 classes 9:1, 200, recall .9": ([0.9, 0.1], _recall_matrix(2, 0.9), TWO, 200, 0, None),
    "2 classes 49:1, 505, recall .95 .8": ([0.98, 0.02], [[0.95, 0.05], [0.2, 0.8]], TWO, 505, 0, None),
    "the same, priors .9 and .1": ([0.98, 0.02], [[0.95, 0.05], [0.2, 0.8]], TWO, 505, 0, [0.9, 0.1]),
    "2 classes 7:3, 300, recall .98 .97": ([0.7, 0.3], [[0.98, 0.02], [0.03, 0.97]], TWO, 300, 0, None),
    "5 grades, 57, recall .84": ([0.2] * 5, _recall_matrix(5, 0.84), GRADES, 57, 0, None),
    "5 grades 20:1, 500, recall .84": (SKEWED, _recall_matrix(5, 0.84), GRADES, 500, 0, None),
    "the same, equal priors": (SKEWED, _recall_matrix(5, 0.84), GRADES, 500, 0, [0.2] * 5),
    "5 grades, 100, recall .98": ([0.2] * 5, _recall_matrix(5, 0.976), GRADES, 100, 0, None),
    "5 grades, 500, recall .98": ([0.2] * 5, _recall_matrix(5, 0.976), GRADES, 500, 0, None),
    "40 patients, 600, 5 grades 20:1, recall .84": (SKEWED, _recall_matrix(5, 0.84), GRADES, 600, 40, None),
    "10 patients, 300, 5 grades, recall .84": ([0.2] * 5, _recall_matrix(5, 0.84), GRADES, 300, 10, None),
}


def simulate_costs(draws: int) -> None:
    """Normalised expected cost of one model, and the difference of two equally good models."""
    expected_cost.permutation_tests = lambda *_, **__: {expected_cost.SCORE: 1.0}  # only the intervals are used
    print("| images | one model | difference |\n|---|---:|---:|")
    for seed, (title, (prior, confusion, matrix, images, patients, use)) in enumerate(COST_SCENARIOS.items()):
        rng, tally = np.random.default_rng(seed), Tally()
        costs, cumulative = Costs(matrix, None if use is None else np.array(use)), np.cumsum(confusion, 1)
        truth = float(costs.normalized(np.array(prior)[:, None] * np.array(confusion)))
        for _ in range(draws):
            labels = rng.choice(len(prior), images, p=prior)
            groups = draw_patients(rng, images, patients) if patients else None
            is_shared, shared, models = rng.random(images) < 0.5, draw_uniform(rng, images, groups, 0.3), []
            for _ in range(2):
                uniform = np.where(is_shared, shared, draw_uniform(rng, images, groups, 0.3))
                predicted = (uniform[:, None] > cumulative[labels, :-1]).sum(1)
                models.append([Predictions(labels, predicted[None], len(prior), groups)])
            normalized = estimate_expected_costs(models[0], costs)[0].normalized
            tally.add("one model", normalized and normalized.interval, truth)
            tally.add("difference", compare_expected_costs(*models, costs)["argmax"].interval, 0.0)
        tally.print_row(title)


# Annotators: frequencies of the classes, recall, images, annotators, patients, fraction of missing labels
ANNOTATOR_SCENARIOS = {
    "2 classes, 57": ([1, 1], 0.85, 57, 3, 0, 0.0),
    "2 classes 9:1, 200": ([9, 1], 0.9, 200, 3, 0, 0.0),
    "4 grades, 100": ([4, 3, 2, 1], 0.8, 100, 3, 0, 0.0),
    "4 grades, 500, four annotators, 30 % missing": ([4, 3, 2, 1], 0.8, 500, 4, 0, 0.3),
    "4 grades, 100, nearly perfect": ([4, 3, 2, 1], 0.97, 100, 3, 0, 0.0),
    "8 classes, 300": ([8, 7, 6, 5, 4, 3, 2, 1], 0.7, 300, 3, 0, 0.0),
    "4 grades, 400, 40 patients": ([4, 3, 2, 1], 0.8, 400, 3, 40, 0.0),
    "4 grades, 200, 10 patients": ([4, 3, 2, 1], 0.8, 200, 3, 10, 0.0),
}
COEFFICIENTS = ("agreement", "alpha", "ordinal_alpha", "fleiss_kappa")


def draw_annotations(rng, frequencies, recall, images, annotators, patients, missing):
    """Draws labels (images, annotators); a third of the images, or patients, is difficult."""
    classes, prior = len(frequencies), np.array(frequencies) / np.sum(frequencies)
    labels, is_hard, groups = rng.choice(classes, images, p=prior), rng.random(images) < 0.3, None
    if patients:
        groups = draw_patients(rng, images, patients)
        of_patient = rng.choice(classes, patients, p=prior)[groups]
        labels = np.where(rng.random(images) < 0.5, of_patient, labels)
        is_hard = (rng.random(patients) < 0.3)[groups]
    right = np.where(is_hard, recall - 0.2, min(recall + 0.2 * 0.3 / 0.7, 1.0))[:, None]
    other = np.clip(labels[:, None] + rng.choice([-1, 1], (images, annotators)), 0, classes - 1)
    found = np.where(rng.random((images, annotators)) < right, labels[:, None], other)
    found[rng.random(found.shape) < missing] = -1
    return found, groups


def simulate_annotators(draws: int) -> None:
    """Agreement of annotators."""
    print("| images | agreement | alpha | alpha of grades | Fleiss' kappa |\n|---|" + "---:|" * 4)
    for seed, (title, scenario) in enumerate(ANNOTATOR_SCENARIOS.items()):
        frequencies, recall, images, annotators, patients, missing = scenario
        rng, tally, names = np.random.default_rng(seed), Tally(), [str(number) for number in range(annotators)]
        population, _ = draw_annotations(rng, frequencies, recall, 200_000, annotators, 0, missing)
        truth = estimate_agreement(population, names, len(frequencies), None, True)
        for _ in range(draws):
            labels, groups = draw_annotations(rng, *scenario)
            text = None if groups is None else groups.astype(str)
            found = estimate_agreement(labels, names, len(frequencies), text, True)
            for name in COEFFICIENTS:
                estimate = getattr(found, name)
                tally.add(name, estimate and estimate.interval, getattr(truth, name).value)
        tally.print_row(title)


# Margins: frequencies of the classes, probabilities of the predictions of both models, images
def _constant_matrix(classes: int, label: int = 0) -> np.ndarray:
    return np.tile(np.eye(classes)[label], (classes, 1))


LONG_TAIL = np.array([20, 10, 6, 4, 3, 2, 1, 1])
MARGIN_SCENARIOS = {
    "2 classes 1:1, 57, recall .85 and .8": ([1, 1], _recall_matrix(2, 0.85), _recall_matrix(2, 0.8), 57),
    "2 classes 9:1, 200, .9 and .85": ([9, 1], _recall_matrix(2, 0.9), _recall_matrix(2, 0.85), 200),
    "2 classes 100:1, 505, constant and .98": ([100, 1], _constant_matrix(2), _recall_matrix(2, 0.98), 505),
    "4 classes, 100, constant and .7": ([1] * 4, _constant_matrix(4), _recall_matrix(4, 0.7), 100),
    "4 classes, 100, two constant ones": ([6, 5, 5, 4], _constant_matrix(4), _constant_matrix(4, 3), 100),
    "5 classes, 100, perfect and .95": ([1] * 5, np.eye(5), _recall_matrix(5, 0.95), 100),
    "2 classes 100:1, 505, perfect and .98": ([100, 1], np.eye(2), _recall_matrix(2, 0.98), 505),
    "8 classes, 57, .97 and .97": ([1] * 8, _recall_matrix(8, 0.97), _recall_matrix(8, 0.97), 57),
    "8 classes 20:1, 300, .8 and .7": (LONG_TAIL, _recall_matrix(8, 0.8), _recall_matrix(8, 0.7), 300),
}
MARGIN_SCORES = ("accuracy", "macro_recall", "macro_precision", "macro_f1", "kappa")


def simulate_margins(draws: int) -> None:
    """Per cent of one-sided tests (2.5 %, 5 %) that find the second model better, and worse, than the truth."""
    print(f"| images | {' | '.join(MARGIN_SCORES)} |\n|---|" + "---:|" * len(MARGIN_SCORES))
    for seed, (title, (frequencies, *confusions, images)) in enumerate(MARGIN_SCENARIOS.items()):
        rng, prior, cells = np.random.default_rng(seed), np.array(frequencies) / np.sum(frequencies), []
        rejected: dict[str, list[list[bool]]] = {name: [] for name in MARGIN_SCORES}
        matrices = [ConfusionMatrices(1e6 * prior[:, None] * confusion) for confusion in confusions]
        for _ in range(draws):
            labels = rng.choice(len(prior), images, p=prior)
            is_shared, shared, models = rng.random(images) < 0.5, rng.random(images), []
            for confusion in confusions:
                uniform = np.where(is_shared, shared, rng.random(images))
                predicted = (uniform[:, None] > np.cumsum(confusion, 1)[labels, :-1]).sum(1)
                models.append(ModelScores([Predictions(labels, predicted[None], len(prior))]))
            for name in MARGIN_SCORES:
                difference = estimate_for_margin(*models, name)
                truth = float(np.subtract(*(matrix_function(name)(matrix) for matrix in matrices[::-1])))
                if difference is not None and (above := difference.p_value_above(truth)) is not None:
                    tails = (above, 1 - above)
                    rejected[name].append([tail <= level for tail in tails for level in (0.025, 0.05)])
        for found in rejected.values():
            missing = 100 * (1 - len(found) / draws)
            shares = [f"{100 * share:.1f}" for share in np.mean(found, 0)] if missing < 95 else []
            text = f"{', '.join(shares[:2])}; {', '.join(shares[2:])}" if shares else "-"
            cells.append(text + (f" [{missing:.1f}]" if missing else ""))
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


SIMULATIONS = {
    "thresholds": simulate_thresholds,
    "benefits": simulate_benefits,
    "costs": simulate_costs,
    "annotators": simulate_annotators,
    "margins": simulate_margins,
}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="samples per scenario")
    parser.add_argument("--only", nargs="+", choices=SIMULATIONS, default=list(SIMULATIONS), help="only these tables")
    args = parser.parse_args()
    for name in args.only:
        print(f"\n{SIMULATIONS[name].__doc__}\n")
        SIMULATIONS[name](args.draws)


if __name__ == "__main__":
    main()
