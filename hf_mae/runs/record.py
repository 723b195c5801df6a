"""Run records: typed results of `finetune`, `pretrain`, `crossval`, `evaluate` and `probe`.

The command writes its record once; report, model card, push, demo and resume read it. It contains numbers, names and
paths; `reporting` makes sentences of them. `record_io` reads and writes the files.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..data.cohort import Cohort
from ..evaluation.calibration import Calibration
from ..evaluation.conformal import Coverage
from ..evaluation.intervals import Estimate
from ..evaluation.metrics import scalar_scores
from ..models.network import ModelFacts, Network
from ..settings.data import DataSourceArguments
from ..settings.licences import LicenceFact
from ..settings.metrics import METRICS
from .training_facts import Training

SCHEMA_VERSION = 1
ALL_RESULTS, CROSSVAL, PROBE, RUN_STARTED = "all_results.json", "crossval.json", "probe.json", "run_started.json"
FIGURES_DIR = "figures"  # subfolder of an output folder
Kind = Literal["finetune", "pretrain", "crossval", "evaluate", "probe"]

Scores = dict[str, Any]  # result of `evaluation.metrics.score_split`; None: a metric that was not computed


@dataclass(frozen=True)
class DataSource:
    """Data source of a run.

    Args:
        data_dir: folder, as given. The next fields are the options of the same names.
        seed: random seed of the held-out splits; None: unknown.
        fingerprint: result of `data.fingerprint.data_fingerprint`; None: unknown.
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
        """Builds the data source from the settings of a command."""
        names = [item.name for item in dataclasses.fields(cls)]
        values = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
        return cls(**values | {"data_dir": str(settings.data_dir), "seed": seed, "fingerprint": fingerprint})

    @property
    def name(self) -> str:
        """Name of the benchmark, or of the folder."""
        return self.benchmark or Path(self.data_dir).name or self.data_dir


class SelectionRule(str, Enum):
    """Which epoch the weights of a run are from."""

    LAST_EPOCH = "last_epoch"
    BEST_EPOCH = "best_epoch"


@dataclass(frozen=True)
class Selection:
    """How the weights of a run were selected.

    Args:
        rule: which epoch they are from.
        selection_split: split whose scores selected the epoch; None: the last epoch was kept.
        metric: metric that selected the epoch.
        checkpoint: folder of the selected epoch.
        epoch: the selected epoch, from 1.
        ema_decay: decay of the exponential moving average of the weights; None: they are not averaged.
        teacher: model that was distilled.
        teacher_weight: weight of its loss.
        search_trials: trials of the search that selected the hyper-parameters, on the selection split.
    """

    rule: SelectionRule
    selection_split: str | None = None
    metric: str | None = None
    checkpoint: str | None = None
    epoch: float | None = None
    ema_decay: float | None = None
    teacher: str | None = None
    teacher_weight: float | None = None
    search_trials: int | None = None


@dataclass(frozen=True)
class Hardware:
    """Hardware of a process.

    Args:
        cpu_cores: cores that the process may use.
        machine: architecture of the CPU.
        gpus: number of GPUs; 0: training on the CPU.
        gpu_name: model of the first GPU.
    """

    cpu_cores: int
    machine: str
    gpus: int = 0
    gpu_name: str | None = None


@dataclass(frozen=True)
class Environment:
    """Hardware, and versions by package, of a run."""

    hardware: Hardware
    versions: dict[str, str]


@dataclass(frozen=True)
class CrossvalRun:
    """A run of a cross-validation."""

    fraction: float
    seed: int
    fold: int
    several_fractions: bool

    @property
    def folder(self) -> str:
        """Name of its folder."""
        name = f"seed-{self.seed}_fold-{self.fold}"
        return f"fraction-{self.fraction:g}_{name}" if self.several_fractions else name

    def __str__(self) -> str:
        name = f"seed {self.seed}, fold {self.fold}"
        return f"{100 * self.fraction:g} % of the labels, {name}" if self.several_fractions else name


@dataclass(frozen=True)
class CrossvalResult:
    """A completed run of a cross-validation: its folder, headline metrics, and the split that selected its epoch."""

    run: CrossvalRun
    folder: str
    scores: dict[str, float | None]
    selection_split: str | None


@dataclass(frozen=True)
class Centre:
    """Scores of the images of a centre, by models that were trained on the other centres.

    Args:
        fold: number of its fold, from 1.
        patients: number of patients or videos; None: unknown.
        absent: classes without an image, which means over classes leave out.
        scores: headline metrics, as means over the seeds.
    """

    name: str
    fold: int
    images: int
    patients: int | None
    absent: list[str]
    scores: dict[str, Estimate]


@dataclass(frozen=True)
class CentreSummary:
    """Results of a cross-validation that leaves one centre out.

    Args:
        column: column of the manifest.
        centres: in the order of the folds.
        selection_fraction: fraction of the training images that selected the epoch.
        mean: unweighted mean over the centres.
        pooled: scores of the images of all centres together.
        gap: pooled scores minus those of as many random folds of the same images; None: not requested.
    """

    column: str
    centres: list[Centre]
    selection_fraction: float
    mean: dict[str, Estimate]
    pooled: dict[str, Estimate]
    gap: dict[str, Estimate] | None = None

    def worst_centre(self, metric: str) -> Centre:
        """Returns the centre with the worst value of a metric."""
        sign = 1 if METRICS[metric].greater_is_better else -1
        return min(self.centres, key=lambda centre: sign * centre.scores[metric].value)


@dataclass(frozen=True)
class CrossvalSummary:
    """Results of a cross-validation.

    Args:
        folds: `official`, the number of random folds, or `each:COLUMN`.
        runs: every run.
        mean_and_std: `mean`, `std` and `values` of each headline metric, for the largest fraction of the labels.
        label_efficiency: the same for each fraction of the labels.
        pooled: metrics of the pooled predictions of all folds, by seed.
        by_centre: results of the centres, for the largest fraction of the labels.
    """

    folds: str
    runs: list[CrossvalResult]
    mean_and_std: dict[str, dict[str, Any]]
    label_efficiency: list[dict[str, Any]]
    pooled: dict[str, Scores]
    by_centre: CentreSummary | None = None


@dataclass(frozen=True)
class RunRecord:
    """Record of a run.

    Args:
        kind: the command.
        base: source of the initial weights; for `evaluate` and `probe` the evaluated model.
        data: data source.
        images: number of images by split (`pretrain`: `train` only; `probe`: by part).
        environment: hardware and package versions.
        settings: explicit settings of recipe and flags.
        classes: class names by class id.
        scores: metrics by split.
        selection: how the weights were selected.
        train: facts about the training.
        calibration: temperature scaling.
        uncertainty: coverage of the prediction sets; None: unknown.
        seen_in_pretraining: number of evaluated images in the pre-training data, by split; None: unknown.
        averaged_views: whether scores are averaged over views (test-time augmentation).
        excluded: number of images that a pre-training excluded on purpose.
        crossval: results of a cross-validation.
        ordered: whether the classes are ordered (grades), in the order of their ids.
        study: flow of the images and description of the splits; None: unknown.
        unmapped_images: number of images of classes that `class_map` does not map, by class.
        network: a network that is not an MAE vision transformer; None: it is one.
        model: the classifier (the first one of an ensemble); None: unknown.
        members: the models that an evaluated ensemble averages.
        licences: of the models that the run is derived from.
        precision: precision of the predictions of an evaluation, as in `Training.precision`; None: unknown.
        probe: metrics and settings of a probe, by pooling and kind (`linear`, `knn`, `attentive`).
        probe_splits: splits of a probe by role: `train`, `val`, `test`.
    """

    kind: Kind
    base: str
    data: DataSource
    images: dict[str, int]
    environment: Environment
    settings: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    scores: dict[str, Scores] = field(default_factory=dict)
    selection: Selection | None = None
    train: Training | None = None
    calibration: Calibration | None = None
    uncertainty: Coverage | None = None
    seen_in_pretraining: dict[str, int] | None = None
    averaged_views: bool = False
    excluded: int = 0
    crossval: CrossvalSummary | None = None
    probe: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    probe_splits: dict[str, str] = field(default_factory=dict)
    ordered: bool = False
    study: Cohort | None = None
    unmapped_images: dict[str, int] = field(default_factory=dict)
    network: Network | None = None
    model: ModelFacts | None = None
    members: list[str] = field(default_factory=list)
    licences: list[LicenceFact] = field(default_factory=list)
    precision: str | None = None

    @property
    def file_name(self) -> str:
        """Name of its file."""
        if self.kind == "evaluate":
            return f"results_{next(iter(self.scores))}.json"
        return {"crossval": CROSSVAL, "probe": PROBE}.get(self.kind, ALL_RESULTS)

    def training_counts(self) -> np.ndarray | None:
        """Returns the number of training images per class, (classes,); None if unknown."""
        train = self.study.splits["train"].classes if self.study and "train" in self.study.splits else {}
        return np.array([train[name] for name in self.classes]) if set(train) == set(self.classes) else None

    def trainer_metrics(self) -> dict[str, float]:
        """Returns the scores under the names of the Trainer: `eval_macro_f1`, `test_accuracy`, `train_loss`."""
        prefixes = {"validation": "eval"}
        metrics = {
            f"{prefixes.get(split, split)}_{name}": value
            for split, scores in self.scores.items()
            for name, value in scalar_scores(scores).items()
        }
        return metrics | (self.train.metrics if self.train else {})

    def _repr_html_(self) -> str | None:
        """The record in a notebook; `reporting.notebook` adds the renderer."""
        return html_renderers[0](self) if html_renderers else None


html_renderers: list[Callable[[RunRecord], str]] = []


def run_name(folder: str | Path) -> str:
    """Returns the name of a run: the name of its folder."""
    return Path(folder).resolve().name
