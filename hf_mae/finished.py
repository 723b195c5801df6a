"""Finished runs, as they are read back: the folders of `finetune`, `crossval` and `evaluate`."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .data.benchmarks import BENCHMARKS
from .errors import UsageError
from .metrics import HEADLINE
from .statistics import Predictions, bootstrap_intervals, scores_of

CHOSEN_ON_EVALUATED = "The epoch was chosen on the images that are evaluated: an optimistic figure."


@dataclass
class FinishedRun:
    """A row of the report: one run, or the folds and seeds of a cross-validation.

    Args:
        data: the benchmark, or the name of the user's own data set.
        split: that is evaluated.
        protocol: of the published rows that it may stand beside (`Benchmark.protocol`); None: of none.
        folds: the predictions, one entry for each fold.
        file_names: of each fold.
        chosen_on_evaluated: whether the best epoch was chosen on the images that are evaluated.
        label_efficiency: points of `crossval`, where there are several.
    """

    name: str
    folder: Path
    data: str
    split: str
    protocol: str | None
    initialisation: str
    names: list[str]
    folds: list[Predictions]
    file_names: list[list[str]]
    chosen_on_evaluated: bool
    notes: list[str] = field(default_factory=list)
    label_efficiency: list[dict[str, Any]] | None = None

    def scores(self) -> dict[str, dict[str, Any]]:
        """By headline score: `mean`, `std` (None for one run), `values` and the 95 % `interval` of the mean."""
        by_fold = [scores_of(fold.confusion_matrices()) for fold in self.folds]
        intervals = bootstrap_intervals(self.folds)
        result = {}
        for name in HEADLINE:
            values = np.concatenate([scores[name] for scores in by_fold])
            std = float(values.std()) if len(values) > 1 else None
            result[name] = {"mean": float(values.mean()), "std": std, "values": values.tolist()}
            result[name]["interval"] = intervals[name]
        return result


def read_run(path: str | Path, split: str | None = None) -> FinishedRun:
    """A finished run from its folder.

    Args:
        split: to report; None: the test split where there is one, else validation.

    Raises:
        UsageError: the folder holds no finished run, or not that split.
    """
    folder = Path(path)
    if (folder / "crossval.json").is_file():
        return _crossval(folder)
    if (folder / "all_results.json").is_file():
        return _finetune(folder, split)
    if found := sorted(folder.glob("results_*.json")):
        return _evaluate(folder, split, found)
    raise UsageError(
        f"{folder} holds no finished run: pass an output folder of hf-mae finetune, crossval or evaluate --output_dir."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}).") from None


def read_predictions(paths: list[Path]) -> tuple[Predictions, list[str], list[str]]:
    """Predictions of the same images by several runs, with file and class names.

    Args:
        paths: of `predictions_<split>.csv`.

    Raises:
        UsageError: a file is missing, or the files are not of the same images.
    """
    labels, groups, file_names, names, predicted = None, None, None, None, []
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path} is missing: the run did not come to its end, or its predictions were removed.")
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        own_names = [column.removeprefix("score:") for column in reader.fieldnames if column.startswith("score:")]
        ids = {name: index for index, name in enumerate(own_names)}
        own = [(row["file_name"], ids[row["label"]]) for row in rows]
        if labels is None:
            names, file_names = own_names, [name for name, _ in own]
            labels = np.array([label for _, label in own])
            groups = np.array([row["group"] for row in rows]) if rows and "group" in rows[0] else None
        elif own != list(zip(file_names, labels)) or own_names != names:
            raise UsageError(f"{path} and {paths[0]} are not of the same images.")
        predicted.append([ids[row["prediction"]] for row in rows])
    return Predictions(labels, np.array(predicted), len(names), groups), file_names, names


def _data_and_protocol(source: dict[str, Any], counts: list[dict[str, int]], folds: list[int]):
    """The name of the data, the protocol that all folds follow, and what else is to be said of them."""
    benchmark, notes = source["benchmark"], []
    if not benchmark:
        return Path(source["data_dir"]).name or source["data_dir"], None, notes
    entry = BENCHMARKS[benchmark]
    whole = [_with_selection(count) for count in counts]
    protocols = {entry.protocol(fold, count) for fold, count in zip(folds, whole)}
    protocol = protocols.pop() if len(protocols) == 1 else None
    if protocol is None:
        notes.append("The images are not those of the published split.")
    elif entry.folds and len(set(folds)) < entry.folds:
        notes.append(f"Fold {folds[0]} alone.")
    return benchmark, protocol, notes


def _with_selection(counts: dict[str, int]) -> dict[str, int]:
    """Images by split, as they were before a selection part was taken out of the training part."""
    counts = dict(counts)
    counts["train"] = counts.get("train", 0) + counts.pop("selection", 0)
    return counts


def _seen_note(results: dict[str, Any], split: str) -> list[str]:
    """What is to be said where evaluated images were pre-trained on."""
    count = (results.get("seen_in_pretraining") or {}).get(split, 0)
    return [f"{count} of the {results['images'][split]} images were in the pre-training."] if count else []


def _crossval(folder: Path) -> FinishedRun:
    summary = _read(folder / "crossval.json")
    largest = max(run["fraction"] for run in summary["runs"])
    runs = [run for run in summary["runs"] if run["fraction"] == largest]
    folds, file_names, counts, names = [], [], [], []
    numbers = sorted({run["fold"] for run in runs})
    for number in numbers:
        same = [folder / run["folder"] for run in runs if run["fold"] == number]
        predictions, files, names = read_predictions([path / "predictions_validation.csv" for path in same])
        folds.append(predictions)
        file_names.append(files)
        counts.append(_read(same[0] / "all_results.json")["images"])
    source = summary["source"]
    if summary["folds"] == "official":
        data, protocol, notes = _data_and_protocol(source, counts, numbers)
        if data in BENCHMARKS and not BENCHMARKS[data].folds:
            protocol = None  # its published rows are of the test split
    else:
        data, protocol = source["benchmark"] or Path(source["data_dir"]).name, None
        notes = [f"{len(numbers)} folds of our own."]
    if largest < 1.0:
        protocol = None
        notes.append(f"Trained on {100 * largest:g} % of the labels.")
    seeds = len({run["seed"] for run in runs})
    notes += _seen_note(_read(folder / runs[0]["folder"] / "all_results.json"), "validation")
    notes.append(f"Mean of {len(runs)} runs ({len(numbers)} folds, {seeds} seed{'s' if seeds > 1 else ''}).")
    points = summary["label_efficiency"]
    return FinishedRun(
        name=folder.resolve().name,
        folder=folder,
        data=data,
        split="validation",
        protocol=protocol,
        initialisation=_base_name(summary["base"]),
        names=names,
        folds=folds,
        file_names=file_names,
        chosen_on_evaluated=any(run["chosen_on"] == "validation" for run in runs),
        notes=notes,
        label_efficiency=points if len(points) > 1 else None,
    )


def _finetune(folder: Path, split: str | None) -> FinishedRun:
    results = _read(folder / "all_results.json")
    present = [name for name in ("test", "validation", "selection") if name in results]
    if not present:
        raise UsageError(f"{folder} was never evaluated: it has no validation and no test split.")
    split = _choose(folder, split, present)
    return _single(folder, split, results, trained_with=results)


def _evaluate(folder: Path, split: str | None, found: list[Path]) -> FinishedRun:
    present = [path.stem.removeprefix("results_") for path in found]
    present.sort(key=lambda name: {"test": 0, "validation": 1}.get(name, 2))
    split = _choose(folder, split, present)
    results = _read(folder / f"results_{split}.json")
    training = Path(results["model"]) / "all_results.json"
    return _single(folder, split, results, trained_with=_read(training) if training.is_file() else None)


def _choose(folder: Path, split: str | None, present: list[str]) -> str:
    """The split that is asked for, or the first of those there are."""
    if split and split not in present:
        raise UsageError(f"{folder} has no scores of the split {split}; it has {', '.join(present)}.")
    return split or present[0]


def _single(folder: Path, split: str, results: dict[str, Any], trained_with: dict[str, Any] | None) -> FinishedRun:
    """One run's predictions of one split.

    Args:
        results: `source` and `images` of what was evaluated.
        trained_with: the `all_results.json` of the model; None: not known.
    """
    predictions, files, names = read_predictions([folder / f"predictions_{split}.csv"])
    source = results["source"]
    benchmark, chosen_on_evaluated = source["benchmark"], False
    data, protocol, notes = _data_and_protocol(source, [results["images"]], [source["fold"]])
    if trained_with is None:
        notes.append("How the epoch was chosen is not known.")
    else:
        trained = trained_with["source"]
        if trained["data_dir"] == source["data_dir"]:
            notes += _seen_note(trained_with, split)
        chosen_on_evaluated = trained_with["chosen_on"] == split and trained["data_dir"] == source["data_dir"]
        if trained["train_fraction"] < 1.0:
            notes.append(f"Trained on {100 * trained['train_fraction']:g} % of the labels.")
            protocol = None
        if benchmark and trained["benchmark"] == benchmark and trained["fold"] != source["fold"]:
            notes.append(f"The model was trained on fold {trained['fold']}, so on the images that are evaluated.")
            protocol = None
    if benchmark and split != ("validation" if BENCHMARKS[benchmark].folds else "test"):
        protocol = None
    return FinishedRun(
        name=folder.resolve().name,
        folder=folder,
        data=data,
        split=split,
        protocol=protocol,
        initialisation=_base_name(trained_with["base"] if trained_with else results["model"]),
        names=names,
        folds=[predictions],
        file_names=[files],
        chosen_on_evaluated=chosen_on_evaluated,
        notes=notes,
    )


def _base_name(base: str) -> str:
    return Path(base).name or base
