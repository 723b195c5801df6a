"""Maps the classes of one dataset to those of a model trained on another, for external validation."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict
from scipy.special import logsumexp

from ..errors import UsageError, did_you_mean
from .exclusion_log import ExclusionReason, record_excluded
from .messages import DataMessage
from .sources.tables import read_table

IGNORED_VALUES = ("", "-")  # in the column `model`: the class is excluded


@dataclass(frozen=True)
class SharedClass:
    """A class of both sides, which may each split it; `data_classes` is empty if only the model has the class."""

    name: str
    data_classes: tuple[str, ...]
    model_classes: tuple[str, ...]


@dataclass(frozen=True)
class ClassMap:
    """Correspondence of the classes of a dataset and of a model.

    Args:
        shared: in the order of the model's classes.
        excluded_classes: classes of the dataset that the model does not have.
        model_classes: all classes of the model, by id.
    """

    shared: tuple[SharedClass, ...]
    excluded_classes: tuple[str, ...]
    model_classes: tuple[str, ...]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that are evaluated."""
        return [shared.name for shared in self.shared]

    def map_class(self, name: str) -> SharedClass:
        """Returns the shared class of a class of the model."""
        return next(shared for shared in self.shared if name in shared.model_classes)

    def merge_logits(self, logits: np.ndarray) -> np.ndarray:
        """Converts logits (..., model classes) to logits (..., shared classes); probabilities of merged classes are
        added."""
        ids = {name: index for index, name in enumerate(self.model_classes)}
        return np.stack(
            [
                logsumexp(logits[..., [ids[name] for name in shared.model_classes]].astype(float), axis=-1)
                for shared in self.shared
            ],
            axis=-1,
        )

    def relabel(self, splits: DatasetDict, source_name: str, counted: str) -> tuple[DatasetDict, dict[str, int]]:
        """Returns the splits with the shared classes, and the number of excluded images of the split `counted` per
        class.

        Raises:
            UsageError: If the data has a class that is not in the map, or if no image is left.
        """
        ids = {name: index for index, shared in enumerate(self.shared) for name in shared.data_classes}
        names = next(iter(splits.values())).features["labels"].names
        if unknown := [name for name in names if name not in ids and name not in self.excluded_classes]:
            raise UsageError(DataMessage.CLASS_MAP_INCOMPLETE, source=source_name, names=unknown)
        num_excluded: Counter[str] = Counter()
        relabelled = DatasetDict()
        for split, dataset in splits.items():
            labels = [names[label] for label in dataset["labels"][:]]
            rows = [index for index, name in enumerate(labels) if name in ids]
            num_excluded.update(name for name in labels if name not in ids and split == counted)
            if rows:
                relabelled[split] = _replace_labels(
                    dataset.select(rows), [ids[labels[index]] for index in rows], self.class_names
                )
        if not relabelled:
            raise UsageError(DataMessage.CLASS_MAP_WITHOUT_IMAGES, source=source_name)
        for name, count in num_excluded.items():
            record_excluded(ExclusionReason.CLASS_NOT_IN_MODEL, count, detail=name)
        return relabelled, dict(num_excluded)


def _replace_labels(dataset: Dataset, labels: list[int], names: list[str]) -> Dataset:
    features = ClassLabel(names=names)
    return dataset.remove_columns("labels").add_column("labels", labels).cast_column("labels", features)


def read_class_map(path: str | Path, model_classes: list[str]) -> ClassMap:
    """Reads a table with the columns `data` and `model`, one row per pair of equivalent classes.

    A class may be in several rows, if the other side splits it. Such classes are evaluated as one class, with the name
    of the side that has a single name for it.

    Raises:
        UsageError: If a column is missing, or if the model does not have a class.
    """
    rows = read_table(Path(path))
    if missing := [name for name in ("data", "model") if name not in rows[0]]:
        raise UsageError(DataMessage.CLASS_MAP_COLUMNS_MISSING, path=path, columns=missing)
    pairs = [(str(row["data"] or "").strip(), str(row["model"] or "").strip()) for row in rows]
    excluded = [data for data, model in pairs if model in IGNORED_VALUES]
    class_pairs = [(data, model) for data, model in pairs if model not in IGNORED_VALUES]
    for _, model in class_pairs:
        if model not in model_classes:
            suggestion = did_you_mean(model, model_classes)
            raise UsageError(DataMessage.CLASS_MAP_UNKNOWN_CLASS, path=path, name=model, suggestion=suggestion)
    if both := sorted({data for data, _ in class_pairs} & set(excluded)):
        raise UsageError(DataMessage.CLASS_MAP_CONTRADICTORY, path=path, names=both)
    shared = []
    seen: set[str] = set()
    for name in model_classes:
        if name not in seen:
            data_names, model_names = _merge_linked_classes(name, class_pairs)
            seen |= set(model_names)
            names = model_names if len(model_names) == 1 or len(data_names) != 1 else data_names
            shared.append(SharedClass(" + ".join(names), tuple(data_names), tuple(model_names)))
    return ClassMap(tuple(shared), tuple(dict.fromkeys(excluded)), tuple(model_classes))


def _merge_linked_classes(name: str, class_pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Returns all classes that are linked to a class of the model, directly or indirectly: data classes and model
    classes."""
    data_names: list[str] = []
    model_names = [name]
    while True:
        new_data = [data for data, model in class_pairs if model in model_names and data not in data_names]
        data_names += dict.fromkeys(new_data)
        new_model = [model for data, model in class_pairs if data in data_names and model not in model_names]
        model_names += dict.fromkeys(new_model)
        if not new_data and not new_model:
            return data_names, model_names
