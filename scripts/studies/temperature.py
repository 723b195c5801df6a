"""Effect of temperature scaling on the runs of `long_tail.py` (class imbalance).

    python scripts/studies/temperature.py runs/long_tail

The held-out images of each run are split into halves by patient (here: source frame, from the file name). The rare
class is subsampled in each half to its frequency in the training images. One half fits the temperatures, the other
evaluates them. The table has means over halves and seeds of the expected calibration error (in percent) and the
negative log-likelihood: without temperature, with one temperature, and with the method of hf_mae (temperature by
class if that is better).
"""

import argparse
from pathlib import Path

import numpy as np
from long_tail import SETTINGS, get_folder_name

from hf_mae.evaluation.calibration import Temperature, calibration_gain, fit_class_temperatures, fit_temperature
from hf_mae.runs.predictions import read_prediction_table
from hf_mae.runs.record_io import read_record

NUM_REPEATS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="--out of long_tail.py")
    args = parser.parse_args()
    lines = ["| | none | one | by class if better | by class, of halves |", "|---|---|---|---|---|"]
    for setting in SETTINGS:
        folders = sorted(file.parent for file in args.runs.glob(f"{get_folder_name(setting)}-*/all_results.json"))
        if folders:
            found = np.array([half for folder in folders for half in evaluate_halves(folder)])
            cells = [f"{100 * ece:.1f} %, {nll:.3f}" for ece, nll in found.mean(0)[:6].reshape(3, 2)]
            lines.append(f"| {setting} ({len(folders)}) | {' | '.join(cells)} | {found[:, 6].mean():.0%} |")
    print("\n".join(lines))


def evaluate_halves(folder: Path) -> list[list[float]]:
    """Calibration error and negative log-likelihood per method, and whether the temperature was by class."""
    table = read_prediction_table(folder, "test")
    logits, labels, files, names = table.logits, table.labels, table.file_names, table.class_names
    counts = np.array([read_record(folder).study.splits["train"].classes[name] for name in names])
    frames = np.array([Path(file).stem for file in files])
    random, found = np.random.default_rng(0), []
    for _ in range(NUM_REPEATS):
        own = np.isin(frames, random.permutation(np.unique(frames))[::2])
        sampled = random.random(len(labels)) < (counts / counts.max())[labels]
        fitting, evaluating = own & sampled, ~own & sampled
        single = Temperature(fit_temperature(logits[fitting], labels[fitting]))
        by_class = fit_class_temperatures(logits[fitting], labels[fitting], counts)
        one, several = (
            calibration_gain(logits[evaluating], labels[evaluating], temperature)
            for temperature in (single, Temperature(single.value, by_class))
        )
        errors = [one["ece_before"], one["nll_before"], one["ece_after"], one["nll_after"]]
        found.append([*errors, several["ece_after"], several["nll_after"], bool(by_class)])
    return found


if __name__ == "__main__":
    main()
