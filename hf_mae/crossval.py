"""`hf-mae crossval`: every fold, seed and share of the labels is trained and evaluated; mean and standard deviation."""

import csv
import dataclasses
import json
import logging
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import DatasetDict, concatenate_datasets
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from . import figures
from .arguments import DataArguments, FinetuningArguments, ModelArguments
from .data.benchmarks import find_benchmark
from .data.sources import description, read_splits, reduce_training
from .errors import UsageError
from .finetune import DEFAULTS, finetune, machine_defaults, own_label_names
from .metrics import HEADLINE, classification_scores
from .recipe import parse, recipe_as_run
from .report import write_report
from .results import TITLES, table, write_json
from .runs import set_up_logging

logger = logging.getLogger(__name__)

# What may differ between a finished run and what is asked for now without making it another run.
NO_OTHER_RUN = {
    *("output_dir", "cache", "preprocessing_num_workers", "dataloader_num_workers", "dataloader_pin_memory"),
    *("disable_tqdm", "report_to", "logging_steps", "save_total_limit", "use_cpu", "data_dir", "split_file"),
}


@dataclass
class CrossvalArguments:
    """Which runs."""

    folds: str = field(
        default="official",
        metadata={"help": "official (a benchmark's, or the data's own validation split), or a number of folds."},
    )
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "Seeds, each a run of every fold."})
    train_fractions: list[float] | None = field(
        default=None, metadata={"help": "Shares of the training labels, each a run of every fold and seed."}
    )


@dataclass(frozen=True)
class Run:
    """One of the runs of a cross-validation."""

    fraction: float
    seed: int
    fold: int
    several_fractions: bool

    @property
    def folder(self) -> str:
        name = f"seed-{self.seed}_fold-{self.fold}"
        return f"fraction-{self.fraction:g}_{name}" if self.several_fractions else name

    def __str__(self) -> str:
        name = f"seed {self.seed}, fold {self.fold}"
        return f"{100 * self.fraction:g} % of the labels, {name}" if self.several_fractions else name


def official_folds(data_args: DataArguments, seed: int, own_names: list[str] | None) -> list[DatasetDict]:
    """The official folds of a benchmark that has them, or the one split that the data comes with."""
    count = find_benchmark(data_args.benchmark).folds if data_args.benchmark else 0
    if not count:
        splits = read_splits(data_args, seed, own_names)
        if not {"train", "validation"} <= splits.keys():
            raise UsageError(
                f"--folds official needs a validation split, and {data_args.data_dir} has {', '.join(splits)}: "
                "pass a number of --folds."
            )
        return [splits]
    return [read_splits(dataclasses.replace(data_args, fold=fold), seed, own_names) for fold in range(1, count + 1)]


def stratified_folds(splits: DatasetDict, count: int) -> list[DatasetDict]:
    """`count` folds of the training and validation images together, stratified by class, always the same ones.

    Args:
        splits: `train`, and perhaps `validation` (which joins it) and `test` (which is left alone). Images of one
            `group` (patient or video), where there are groups, stay in one fold.
    """
    whole = concatenate_datasets([splits[split] for split in ("train", "validation") if split in splits])
    labels = np.asarray(whole["labels"][:])
    smallest = np.bincount(labels)[np.unique(labels)].min()
    if not 2 <= count <= smallest:
        raise UsageError(f"--folds must lie between 2 and the size of the smallest class, {smallest}; it is {count}.")
    groups, splitter = None, StratifiedKFold(count, shuffle=True, random_state=0)
    if "group" in whole.column_names:
        groups, splitter = whole["group"][:], StratifiedGroupKFold(count, shuffle=True, random_state=0)
        if len(set(groups)) < count:
            raise UsageError(f"--folds {count} are more than there are patients or videos ({len(set(groups))}).")
    return [
        DatasetDict({"train": whole.select(train), "validation": whole.select(held_out)})
        for train, held_out in splitter.split(labels, labels, groups)
    ]


def check_folds(folds: list[DatasetDict]) -> None:
    """Refuses folds of which one cannot learn a class, and warns of one that cannot judge it."""
    names = folds[0]["train"].features["labels"].names
    for number, fold in enumerate(folds, 1):
        counts = {split: np.bincount(dataset["labels"][:], minlength=len(names)) for split, dataset in fold.items()}
        everywhere = sum(counts.values()) > 0
        if lacking := [name for i, name in enumerate(names) if everywhere[i] and not counts["train"][i]]:
            raise UsageError(
                f"Fold {number} has no training image of {', '.join(lacking)}: all its images are held out together. "
                "Use other --folds or groups, or leave the class out."
            )
        if lacking := [name for i, name in enumerate(names) if everywhere[i] and not counts["validation"][i]]:
            logger.warning("Fold %d has no validation image of %s.", number, ", ".join(lacking))


def mean_and_std(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (over n, as the published tables for two folds) of the headline scores."""
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values)), "values": values}
        for name in HEADLINE
        for values in [[run[name] for run in runs]]
    }


def label_efficiency(runs: list[Run], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By share of the labels, smallest first: `fraction`, `images` (mean over folds), and `mean_and_std`."""
    points = []
    for fraction in sorted({run.fraction for run in runs}):
        chosen = [result for run, result in zip(runs, results) if run.fraction == fraction]
        images = float(np.mean([result["training_images"] for result in chosen]))
        points.append({"fraction": fraction, "images": images} | mean_and_std(chosen))
    return points


def pooled(folders: list[Path], names: list[str]) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows of every fold's `predictions_validation.csv` (of one seed), and their scores together."""
    rows = []
    for folder in folders:
        with open(folder / "predictions_validation.csv", encoding="utf-8", newline="") as file:
            rows += [[row["file_name"], row["label"], row["prediction"], row["score"]] for row in csv.DictReader(file)]
    ids = {name: index for index, name in enumerate(names)}
    return rows, classification_scores([ids[row[2]] for row in rows], [ids[row[1]] for row in rows], names)


def main(argv: list[str]) -> int:
    (options, model_args, data_args, args), given = parse(
        "crossval",
        "Train and evaluate every fold and seed; finished runs are skipped, interrupted ones go on.",
        [CrossvalArguments, ModelArguments, DataArguments, FinetuningArguments],
        argv,
        DEFAULTS | machine_defaults(),
        required=("model_name_or_path", "data_dir", "output_dir"),
    )
    set_up_logging(args.process_index == 0)
    if args.push_to_hub:
        raise UsageError("crossval makes many models: push one of them with hf-mae push.")
    own_names = own_label_names(model_args.model_name_or_path)
    with args.main_process_first(desc="reading the images"):
        if options.folds == "official":
            folds = official_folds(data_args, args.seed, own_names)
        elif options.folds.isdigit():
            folds = stratified_folds(read_splits(data_args, args.seed, own_names), int(options.folds))
        else:
            raise UsageError(f"--folds takes official or a number, not {options.folds}.")
    check_folds(folds)
    fractions = sorted(set(options.train_fractions or [data_args.train_fraction]))
    runs = [
        Run(fraction, seed, fold, options.train_fractions is not None)
        for fraction, seed, fold in product(fractions, options.seeds, range(1, len(folds) + 1))
    ]
    run_all(runs, folds, model_args, data_args, args, given)
    if args.process_index == 0:
        names = folds[0]["train"].features["labels"].names
        facts = {"base": model_args.base, "folds": options.folds, "source": description(data_args)}
        summarize(Path(args.output_dir), runs, names, facts)
        if data_args.benchmark:
            print(f"\n{write_report([args.output_dir], Path(args.output_dir))}")
    return 0


def run_all(
    runs: list[Run],
    folds: list[DatasetDict],
    model_args: ModelArguments,
    data_args: DataArguments,
    args: FinetuningArguments,
    given: dict[str, Any],
) -> None:
    """Trains what is not done yet, with a line before each run on how far it is and how long it will take."""
    own = {field.name for field in dataclasses.fields(CrossvalArguments)}
    given = {name: value for name, value in given.items() if name not in own}
    seconds = []
    for number, run in enumerate(runs, 1):
        folder = Path(args.output_dir) / run.folder
        facts = given | {"seed": run.seed, "output_dir": str(folder)}
        facts |= {"fold": run.fold} if data_args.benchmark else {}
        facts |= {"train_fraction": run.fraction} if run.fraction < 1.0 else {}
        if (folder / "all_results.json").is_file():
            refuse_another_run(folder, facts)
            logger.info("Run %d of %d (%s) is done: %s", number, len(runs), run, folder)
            continue
        left = f", about {np.mean(seconds) * (len(runs) - number + 1) / 60:.0f} minutes left" if seconds else ""
        logger.info("Run %d of %d: %s -> %s%s", number, len(runs), run, folder, left)
        run_args = dataclasses.replace(
            args, output_dir=str(folder), seed=run.seed, resume_from_checkpoint="last", learning_rate=args.learning_rate
        )
        run_data = dataclasses.replace(data_args, train_fraction=run.fraction, fold=run.fold)
        started = time.monotonic()
        finetune(model_args, run_data, run_args, facts, reduce_training(folds[run.fold - 1], run_data, run.seed))
        seconds.append(time.monotonic() - started)


def refuse_another_run(folder: Path, facts: dict[str, Any]) -> None:
    """Refuses to count a finished run of other settings as one of these."""
    before = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")) or {}
    now = yaml.safe_load(recipe_as_run(facts, {})) or {}
    differing = [
        f"{name}: {before.get(name, 'default')} then, {now.get(name, 'default')} now"
        for name in sorted((before.keys() | now.keys()) - NO_OTHER_RUN)
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise UsageError(
            f"{folder} holds a finished run of other settings ({'; '.join(differing)}): choose another --output_dir."
        )


def summarize(root: Path, runs: list[Run], names: list[str], facts: dict[str, Any]) -> None:
    """Writes `crossval.json`, the pooled predictions and confusion matrix of each seed, and prints the tables."""
    results = []
    for run in runs:
        everything = json.loads((root / run.folder / "all_results.json").read_text(encoding="utf-8"))
        training = {"training_images": everything["images"]["train"], "chosen_on": everything["chosen_on"]}
        results.append(everything["validation"] | training)
    points = label_efficiency(runs, results)
    summary = facts | {
        "runs": [
            dataclasses.asdict(run) | {"folder": run.folder} | {name: result[name] for name in (*HEADLINE, "chosen_on")}
            for run, result in zip(runs, results)
        ],
        "mean_and_std": {name: points[-1][name] for name in HEADLINE},
        "label_efficiency": points,
        "pooled": {},
    }
    for fraction, seed in dict.fromkeys((run.fraction, run.seed) for run in runs):
        same = [run for run in runs if (run.fraction, run.seed) == (fraction, seed)]
        rows, scores = pooled([root / run.folder for run in same], names)
        which = same[0].folder.removesuffix(f"_fold-{same[0].fold}")
        with open(root / f"predictions_pooled_{which}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["file_name", "label", "prediction", "score"], *rows])
        title = f"out of fold, {which}: macro F1 {100 * scores['macro_f1']:.1f} %"
        figures.confusion_matrix(scores["confusion_matrix"], names, root / f"confusion_matrix_{which}", title)
        summary["pooled"][which] = scores
    write_json(root / "crossval.json", summary)
    print(table({str(run): result for run, result in zip(runs, results)}))
    for point in points:
        if len(points) > 1:
            print(f"{100 * point['fraction']:g} % of the labels ({point['images']:g} images):")
        for name in HEADLINE:
            print(f"{TITLES[name]:>15}  {100 * point[name]['mean']:.2f} ± {100 * point[name]['std']:.2f}")
    if len(points) > 1:
        figures.label_efficiency({Path(str(facts["base"])).name: points}, root / "label_efficiency")
    each = f" for each of {len(points)} shares of the labels" if len(points) > 1 else ""
    count = len(runs) // len(points)
    print(f"Mean ± standard deviation over {count} runs{each}; every run, and crossval.json, are in {root}")
