"""Simulates the interval of the PPV at a recall of 0.9 and a prevalence of 1:100.

Run `python scripts/studies/simulate_ppv.py [DRAWS]`. Scores are normal, also within patients (intraclass correlation
0.3, sizes with a log-normal spread). The table is in docs/statistics.md.
"""

import sys

import numpy as np
from scipy.stats import norm

from hf_mae.evaluation import ppv_at_recall as module
from hf_mae.evaluation.operating_points import OneVsRest
from hf_mae.evaluation.prediction_table import Predictions

RECALL, PREVALENCE, CORRELATION = 0.9, 1 / 101, 0.3
# Positive and negative images, distance of their means, positive and negative patients (None: unknown), and whether
# the patients with positive images have the negative ones, too
SCENARIOS = [
    *((5, 500, 2.0, None, False), (20, 500, 2.0, None, False), (31, 3000, 2.0, None, False)),
    *((40, 3000, 1.0, None, False), (100, 1000, 3.0, None, False), (158, 2937, 2.5, None, False)),
    *((500, 5000, 2.0, None, False), (50, 50, 1.5, None, False), (200, 200, 4.0, None, False)),
    *((200, 2000, 2.0, (20, 40), False), (500, 2000, 2.0, (40, 200), False), (300, 1000, 2.0, (10, 10), False)),
    *((1000, 5000, 2.0, (100, 200), False), (300, 3000, 2.0, (60, 60), True)),
]


def draw_groups(rng: np.random.Generator, images: int, patients: int) -> np.ndarray:
    """Draws the patient of each image; the number of images varies around `images`."""
    sizes = rng.lognormal(0, 0.7, patients)
    return np.repeat(np.arange(patients), np.maximum(1, np.round(sizes / sizes.sum() * images)).astype(int))


def simulate(
    positives: int, negatives: int, distance: float, patients: tuple[int, int] | None, shared: bool, draws: int
) -> tuple[float, float]:
    """Returns the coverage and the mean width of the intervals."""
    rng, false = np.random.default_rng(1), norm.sf(distance + norm.ppf(1 - RECALL))
    expected = RECALL * PREVALENCE / (RECALL * PREVALENCE + false * (1 - PREVALENCE))
    covered, widths = [], []
    for _ in range(draws):
        groups, sides = None, [positives, negatives]
        if patients:
            of_side = [draw_groups(rng, count, size) for count, size in zip(sides, patients)]
            sides = [len(side) for side in of_side]
            groups = np.concatenate([of_side[0], of_side[1] + (0 if shared else patients[0])])
        values = rng.normal(size=sum(sides))
        if groups is not None:
            between = CORRELATION**0.5 * rng.normal(size=groups.max() + 1)
            values = between[groups] + (1 - CORRELATION) ** 0.5 * values
        labels = np.repeat([1, 0], sides)
        scores = norm.cdf(values + distance * labels)[None]
        predictions = Predictions(labels, scores > 0.5, 2, groups, np.stack([1 - scores, scores], -1))
        found = module.estimate_ppv_at_recall(OneVsRest([predictions]), RECALL, PREVALENCE)
        assert found is not None and found.estimate.interval is not None
        low, high = found.estimate.interval
        covered.append(low <= expected <= high)
        widths.append(high - low)
    return float(np.mean(covered)), float(np.mean(widths))


if __name__ == "__main__":
    module.RESAMPLES = 1
    print("| positive images | negative images | patients | coverage (width) |\n|--:|--:|---|--:|")
    for scenario in SCENARIOS:
        coverage, width = simulate(*scenario, draws=int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
        patients = f"{scenario[3][0]} and {scenario[3][1]}{', the same' if scenario[4] else ''}" if scenario[3] else ""
        print(f"| {scenario[0]} | {scenario[1]} | {patients} | {100 * coverage:.1f} ({100 * width:.1f}) |", flush=True)
