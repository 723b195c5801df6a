"""Classes of one data set as those of a model that was trained on another: external validation."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict
from scipy.special import logsumexp

from ..errors import UsageError, did_you_mean
from .exclusion_log import record_excluded
from .tables import read_table

IGNORED_VALUES = ("", "-")


@dataclass(frozen=True)
class SharedClass:
    """A class that both sides know, each perhaps as several of its own; a class of the model alone has no `data_classes`."""

    name: str
    data_classes: tuple[str, ...]
    model_classes: tuple[str, ...]


@dataclass(frozen=True)
class ClassMap:
    """Which classes of the data are which of the model.

    Args:
        shared: in the order of the model's classes.
        excluded_classes: classes of the data that are none of the model's.
    """

    shared: tuple[SharedClass, ...]
    excluded_classes: tuple[str, ...]
    model_classes: tuple[str, ...]

    @property
    def class_names(self) -> list[str]:
        """Of the classes that are scored."""
        return [one.name for one in self.shared]

    def map_class(self, name: str) -> SharedClass:
        """The class that one of the model's is scored as."""
        return next(one for one in self.shared if name in one.model_classes)

    def merge_logits(self, logits: np.ndarray) -> np.ndarray:
        """Logits (..., model classes) as those of the shared classes, whose scores are the sums of their parts'."""
        ids = {name: index for index, name in enumerate(self.model_classes)}
        return np.stack(
            [
                logsumexp(logits[..., [ids[name] for name in one.model_classes]].astype(float), axis=-1)
                for one in self.shared
            ],
            axis=-1,
        )

    def relabel(self, splits: DatasetDict, source_name: str) -> tuple[DatasetDict, dict[str, int]]:
        """The splits with shared classes, and how many images of each class were left out.

        Raises:
            UsageError: the data has a class that the map does not name, or nothing is left.
        """
        ids = {name: index for index, one in enumerate(self.shared) for name in one.data_classes}
        own = next(iter(splits.values())).features["labels"].names
        if unknown := [name for name in own if name not in ids and name not in self.excluded_classes]:
            raise UsageError(
                f"{source_name} has classes that the class map does not name: {', '.join(unknown)}. Give each a row; an "
                "empty `model` leaves it out."
            )
        counts: Counter[str] = Counter()
        found = DatasetDict()
        for split, dataset in splits.items():
            labels = [own[label] for label in dataset["labels"][:]]
            kept = [index for index, name in enumerate(labels) if name in ids]
            counts.update(name for name in labels if name not in ids)
            if kept:
                found[split] = _replace_labels(
                    dataset.select(kept), [ids[labels[index]] for index in kept], self.class_names
                )
        if not found:
            raise UsageError(f"{source_name} has no image of a class that the model knows.")
        for name, count in counts.items():
            record_excluded(f"class {name}, which the model does not know", count)
        return found, counts


def _replace_labels(dataset: Dataset, labels: list[int], names: list[str]) -> Dataset:
    features = ClassLabel(names=names)
    return dataset.remove_columns("labels").add_column("labels", labels).cast_column("labels", features)


def read_class_map(path: str | Path, model_classes: list[str]) -> ClassMap:
    """A table with the columns `data` and `model`, a row for each pair of classes that are the same.

    A class may stand in several rows: one of the model that the data splits into two, or the other way round; such ones
    are scored as one class, called as the side that has one name for it.

    Raises:
        UsageError: a column is missing, or a class is none of the model's.
    """
    rows = read_table(Path(path))
    if missing := [name for name in ("data", "model") if name not in rows[0]]:
        raise UsageError(f"{path} lacks the column {', '.join(missing)}: a class map has data and model.")
    pairs = [(str(row["data"] or "").strip(), str(row["model"] or "").strip()) for row in rows]
    left_out = [data for data, model in pairs if model in IGNORED_VALUES]
    joined = [(data, model) for data, model in pairs if model not in IGNORED_VALUES]
    for _, model in joined:
        if model not in model_classes:
            raise UsageError(f"{path}: the model has no class {model}{did_you_mean(model, model_classes)}.")
    if both := {data for data, _ in joined} & set(left_out):
        raise UsageError(f"{path} leaves {', '.join(sorted(both))} out, and maps it too.")
    shared = []
    seen: set[str] = set()
    for name in model_classes:
        if name not in seen:
            theirs, own = _merge_linked_classes(name, joined)
            seen |= set(own)
            names = own if len(own) == 1 or len(theirs) != 1 else theirs
            shared.append(SharedClass(" + ".join(names), tuple(theirs), tuple(own)))
    return ClassMap(tuple(shared), tuple(dict.fromkeys(left_out)), tuple(model_classes))


def _merge_linked_classes(name: str, class_pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Everything that is the same class as one of the model's, on both sides."""
    data: list[str] = []
    model = [name]
    while True:
        more_data = [one for one, other in class_pairs if other in model and one not in data]
        data += dict.fromkeys(more_data)
        more_model = [other for one, other in class_pairs if one in data and other not in model]
        model += dict.fromkeys(more_model)
        if not more_data and not more_model:
            return data, model
