"""Splits a benchmark into two balanced folds without a patient or video in both:
`python scripts/studies/draw_group_folds.py kvasir-capsule-11 --split_file split_0.csv split_1.csv`.

Each class is in both folds. Local search from 200 seeded starts: one group moves, or two are swapped, while this
balances the classes and the number of images. The output is `groups_by_half` of kvasir-capsule-11-by-video.
"""

import argparse
from itertools import combinations

import numpy as np

from hf_mae.data.sources.official_split import read_official_rows
from hf_mae.settings.benchmarks import find_benchmark


def count_by_group(name: str, split_files: list[str] | None) -> tuple[list[str], list[str], np.ndarray]:
    """Returns groups, classes, and the number of images by group and class."""
    benchmark = find_benchmark(name)
    assigned, _ = read_official_rows(benchmark, split_files)
    groups = sorted({str(found.group) for found in assigned.values()})
    counts = np.zeros((len(groups), len(benchmark.classes)))
    for found in assigned.values():
        counts[groups.index(str(found.group)), benchmark.classes.index(found.label)] += 1
    return groups, list(benchmark.classes), counts


def compute_imbalance(second: np.ndarray, counts: np.ndarray) -> float:
    """Imbalance if these groups are in the second fold; a class that is missing in a fold counts most."""
    inside, total = second @ counts, counts.sum(0)
    lacking = ((inside == 0) | (inside == total)).sum()
    return 1000.0 * lacking + ((inside / total - 0.5) ** 2).sum() + (inside.sum() / total.sum() - 0.5) ** 2


def search_folds(counts: np.ndarray, starts: int = 200) -> np.ndarray:
    """Groups of the second fold in the best local optimum."""
    best = None
    for seed in range(starts):
        now = np.random.default_rng(seed).integers(0, 2, len(counts))
        value = compute_imbalance(now, counts)
        while True:
            moves = [(i,) for i in range(len(counts))]
            moves += [(i, j) for i, j in combinations(range(len(counts)), 2) if now[i] != now[j]]
            tried = [
                (compute_imbalance(np.where(np.isin(np.arange(len(now)), move), 1 - now, now), counts), move)
                for move in moves
            ]
            least, move = min(tried)
            if least >= value - 1e-12:
                break
            value, now = least, np.where(np.isin(np.arange(len(now)), move), 1 - now, now)
        if best is None or value < best[0]:
            best = value, now
    found = best[1]
    return 1 - found if found[0] else found


def main() -> None:
    """Prints the folds and their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark")
    parser.add_argument("--split_file", nargs="+")
    args = parser.parse_args()
    groups, classes, counts = count_by_group(args.benchmark, args.split_file)
    second = search_folds(counts)
    print("groups_by_half:")
    for fold in (0, 1):
        print(f"- [{', '.join(group for group, half in zip(groups, second) if half == fold)}]")
    for name, inside, total in zip(classes, second @ counts, counts.sum(0)):
        print(f"# {name}: {int(total - inside)} and {int(inside)}")


if __name__ == "__main__":
    main()
