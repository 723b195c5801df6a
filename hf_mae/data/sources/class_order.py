"""Decides the order of the classes, which gives their ids."""

import re

from ...errors import UsageError
from ...settings.benchmarks import find_benchmark
from ...settings.data import DataSourceArguments
from ..messages import DataMessage


def has_ordered_classes(options: DataSourceArguments) -> bool:
    """Whether the classes are ordered grades."""
    return bool(options.class_order) or bool(options.benchmark and find_benchmark(options.benchmark).ordered)


def order_classes(
    existing: list[str],
    options: DataSourceArguments,
    model_class_names: list[str] | None,
    label_names: list[str] | None,
) -> list[str]:
    """Returns the classes in the order of their ids.

    Args:
        existing: the classes of the data, as the source states them, or else sorted.
        options, model_class_names, label_names: see `read_splits`.
    """
    source, class_order = str(options.data_dir), options.class_order
    if options.benchmark and find_benchmark(options.benchmark).ordered:
        class_order = existing
        if label_names and set(label_names) == set(existing) and label_names != existing:
            raise UsageError(DataMessage.CLASS_ORDER_DIFFERS, source=source, class_order=label_names, names=existing)
    if label_names:
        if unknown := [name for name in existing if name not in label_names]:
            raise UsageError(DataMessage.CLASSES_NOT_IN_CHECKPOINT, source=source, unknown=unknown, known=label_names)
        return label_names
    if class_order:
        return resolve_class_order(class_order, existing, source)
    return model_class_names if model_class_names and set(model_class_names) == set(existing) else existing


def resolve_class_order(class_order: list[str], names: list[str], source_name: str) -> list[str]:
    """Returns the classes in the requested order (`sorted`: by name, with numbers by value).

    Raises:
        UsageError: If the order does not have the same classes.
    """
    if class_order == ["sorted"] and "sorted" not in names:
        return sorted(
            names, key=lambda name: [(not p.isdigit(), int(p) if p.isdigit() else p) for p in _split_digits(name)]
        )
    if sorted(class_order) != sorted(names):
        raise UsageError(DataMessage.CLASS_ORDER_DIFFERS, source=source_name, class_order=class_order, names=names)
    return class_order


def _split_digits(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]
