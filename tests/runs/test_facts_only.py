"""Records store facts: numbers, enums, names and paths. Their sentences are made in `reporting`."""

import dataclasses
import enum
import types
import typing

import msgspec
import pytest
from runs.test_record import RECORDS

from hf_mae.conversion.facts import Fact
from hf_mae.conversion.report import ConversionReport
from hf_mae.runs.completed_run import Note
from hf_mae.runs.record import RunRecord
from hf_mae.runs.record_io import record_to_dict
from hf_mae.training.auto_settings import AutoSetting
from hf_mae.training.resume import Launch
from hf_mae.training.training_plan import Plan

ROOTS = [RunRecord, ConversionReport, Fact, Note, Plan, AutoSetting, Launch]
# Fields of text: names and paths of the user, of this package, or of other programs.
NAMES = {
    "AutoSetting.name",
    "Calibration.fitted_on",
    *(f"Centre.{name}" for name in ("name", "absent")),
    "CentreSummary.column",
    "ConversionReport.versions",
    *(f"Coverage.{name}" for name in ("split", "fitted_on")),
    "CrossvalResult.folder",
    *(f"LicenceFact.{name}" for name in ("source", "licence")),
    "CrossvalResult.selection_split",
    "CrossvalSummary.folds",
    *(f"DataSource.{name}" for name in ("data_dir", "manifest", "benchmark", "agreement", "exclude_pairs")),
    *(f"DataSource.{name}" for name in ("corrections", "fingerprint", "class_order", "class_map")),
    *(f"Device.{name}" for name in ("type", "gpu_name")),
    *(f"Exclusion.{name}" for name in ("detail", "examples")),
    *(f"Hardware.{name}" for name in ("machine", "gpu_name")),
    *("Environment.versions", "Launch.engine"),
    *("Optimizer.name", "Schedule.name", "Objective.loss", "Objective.sampling", "Training.precision"),
    *("Augmentation.transforms", "Augmentation.auto_augment"),
    *("Network.architecture", "ModelFacts.architecture", "ModelFacts.pooling"),
    *(f"Plan.{name}" for name in ("selection_split", "metric")),
    "Relabelling.source_file",
    *(f"RunRecord.{name}" for name in ("base", "classes", "probe_splits", "members", "precision")),
    *(f"Selection.{name}" for name in ("selection_split", "metric", "checkpoint", "teacher")),
}
# Dictionaries of any values; the next tests look at their texts.
DICTIONARIES = {
    *("AutoSetting.value", "AutoSetting.values", "Fact.values", "Note.values", "PlanWarning.values"),
    *(f"ConversionReport.{name}" for name in ("source", "target", "mapping", "unused", "initialized")),
    *(f"ConversionReport.{name}" for name in ("assumed", "image_processor")),
    *(f"CrossvalSummary.{name}" for name in ("mean_and_std", "label_efficiency", "pooled")),
    *(f"RunRecord.{name}" for name in ("settings", "scores")),
    "Training.metrics",
}


def walk(cls: type, visited: set[type]) -> dict[str, set[type]]:
    """The types of the values of each field, of a dataclass and those in it; keys of dictionaries are names."""
    if cls in visited:
        return {}
    visited.add(cls)
    hints, found = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        leaves = value_types(hints[field.name])
        found[f"{cls.__name__}.{field.name}"] = {leaf for leaf in leaves if not dataclasses.is_dataclass(leaf)}
        for leaf in filter(dataclasses.is_dataclass, leaves):
            found |= walk(leaf, visited)
    return found


def value_types(hint: typing.Any) -> set[typing.Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {enum.Enum}
    if origin in (typing.Union, types.UnionType, list, tuple):
        return set().union(*(value_types(argument) for argument in arguments if argument is not ...))
    if origin is not None and issubclass(origin, typing.Mapping):
        return value_types(arguments[1])
    return {hint}


def test_the_fields_of_records_are_numbers_enums_and_names():
    visited: set[type] = set()
    fields: dict[str, set[type]] = {}
    for root in ROOTS:
        fields |= walk(root, visited)
    texts = {name for name, leaves in fields.items() if str in leaves}
    dictionaries = {name for name, leaves in fields.items() if leaves & {typing.Any, dict, object}}
    assert texts <= NAMES, texts - NAMES
    assert dictionaries <= DICTIONARIES, dictionaries - DICTIONARIES
    unused = (NAMES | DICTIONARIES) - fields.keys()
    assert not unused, unused
    numbers = (int, float, bool, type(None), enum.Enum)
    others = {leaf for leaves in fields.values() for leaf in leaves} - {str, typing.Any, dict, object}
    assert all(issubclass(leaf, numbers) for leaf in others), others


def iter_texts(values: typing.Any) -> typing.Iterator[str]:
    """The texts of a JSON value, without the keys of dictionaries."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from iter_texts(value)
    elif isinstance(values, str):
        yield values


@pytest.mark.parametrize("kind", RECORDS)
def test_the_dictionaries_of_records_contain_no_sentences(kind):
    record = RECORDS[kind]
    values = msgspec.to_builtins(record_to_dict(record))
    names = {*record.classes, *(name for scores in record.scores.values() for name in scores["per_class"])}
    texts = set(iter_texts([values[name.split(".")[1]] for name in DICTIONARIES if name.startswith("RunRecord.")]))
    assert all(" " not in text for text in texts - names), texts
