"""The record of a run: what `finetune`, `pretrain`, `crossval`, `evaluate` and `probe` have done.

One typed dataclass, written once by the verb and read by report, card, push, demo and resume, and by nobody in another
way. `record_files` has its files.
"""

import dataclasses
import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.confusion import HEADLINE, TITLES
from ..evaluation.metrics import scalar_scores
from ..settings.data import DataSourceArguments

FORMAT = 2  # 1: what was written before a file said its format
ALL_RESULTS, CROSSVAL, PROBE, RUN_STARTED = "all_results.json", "crossval.json", "probe.json", "run_begun.json"
KINDS = ("finetune", "pretrain", "crossval", "evaluate", "probe")

Scores = dict[str, Any]  # of `evaluation.scores.score_split`


@dataclass(frozen=True)
class DataSource:
    """Where the images of a run are from.

    Args:
        data_dir: as it was given; the next fields are the options of these names.
        seed: of the shares that were held out; None: not known.
        fingerprint: of `data.fingerprint.data_fingerprint`; None: not known.
    """

    data_dir: str
    manifest: str | None = None
    benchmark: str | None = None
    fold: int = 1
    agreement: str | None = None
    exclude_pairs: str | None = None
    corrections: str | None = None
    val_fraction: float = 0.0
    train_fraction: float = 1.0
    selection_fraction: float = 0.0
    seed: int | None = None
    fingerprint: str | None = None
    class_order: list[str] | None = None
    class_map: str | None = None

    @classmethod
    def from_settings(
        cls, settings: DataSourceArguments, seed: int | None = None, fingerprint: str | None = None
    ) -> "DataSource":
        """That of a verb's settings."""
        own = {name: getattr(settings, name) for name in _field_names(cls) if hasattr(settings, name)}
        return cls(**own | {"data_dir": str(settings.data_dir), "seed": seed, "fingerprint": fingerprint})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataSource":
        """From a file; what it does not know is left out."""
        return cls(**{name: values[name] for name in _field_names(cls) if name in values})

    @property
    def name(self) -> str:
        """The benchmark, or the name of the folder."""
        return self.benchmark or Path(self.data_dir).name or self.data_dir


@dataclass(frozen=True)
class Selection:
    """How the weights of a run were chosen.

    Args:
        sentence: for whoever reads about the run.
        selection_split: split whose scores chose the epoch; None: none did, the last epoch is kept.
        metric: by which.
        checkpoint: folder of the chosen epoch.
    """

    sentence: str
    selection_split: str | None = None
    metric: str | None = None
    checkpoint: str | None = None


@dataclass(frozen=True)
class Environment:
    """What a run was made with, in words."""

    hardware: str
    versions: str


@dataclass(frozen=True)
class Training:
    """What a training was.

    Args:
        seconds: of training, in the process that finished it.
        updates: of the weights.
        learning_rate: absolute, of the head.
        effective_batch_size: images per update.
        metrics: of the Trainer (`train_loss`, `train_runtime`...).
    """

    seconds: float
    updates: int | None = None
    learning_rate: float | None = None
    effective_batch_size: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CrossvalRun:
    """One of the runs of a cross-validation."""

    fraction: float
    seed: int
    fold: int
    several_fractions: bool

    @property
    def folder(self) -> str:
        """What its folder is called."""
        name = f"seed-{self.seed}_fold-{self.fold}"
        return f"fraction-{self.fraction:g}_{name}" if self.several_fractions else name

    def __str__(self) -> str:
        name = f"seed {self.seed}, fold {self.fold}"
        return f"{100 * self.fraction:g} % of the labels, {name}" if self.several_fractions else name


@dataclass(frozen=True)
class CrossvalSummary:
    """What a cross-validation found.

    Args:
        folds: `official`, or their number.
        runs: every run, with its headline scores (by name) and the split that chose its epoch.
        mean_and_std: by headline score, `mean`, `std` and `values`, of the largest share of the labels.
        label_efficiency: the same by share of the labels.
        pooled: by seed, the scores of the predictions of all folds together.
    """

    folds: str
    runs: list[tuple[CrossvalRun, dict[str, float], str | None]]
    mean_and_std: dict[str, dict[str, Any]]
    label_efficiency: list[dict[str, Any]]
    pooled: dict[str, Scores]


@dataclass(frozen=True)
class RunRecord:
    """What a run has done.

    Args:
        kind: the verb: one of `KINDS`.
        base: what the weights come from; of `evaluate` and `probe` the model that they looked at.
        data: where the images are from.
        images: how many, by split (of `pretrain` under `train`; of `probe` by its parts).
        environment: what it was made with.
        settings: what recipe and flags gave.
        classes: by class id.
        scores: by split.
        selection: how the weights were chosen.
        training: what the training was.
        calibration: of `evaluation.calibration`: `temperature`, `fitted_on`, `ece_before`, `ece_after`...
        uncertainty: of `evaluation.doubt.judged`: how often sets of classes hold the true one; None: not known.
        leakage: evaluated images that the base was pre-trained on, by split; None: not known.
        averaged_views: whether scores are means over turned and mirrored views.
        excluded: images that a pre-training left out on purpose.
        crossval: what a cross-validation found.
        ordered: whether the classes are grades, in the order of their ids.
        study: what became of the images that were found, of `data.study.Study.to_dict`; None: not known.
        unmapped_images: images of classes that `class_map` leaves out, by class.
        network: what was trained, in words, where it is no MAE's vision transformer; empty: it is one.
        probe: what a probe found: by pooling, `linear` and `knn`.
        format: of the file that it was read from.
    """

    kind: str
    base: str
    data: DataSource
    images: dict[str, int]
    environment: Environment
    settings: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    scores: dict[str, Scores] = field(default_factory=dict)
    selection: Selection | None = None
    training: Training | None = None
    calibration: dict[str, Any] | None = None
    uncertainty: dict[str, Any] | None = None
    leakage: dict[str, int] | None = None
    averaged_views: bool = False
    excluded: int = 0
    crossval: CrossvalSummary | None = None
    probe: dict[str, Any] | None = None
    ordered: bool = False
    study: dict[str, Any] | None = None
    unmapped_images: dict[str, int] = field(default_factory=dict)
    network: str = ""
    format: int = FORMAT

    @property
    def file_name(self) -> str:
        """What its file is called."""
        if self.kind == "evaluate":
            return f"results_{next(iter(self.scores))}.json"
        return {"crossval": CROSSVAL, "probe": PROBE}.get(self.kind, ALL_RESULTS)

    def training_counts(self) -> np.ndarray | None:
        """The training images of each class, (classes,); None where they are not known."""
        train = ((self.study or {}).get("splits", {}).get("train") or {}).get("classes", {})
        return np.array([train[name] for name in self.classes]) if set(train) == set(self.classes) else None

    def trainer_metrics(self) -> dict[str, float]:
        """The scores under the names that the Trainer's users know: `eval_macro_f1`, `test_accuracy`, `train_loss`."""
        prefixes = {"validation": "eval"}
        found = {
            f"{prefixes.get(split, split)}_{name}": value
            for split, scores in self.scores.items()
            for name, value in scalar_scores(scores).items()
        }
        return found | (self.training.metrics if self.training else {})

    def _repr_html_(self) -> str:
        """The scores by split, and how the weights were chosen, for a notebook."""
        head = "".join(f"<th>{TITLES[name]}</th>" for name in HEADLINE)
        rows = [
            f"<tr><th>{html.escape(split)} ({self.images.get(split, 0)})</th>"
            + "".join(f"<td>{100 * scores[name]:.1f}</td>" for name in HEADLINE)
            + "</tr>"
            for split, scores in self.scores.items()
            if all(name in scores for name in HEADLINE)
        ]
        table = f"<table><tr><th>split (images)</th>{head}</tr>{''.join(rows)}</table>" if rows else ""
        told = f"{self.kind} of {self.base} on {self.data.name}. {self.selection.sentence if self.selection else ''}"
        return f"{table}<p>{html.escape(told.strip())}</p>"


def run_name(folder: str | Path) -> str:
    """What a run is called: the name of its folder."""
    return Path(folder).resolve().name


def _field_names(cls: type) -> list[str]:
    return [item.name for item in dataclasses.fields(cls)]
