"""Reads and writes the JSON files of run records. Files without `format` are read too."""

import dataclasses
import json
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import UsageError, short_repr, summarize_exception
from ..evaluation.metrics import available_metric_names
from ..files.atomic import write_json
from .messages import RunMessage
from .record import (
    ALL_RESULTS,
    CROSSVAL,
    FORMAT,
    KINDS,
    PROBE,
    RUN_STARTED,
    CrossvalRun,
    CrossvalSummary,
    DataSource,
    Environment,
    RunRecord,
    Scores,
    Selection,
    Training,
)

SCORED_SPLITS = ("selection", "validation", "test")

PROBE_KEYS = ("cls", "mean", "pooled", "tokens", "split_by_role")

# Keys of `results_<split>.json` that are not metrics.
NON_SCORE_KEYS = {
    *("format", "kind", "classes", "settings", "model", "source", "images", "averaged_views"),
    *("temperature_scaling", "hardware", "versions", "ordered", "study", "unmapped_images", "network"),
}


def write_record(record: RunRecord, folder: Path) -> None:
    """Writes the record of a completed run, and removes the record of the started run."""
    write_json(folder / record.file_name, record_to_dict(record))
    (folder / RUN_STARTED).unlink(missing_ok=True)


def write_started_record(record: RunRecord, folder: Path) -> None:
    """Writes the record of a started run, which is read when the run resumes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN_STARTED, record_to_dict(record))


def read_record(folder: str | Path, file_name: str = ALL_RESULTS) -> RunRecord:
    """Reads the record of a run.

    Raises:
        UsageError: If the record is missing, damaged, or was written by another program.
    """
    path = Path(folder) / file_name
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(RunMessage.RECORD_MISSING, path=folder, file=file_name) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(RunMessage.RECORD_DAMAGED, path=path, error=summarize_exception(error)) from None
    if not isinstance(values, dict):
        raise UsageError(RunMessage.RECORD_IS_NOT_AN_OBJECT, path=path, type=type(values).__name__)
    file_format = values.get("format", 1)
    if not isinstance(file_format, int) or file_format > FORMAT:
        raise UsageError(RunMessage.RECORD_OF_NEWER_FORMAT, path=path, format=file_format, supported=FORMAT)
    try:
        record = _record_from_dict(values, path.name)
        _check_field_types(record)
        return record
    except KeyError as error:
        raise UsageError(RunMessage.RECORD_KEY_MISSING, path=path, key=error) from None
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UsageError(RunMessage.RECORD_INVALID, path=path, error=summarize_exception(error)) from None


def find_run_record(folder: Path) -> RunRecord | None:
    """Reads the record of the started or completed run in a folder; None if no record is readable."""
    for name in (RUN_STARTED, ALL_RESULTS):
        if (folder / name).is_file():
            try:
                return read_record(folder, name)
            except UsageError:
                return None
    return None


def record_to_dict(record: RunRecord) -> dict[str, Any]:
    """Returns the record in the layout of its JSON file."""
    source = dataclasses.asdict(record.data)
    common = {"format": FORMAT, "kind": record.kind, "classes": record.classes, "settings": record.settings}
    common |= {"ordered": record.ordered, "study": record.study}
    common |= {"network": record.network} if record.network else {}
    environment = dataclasses.asdict(record.environment)
    if record.kind == "evaluate":
        (scores,) = record.scores.values()
        values = scores | common | {"model": record.base, "source": source, "images": record.images}
        values |= {"averaged_views": record.averaged_views, "temperature_scaling": record.calibration}
        return values | {"unmapped_images": record.unmapped_images} | environment
    if record.kind == "probe":
        values = (record.probe or {}) | common | {"model": record.base, "source": source, "images": record.images}
        return values | environment
    if record.kind == "crossval":
        return common | {"base": record.base, "source": source} | _crossval_to_dict(record.crossval) | environment
    values = common | record.scores
    if record.training:
        training = dataclasses.asdict(record.training)
        best = {"best_checkpoint": record.selection.checkpoint if record.selection else None}
        values["train"] = training.pop("metrics") | training | best
    values |= {"base": record.base, "seen_in_pretraining": record.leakage, "source": source, "images": record.images}
    if record.kind == "pretrain":
        values |= {"data_dir": str(Path(record.data.data_dir).resolve()), "excluded": record.excluded}
        values["images"] = record.images["train"]  # a number
    if record.selection:
        selection = record.selection
        values |= {"weights": selection.sentence, "chosen_on": selection.selection_split, "metric": selection.metric}
    values |= {"uncertainty": record.uncertainty} if record.uncertainty else {}
    return values | {"temperature_scaling": record.calibration} | environment


def _crossval_to_dict(summary: CrossvalSummary | None) -> dict[str, Any]:
    assert summary is not None, "the record of a cross-validation has a summary"
    return {
        "folds": summary.folds,
        "runs": [
            dataclasses.asdict(run) | {"folder": run.folder} | scores | {"chosen_on": selection_split}
            for run, scores, selection_split in summary.runs
        ],
        "mean_and_std": summary.mean_and_std,
        "label_efficiency": summary.label_efficiency,
        "pooled": summary.pooled,
    }


def _check_field_types(record: Any) -> None:
    """Raises TypeError if a field of a record, or of a nested dataclass, does not have its declared type."""
    for name, hint in get_type_hints(type(record)).items():
        value = getattr(record, name)
        if not _has_type(value, hint):
            raise TypeError(f"{name} is {short_repr(value)}")


def _has_type(value: Any, hint: Any) -> bool:
    base, arguments = get_origin(hint) or hint, get_args(hint)
    if base in (Union, UnionType):
        return any(_has_type(value, argument) for argument in arguments)
    if isinstance(base, type) and is_dataclass(base) and isinstance(value, base):
        _check_field_types(value)
        return True
    if base in (list, tuple) and arguments:
        items = arguments[:1] * len(value) if base is list and isinstance(value, list) else arguments
        return isinstance(value, base) and len(value) == len(items) and all(map(_has_type, value, items))
    if base is dict and arguments:
        return isinstance(value, dict) and all(
            _has_type(k, arguments[0]) and _has_type(v, arguments[1]) for k, v in value.items()
        )
    if base in (int, float):
        return isinstance(value, (int, base)) and not isinstance(value, bool)
    return base is Any or isinstance(value, base)


def _record_from_dict(values: dict[str, Any], file_name: str) -> RunRecord:
    kind = values.get("kind") or _infer_kind(values, file_name)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind}")
    common: dict[str, Any] = {
        "kind": kind,
        "settings": values.get("settings", {}),
        "classes": values.get("classes", []),
        "environment": Environment(str(values.get("hardware", "unknown")), str(values.get("versions", "unknown"))),
        "format": values.get("format", 1),
        "ordered": values.get("ordered", False),
        "study": values.get("study"),
        "unmapped_images": values.get("unmapped_images", {}),
        "network": values.get("network", ""),
    }
    if kind == "crossval":
        summary = _crossval_from_dict(values)
        return RunRecord(base=values["base"], data=_parse_source(values), images={}, crossval=summary, **common)
    if kind == "probe":
        results = {name: value for name, value in values.items() if name in PROBE_KEYS}
        return RunRecord(
            base=values["model"],
            data=_parse_source(values),
            images=_parse_counts(values["images"]),
            probe=results,
            **common,
        )
    if kind == "evaluate":
        split = file_name.removeprefix("results_").removesuffix(".json")
        return RunRecord(
            base=values["model"],
            data=_parse_source(values),
            images=_parse_counts(values["images"]),
            scores={split: _parse_evaluate_scores(values)} if "macro_f1" in values else {},
            averaged_views=bool(values.get("averaged_views", False)),
            calibration=values.get("temperature_scaling"),
            **common,
        )
    return _trained_from_dict(values, common)


def _trained_from_dict(values: dict[str, Any], common: dict[str, Any]) -> RunRecord:
    """Parses a record of finetune or pretrain."""
    if "source" not in values and "data_dir" not in values:
        raise KeyError("source")
    return RunRecord(
        base=values["base"],
        data=_parse_source(values),
        images=_parse_counts(values["images"]),
        scores={split: _parse_scores(values[split]) for split in SCORED_SPLITS if split in values},
        selection=_parse_selection(values),
        training=_parse_training(values),
        calibration=values.get("temperature_scaling"),
        uncertainty=values.get("uncertainty"),
        leakage=values.get("seen_in_pretraining"),
        excluded=int(values.get("excluded", 0)),
        **common,
    )


def _infer_kind(values: dict[str, Any], file_name: str) -> str:
    """Infers the kind of a file without `kind`."""
    if file_name in (CROSSVAL, PROBE):
        return file_name.removesuffix(".json")
    if file_name.startswith("results_"):
        return "evaluate"
    return "pretrain" if "data_dir" in values else "finetune"


def _parse_source(values: dict[str, Any]) -> DataSource:
    """Parses the data source; a file without `source` has at most the folder."""
    return DataSource.from_dict(values.get("source", {"data_dir": values.get("data_dir", "")}))


def _parse_counts(images: Any) -> dict[str, int]:
    """Parses the number of images by split; files of pretrain have the total only."""
    if isinstance(images, int):
        return {"train": images}
    return {str(split): int(count) for split, count in images.items()}


def _parse_evaluate_scores(values: dict[str, Any]) -> Scores:
    """Parses the scores of a file of evaluate, in which they are top-level keys."""
    return _parse_scores({name: value for name, value in values.items() if name not in NON_SCORE_KEYS})


def _parse_scores(values: Any) -> Scores:
    """Parses the scores of a split. It may lack a metric that was added later."""
    return dict(values) | {name: float(values[name]) for name in available_metric_names(values)}


def _parse_selection(values: dict[str, Any]) -> Selection | None:
    if "chosen_on" not in values:
        return None
    checkpoint = values.get("train", {}).get("best_checkpoint")
    return Selection(values.get("weights", ""), values["chosen_on"], values.get("metric"), checkpoint)


def _parse_training(values: dict[str, Any]) -> Training | None:
    if "train" not in values:
        return None
    metrics = dict(values["train"])
    metrics.pop("best_checkpoint", None)
    typed = {name: metrics.pop(name, None) for name in ("updates", "learning_rate", "effective_batch_size")}
    seconds = metrics.pop("seconds", values.get("seconds", metrics.get("train_runtime", 0.0)))
    return Training(float(seconds), metrics=metrics, **typed)


def _crossval_from_dict(values: dict[str, Any]) -> CrossvalSummary:
    runs = []
    for row in values["runs"]:
        run = CrossvalRun(row["fraction"], row["seed"], row["fold"], row["several_fractions"])
        runs.append((run, {name: float(row[name]) for name in available_metric_names(row)}, row["chosen_on"]))
    return CrossvalSummary(
        str(values["folds"]), runs, values["mean_and_std"], values["label_efficiency"], values["pooled"]
    )
