"""The files of run records: their layout, whole writing, and the reading of what is there.

A file has the name and the layout that it always had, with `format` in it. Files without one, of earlier versions, are
read too.
"""

import dataclasses
import json
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import UsageError, short_repr, summarize_exception
from ..evaluation.confusion import available_metric_names
from ..evaluation.metrics import HEADLINE
from ..files.atomic import write_json
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

PROBE_KEYS = ("cls", "mean", "chosen", "tokens", "parts")

# What stands beside the scores in `results_<split>.json`.
NON_SCORE_KEYS = {
    *("format", "kind", "classes", "settings", "model", "source", "images", "averaged_views"),
    *("temperature_scaling", "hardware", "versions", "ordered", "study", "unmapped_images", "network"),
}


def write_record(record: RunRecord, folder: Path) -> None:
    """Writes it whole: a run that has its record is done."""
    write_json(folder / record.file_name, record_to_dict(record))
    (folder / RUN_STARTED).unlink(missing_ok=True)


def write_started_record(record: RunRecord, folder: Path) -> None:
    """Writes what a run that begins is of, for whoever goes on with it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN_STARTED, record_to_dict(record))


def read_record(folder: str | Path, file_name: str = ALL_RESULTS) -> RunRecord:
    """The record of a finished run.

    Raises:
        UsageError: there is none, it is damaged, or it is a file of another tool that has the same name.
    """
    path = Path(folder) / file_name
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{folder} is no finished run: it has no {file_name}.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is damaged ({summarize_exception(error)}): restore it, or run the verb again."
        ) from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is no record of hf_mae: it holds a {type(values).__name__}.")
    written = values.get("format", 1)
    if not isinstance(written, int) or written > FORMAT:
        raise UsageError(f"{path} is of format {written}, and this hf_mae reads up to {FORMAT}: use a newer one.")
    try:
        record = _record_from_dict(values, path.name)
        _check_field_types(record)
        return record
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else summarize_exception(error)
        raise UsageError(
            f"{path} is no record of hf_mae ({lacking}): another tool's file of that name, or one that was edited."
        ) from None


def find_run_record(folder: Path) -> RunRecord | None:
    """The record of the run that a folder holds, finished or not; None where there is none that can be read."""
    for name in (RUN_STARTED, ALL_RESULTS):
        if (folder / name).is_file():
            try:
                return read_record(folder, name)
            except UsageError:
                return None
    return None


def record_to_dict(record: RunRecord) -> dict[str, Any]:
    """The layout of the file: the names that it always had, and `format`, `kind`, `settings`, `classes`."""
    source = dataclasses.asdict(record.data)
    head = {"format": FORMAT, "kind": record.kind, "classes": record.classes, "settings": record.settings}
    head |= {"ordered": record.ordered, "study": record.study}
    head |= {"network": record.network} if record.network else {}
    made = dataclasses.asdict(record.environment)
    if record.kind == "evaluate":
        (scores,) = record.scores.values()
        more = {"averaged_views": record.averaged_views, "temperature_scaling": record.calibration}
        more |= {"unmapped_images": record.unmapped_images}
        return scores | head | {"model": record.base, "source": source, "images": record.images} | more | made
    if record.kind == "probe":
        found = record.probe or {}
        return found | head | {"model": record.base, "source": source, "images": record.images} | made
    if record.kind == "crossval":
        return head | {"base": record.base, "source": source} | _crossval_to_dict(record.crossval) | made
    values: dict[str, Any] = head | record.scores
    if record.training:
        training = dataclasses.asdict(record.training)
        best = {"best_checkpoint": record.selection.checkpoint if record.selection else None}
        values["train"] = training.pop("metrics") | training | best
    values |= {"base": record.base, "seen_in_pretraining": record.leakage, "source": source, "images": record.images}
    if record.kind == "pretrain":
        values |= {"data_dir": str(Path(record.data.data_dir).resolve()), "excluded": record.excluded}
        values["images"] = record.images["train"]  # a number, as it always was
    if record.selection:
        chosen = record.selection
        values |= {"weights": chosen.sentence, "chosen_on": chosen.selection_split, "metric": chosen.metric}
    values |= {"uncertainty": record.uncertainty} if record.uncertainty else {}
    return values | {"temperature_scaling": record.calibration} | made


def _crossval_to_dict(summary: CrossvalSummary | None) -> dict[str, Any]:
    assert summary is not None, "a record of crossval has its summary"
    return {
        "folds": summary.folds,
        "runs": [
            dataclasses.asdict(run) | {"folder": run.folder} | scores | {"chosen_on": chosen_on}
            for run, scores, chosen_on in summary.runs
        ],
        "mean_and_std": summary.mean_and_std,
        "label_efficiency": summary.label_efficiency,
        "pooled": summary.pooled,
    }


def _check_field_types(record: Any) -> None:
    """Raises TypeError for a field of a record, or of what it holds, that is not of its type."""
    for name, hint in get_type_hints(type(record)).items():
        value = getattr(record, name)
        if not _has_type(value, hint):
            raise TypeError(f"{name} is {short_repr(value)}")


def _has_type(value: Any, hint: Any) -> bool:
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_has_type(value, part) for part in inside)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, kind):
        _check_field_types(value)
        return True
    if kind in (list, tuple) and inside:
        parts = inside[:1] * len(value) if kind is list and isinstance(value, list) else inside
        return isinstance(value, kind) and len(value) == len(parts) and all(map(_has_type, value, parts))
    if kind is dict and inside:
        return isinstance(value, dict) and all(
            _has_type(k, inside[0]) and _has_type(v, inside[1]) for k, v in value.items()
        )
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


def _record_from_dict(values: dict[str, Any], file_name: str) -> RunRecord:
    kind = values.get("kind") or _infer_kind(values, file_name)
    if kind not in KINDS:
        raise ValueError(f"it is of the kind {kind}")
    common: dict[str, Any] = {
        "kind": kind,
        "settings": values.get("settings", {}),
        "classes": values.get("classes", []),
        "environment": Environment(str(values.get("hardware", "not known")), str(values.get("versions", "not known"))),
        "format": values.get("format", 1),
        "ordered": values.get("ordered", False),
        "study": values.get("study"),
        "unmapped_images": values.get("unmapped_images", {}),
        "network": values.get("network", ""),
    }
    if kind == "crossval":
        found = _crossval_from_dict(values)
        return RunRecord(base=values["base"], data=_parse_source(values), images={}, crossval=found, **common)
    if kind == "probe":
        parts = {name: value for name, value in values.items() if name in PROBE_KEYS}
        return RunRecord(
            base=values["model"],
            data=_parse_source(values),
            images=_parse_counts(values["images"]),
            probe=parts,
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
    """Of finetune and pretrain."""
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
    """Of a file that does not say its kind."""
    if file_name in (CROSSVAL, PROBE):
        return file_name.removesuffix(".json")
    if file_name.startswith("results_"):
        return "evaluate"
    return "pretrain" if "data_dir" in values else "finetune"


def _parse_source(values: dict[str, Any]) -> DataSource:
    """Where the images are from; older files of pretrain hold the folder alone, and of probe nothing."""
    return DataSource.from_dict(values.get("source", {"data_dir": values.get("data_dir", "")}))


def _parse_counts(images: Any) -> dict[str, int]:
    """Images by split; older files of pretrain hold the number alone."""
    if isinstance(images, int):
        return {"train": images}
    return {str(split): int(count) for split, count in images.items()}


def _parse_evaluate_scores(values: dict[str, Any]) -> Scores:
    """The scores of a file of evaluate, which stand beside what else it holds."""
    return _parse_scores({name: value for name, value in values.items() if name not in NON_SCORE_KEYS})


def _parse_scores(values: Any) -> Scores:
    """The scores of a split, which has all headline scores as numbers."""
    return dict(values) | {name: float(values[name]) for name in HEADLINE}


def _parse_selection(values: dict[str, Any]) -> Selection | None:
    if "chosen_on" not in values:
        return None
    checkpoint = values.get("train", {}).get("best_checkpoint")
    return Selection(values.get("weights", ""), values["chosen_on"], values.get("metric"), checkpoint)


def _parse_training(values: dict[str, Any]) -> Training | None:
    if "train" not in values:
        return None
    found = dict(values["train"])
    found.pop("best_checkpoint", None)
    typed = {name: found.pop(name, None) for name in ("updates", "learning_rate", "effective_batch_size")}
    seconds = found.pop("seconds", values.get("seconds", found.get("train_runtime", 0.0)))
    return Training(float(seconds), metrics=found, **typed)


def _crossval_from_dict(values: dict[str, Any]) -> CrossvalSummary:
    runs = []
    for row in values["runs"]:
        run = CrossvalRun(row["fraction"], row["seed"], row["fold"], row["several_fractions"])
        runs.append((run, {name: float(row[name]) for name in available_metric_names(row)}, row["chosen_on"]))
    return CrossvalSummary(
        str(values["folds"]), runs, values["mean_and_std"], values["label_efficiency"], values["pooled"]
    )
