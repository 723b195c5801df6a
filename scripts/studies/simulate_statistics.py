"""Simulates the intervals and tests of a report: `python scripts/studies/simulate_statistics.py [--simulations 1000]`.

Coverage: fraction of 95 % intervals that contain the true score, for a long tail of 22 classes and 1,586 images (the
class sizes of the GastroVision test split), and for 10 to 200 patients of equal and skewed sizes. False positives:
fraction of tests at 5 % that reject for two equally good models; power: fraction that rejects if one model is a few
points better. The rows "before" are the percentile interval of the stratified bootstrap and McNemar's test on images.
Seeds are fixed; the tables are in docs/statistics.md.
"""

import argparse
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np

from hf_mae.evaluation.intervals import RATES, estimate_rates_by_class, headline_metric_intervals
from hf_mae.evaluation.metrics import headline_metric_names, headline_metrics, softmax
from hf_mae.evaluation.prediction_table import Predictions, clusters_from_predictions
from hf_mae.evaluation.probability_metrics import estimate_probability_metrics
from hf_mae.evaluation.significance import compare_predictions, compared_metric_names, mcnemar
from hf_mae.evaluation.subgroups import interaction_tests
from hf_mae.settings.metrics import METRICS

LONG_TAIL = (293, 253, 194, 169, 163, 78, 66, 49, 41, 40, 34, 28, 28, 28, 23, 22, 19, 19, 14, 13, 6, 6)
CLASSES, IMAGES_A_PATIENT = 6, 25
PATIENTS = (10, 20, 40, 200)
RESAMPLES, PERMUTATIONS = 1000, 999
LOGIT_ADVANTAGE = 0.5  # on the logit of a correct prediction: about 8 points of accuracy


# Simulated populations


def make_long_tail_model(seed: int) -> np.ndarray:
    """A model of 22 classes, given by its confusion probabilities (classes, classes)."""
    rng, classes = np.random.default_rng(seed), len(LONG_TAIL)
    right = np.clip(0.85 - 0.25 * np.arange(classes) / classes + rng.normal(0, 0.15, classes), 0.1, 0.98)
    rows = np.zeros((classes, classes))
    sizes = np.array(LONG_TAIL) / np.mean(LONG_TAIL)
    for label in range(classes):
        others = rng.dirichlet(0.15 * np.sqrt(sizes))
        others[label] = 0.0
        rows[label] = (1 - right[label]) * others / others.sum()
        rows[label, label] = right[label]
    return rows


class Hospital:
    """Patients of different classes with different error rates; errors are correlated within a patient."""

    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        self.mixture = 6 * np.array([0.35, 0.25, 0.18, 0.12, 0.07, 0.03])
        self.accuracy_logits = rng.normal(1.3, 0.6, CLASSES)
        self.error_distribution = rng.dirichlet(np.full(CLASSES, 0.5), CLASSES)
        np.fill_diagonal(self.error_distribution, 0.0)
        self.error_distribution /= self.error_distribution.sum(1, keepdims=True)

    def sizes(self, rng: np.random.Generator, patients: int, skewed: bool) -> np.ndarray:
        """Number of images of each patient."""
        if not skewed:
            return np.full(patients, IMAGES_A_PATIENT)
        weights = rng.lognormal(0, 1, patients)
        return np.maximum(1, np.round(weights / weights.sum() * patients * IMAGES_A_PATIENT)).astype(int)

    def sample(
        self, rng: np.random.Generator, patients: int, skewed: bool, models: int, advantage: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws labels (images,), predictions (models, images) and patients; the last model is better on the logit."""
        sizes = self.sizes(rng, patients, skewed)
        mixtures = rng.dirichlet(self.mixture, patients)
        groups = np.repeat(np.arange(patients), sizes)
        labels = np.concatenate([rng.choice(CLASSES, size, p=mix) for size, mix in zip(sizes, mixtures)])
        hard = rng.normal(0, 1, patients)  # for every model
        predicted = np.empty((models, len(labels)), dtype=int)
        for model in range(models):
            own = hard + rng.normal(0, 0.7, patients)
            logits = self.accuracy_logits[labels] + own[groups] + (advantage if model == models - 1 else 0.0)
            right = rng.random(len(labels)) < 1 / (1 + np.exp(-logits))
            others = (
                (rng.random((len(labels), 1)) > self.error_distribution[labels].cumsum(1)).sum(1).clip(max=CLASSES - 1)
            )
            predicted[model] = np.where(right, labels, others)
        return labels, predicted, groups

    def get_true_scores(self, skewed: bool) -> dict[str, float]:
        """True scores of one model, estimated on very many patients."""
        labels, predicted, _ = self.sample(np.random.default_rng(0), 20_000, skewed, 1)
        return _get_mean_scores(Predictions(labels, predicted, CLASSES))


def _get_mean_scores(data: Predictions) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in headline_metrics(data.confusion_matrices()).items()}


# Earlier methods


def percentile_intervals(data: Predictions, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Percentile interval of a bootstrap stratified by class (for groups: by their most frequent class)."""
    units = clusters_from_predictions([data])
    (matrices,), times = units.matrices, units.counts
    strata = units.strata if units.kind == "images" else matrices[0].sum(2).argmax(1)
    drawn = np.zeros((RESAMPLES, len(times)))
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        count = int(times[inside].sum())
        drawn[:, inside] = rng.multinomial(count, times[inside] / count, size=RESAMPLES)
    flat = matrices[0].reshape(len(times), -1)
    values = headline_metrics((drawn @ flat).reshape(RESAMPLES, data.num_classes, data.num_classes))
    return {name: tuple(np.percentile(values[name], [2.5, 97.5])) for name in headline_metric_names(False)}


# Simulations


def cover_long_tail(seed: int, simulations: int) -> dict[tuple[str, str], list[bool]]:
    """Covered intervals by method and score, for one model of the long tail."""
    rows, rng = make_long_tail_model(seed), np.random.default_rng(1000 + seed)
    sizes = np.array(LONG_TAIL)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    truth = {name: float(value) for name, value in headline_metrics(rows * sizes[:, None]).items()}
    hits = defaultdict(list)
    for _ in range(simulations):
        predicted = np.concatenate([rng.choice(len(sizes), size, p=row) for size, row in zip(sizes, rows)])
        _record_hits(hits, Predictions(labels, predicted[None], len(sizes)), truth, rng)
    return hits


def cover_patients(seed: int, simulations: int, patients: int, skewed: bool) -> dict[tuple[str, str], list[bool]]:
    """Covered intervals by method and score, in one hospital."""
    hospital, rng = Hospital(seed), np.random.default_rng(2000 + seed)
    truth, hits = hospital.get_true_scores(skewed), defaultdict(list)
    for _ in range(simulations):
        labels, predicted, groups = hospital.sample(rng, patients, skewed, 1)
        _record_hits(hits, Predictions(labels, predicted, CLASSES, groups), truth, rng)
    return hits


def cover_rates(seed: int, simulations: int, patients: int) -> dict[tuple[str, str], list[bool]]:
    """Covered intervals of the per-class rates, in one hospital."""
    hospital, rng, hits = Hospital(seed), np.random.default_rng(4000 + seed), defaultdict(list)
    labels, predicted, _ = hospital.sample(np.random.default_rng(0), 20_000, False, 1)
    truth = estimate_rates_by_class([Predictions(labels, predicted, CLASSES)])
    for _ in range(simulations):
        labels, predicted, groups = hospital.sample(rng, patients, False, 1)
        for of_class, real in zip(estimate_rates_by_class([Predictions(labels, predicted, CLASSES, groups)]), truth):
            for name, rate in of_class.items():
                if rate.interval is not None:
                    hits["now", name].append(rate.interval[0] <= real[name].value <= rate.interval[1])
    return hits


WITH_INTERVAL = ("roc_auc", "brier", "log_loss")


class ProbabilisticModel:
    """A model with class scores that is over- or under-confident."""

    def __init__(self, seed: int, frequencies: np.ndarray):
        rng = np.random.default_rng(seed)
        self.frequencies = frequencies / frequencies.sum()
        self.sharpness = rng.normal(2.5, 0.5, len(frequencies))
        self.temperature = (1.0, 0.85, 0.7, 0.5, 1.5)[seed % 5]
        self.class_confusion = rng.normal(0, 0.5, (len(frequencies), len(frequencies)))

    def sample(self, rng: np.random.Generator, sizes: np.ndarray | int) -> Predictions:
        """Draws predictions for patients of these sizes, or for a number of images."""
        classes, count = len(self.frequencies), int(np.sum(sizes))
        groups = None
        if isinstance(sizes, np.ndarray):
            groups = np.repeat(np.arange(len(sizes)), sizes)
            mixtures = rng.dirichlet(4 * self.frequencies, len(sizes)).cumsum(1)[groups]
            labels = (rng.random((count, 1)) > mixtures).sum(1).clip(max=classes - 1)
            ease = rng.normal(0, 0.7, len(sizes))[groups]
        else:
            labels, ease = rng.choice(classes, count, p=self.frequencies), np.zeros(count)
        logits = rng.normal(0, 1, (count, classes)) + self.class_confusion[labels]
        logits[np.arange(count), labels] += np.maximum(0, self.sharpness[labels] + ease)
        scores = softmax(logits / self.temperature)
        return Predictions(labels, scores.argmax(1)[None], classes, groups, scores[None])

    def get_true_scores(self, sizes) -> dict[str, float]:
        """True scores: mean over draws of very many patients or images."""
        found = defaultdict(list)
        for seed in range(8):
            rng = np.random.default_rng(seed)
            for name, score in estimate_probability_metrics(
                [replace(self.sample(rng, sizes(rng)), groups=None)]
            ).items():
                found[name].append(score.value)
        return {name: float(np.mean(values)) for name, values in found.items()}


def cover_probabilities(
    seed: int, simulations: int, patients: int | None, skewed: bool
) -> dict[tuple[str, str], list[bool]]:
    """Covered intervals of AUROC, Brier score and log loss, for one model."""
    model = ProbabilisticModel(seed, np.array(LONG_TAIL if patients is None else (35, 25, 18, 12, 7, 3), dtype=float))
    rng, hospital, hits = np.random.default_rng(5000 + seed), Hospital(seed), defaultdict(list)
    truth = model.get_true_scores(lambda draw: hospital.sizes(draw, 8_000, skewed) if patients else 100_000)
    for _ in range(simulations):
        sizes = hospital.sizes(rng, patients, skewed) if patients else sum(LONG_TAIL)
        for name, found in estimate_probability_metrics([model.sample(rng, sizes)]).items():
            if found.interval is not None:
                hit = found.interval[0] <= truth[name] <= found.interval[1]
                hits["now", name].append(hit)
                hits[f"temperature {model.temperature}", name].append(hit)
    return hits


def _record_hits(hits, data: Predictions, truth: dict[str, float], rng: np.random.Generator) -> None:
    for method, found in (("before", percentile_intervals(data, rng)), ("now", headline_metric_intervals([data]))):
        for name in headline_metric_names(False):
            if (ends := found[name]) is not None:
                hits[method, name].append(ends[0] <= truth[name] <= ends[1])


def simulate_rejections(
    seed: int, simulations: int, patients: int, skewed: bool, advantage: float
) -> dict[tuple[str, str], list[bool]]:
    """Number of rejections at 5 %, by test and score."""
    hospital, rng, found = Hospital(seed), np.random.default_rng(3000 + seed), defaultdict(list)
    for _ in range(simulations):
        labels, predicted, groups = hospital.sample(rng, patients, skewed, 2, advantage)
        one, two = (Predictions(labels, predicted[[model]], CLASSES, groups) for model in (0, 1))
        for entry in compare_predictions([one], [two], PERMUTATIONS, int(rng.integers(2**31))):
            found["now", entry.score].append(entry.p_value < 0.05)
            if entry.interval is not None:
                found["interval", entry.score].append(not entry.interval[0] <= 0 <= entry.interval[1])
        found["before", "accuracy"].append(float(mcnemar(labels, *predicted)["p_value"]) < 0.05)
    return found


def run_in_parallel(simulate, simulations: int, num_worlds: int, *more) -> dict[tuple[str, str], float]:
    """Percentages over all simulations, distributed over populations and processes."""
    together = defaultdict(list)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        each = [pool.submit(simulate, seed, simulations // num_worlds, *more) for seed in range(num_worlds)]
        for done in each:
            for key, values in done.result().items():
                together[key] += values
    return {key: 100 * float(np.mean(values)) for key, values in together.items()}


def print_coverage(simulations: int, worlds: int) -> None:
    """Table of the coverage of intervals."""
    print(
        "| images | method | "
        + " | ".join(headline_metric_names(False))
        + " |\n|---|---|"
        + "---:|" * len(headline_metric_names(False))
    )
    settings = [("22 classes, 1,586 images", cover_long_tail, ())]
    settings += [
        (f"{patients} patients, {'skewed' if skewed else 'equal'} sizes", cover_patients, (patients, skewed))
        for patients in PATIENTS
        for skewed in (False, True)
    ]
    for title, what, more in settings:
        found = run_in_parallel(what, simulations, worlds, *more)
        for method in ("before", "now"):
            cells = " | ".join(f"{found[method, name]:.1f}" for name in headline_metric_names(False))
            print(f"| {title} | {method} | {cells} |", flush=True)


def print_rates(simulations: int, worlds: int) -> None:
    """Table of the coverage of per-class rates."""
    print("| images | " + " | ".join(RATES) + " |\n|---|" + "---:|" * len(RATES))
    for patients in PATIENTS:
        found = run_in_parallel(cover_rates, simulations, worlds, patients)
        cells = " | ".join(f"{found['now', name]:.1f}" for name in RATES)
        print(f"| {patients} patients | {cells} |", flush=True)


def print_probabilities(simulations: int, worlds: int) -> None:
    """Table of the coverage of probability scores."""
    print("| images | " + " | ".join(METRICS[name].title for name in WITH_INTERVAL) + " |\n|---|---:|---:|---:|")
    settings = [("22 classes, 1,586 images", None, False)]
    settings += [
        (f"{patients} patients, {'skewed' if skewed else 'equal'} sizes", patients, skewed)
        for patients in PATIENTS
        for skewed in (False, True)
    ]
    for title, *setting in settings:
        found = run_in_parallel(cover_probabilities, simulations, worlds, *setting)
        cells = " | ".join(f"{found['now', name]:.1f}" for name in WITH_INTERVAL)
        print(f"| {title} | {cells} |", flush=True)


def simulate_interaction_tests(
    seed: int, simulations: int, patients: int, skewed: bool, within: bool
) -> dict[tuple[str, str], list[bool]]:
    """Rejections of the interaction test for three subgroups of patients, or two of their images."""
    hospital, rng, found = Hospital(seed), np.random.default_rng(6000 + seed), defaultdict(list)
    for _ in range(simulations):
        labels, predicted, groups = hospital.sample(rng, patients, skewed, 1)
        if within:
            part = rng.choice(2, len(labels))
        else:
            part = rng.choice(3, patients, p=[0.5, 0.3, 0.2])[groups]
        parts = [
            [Predictions(labels[inside], predicted[:, inside], CLASSES, groups[inside])]
            for inside in (part == value for value in np.unique(part))
        ]
        for test in interaction_tests(parts, headline_metrics, ("macro_f1", "accuracy")):
            found["now", test.score].append(test.p_value < 0.05)
    return found


def print_subgroups(simulations: int, worlds: int) -> None:
    """Table of interaction tests."""
    print("| images | subgroups | macro_f1 | accuracy |\n|---|---|---:|---:|")
    for patients in PATIENTS[1:]:
        for skewed in (False, True):
            for within in (False, True):
                found = run_in_parallel(simulate_interaction_tests, simulations, worlds, patients, skewed, within)
                title = f"{patients} patients, {'skewed' if skewed else 'equal'} sizes"
                parts = "two, images of each patient" if within else "three, patients"
                print(
                    f"| {title} | {parts} | {found['now', 'macro_f1']:.1f} | {found['now', 'accuracy']:.1f} |",
                    flush=True,
                )


def print_tests(simulations: int, worlds: int) -> None:
    """Table of tests between models."""
    heads = [f"{name}: {what}" for name in compared_metric_names(False) for what in ("false positives", "power")]
    print("| images | " + " | ".join(heads) + " | McNemar on images: false positives |")
    print("|---|" + "---:|" * (len(heads) + 1))
    for patients in PATIENTS:
        for skewed in (False, True):
            null = run_in_parallel(simulate_rejections, simulations, worlds, patients, skewed, 0.0)
            power = run_in_parallel(simulate_rejections, simulations // 2, worlds, patients, skewed, LOGIT_ADVANTAGE)
            cells = [f"{found['now', name]:.1f}" for name in compared_metric_names(False) for found in (null, power)]
            title = f"{patients} patients, {'skewed' if skewed else 'equal'} sizes"
            print(f"| {title} | {' | '.join(cells)} | {null['before', 'accuracy']:.1f} |", flush=True)


TABLES = {
    "scores": ("Coverage of 95 % intervals", print_coverage),
    "rates": ("Coverage of the intervals of rates by class", print_rates),
    "probabilities": ("Coverage of the intervals of probabilities", print_probabilities),
    "subgroups": ("False positives of the interaction test at 5 %", print_subgroups),
    "tests": ("Rejections at 5 % (power: half as many simulations)", print_tests),
}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000, help="simulations per row")
    parser.add_argument("--worlds", type=int, default=5, help="number of models and hospitals")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="print only these tables")
    args = parser.parse_args()
    for name in args.only:
        title, table = TABLES[name]
        print(f"\n{title}, in per cent, {args.simulations:,} simulations per row.\n", flush=True)
        table(args.simulations, args.worlds)


if __name__ == "__main__":
    main()
