"""Validates the intervals on random scenarios: `python scripts/studies/validate_intervals.py [--scenarios 60]`.

The constants of `hf_mae.evaluation.intervals` were chosen on the scenarios of simulate_statistics.py. Here, numbers of
classes, images and patients, recalls, confusions, and correlations are drawn at random, with other seeds. Each class
has at least 3 expected images and predictions. The summary is in docs/coverage.md.
"""

import argparse
from dataclasses import dataclass, field

import numpy as np
from scipy.special import betaincinv
from simulate_statistics import CLASS_SCORES, SCORES, Images, print_tally, simulate_tables

from hf_mae.evaluation.prediction_table import Predictions

RECALLS = ((2, 2), (5, 1), (1, 1), (9, 1))  # parameters of Beta distributions
ORDERS = ("mixed recalls", "rare classes better", "rare classes worse")
CONFUSIONS = ("neighbours", "one class", "any class")
SIZES = ("equal", "geometric", "Zipf", "lognormal")
QUANTILES = 4000
CLASS_DRAWS = 50  # samples with the scores of each class


def draw_table(rng: np.random.Generator, classes: int, ratio: float) -> tuple[np.ndarray, str]:
    """Draws the probabilities of (label, prediction), with a ratio of the largest to the smallest class."""
    shares, grades = np.geomspace(ratio, 1, classes), np.arange(classes)
    shares /= shares.sum()
    parameters, order, confusion = (values[rng.integers(len(values))] for values in (RECALLS, ORDERS, CONFUSIONS))
    recalls = 0.4 + 0.59 * rng.beta(*parameters, classes)
    if order != ORDERS[0]:
        recalls = np.sort(recalls)[:: 1 if order == ORDERS[1] else -1]
    if confusion == "neighbours":
        errors = 0.3 ** (np.abs(grades[:, None] - grades) - 1.0)
    elif confusion == "one class" and classes > 2:
        errors = np.full((classes, classes), 0.2 / classes)
        errors[:, rng.integers(classes)] += 1
    else:
        errors = rng.dirichlet(np.full(classes, 0.5), classes) + 0.05
    np.fill_diagonal(errors, 0)
    errors /= errors.sum(1, keepdims=True)
    table = shares[:, None] * (np.diag(recalls) + (1 - recalls)[:, None] * errors)
    return table, f"{classes} classes {ratio:.0f}:1, recalls of Beta{parameters}, {order}, confused with {confusion}"


def draw_images(rng: np.random.Generator) -> tuple[str, Images]:
    """Draws a scenario of 57 to 5,000 independent images in 2 to 22 classes."""
    while True:
        table, title = draw_table(rng, int(rng.integers(2, 23)), 10 ** rng.uniform(0, 2))
        least = 3 / min(table.sum(0).min(), table.sum(1).min())
        if least < 5000:
            size = int(np.exp(rng.uniform(np.log(max(57, least)), np.log(5000))))
            return f"{size} images, {title}", Images(table, size)


@dataclass
class BetaPatients:
    """Patients whose recalls have Beta distributions with an intraclass correlation.

    Args:
        table: probabilities of (label, prediction).
        correlation: intraclass correlation of the errors.
        patients, images: number of patients, and mean number of images of each.
        sizes: distribution of the numbers of images, one of `SIZES`.
        one_label: whether all images of a patient have the same class.
    """

    table: np.ndarray
    correlation: float
    patients: int
    images: int
    sizes: str
    one_label: bool
    quantiles: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        recalls, scale = np.diag(self.table) / self.table.sum(1), 1 / self.correlation - 1
        levels = ((np.arange(QUANTILES) + 0.5) / QUANTILES)[:, None]
        self.quantiles = betaincinv(recalls * scale, (1 - recalls) * scale, levels)

    def population(self) -> np.ndarray:
        """Probabilities of (label, prediction)."""
        return self.table

    def draw(self, rng: np.random.Generator) -> Predictions:
        """Draws a sample."""
        classes, shares, count = len(self.table), self.table.sum(1), self.patients
        weights = {
            "equal": lambda: np.ones(count),
            "geometric": lambda: rng.geometric(1 / self.images, count),
            "Zipf": lambda: 1 / np.arange(1, count + 1),
            "lognormal": lambda: rng.lognormal(0, 1, count),
        }[self.sizes]()
        sizes = np.maximum(1, np.round(weights / weights.sum() * count * self.images)).astype(int)
        errors = self.table * (1 - np.eye(classes))
        errors /= errors.sum(1, keepdims=True)
        recalls = self.quantiles[rng.integers(0, QUANTILES, count)]
        mixture = np.eye(classes)[rng.choice(classes, count, p=shares)]
        mixture = mixture if self.one_label else rng.dirichlet(6 * shares, count)
        cells = (mixture * (1 - recalls))[:, :, None] * errors + (mixture * recalls)[:, :, None] * np.eye(classes)
        counts = rng.multinomial(sizes, cells.reshape(count, -1) / cells.sum((1, 2))[:, None])
        flat = np.repeat(np.tile(np.arange(classes**2), count), counts.ravel())
        groups = np.repeat(np.arange(count), sizes)
        return Predictions(flat // classes, (flat % classes)[None], classes, groups, ordered=True)


def draw_patients(rng: np.random.Generator) -> tuple[str, BetaPatients]:
    """Draws a scenario of 10, 40 or 200 patients; if each has one class, each class has 3 expected patients."""
    while True:
        patients, images = int(rng.choice([10, 40, 200])), int(np.exp(rng.uniform(np.log(5), np.log(40))))
        one_label, ratio = bool(rng.random() < 0.3), 10 ** rng.uniform(0, 1)
        table, title = draw_table(rng, int(rng.integers(2, 4 if patients == 10 else 9)), ratio)
        smallest = table.sum(1).min()
        if min(table.sum(0).min(), smallest) * patients * images < 3 or (one_label and smallest * patients < 3):
            continue
        correlation, sizes = float(rng.choice([0.1, 0.3, 0.6])), SIZES[rng.integers(len(SIZES))]
        title = f"{patients} patients, {sizes} sizes, correlation {correlation}, {title}"
        return title + ", one class each" * one_label, BetaPatients(
            table, correlation, patients, images, sizes, one_label
        )


def main() -> None:
    """Prints the coverage of each scenario, and a summary by score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", type=int, default=60, help="scenarios of each kind")
    parser.add_argument("--draws", type=int, default=300, help="samples per scenario")
    parser.add_argument("--seed", type=int, default=1, help="of the scenarios and samples")
    args = parser.parse_args()
    names = (*SCORES, *CLASS_SCORES)
    for kind, draw in (("images", draw_images), ("patients", draw_patients)):
        coverages = []
        for number in range(args.scenarios):
            title, scenario = draw(np.random.default_rng((args.seed, number)))
            tally = simulate_tables(scenario, 1000 * args.seed + number, args.draws, 0, 0, CLASS_DRAWS)  # type: ignore[arg-type]
            print_tally(title, tally, names, 100.0)
            coverages.append([tally.coverage("hf_mae", name) for name in names])
        print(f"\n| {kind}: score | mean | median | lowest | highest coverage |\n|---|---:|---:|---:|---:|")
        for name, values in zip(names, np.transpose(coverages)):
            cells = (values.mean(), np.median(values), values.min(), values.max())
            print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
