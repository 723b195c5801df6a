"""Compares training settings for class imbalance over several seeds, on held-out images that select nothing.

The training subset keeps all images of the first class and one in RATIO of the second (a new draw per seed). The last
epoch is evaluated once on all held-out images. Each setting changes one option of the recipe. Existing runs are not
repeated, so the study can be interrupted and resumed.

    python scripts/studies/long_tail.py --model runs/frames --data ../shared/data/polyp_crops --out runs/long_tail

OUT/table.md has one line per setting with the number of seeds: mean and standard deviation, and the mean difference
to the recipe on the same seeds with its 95 % interval (Student's t).

- macro recall: mean over the classes; independent of the class frequencies of the held-out images.
- macro F1: for held-out images with the class frequencies of the training images.
- rare: recall of the rare class.
- AUROC: separation of the classes, independent of the threshold.
"""

import argparse
import csv
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import hf_mae

SETTINGS: dict[str, dict[str, str]] = {
    "recipe": {},
    "class weights": {"class_weights": "balanced"},
    "class weights, no smoothing": {"class_weights": "balanced", "smoothing": "0"},
    "logit adjustment": {"logit_adjustment": "1"},
    "logit adjustment, no smoothing": {"logit_adjustment": "1", "smoothing": "0"},
    "class-balanced sampling": {"sampling": "class_balanced"},
    "square-root sampling": {"sampling": "square_root"},
    "focal loss": {"loss": "focal"},
    "no smoothing": {"smoothing": "0"},
    "mixup and CutMix": {"mixup": "0.8", "cutmix": "1.0"},
    "patch dropout": {"patch_dropout": "0.5"},
    "layer decay 0.75": {"layer_decay": "0.75"},
    "layer decay 1": {"layer_decay": "1"},
    "twice as long": {"num_train_epochs": "80"},
    "160 pixels": {"image_size": "160"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint to fine-tune")
    parser.add_argument("--data", required=True, type=Path, help="train/CLASS/... and validation/CLASS/...")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--recipe", default="polyp_crops")
    parser.add_argument("--ratio", type=int, default=10, help="1: all images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--jobs", type=int, default=1, help="number of fine-tunings at the same time")
    args = parser.parse_args()
    for seed in args.seeds:
        write_subsample_manifest(args.data, args.out / f"cut_{seed}.csv", args.ratio, seed)
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    wanted = [(args, setting, seed) for seed in args.seeds for setting in args.settings]
    processes = get_context("spawn")
    with ProcessPoolExecutor(args.jobs, processes, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        folders = (map if args.jobs == 1 else pool.map)(finetune_setting, *zip(*wanted, strict=True))
        for folder in folders:
            print(folder.name, {name: f"{score:.1f}" for name, score in read_scores(folder).items()}, flush=True)
    table = render_table(args.out)
    (args.out / "table.md").write_text(table)
    print(table)


def write_subsample_manifest(data: Path, manifest: Path, ratio: int, seed: int) -> None:
    """Writes the manifest of a training subset; the held-out images are the test split."""
    random = np.random.default_rng(seed)
    rows: list[tuple[str, str, str]] = []
    classes = sorted(folder.name for folder in (data / "train").iterdir())
    for index, name in enumerate(classes):
        images = sorted((data / "train" / name).iterdir())
        if index == 1:
            selected = random.choice(len(images), max(1, round(len(images) / ratio)), replace=False)
            images = [images[i] for i in sorted(selected)]
        rows += [(str(path.relative_to(data)), name, "train") for path in images]
        rows += [(str(path.relative_to(data)), name, "test") for path in sorted((data / "validation" / name).iterdir())]
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "split"), *rows])


def finetune_setting(args: argparse.Namespace, setting: str, seed: int) -> Path:
    """Fine-tunes one setting unless its run exists; returns the output folder."""
    folder: Path = args.out / f"{get_folder_name(setting)}-{seed}"
    if not (folder / "all_results.json").is_file():
        hf_mae.finetune(
            recipe=args.recipe,
            model_name_or_path=args.model,
            data_dir=str(args.data),
            manifest=str(args.out / f"cut_{seed}.csv"),
            split_from="column",  # the files are below the split folders of the complete data
            output_dir=str(folder),
            overwrite_output_dir=True,
            seed=seed,
            load_best_model_at_end=False,
            eval_strategy="no",
            save_strategy="no",
            **SETTINGS[setting],
        )
    return folder


def get_folder_name(setting: str) -> str:
    """Folder name of a setting."""
    return setting.replace(" ", "_").replace(",", "")


def read_scores(folder: Path) -> dict[str, float]:
    """Reads the scores of a run, in percent."""
    results = json.loads((folder / "all_results.json").read_text())
    confusion = np.array(results["scores"]["test"]["confusion_matrix"], dtype=float)
    rates = confusion / confusion.sum(1, keepdims=True)
    trained = np.array(list(results["study"]["splits"]["train"]["classes"].values()))
    expected = rates * trained[:, None]
    f1 = 2 * np.diag(expected) / (expected.sum(0) + expected.sum(1))
    return {
        "macro recall": 100 * np.diag(rates).mean(),
        "macro F1": 100 * f1.mean(),
        "rare": 100 * np.diag(rates)[trained.argmin()],
        "AUROC": 100 * results["scores"]["test"]["roc_auc"],
    }


def render_table(out: Path) -> str:
    """Renders the settings that have runs as a Markdown table."""
    head = "| | macro recall | difference | macro F1 | difference | rare | AUROC | difference |"
    lines = [head, "|---" * head.count(" | ") + "|---|"]
    plain = read_runs(out, "recipe")
    for setting in SETTINGS:
        if found := read_runs(out, setting):
            cells = [format_mean_std(found, "macro recall"), format_difference(found, plain, "macro recall")]
            cells += [
                format_mean_std(found, "macro F1"),
                format_difference(found, plain, "macro F1"),
                format_mean_std(found, "rare"),
            ]
            cells += [format_mean_std(found, "AUROC"), format_difference(found, plain, "AUROC")]
            lines.append(f"| {setting} ({len(found)}) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def read_runs(out: Path, setting: str) -> dict[int, dict[str, float]]:
    """Reads the scores by seed."""
    folders = [file.parent for file in out.glob(f"{get_folder_name(setting)}-*/all_results.json")]
    return {int(folder.name.rpartition("-")[2]): read_scores(folder) for folder in folders}


def format_mean_std(runs: dict[int, dict[str, float]], score: str) -> str:
    """Formats mean and standard deviation over seeds."""
    values = [scores[score] for scores in runs.values()]
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def format_difference(runs: dict[int, dict[str, float]], baseline: dict[int, dict[str, float]], score: str) -> str:
    """Formats the mean difference and its 95 % interval over common seeds."""
    differences = [runs[seed][score] - baseline[seed][score] for seed in runs.keys() & baseline.keys()]
    if runs == baseline or len(differences) < 2:
        return ""
    low, high = stats.t.interval(0.95, len(differences) - 1, np.mean(differences), stats.sem(differences))
    return f"{np.mean(differences):+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
