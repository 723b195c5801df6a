"""A completed run, as reports and figures read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.estimation import Rate, estimate_headline_metrics, estimate_rates_by_class
from ..evaluation.metrics import headline_metrics
from ..evaluation.prediction_table import Predictions
from .record import CentreSummary, DataSource, RunRecord


class NoteCode(str, Enum):
    """A fact about a run that readers of its scores should know; `reporting.run_sentences` has its sentence."""

    SELECTED_ON_EVAL_SPLIT = "selected_on_eval_split"
    SELECTION_UNKNOWN = "selection_unknown"
    OTHER_IMAGES_THAN_PUBLISHED = "other_images_than_published"
    ONE_FOLD = "one_fold"
    RANDOM_FOLDS = "random_folds"
    CENTRES_LEFT_OUT = "centres_left_out"
    MEAN_OF_FOLDS = "mean_of_folds"
    MEAN_OF_OFFICIAL_SPLITS = "mean_of_official_splits"
    MEAN_OF_MODELS = "mean_of_models"
    MEAN_OF_VIEWS = "mean_of_views"
    FRACTION_OF_LABELS = "fraction_of_labels"
    SEEN_IN_PRETRAINING = "seen_in_pretraining"
    TRAINED_ON_OTHER_FOLD = "trained_on_other_fold"
    EXTERNAL_CLASSES = "external_classes"
    CLASSES_WITHOUT_IMAGES = "classes_without_images"
    # Reasons why no threshold can be chosen
    NO_OTHER_SPLIT = "no_other_split"
    NO_SPLIT_OF_FOLDS = "no_split_of_folds"
    NO_PREDICTIONS_OF_SPLIT = "no_predictions_of_split"
    AVERAGED_VIEWS = "averaged_views"
    OTHER_CLASSES = "other_classes"


@dataclass(frozen=True)
class Note:
    """A fact about a run, with the numbers and names of its sentence."""

    code: NoteCode
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class CompletedRun:
    """A row of the report: one run, the folds and seeds of a cross-validation, or a prediction table of any program.

    Args:
        folder: the output folder, or the file of a prediction table.
        data: name of the benchmark or of the user's dataset.
        split: evaluated split; empty: unknown.
        protocol: protocol of comparable published results (`Benchmark.protocol`); None: not comparable.
        folds: predictions, one entry per fold.
        file_names: file names of the images of each fold.
        selected_on_eval_split: whether the best epoch was selected on the evaluated images.
        label_efficiency: results by fraction of the labels, for a `crossval` with several fractions.
        num_training_images: training images per fold of a cross-validation.
        threshold_predictions: predictions of the split that selects operating points, one entry per fold (or per run,
            if each run has its own images); None: not available.
        threshold_split: name of that split.
        no_threshold_reason: reason why `threshold_predictions` is missing.
        centres: results of a cross-validation that leaves one centre out.
        trained: records of the trainings of the model: one, or one per fold and seed, or per member of an ensemble;
            empty: unknown.
        is_external: whether the evaluated images are of other data than those of the training; None: unknown.
        evaluated: record of the evaluated images (that of the training, if it evaluated them); None: a prediction table
            of any program.
    """

    name: str
    folder: Path
    data: str
    split: str
    protocol: str | None
    initialisation: str
    class_names: list[str]
    folds: list[Predictions]
    file_names: list[list[str]]
    selected_on_eval_split: bool
    notes: list[Note] = field(default_factory=list)
    label_efficiency: list[dict[str, Any]] | None = None
    num_training_images: int | None = None
    threshold_predictions: list[Predictions] | None = None
    threshold_split: str | None = None
    no_threshold_reason: Note = Note(NoteCode.NO_OTHER_SPLIT)
    source: DataSource | None = None
    trained: list[RunRecord] = field(default_factory=list)
    is_external: bool | None = None
    evaluated: RunRecord | None = None
    centres: CentreSummary | None = None

    @property
    def ordered(self) -> bool:
        """Whether the classes are ordered (grades), in the order of their ids."""
        return self.folds[0].ordered

    @property
    def is_cross_validated(self) -> bool:
        """Whether the run has several folds, which share training images."""
        return len(self.folds) > 1

    @property
    def num_images(self) -> int:
        """Number of evaluated images of all folds."""
        return sum(len(fold.labels) for fold in self.folds)

    @property
    def has_repeated_images(self) -> bool:
        """Whether an image is evaluated in several folds, so that its predictions are not independent."""
        file_names = [name for fold in self.file_names for name in fold]
        return len(set(file_names)) < len(file_names)

    def scores(self) -> dict[str, dict[str, Any]]:
        """Computes each headline metric: `mean`, `std` (None for one run), `values`, and 95 % `interval` of the mean
        (or None, with a `reason`); `classes_without_images`: names of the classes that count as 0 in a mean."""
        fold_metrics = [
            headline_metrics(fold.confusion_matrices(), fold.ordered, fold.macro_over_labels) for fold in self.folds
        ]
        scores: dict[str, dict[str, Any]] = {}
        for name, estimate in estimate_headline_metrics(self.folds).items():
            values = np.concatenate([metrics[name] for metrics in fold_metrics])
            std = float(values.std()) if len(values) > 1 else None
            scores[name] = {"mean": float(values.mean()), "std": std, "values": values.tolist()}
            scores[name] |= {"interval": estimate.interval, "reason": estimate.reason}
            scores[name]["classes_without_images"] = [self.class_names[i] for i in estimate.classes_without_images]
        return scores

    def class_rates(self) -> dict[str, dict[str, Rate]]:
        """Estimates one-vs-rest sensitivity, specificity and predictive values of each class, with 95 % intervals."""
        return dict(zip(self.class_names, estimate_rates_by_class(self.folds)))
