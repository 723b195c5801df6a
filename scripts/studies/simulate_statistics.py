"""Simulates the intervals and tests of a report: `python scripts/studies/simulate_statistics.py [--draws 400]`.

For each scenario: the share of 95 % intervals that contain the score of the population, their mean width, and the share
of draws without an interval (of all draws, and of those with 5 images of each class), for the intervals of hf_mae and,
on the first `--bootstrap_draws` draws, for the percentile and BCa bootstrap (of images or patients); also for Wilson's
and the Clopper-Pearson interval, and for the adjusted Wald interval of Price and Bonett (2004). The last table compares
intervals that cover more than 98 % with the narrowest ones that cover 93 % and have no width of zero. Also the
intervals of differences of two models, and the level of the tests. Seeds are fixed; the tables are in docs/coverage.md
and docs/statistics.md.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest, norm, rankdata

from hf_mae.evaluation.differences import ModelScores, ScoreDifference, estimate_difference
from hf_mae.evaluation.estimation import (
    PROPORTIONS,
    RATES,
    Influence,
    ProportionFit,
    Sample,
    class_f1,
    class_rate,
    estimate_score,
    fit_proportions,
    solve_intervals,
    too_few_in_denominator,
)
from hf_mae.evaluation.interaction import interaction_tests
from hf_mae.evaluation.intervals import QUANTILE, Estimate, t_quantile, wilson_interval
from hf_mae.evaluation.metrics import ConfusionMatrices, safe_divide, softmax
from hf_mae.evaluation.operating_points import estimate_binary_rates, predictive_values
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.probability_metrics import (
    binary_auroc,
    binary_average_precision,
    estimate_mean,
    estimate_ranking,
)
from hf_mae.evaluation.significance import mcnemar, permutation_tests, score_permutation_tests
from hf_mae.evaluation.subgroups import select_classes, share_classes
from hf_mae.settings.metrics import METRICS

LONG_TAIL = np.array((293, 253, 194, 169, 163, 78, 66, 49, 41, 40, 34, 28, 28, 28, 23, 22, 19, 19, 14, 13, 6, 6))
SCORES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "balanced_accuracy", "mcc", "kappa", "qwk")
CLASS_SCORES = (*RATES, "f1")
CLASS_TABLE_SCORES = (*CLASS_SCORES, "PPV at 0.1", "NPV at 0.1")
CLASSICAL_SCORES = ("accuracy", "macro_precision", "macro_recall", "balanced_accuracy")  # of `classical_intervals`
TITLES = {"ppv": "PPV", "npv": "NPV", "f1": "F1"}
PROBABILITY_SCORES = ("roc_auc", "average_precision", "brier", "log_loss")
DRAWS_BY_CLASS = 400  # draws with the scores of each class
METHODS = ("hf_mae", "percentile", "BCa", "Wilson", "Clopper-Pearson", "Price-Bonett", "Wald")
PAIR_METHODS = ("hf_mae", "percentile", "BCa", "Wald")
AT_PREVALENCE = 0.1
LEVELS = (0.025, 0.05)  # of tests of non-inferiority and equivalence
TOLERANCE = 1e-9


# Populations


def make_table(frequencies: np.ndarray, recalls: np.ndarray | float, seed: int) -> np.ndarray:
    """Makes the probabilities of (label, prediction) of a model (classes, classes)."""
    rng, classes = np.random.default_rng(seed), len(frequencies)
    shares = np.asarray(frequencies, dtype=float) / np.sum(frequencies)
    recalls = np.broadcast_to(recalls, classes)
    table = np.zeros((classes, classes))
    for label in range(classes):
        others = (rng.dirichlet(np.full(classes, 0.5)) + 0.15) * shares**0.5
        others[label] = 0.0
        table[label] = shares[label] * (1 - recalls[label]) * others / others.sum()
        table[label, label] = shares[label] * recalls[label]
    return table


@dataclass
class Images:
    """Independent images, with random numbers of images of each class."""

    table: np.ndarray
    size: int

    def population(self) -> np.ndarray:
        """Probabilities of (label, prediction)."""
        return self.table

    def draw(self, rng: np.random.Generator) -> Predictions:
        """Draws a sample."""
        classes = len(self.table)
        counts = rng.multinomial(self.size, self.table.ravel() / self.table.sum())
        cells = np.repeat(np.arange(classes**2), counts)
        return Predictions(cells // classes, (cells % classes)[None], classes, ordered=True)


@dataclass
class Patients:
    """Patients with correlated images: their mixture of classes, and how difficult they are.

    Args:
        mixture: parameters of the Dirichlet distribution of a patient's classes.
        logits: logit of the recall of each class.
        spread: standard deviation of the logit between patients.
        patients, images_per_patient: mean numbers.
        skewed: whether the numbers of images are lognormal, not equal.
        one_label: whether all images of a patient have the same class.
    """

    mixture: np.ndarray
    logits: np.ndarray | float
    spread: float
    patients: int
    images_per_patient: int = 25
    skewed: bool = False
    one_label: bool = False
    seed: int = 0

    def cells(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draws the probabilities of (label, prediction) of patients (patients, classes, classes)."""
        classes = len(self.mixture)
        errors = np.random.default_rng(self.seed).dirichlet(np.full(classes, 0.5), classes) + 0.1
        np.fill_diagonal(errors, 0.0)
        errors /= errors.sum(1, keepdims=True)
        if self.one_label:
            shares = np.eye(classes)[rng.choice(classes, count, p=self.mixture / self.mixture.sum())]
        else:
            shares = rng.dirichlet(self.mixture, count)
        logits = np.broadcast_to(self.logits, classes) + rng.normal(0, self.spread, count)[:, None]
        recalls = 1 / (1 + np.exp(-logits))
        return (shares * (1 - recalls))[:, :, None] * errors + (shares * recalls)[:, :, None] * np.eye(classes)

    def population(self) -> np.ndarray:
        """Probabilities of (label, prediction): means over very many patients."""
        rng = np.random.default_rng(99)
        return np.mean([self.cells(rng, 20_000).mean(0) for _ in range(20)], axis=0)

    def sizes(self, rng: np.random.Generator) -> np.ndarray:
        """Draws the number of images of each patient."""
        if not self.skewed:
            return np.full(self.patients, self.images_per_patient)
        weights = rng.lognormal(0, 1, self.patients)
        sizes = np.round(weights / weights.sum() * self.patients * self.images_per_patient)
        return np.maximum(1, sizes).astype(int)

    def draw(self, rng: np.random.Generator) -> Predictions:
        """Draws a sample."""
        classes, sizes = len(self.mixture), self.sizes(rng)
        cells = self.cells(rng, self.patients).reshape(self.patients, -1)
        counts = rng.multinomial(sizes, cells / cells.sum(1, keepdims=True))
        flat = np.repeat(np.tile(np.arange(classes**2), self.patients), counts.ravel())
        groups = np.repeat(np.arange(self.patients), sizes)
        return Predictions(flat // classes, (flat % classes)[None], classes, groups, ordered=True)


def table_scenarios() -> dict[str, Images | Patients]:
    """Scenarios of scores of confusion matrices; each class has at least 3 expected images and predictions."""
    ratio_20, ratio_100 = np.geomspace(20, 1, 8), np.geomspace(100, 1, 22)
    worse, better = np.linspace(0.97, 0.4, 22), np.linspace(0.5, 0.99, 22)
    mixed = np.random.default_rng(1).uniform(0.4, 0.99, 22)
    constant = np.zeros((2, 2)), np.zeros((4, 4))
    constant[0][:, 0], constant[1][:, 0] = (100 / 101, 1 / 101), (0.4, 0.3, 0.2, 0.1)
    found: dict[str, Images | Patients] = {
        "2 classes, 57 images, recall .8 .9": Images(make_table(np.ones(2), np.array([0.8, 0.9]), 0), 57),
        "2 classes 200:8, 208, recall .9": Images(make_table(np.array([200, 8]), 0.9, 0), 208),
        "2 classes 100:1, 505, recall .98 .7": Images(make_table(np.array([100, 1]), np.array([0.98, 0.7]), 0), 505),
        "2 classes 100:1, 5000, recall .99 .6": Images(make_table(np.array([100, 1]), np.array([0.99, 0.6]), 0), 5000),
        "3 classes, 100, recall .4 to .8": Images(make_table(np.array([3, 2, 2]), np.array([0.4, 0.6, 0.8]), 1), 100),
        "5 classes, 57, recall .97": Images(make_table(np.ones(5), 0.97, 2), 57),
        "8 classes, 57, recall .97": Images(make_table(np.ones(8), 0.97, 3), 57),
        "8 classes, 57, recall .6": Images(make_table(np.ones(8), 0.6, 3), 57),
        "8 classes 20:1, 300, rare worse": Images(make_table(ratio_20, np.linspace(0.95, 0.4, 8), 4), 300),
        "8 classes 20:1, 300, rare better": Images(make_table(ratio_20, np.linspace(0.5, 0.98, 8), 5), 300),
        "22 classes, 220, recall .6": Images(make_table(np.ones(22), 0.6, 6), 220),
        "22 classes, 440, recall .99": Images(make_table(np.ones(22), 0.99, 7), 440),
        "22 classes 49:1, 1586, rare worse": Images(make_table(LONG_TAIL, worse, 8), 1586),
        "22 classes 49:1, 1586, rare better": Images(make_table(LONG_TAIL, better, 9), 1586),
        "22 classes 100:1, 1600, rare worse": Images(make_table(ratio_100, worse, 10), 1600),
        "22 classes 100:1, 5000, mixed": Images(make_table(ratio_100, mixed, 11), 5000),
        "5 classes, 100, perfect": Images(make_table(np.ones(5), 1.0, 0), 100),
        "2 classes 100:1, 505, perfect": Images(make_table(np.array([100, 1]), 1.0, 0), 505),
        "2 classes 100:1, 505, constant": Images(constant[0], 505),
        "4 classes, 100, constant": Images(constant[1], 100),
    }
    mixture = 6 * np.array([0.35, 0.25, 0.18, 0.12, 0.07, 0.03])
    logits = np.random.default_rng(0).normal(1.3, 0.6, 6)
    for patients in (10, 40, 200):
        for skewed in (False, True):
            sizes = "skewed" if skewed else "equal"
            found[f"{patients} patients, {sizes}, 6 classes"] = Patients(mixture, logits, 1.2, patients, skewed=skewed)
    easy = 6 * np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    found["40 patients, skewed, 6 classes, recall .97"] = Patients(easy, 4.0, 1.2, 40, skewed=True, seed=1)
    for patients in (10, 40):
        name = f"{patients} patients, equal, one of 2 classes each"
        found[name] = Patients(np.array([0.7, 0.3]), np.array([2.5, 1.2]), 1.0, patients, 10, one_label=True, seed=2)
    found["40 patients, equal, perfect"] = Patients(easy, 50.0, 0.0, 40, seed=1)
    return found


def metric_function(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a metric of confusion matrices (..., classes, classes)."""
    return lambda matrices: METRICS[name].function(ConfusionMatrices(matrices))


def population_scores(table: np.ndarray, sample: np.ndarray) -> dict[str, float]:
    """Computes the scores of the population.

    A mean over classes counts a class without a denominator in the sample as the estimate does: as 0, or not at all.
    """
    population, raw = ConfusionMatrices(table), ConfusionMatrices(sample)
    scores = {name: float(METRICS[name].function(population)) for name in SCORES}
    for name in ("macro_precision", "macro_recall", "macro_f1", "balanced_accuracy"):
        numerator, denominator = PROPORTIONS[name].counts(population)
        values = safe_divide(numerator, denominator)
        values = 2 * values / (1 + values) if PROPORTIONS[name].f1 else values
        scores[name] = float((values * PROPORTIONS[name].weights(raw) * (PROPORTIONS[name].counts(raw)[1] > 0)).sum())
    return scores


# Intervals of many draws


class Tally:
    """Coverage, widths and missing intervals."""

    def __init__(self) -> None:
        self.covered: dict[tuple[str, str], list[bool]] = defaultdict(list)
        self.widths: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.missing: dict[tuple[str, str], list[tuple[bool, bool]]] = defaultdict(list)
        self.faults: list[str] = []

    def add(
        self,
        method: str,
        score: str,
        truth: float,
        interval: tuple[float, float] | None,
        value: float,
        enough: bool = True,
    ) -> None:
        """Records an interval; `enough`: each class has 5 images."""
        self.missing[method, score].append((interval is None, enough))
        if interval is None:
            return
        low, high = interval
        self.covered[method, score].append(low - TOLERANCE <= truth <= high + TOLERANCE)
        self.widths[method, score].append(high - low)
        if method == "hf_mae" and not (low - TOLERANCE <= value <= high + TOLERANCE and high - low > 1e-7):
            self.faults.append(f"{score}: {value} [{low}, {high}]")

    def add_others(self, intervals: dict[str, dict[str, tuple[float, float]]], truth: dict[str, float]) -> None:
        """Records intervals of other methods, by method and score."""
        for method, of_method in intervals.items():
            for name, interval in of_method.items():
                self.add(method, name, truth[name], interval, 0.0)

    def coverage(self, method: str, score: str) -> float:
        """Returns the coverage in per cent; 0 without an interval."""
        return 100 * float(np.mean(self.covered[method, score])) if self.covered[method, score] else 0.0

    def cell(self, method: str, score: str, scale: float = 100.0) -> str:
        """Formats coverage and mean width."""
        if not self.covered[method, score]:
            return "-"
        text = f"{self.coverage(method, score):.1f} ({scale * float(np.mean(self.widths[method, score])):.3g})"
        missing, enough = np.array(self.missing[method, score]).T
        if missing.any():
            text += f" [{100 * missing.mean():.1f}, {100 * missing[enough].mean():.1f}]" if enough.any() else " [100]"
        return text

    def wide(self, score: str) -> tuple[str, float] | None:
        """Returns the narrowest other method that covers 93 % and has no width of zero, and the ratio of the widths.

        None: the interval of hf_mae covers at most 98 %, or no other method fulfils this.
        """
        if self.coverage("hf_mae", score) <= 98:
            return None
        others = {
            method: float(np.mean(self.widths[method, score]))
            for method in METHODS[1:]
            if self.coverage(method, score) >= 93 and min(self.widths[method, score]) > 1e-9
        }
        if not others:
            return None
        method = min(others, key=lambda name: others[name])
        return method, float(np.mean(self.widths["hf_mae", score])) / others[method]


def bootstrap_intervals(
    models: Sequence[Predictions], rng: np.random.Generator, resamples: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """Computes percentile and BCa intervals of the scores of a model, or of the differences of two models (second minus
    first), by the bootstrap of images, or of patients."""
    data, classes = models[0], models[0].num_classes
    cells = np.stack([model.labels * classes + model.predicted[0] for model in models])
    if data.groups is None:
        units, counts = np.unique(cells, axis=1, return_counts=True)
        matrices = np.eye(classes**2)[units]
    else:
        matrices = np.zeros((len(models), data.groups.max() + 1, classes**2))
        for of_model, cell in zip(matrices, cells):
            np.add.at(of_model, (data.groups, cell), 1)
        counts = np.ones(matrices.shape[1], dtype=int)
    total = counts.sum()
    drawn = rng.multinomial(total, counts / total, size=resamples)
    full = counts @ matrices
    intervals: dict[str, dict[str, tuple[float, float]]] = {"percentile": {}, "BCa": {}}
    for name in SCORES:
        function = metric_function(name)
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = [
                function(tables.reshape(*tables.shape[:-1], classes, classes))
                for tables in (drawn @ matrices, full, full[:, None] - matrices)
            ]
        values, value, replicates = (of_models[-1] - (of_models[0] if len(models) > 1 else 0.0) for of_models in scores)
        low, high = np.quantile(values, [0.025, 0.975])
        intervals["percentile"][name] = float(low), float(high)
        deviation = (counts * replicates).sum() / total - replicates
        power = float((counts * deviation**2).sum()) ** 1.5
        acceleration = float((counts * deviation**3).sum()) / (6 * power) if power > 0 else 0.0
        share = ((values < value).mean() + (values <= value).mean()) / 2
        z0 = norm.ppf(np.clip(share, 1 / resamples, 1 - 1 / resamples))
        z = z0 + norm.ppf([0.025, 0.975])
        low, high = np.quantile(values, norm.cdf(z0 + z / (1 - acceleration * z)))
        intervals["BCa"][name] = float(low), float(high)
    return intervals


def classical_intervals(matrix: np.ndarray) -> Iterator[tuple[str, str, tuple[float, float]]]:
    """Computes intervals of other authors, from a confusion matrix of independent images: method, score, interval."""
    total, right = matrix.sum(), np.trace(matrix)
    yield "Wilson", "accuracy", wilson_interval(right / total, total)
    exact = binomtest(int(right), int(total)).proportion_ci(method="exact")
    yield "Clopper-Pearson", "accuracy", (exact.low, exact.high)
    confusion = ConfusionMatrices(matrix)
    for name in ("macro_recall", "balanced_accuracy", "macro_precision"):
        numerator, denominator = PROPORTIONS[name].counts(confusion)
        weights = PROPORTIONS[name].weights(confusion) * (denominator > 0)
        terms = (weights > 0).sum()
        p, n = (numerator + 2 / terms) / (denominator + 4 / terms), denominator + 4 / terms
        margin = QUANTILE * float((weights**2 * p * (1 - p) / n).sum()) ** 0.5
        yield "Price-Bonett", name, (max(weights @ p - margin, 0.0), min(weights @ p + margin, 1.0))


def simulate_tables(  # noqa: C901, PLR0912
    scenario: Images | Patients,
    seed: int,
    draws: int,
    bootstrap_draws: int,
    resamples: int,
    class_draws: int = DRAWS_BY_CLASS,
) -> Tally:
    """Simulates the intervals of scores of confusion matrices; `class_draws`: samples with the scores of each class."""
    rng, tally, table = np.random.default_rng(seed), Tally(), scenario.population()
    fits: dict[str, list[tuple[ProportionFit, float]]] = defaultdict(list)
    by_class = {
        (name, label): (class_f1(label) if name == "f1" else class_rate(name, label))
        for name in CLASS_SCORES
        for label in range(len(table))
    }
    class_truth = {key: _population_rate(score, table) for key, score in by_class.items()}
    for draw in range(draws):
        data = scenario.draw(rng)
        sample = Sample([data])
        matrix = sample.matrices[0][0]
        enough = bool((matrix.sum(1) >= 5).all())
        truth = population_scores(table, matrix)
        for name in SCORES:
            if name in PROPORTIONS and sample.reason is None:
                fits[name].append((fit_proportions(sample, PROPORTIONS[name]), truth[name]))
            else:
                estimate = estimate_score(sample, name)
                tally.add("hf_mae", name, truth[name], estimate.interval, estimate.value, enough)
        for (name, label), score in by_class.items() if draw < class_draws and sample.reason is None else ():
            if too_few_in_denominator(sample, name, label) is not None:
                tally.add("hf_mae", name, 0.0, None, 0.0, enough)
            else:
                fits[name].append((fit_proportions(sample, score), class_truth[name, label]))
        if draw < class_draws and len(table) == 2 and sample.reason is None:
            _add_predictive_values(tally, data, table, enough)
        if draw < bootstrap_draws:
            generator = np.random.default_rng((seed, draw))
            tally.add_others(bootstrap_intervals([data], generator, resamples), truth)
        for method, name, interval in classical_intervals(matrix) if data.groups is None else ():
            tally.add(method, name, truth[name], interval, 0.0)
    for name, entries in fits.items():
        for (fit, true), interval in zip(entries, solve_intervals([fit for fit, _ in entries])):
            tally.add("hf_mae", name, true, interval, fit.value)
    return tally


def _add_predictive_values(tally: Tally, data: Predictions, table: np.ndarray, enough: bool) -> None:
    """Records PPV and NPV of class 1 at a prevalence."""
    sensitivity, specificity = table[1, 1] / table[1].sum(), table[0, 0] / table[0].sum()
    rates = estimate_binary_rates([data], AT_PREVALENCE)
    likelihoods = {
        "ppv": (sensitivity * AT_PREVALENCE, (1 - specificity) * (1 - AT_PREVALENCE)),
        "npv": (specificity * (1 - AT_PREVALENCE), (1 - sensitivity) * AT_PREVALENCE),
    }
    for name, (right, wrong) in likelihoods.items():
        rate, truth = rates.get(name), right / (right + wrong) if right + wrong > 0 else 1.0
        if {"sensitivity", "specificity"} <= set(rates) and rate is not None:
            tally.add("hf_mae", f"{name.upper()} at 0.1", truth, rate.interval, rate.value, enough)


def _population_rate(score, table: np.ndarray) -> float:
    confusion = ConfusionMatrices(table)
    numerator, denominator = score.counts(confusion)
    values = safe_divide(numerator, denominator)
    values = 2 * values / (1 + values) if score.f1 else values
    return float((values * score.weights(confusion)).sum())


# Predicted probabilities


@dataclass
class ScoreModel:
    """A model with class scores that may be over- or under-confident.

    Args:
        frequencies: of the classes.
        sharpness: mean logit of the true class.
        temperature: divisor of the logits.
        size: images, or patients with 25 images on average.
        patients: whether the images are of patients.
    """

    frequencies: np.ndarray
    sharpness: np.ndarray | float
    temperature: float
    size: int
    patients: bool = False
    skewed: bool = False
    seed: int = 0

    def draw(self, rng: np.random.Generator, size: int | None = None) -> Predictions:
        """Draws a sample."""
        labels, groups, ease = self.draw_images(rng, size or self.size)
        logits = rng.normal(0, 1, (len(labels), len(self.frequencies)))
        return self.predict(labels, groups, logits, ease)

    def draw_pair(
        self, rng: np.random.Generator, advantage: float, size: int | None = None
    ) -> tuple[Predictions, Predictions]:
        """Draws two models on the same images, whose logits have a correlation of 0.6; the logits of the true class of
        the second one are higher by the `advantage`."""
        labels, groups, ease = self.draw_images(rng, size or self.size)
        noise = rng.normal(0, 1, (3, len(labels), len(self.frequencies)))
        first, second = (0.6**0.5 * noise[0] + 0.4**0.5 * own for own in noise[1:])
        return self.predict(labels, groups, first, ease), self.predict(labels, groups, second, ease + advantage)

    def draw_images(self, rng: np.random.Generator, size: int) -> tuple:
        """Draws the labels, patients, and how easy the images are."""
        classes, shares = len(self.frequencies), self.frequencies / self.frequencies.sum()
        if not self.patients:
            return rng.choice(classes, size, p=shares), None, 0.0
        weights = rng.lognormal(0, 1, size) if self.skewed else np.ones(size)
        sizes = np.maximum(1, np.round(weights / weights.sum() * size * 25)).astype(int)
        groups = np.repeat(np.arange(size), sizes)
        mixtures = rng.dirichlet(6 * shares, size).cumsum(1)[groups]
        labels = (rng.random((len(groups), 1)) > mixtures).sum(1).clip(max=classes - 1)
        return labels, groups, rng.normal(0, 0.7, size)[groups]

    def predict(
        self, labels: np.ndarray, groups: np.ndarray | None, noise: np.ndarray, ease: np.ndarray
    ) -> Predictions:
        """Makes the predictions of a model with this noise of its logits (images, classes)."""
        classes = len(self.frequencies)
        logits = noise + np.random.default_rng(self.seed).normal(0, 0.5, (classes, classes))[labels]
        logits[np.arange(len(labels)), labels] += np.maximum(0, np.broadcast_to(self.sharpness, classes)[labels] + ease)
        scores = softmax(logits / self.temperature)
        return Predictions(labels, scores.argmax(1)[None], classes, groups, scores[None])

    def population(self) -> dict[str, float]:
        """Scores of very many images."""
        rng, found = np.random.default_rng(77), defaultdict(list)
        for _ in range(4):
            data = self.draw(rng, 8_000 if self.patients else 100_000)
            for name, value in probability_values(data).items():
                found[name].append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}


def probability_estimates(data: Predictions) -> dict[str, Estimate | None]:
    """Estimates the scores of the probabilities; for two classes, average precision is that of the rare one."""
    classes = range(data.num_classes)
    found = {
        "roc_auc": estimate_ranking([data], binary_auroc, classes),
        "average_precision": estimate_ranking(
            [data], binary_average_precision, classes[-1:] if len(classes) == 2 else classes
        ),
    }
    for name in ("brier", "log_loss"):
        metric = METRICS[name]
        found[name] = estimate_mean([data], metric.function, metric.low, metric.upper_bound(data.num_classes))
    return found


def probability_values(data: Predictions) -> dict[str, float]:
    """Computes the scores of the probabilities, without AUROC and average precision if a class has no image."""
    scores, labels = data.class_scores[0], data.labels
    values = {name: float(METRICS[name].function(scores, labels).mean()) for name in ("brier", "log_loss")}
    if len(np.unique(labels)) == data.num_classes > 1:
        ranks = [rankdata(column) for column in scores.T]
        sides = [labels == label for label in range(data.num_classes)]
        values["roc_auc"] = float(np.mean([_auroc(rank, side) for rank, side in zip(ranks, sides)]))
        pairs = list(zip(scores.T, sides))[-1 if data.num_classes == 2 else 0 :]
        values["average_precision"] = float(np.mean([_average_precision(score, side) for score, side in pairs]))
    return values


def _auroc(ranks: np.ndarray, is_positive: np.ndarray) -> float:
    positive = is_positive.sum()
    return float((ranks[is_positive].sum() - positive * (positive + 1) / 2) / (positive * (len(ranks) - positive)))


def _average_precision(scores: np.ndarray, is_positive: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]
    found = is_positive[order].cumsum()[last]
    return float((np.diff(np.r_[0, found]) * found / (last + 1)).sum() / found[-1])


def probability_scenarios() -> dict[str, ScoreModel]:
    """Scenarios of scores of probabilities."""
    six = np.array([35, 25, 18, 12, 7, 3.5])
    found = {
        "2 classes, 57 images": ScoreModel(np.ones(2), 1.5, 1.0, 57),
        "2 classes 20:1, 105": ScoreModel(np.array([20.0, 1]), 2.0, 1.0, 105, seed=1),
        "2 classes 100:1, 505": ScoreModel(np.array([100.0, 1]), 3.0, 1.0, 505, seed=2),
        "2 classes 100:1, 5000": ScoreModel(np.array([100.0, 1]), 2.0, 1.0, 5000, seed=2),
        "6 classes, 100, overconfident": ScoreModel(six, 2.5, 0.5, 100, seed=3),
        "6 classes, 300": ScoreModel(six, 2.5, 1.0, 300, seed=3),
        "8 classes, 57, easy": ScoreModel(np.ones(8), 5.0, 0.5, 57, seed=4),
        "22 classes 49:1, 1586": ScoreModel(LONG_TAIL, 2.5, 1.0, 1586, seed=5),
        "22 classes 49:1, 1586, rare worse": ScoreModel(LONG_TAIL, np.linspace(5, 1, 22), 0.5, 1586, seed=5),
        "5 classes, 100, perfect": ScoreModel(np.ones(5), 30.0, 0.2, 100, seed=7),
        "3 classes, 120, random": ScoreModel(np.array([3.0, 2, 1]), 0.0, 1.0, 120, seed=8),
    }
    for patients in (10, 40, 200):
        for skewed in (False, True):
            name = f"{patients} patients, {'skewed' if skewed else 'equal'}, 6 classes"
            found[name] = ScoreModel(six, 2.5, 1.0, patients, True, skewed, 9)
    return found


def simulate_probabilities(model: ScoreModel, seed: int, draws: int, bootstrap_draws: int, resamples: int) -> Tally:
    """Simulates the intervals of scores of probabilities; bootstrap: percentile, with a fifth of the resamples."""
    rng, tally, truth = np.random.default_rng(seed), Tally(), model.population()
    for draw in range(draws):
        data = model.draw(rng)
        enough = bool((np.bincount(data.labels, minlength=data.num_classes) >= 5).all())
        for name, estimate in probability_estimates(data).items():
            interval, value = (estimate.interval, estimate.value) if estimate else (None, 0.0)
            tally.add("hf_mae", name, truth[name], interval, value, enough)
        if draw < bootstrap_draws:
            values = defaultdict(list)
            for resample in _resamples(data, np.random.default_rng((seed, draw)), resamples // 5):
                for name, value in probability_values(resample).items():
                    values[name].append(value)
            for name, numbers in values.items():
                low, high = np.quantile(numbers, [0.025, 0.975])
                tally.add("percentile", name, truth[name], (float(low), float(high)), 0.0)
    return tally


def _resamples(data: Predictions, rng: np.random.Generator, count: int) -> Iterator[Predictions]:
    members = (
        [np.flatnonzero(data.groups == group) for group in np.unique(data.groups)] if data.groups is not None else None
    )
    for _ in range(count):
        if members is None:
            yield data.select(rng.integers(0, len(data.labels), len(data.labels)))
        else:
            yield data.select(np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))]))


# Pairs of models


def draw_pair(
    scenario: Images | Patients, rng: np.random.Generator, advantage: float
) -> tuple[Predictions, Predictions, np.ndarray]:
    """Draws two models on the same images, and the table of the second.

    The second model copies 60 % of the predictions of the first one; its other predictions are drawn from the rows of
    the table of the scenario (for patients, of the patient's own images), and `advantage` of them are right.
    """
    first = scenario.draw(rng)
    table = scenario.population() if isinstance(scenario, Images) else scenario.table  # type: ignore[attr-defined]
    rows = safe_divide(table, table.sum(1, keepdims=True))
    own = (rng.random((len(first.labels), 1)) > rows[first.labels].cumsum(1)).sum(1).clip(max=len(table) - 1)
    own = np.where(rng.random(len(own)) < advantage, first.labels, own)
    predicted = np.where(rng.random(len(own)) < 0.6, first.predicted[0], own)
    better = (1 - advantage) * rows + advantage * np.eye(len(table))
    second_table = table.sum(1, keepdims=True) * (0.6 * rows + 0.4 * better)
    return first, replace(first, predicted=predicted[None]), second_table


class PairTally(Tally):
    """Coverage of differences, and the level of the tests at a margin that equals the difference of the population."""

    def __init__(self) -> None:
        super().__init__()
        self.rejected: dict[tuple[float, str], list[bool]] = defaultdict(list)

    def add_difference(self, name: str, truth: float, difference: ScoreDifference | None) -> None:
        """Records the interval and one-sided p values of a difference."""
        if difference is None:
            return
        self.add("hf_mae", name, truth, difference.interval(), difference.value)
        if difference.reason is None:
            above = difference.p_value_above(truth)
            for level in LEVELS:
                self.rejected[level, name] += [above <= level, 1 - above <= level]


def wald_interval(first: ModelScores, second: ModelScores, name: str) -> tuple[float, float] | None:
    """Computes the interval of a difference without smoothing (for AUROC: DeLong et al., 1988); None: not defined."""
    one, two = first.score(name), second.score(name)
    if one is None or two is None:
        return None
    values, information = (
        two.influence.values - one.influence.values,
        one.influence.information + two.influence.information,
    )
    design, value = Influence(values, information, 0.0).design(first.group), two.value - one.value
    margin = t_quantile(design.degrees_of_freedom) * float((values**2).sum() * design.factor) ** 0.5
    return (value - margin, value + margin) if np.isfinite(margin) else None


def _without_smoothing(data: Predictions) -> ModelScores:
    scores = ModelScores([data])
    scores.sample = Sample([data], 0.0)  # type: ignore[misc]
    return scores


def simulate_pairs(
    scenario: Images | Patients, seed: int, draws: int, advantage: float, bootstrap_draws: int = 0, resamples: int = 0
) -> PairTally:
    """Simulates the intervals of differences."""
    rng, tally, table = np.random.default_rng(seed), PairTally(), scenario.population()
    scenario.table = table  # type: ignore[union-attr]
    for draw in range(draws):
        first, second, second_table = draw_pair(scenario, rng, advantage)
        models = ModelScores([first]), ModelScores([second])
        one = population_scores(table, first.confusion_matrices()[0])
        two = population_scores(second_table, second.confusion_matrices()[0])
        truth = {name: two[name] - one[name] for name in SCORES}
        for name in SCORES:
            tally.add_difference(name, truth[name], estimate_difference(*models, name))
        if draw >= bootstrap_draws:
            continue
        others = bootstrap_intervals((first, second), np.random.default_rng((seed, draw)), resamples)
        with np.errstate(invalid="ignore", divide="ignore"):
            plain = _without_smoothing(first), _without_smoothing(second)
            others["Wald"] = {name: ends for name in SCORES if (ends := wald_interval(*plain, name)) is not None}
        tally.add_others(others, truth)
    return tally


def simulate_class_pairs(scenario: Images | Patients, seed: int, draws: int, advantage: float, *_: int) -> PairTally:
    """Simulates the intervals of differences of the scores of each class, with `draws` intervals of each score."""
    rng, tally, table = np.random.default_rng(seed), PairTally(), scenario.population()
    scenario.table = table  # type: ignore[union-attr]
    for _ in range(-(-draws // len(table))):
        first, second, second_table = draw_pair(scenario, rng, advantage)
        for label in range(len(table)):
            _add_class_differences(tally, first, second, label, (table, second_table))
    return tally


def _add_class_differences(
    tally: PairTally, first: Predictions, second: Predictions, label: int, tables: tuple[np.ndarray, np.ndarray]
) -> None:
    """Records the differences of the rates of a class, also of the predictive values at `AT_PREVALENCE`."""
    folds = [
        Predictions((model.labels == label).astype(int), (model.predicted == label).astype(int), 2, model.groups)
        for model in (first, second)
    ]
    ends = np.eye(len(tables[0]))[label]
    sides = np.stack([1 - ends, ends])
    binary = [sides @ table @ sides.T for table in tables]
    for prevalence, names in ((None, CLASS_SCORES), (AT_PREVALENCE, ("ppv", "npv"))):
        models = [ModelScores([fold], prevalence, binary=True) for fold in folds]
        for name in names:
            values = [_binary_score(table, name, prevalence) for table in binary]
            title = name if prevalence is None else f"{name} at {AT_PREVALENCE:g}"
            tally.add_difference(title, values[1] - values[0], estimate_difference(*models, name))


def _binary_score(table: np.ndarray, name: str, prevalence: float | None) -> float:
    if prevalence is not None:
        return float(predictive_values(table, prevalence)[name])
    return _population_rate(class_f1(1) if name == "f1" else class_rate(name, 1), table)


def simulate_score_pairs(
    model: ScoreModel, seed: int, draws: int, advantage: float, bootstrap_draws: int = 0, _: int = 0
) -> PairTally:
    """Simulates the intervals of differences of scores of probabilities."""
    rng, tally = np.random.default_rng(seed), PairTally()
    truth = dict.fromkeys(PROBABILITY_SCORES, 0.0)
    if advantage:
        size, populations = 8_000 if model.patients else 100_000, np.random.default_rng(77)
        large = [[replace(one, groups=None) for one in model.draw_pair(populations, advantage, size)] for _ in range(4)]
        for name in PROBABILITY_SCORES:
            values = [[ModelScores([one]).score(name).value for one in pair] for pair in large]
            truth[name] = float(np.mean([second - first for first, second in values]))
    for draw in range(draws):
        models = [ModelScores([one]) for one in model.draw_pair(rng, advantage)]
        for name in PROBABILITY_SCORES:
            tally.add_difference(name, truth[name], estimate_difference(*models, name))
            ends = wald_interval(models[0], models[1], name) if draw < bootstrap_draws else None
            if ends is not None:
                tally.add("Wald", name, truth[name], ends, 0.0)
    return tally


def simulate_score_tests(model: ScoreModel, seed: int, draws: int, permutations: int) -> dict[str, list[bool]]:
    """Simulates the tests of scores of two exchangeable models: false positives at the 5 % level."""
    rng, rejected = np.random.default_rng(seed), defaultdict(list)
    for _ in range(draws):
        first, second = (ModelScores([one]) for one in model.draw_pair(rng, 0.0))
        for name, p_value in score_permutation_tests(first, second, permutations, int(rng.integers(2**31))).items():
            rejected[name].append(p_value <= 0.05)
    return rejected


def simulate_tests(scenario: Images | Patients, seed: int, draws: int, permutations: int) -> dict[str, list[bool]]:
    """Simulates the tests of two models that are exchangeable: false positives at the 5 % level."""
    rng, rejected = np.random.default_rng(seed), defaultdict(list)
    scenario.table = scenario.population()  # type: ignore[union-attr]
    for _ in range(draws):
        first, second, _ = draw_pair(scenario, rng, 0.0)
        swap = rng.random(len(first.labels) if first.groups is None else first.groups.max() + 1) < 0.5
        swap = swap if first.groups is None else swap[first.groups]
        one, two = np.where(swap, second.predicted, first.predicted), np.where(swap, first.predicted, second.predicted)
        pair = replace(first, predicted=one), replace(first, predicted=two)
        p_values = permutation_tests([pair[0]], [pair[1]], permutations, int(rng.integers(2**31)))
        if first.groups is None:  # as `compare_predictions` does
            p_values["accuracy"] = float(mcnemar(first.labels, one, two)["p_value"])
        for name, p_value in p_values.items():
            rejected[name].append(p_value <= 0.05)
    return rejected


def simulate_interactions(
    scenario: Images | Patients, seed: int, draws: int, by_patient: bool
) -> dict[str, list[bool]]:
    """Simulates the tests of interaction of two subgroups of images or patients: false positives at the 5 % level.

    Only classes that both subgroups have are compared.
    """
    rng, rejected = np.random.default_rng(seed), defaultdict(list)
    for _ in range(draws):
        data = scenario.draw(rng)
        units = np.arange(len(data.labels)) if data.groups is None or not by_patient else data.groups
        part = (rng.random(units.max() + 1) < 0.4)[units]
        subgroups = [[data.select(part)], [data.select(~part)]]
        if any(len(folds[0].labels) < 3 for folds in subgroups) or not (shared := share_classes(subgroups)):
            continue
        compared = [select_classes(folds, shared) for folds in subgroups]
        for test in interaction_tests(compared, ("macro_f1", "accuracy"), 199, int(rng.integers(2**31))):
            rejected[test.score].append(test.p_value <= 0.05)
    return rejected


# Tables


def print_header(first: str, names: tuple[str, ...]) -> None:
    """Prints the header of a table."""
    titles = [METRICS[name].title if name in METRICS else TITLES.get(name, name.replace("_", " ")) for name in names]
    print(f"\n| {first} | method | " + " | ".join(titles) + " |\n|---|---|" + "---:|" * len(names), flush=True)


def print_tally(
    title: str, tally: Tally, names: tuple[str, ...], scale: float, methods: tuple[str, ...] = METHODS
) -> None:
    """Prints the rows of a scenario, and faults."""
    for method in methods:
        cells = [tally.cell(method, name, scale) for name in names]
        if any(cell != "-" for cell in cells):
            print(f"| {title} | {method} | " + " | ".join(cells) + " |", flush=True)
    for fault in tally.faults[:3]:
        print(f"FAULT {fault}", flush=True)


def print_wide(tallies: dict[str, Tally], names: tuple[str, ...]) -> None:
    """Prints the widths of the intervals that cover more than 98 %."""
    print("\n| scenario | score | coverage | narrowest other method | ratio of widths |\n|---|---|---:|---|---:|")
    for title, tally in tallies.items():
        for name in names:
            if (coverage := tally.coverage("hf_mae", name)) > 98:
                method, ratio = tally.wide(name) or ("none", None)
                print(f"| {title} | {name} | {coverage:.1f} | {method} | {f'{ratio:.2f}' if ratio else '-'} |")


def print_tables(args: argparse.Namespace) -> None:
    """Scores of confusion matrices, and of each class."""
    tallies = {}
    print_header("scenario", SCORES)
    for seed, (title, scenario) in enumerate(table_scenarios().items()):
        if args.match in title:
            tallies[title] = simulate_tables(scenario, seed, args.draws, args.bootstrap_draws, args.resamples)
            print_tally(title, tallies[title], SCORES, 100.0, METHODS[:3])
    for names, methods in ((CLASSICAL_SCORES, METHODS[3:]), (CLASS_TABLE_SCORES, METHODS[:1])):
        print_header("scenario", names)
        for title, tally in tallies.items():
            print_tally(title, tally, names, 100.0, methods)
    print_wide(tallies, SCORES)


def print_probabilities(args: argparse.Namespace) -> None:
    """Scores of probabilities."""
    tallies = {}
    print_header("scenario", PROBABILITY_SCORES)
    for seed, (title, model) in enumerate(probability_scenarios().items()):
        if args.match in title:
            tallies[title] = simulate_probabilities(model, seed, args.draws, args.bootstrap_draws, args.resamples)
            print_tally(title, tallies[title], PROBABILITY_SCORES, 1.0)
    print_wide(tallies, PROBABILITY_SCORES)


def print_pairs(args: argparse.Namespace) -> None:
    """Differences of two models."""
    _print_pair_tables(args, SCORES, table_scenarios(), simulate_pairs, 100.0)


def print_class_pairs(args: argparse.Namespace) -> None:
    """Differences of two models, scores of each class."""
    names = (*CLASS_SCORES, *(f"{name} at {AT_PREVALENCE:g}" for name in ("ppv", "npv")))
    _print_pair_tables(args, names, table_scenarios(), simulate_class_pairs, 100.0)


def print_score_pairs(args: argparse.Namespace) -> None:
    """Differences of two models, scores of probabilities."""
    _print_pair_tables(args, PROBABILITY_SCORES, probability_scenarios(), simulate_score_pairs, 1.0)


def _print_pair_tables(
    args: argparse.Namespace, names: tuple[str, ...], scenarios: dict, simulate: Callable, scale: float
) -> None:
    """Prints coverage and widths, and the share of rejected hypotheses at the margin of one-sided tests."""
    print_header("scenario, second model", names)
    tallies = {}
    for seed, (title, scenario) in enumerate(scenarios.items()):
        for name, advantage in (("equal", 0.0), ("better", 0.4)) if args.match in title else ():
            tally = simulate(scenario, seed, args.draws, advantage, args.bootstrap_draws, args.resamples)
            print_tally(f"{title}, {name}", tally, names, scale, PAIR_METHODS)
            tallies[f"{title}, {name}"] = tally
    print_wide(tallies, names)
    print_header("share of significant one-sided tests at the margin: scenario, second model", names)
    for title, tally in tallies.items():
        for level in LEVELS:
            cells = [f"{100 * np.mean(tally.rejected[level, score] or [np.nan]):.1f}" for score in names]
            print(f"| {title} | {100 * level:g} % | " + " | ".join(cells) + " |", flush=True)


def print_tests(args: argparse.Namespace) -> None:
    """Level of the tests between models."""
    print("\n| scenario | macro F1 | accuracy | MCC | QWK |\n|---|" + "---:|" * 4)
    for seed, (title, scenario) in enumerate(table_scenarios().items()):
        if args.match in title:
            rejected = simulate_tests(scenario, seed, args.draws, args.permutations)
            _print_level(title, [rejected[name] for name in ("macro_f1", "accuracy", "mcc", "qwk")])


def print_interactions(args: argparse.Namespace) -> None:
    """Level of the tests of interaction."""
    print("\n| scenario | macro F1 | accuracy | images of each patient: macro F1 | accuracy |\n|---|" + "---:|" * 4)
    for seed, (title, scenario) in enumerate(table_scenarios().items()):
        if args.match in title:
            kinds = (True, False) if isinstance(scenario, Patients) else (True,)
            found = [simulate_interactions(scenario, seed, args.draws, by_patient) for by_patient in kinds]
            _print_level(title, [one[name] for one in found for name in ("macro_f1", "accuracy")])


def _print_level(title: str, rejected: list[list[bool]]) -> None:
    cells = " | ".join(f"{100 * np.mean(values):.1f}" if values else "-" for values in rejected)
    print(f"| {title} | {cells} |", flush=True)


def print_score_tests(args: argparse.Namespace) -> None:
    """Level of the tests of scores of probabilities."""
    print("\n| scenario | " + " | ".join(METRICS[name].title for name in PROBABILITY_SCORES) + " |")
    print("|---|" + "---:|" * len(PROBABILITY_SCORES))
    for seed, (title, model) in enumerate(probability_scenarios().items()):
        if args.match in title:
            rejected = simulate_score_tests(model, seed, args.draws, args.permutations)
            _print_level(title, [rejected[name] for name in PROBABILITY_SCORES])


TABLES = {
    "tables": print_tables,
    "probabilities": print_probabilities,
    "pairs": print_pairs,
    "class_pairs": print_class_pairs,
    "score_pairs": print_score_pairs,
    "tests": print_tests,
    "score_tests": print_score_tests,
    "interactions": print_interactions,
}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="samples per scenario")
    parser.add_argument("--bootstrap_draws", type=int, default=300, help="samples with bootstrap intervals")
    parser.add_argument("--resamples", type=int, default=1000, help="resamples of a bootstrap interval")
    parser.add_argument("--permutations", type=int, default=199, help="permutations of each test between models")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="print only these tables")
    parser.add_argument("--match", default="", help="only scenarios whose name contains this text")
    args = parser.parse_args()
    for name in args.only:
        print(
            f"\n{TABLES[name].__doc__} Coverage in per cent (mean width) [share without an interval], "
            f"{args.draws} draws."
        )
        TABLES[name](args)


if __name__ == "__main__":
    main()
