"""`hf-mae crossval`: train and evaluate every fold and seed, and report mean and standard deviation."""

import csv
import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict, concatenate_datasets
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from . import figures
from .arguments import DataArguments, FinetuningArguments, ModelArguments
from .data import load_splits
from .data.benchmarks import find_benchmark
from .errors import UsageError
from .finetune import DEFAULTS, finetune, machine_defaults, own_label_names
from .metrics import HEADLINE, classification_scores
from .recipe import parse
from .results import TITLES, table, write_json
from .runs import set_up_logging

logger = logging.getLogger(__name__)


@dataclass
class CrossvalArguments:
    """Which runs."""

    folds: str = field(
        default="official", metadata={"help": "official (of a benchmark), or a number of stratified folds."}
    )
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "Seeds, each a run of every fold."})
    group_pattern: str | None = field(
        default=None,
        metadata={
            "help": "Regular expression on file_name whose first group is the patient or video; "
            "images of one stay in one fold."
        },
    )


def official_folds(data_args: DataArguments, seed: int, own_names: list[str] | None) -> list[DatasetDict]:
    """The official folds of a benchmark."""
    if not data_args.benchmark or not find_benchmark(data_args.benchmark).folds:
        raise UsageError("--folds official needs a --benchmark with official folds (hyperkvasir-16, hyperkvasir-23).")
    count = find_benchmark(data_args.benchmark).folds
    return [load_splits(dataclasses.replace(data_args, fold=fold), seed, own_names) for fold in range(1, count + 1)]


def stratified_folds(splits: DatasetDict, count: int, group_pattern: str | None) -> list[DatasetDict]:
    """`count` folds of the training and validation images together, stratified by class, always the same ones.

    Args:
        splits: `train`, and perhaps `validation` (which joins it) and `test` (which is left alone).
        group_pattern: images whose `file_name` gives the same first group stay in one fold.
    """
    whole = concatenate_datasets([splits[split] for split in ("train", "validation") if split in splits])
    labels = np.asarray(whole["labels"][:])
    smallest = np.bincount(labels)[np.unique(labels)].min()
    if not 2 <= count <= smallest:
        raise UsageError(f"--folds must lie between 2 and the size of the smallest class, {smallest}; it is {count}.")
    groups = None
    splitter = StratifiedKFold(count, shuffle=True, random_state=0)
    if group_pattern:
        groups = _groups(whole["file_name"][:], group_pattern)
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    return [
        DatasetDict({"train": whole.select(train), "validation": whole.select(held_out)})
        for train, held_out in splitter.split(labels, labels, groups)
    ]


def _groups(file_names: list[str], pattern: str) -> list[str]:
    import re

    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group_pattern {pattern} is no regular expression ({error}).") from None
    if regex.groups < 1:
        raise UsageError(f"--group_pattern {pattern} needs a group in parentheses: the patient or video.")
    found = [regex.search(name) for name in file_names]
    if unmatched := [name for name, match in zip(file_names, found) if match is None]:
        raise UsageError(f"--group_pattern {pattern} does not match {len(unmatched)} files, {unmatched[0]} among them.")
    return [match.group(1) for match in found]


def mean_and_std(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (over n, as the published tables for two folds) of the headline scores."""
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values)), "values": values}
        for name in HEADLINE
        for values in [[run[name] for run in runs]]
    }


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
    own_names = own_label_names(model_args.model_name_or_path)
    with args.main_process_first(desc="reading the images"):
        if options.folds == "official":
            folds = official_folds(data_args, args.seed, own_names)
        elif options.folds.isdigit():
            folds = stratified_folds(
                load_splits(data_args, args.seed, own_names), int(options.folds), options.group_pattern
            )
        else:
            raise UsageError(f"--folds takes official or a number, not {options.folds}.")
    names = folds[0]["train"].features["labels"].names
    root = Path(args.output_dir)
    given = {name: value for name, value in given.items() if name not in ("folds", "seeds", "group_pattern")}
    runs, results = [(seed, fold) for seed in options.seeds for fold in range(1, len(folds) + 1)], []
    for number, (seed, fold) in enumerate(runs, 1):
        folder = root / f"seed-{seed}_fold-{fold}"
        if (folder / "all_results.json").is_file():
            logger.info("Run %d of %d (seed %d, fold %d) is done: %s", number, len(runs), seed, fold, folder)
        else:
            logger.info("Run %d of %d: seed %d, fold %d -> %s", number, len(runs), seed, fold, folder)
            run_args = dataclasses.replace(
                args, output_dir=str(folder), seed=seed, resume_from_checkpoint="last", learning_rate=args.learning_rate
            )
            facts = given | {"seed": seed, "output_dir": str(folder)} | ({"fold": fold} if data_args.benchmark else {})
            finetune(model_args, data_args, run_args, facts, folds[fold - 1])
        if args.process_index == 0:
            results.append(json.loads((folder / "all_results.json").read_text(encoding="utf-8"))["validation"])
    if args.process_index == 0:
        report(root, runs, results, names)
    return 0


def report(root: Path, runs: list[tuple[int, int]], results: list[dict[str, Any]], names: list[str]) -> None:
    """Writes `crossval.json`, the pooled predictions and confusion matrix of each seed, and prints the table."""
    summary = {"runs": [{"seed": s, "fold": f} | {n: r[n] for n in HEADLINE} for (s, f), r in zip(runs, results)]}
    summary["mean_and_std"] = mean_and_std(results)
    summary["pooled"] = {}
    for seed in dict.fromkeys(seed for seed, _ in runs):
        folders = [root / f"seed-{s}_fold-{f}" for s, f in runs if s == seed]
        rows, scores = pooled(folders, names)
        with open(root / f"predictions_pooled_seed-{seed}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["file_name", "label", "prediction", "score"], *rows])
        title = f"out of fold, seed {seed}: macro F1 {100 * scores['macro_f1']:.1f} %"
        figures.confusion_matrix(scores["confusion_matrix"], names, root / f"confusion_matrix_seed-{seed}", title)
        summary["pooled"][str(seed)] = scores
    write_json(root / "crossval.json", summary)
    print(table({f"seed {s}, fold {f}": result for (s, f), result in zip(runs, results)}))
    for name, values in summary["mean_and_std"].items():
        print(f"{TITLES[name]:>15}  {100 * values['mean']:.2f} ± {100 * values['std']:.2f}")
    print(f"Mean ± standard deviation over {len(runs)} runs; every run, and crossval.json, are in {root}")
