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

from ..errors import UsageError, one_line, shown
from ..evaluation.confusion import names_in
from ..evaluation.metrics import HEADLINE
from ..files.writing import write_json
from .record import (
    ALL_RESULTS,
    BEGUN,
    CROSSVAL,
    FORMAT,
    KINDS,
    PROBE,
    CrossvalRun,
    CrossvalSummary,
    DataSource,
    Environment,
    RunRecord,
    Scores,
    Selection,
    Training,
)

SCORED = ("selection", "validation", "test")

PROBED = ("cls", "mean", "chosen", "tokens", "parts")

# What stands beside the scores in `results_<split>.json`.
BESIDE_SCORES = {
    *("format", "kind", "classes", "settings", "model", "source", "images", "averaged_views"),
    *("temperature_scaling", "hardware", "versions", "ordered", "study", "left_out", "network"),
}


def write_record(record: RunRecord, folder: Path) -> None:
    """Writes it whole: a run that has its record is done."""
    write_json(folder / record.file_name, to_json(record))
    (folder / BEGUN).unlink(missing_ok=True)


def write_begun(record: RunRecord, folder: Path) -> None:
    """Writes what a run that begins is of, for whoever goes on with it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BEGUN, to_json(record))


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
        raise UsageError(f"{path} is damaged ({one_line(error)}): restore it, or run the verb again.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is no record of hf_mae: it holds a {type(values).__name__}.")
    written = values.get("format", 1)
    if not isinstance(written, int) or written > FORMAT:
        raise UsageError(f"{path} is of format {written}, and this hf_mae reads up to {FORMAT}: use a newer one.")
    try:
        record = _from_json(values, path.name)
        _refuse_other_types(record)
        return record
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise UsageError(
            f"{path} is no record of hf_mae ({lacking}): another tool's file of that name, or one that was edited."
        ) from None


def begun_record(folder: Path) -> RunRecord | None:
    """The record of the run that a folder holds, finished or not; None where there is none that can be read."""
    for name in (BEGUN, ALL_RESULTS):
        if (folder / name).is_file():
            try:
                return read_record(folder, name)
            except UsageError:
                return None
    return None


def to_json(record: RunRecord) -> dict[str, Any]:
    """The layout of the file: the names that it always had, and `format`, `kind`, `settings`, `classes`."""
    source = dataclasses.asdict(record.data)
    head = {"format": FORMAT, "kind": record.kind, "classes": record.classes, "settings": record.settings}
    head |= {"ordered": record.ordered, "study": record.study}
    head |= {"network": record.network} if record.network else {}
    made = dataclasses.asdict(record.environment)
    if record.kind == "evaluate":
        (scores,) = record.scores.values()
        more = {"averaged_views": record.averaged_views, "temperature_scaling": record.calibration}
        more |= {"left_out": record.left_out}
        return scores | head | {"model": record.base, "source": source, "images": record.images} | more | made
    if record.kind == "probe":
        found = record.probe or {}
        return found | head | {"model": record.base, "source": source, "images": record.images} | made
    if record.kind == "crossval":
        return head | {"base": record.base, "source": source} | _crossval_to_json(record.crossval) | made
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
        values |= {"weights": chosen.sentence, "chosen_on": chosen.chosen_on, "metric": chosen.metric}
    values |= {"doubt": record.doubt} if record.doubt else {}
    return values | {"temperature_scaling": record.calibration} | made


def _crossval_to_json(found: CrossvalSummary | None) -> dict[str, Any]:
    assert found is not None, "a record of crossval has its summary"
    return {
        "folds": found.folds,
        "runs": [
            dataclasses.asdict(run) | {"folder": run.folder} | scores | {"chosen_on": chosen_on}
            for run, scores, chosen_on in found.runs
        ],
        "mean_and_std": found.mean_and_std,
        "label_efficiency": found.label_efficiency,
        "pooled": found.pooled,
    }


def _refuse_other_types(record: Any) -> None:
    """Raises TypeError for a field of a record, or of what it holds, that is not of its type."""
    for name, hint in get_type_hints(type(record)).items():
        value = getattr(record, name)
        if not _is_of(value, hint):
            raise TypeError(f"{name} is {shown(value)}")


def _is_of(value: Any, hint: Any) -> bool:
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_is_of(value, part) for part in inside)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, kind):
        _refuse_other_types(value)
        return True
    if kind in (list, tuple) and inside:
        parts = inside[:1] * len(value) if kind is list and isinstance(value, list) else inside
        return isinstance(value, kind) and len(value) == len(parts) and all(map(_is_of, value, parts))
    if kind is dict and inside:
        return isinstance(value, dict) and all(_is_of(k, inside[0]) and _is_of(v, inside[1]) for k, v in value.items())
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


def _from_json(values: dict[str, Any], file_name: str) -> RunRecord:
    kind = values.get("kind") or _kind_of(values, file_name)
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
        "left_out": values.get("left_out", {}),
        "network": values.get("network", ""),
    }
    if kind == "crossval":
        found = _crossval_from_json(values)
        return RunRecord(base=values["base"], data=_source(values), images={}, crossval=found, **common)
    if kind == "probe":
        parts = {name: value for name, value in values.items() if name in PROBED}
        return RunRecord(
            base=values["model"], data=_source(values), images=_counts(values["images"]), probe=parts, **common
        )
    if kind == "evaluate":
        split = file_name.removeprefix("results_").removesuffix(".json")
        return RunRecord(
            base=values["model"],
            data=_source(values),
            images=_counts(values["images"]),
            scores={split: _own_scores(values)} if "macro_f1" in values else {},
            averaged_views=bool(values.get("averaged_views", False)),
            calibration=values.get("temperature_scaling"),
            **common,
        )
    return _trained_from_json(values, common)


def _trained_from_json(values: dict[str, Any], common: dict[str, Any]) -> RunRecord:
    """Of finetune and pretrain."""
    if "source" not in values and "data_dir" not in values:
        raise KeyError("source")
    return RunRecord(
        base=values["base"],
        data=_source(values),
        images=_counts(values["images"]),
        scores={split: _scores(values[split]) for split in SCORED if split in values},
        selection=_selection(values),
        training=_training(values),
        calibration=values.get("temperature_scaling"),
        doubt=values.get("doubt"),
        leakage=values.get("seen_in_pretraining"),
        excluded=int(values.get("excluded", 0)),
        **common,
    )


def _kind_of(values: dict[str, Any], file_name: str) -> str:
    """Of a file that does not say its kind."""
    if file_name in (CROSSVAL, PROBE):
        return file_name.removesuffix(".json")
    if file_name.startswith("results_"):
        return "evaluate"
    return "pretrain" if "data_dir" in values else "finetune"


def _source(values: dict[str, Any]) -> DataSource:
    """Where the images are from; older files of pretrain hold the folder alone, and of probe nothing."""
    return DataSource.from_dict(values.get("source", {"data_dir": values.get("data_dir", "")}))


def _counts(images: Any) -> dict[str, int]:
    """Images by split; older files of pretrain hold the number alone."""
    if isinstance(images, int):
        return {"train": images}
    return {str(split): int(count) for split, count in images.items()}


def _own_scores(values: dict[str, Any]) -> Scores:
    """The scores of a file of evaluate, which stand beside what else it holds."""
    return _scores({name: value for name, value in values.items() if name not in BESIDE_SCORES})


def _scores(values: Any) -> Scores:
    """The scores of a split, which has all headline scores as numbers."""
    return dict(values) | {name: float(values[name]) for name in HEADLINE}


def _selection(values: dict[str, Any]) -> Selection | None:
    if "chosen_on" not in values:
        return None
    checkpoint = values.get("train", {}).get("best_checkpoint")
    return Selection(values.get("weights", ""), values["chosen_on"], values.get("metric"), checkpoint)


def _training(values: dict[str, Any]) -> Training | None:
    if "train" not in values:
        return None
    found = dict(values["train"])
    found.pop("best_checkpoint", None)
    typed = {name: found.pop(name, None) for name in ("updates", "learning_rate", "effective_batch_size")}
    seconds = found.pop("seconds", values.get("seconds", found.get("train_runtime", 0.0)))
    return Training(float(seconds), metrics=found, **typed)


def _crossval_from_json(values: dict[str, Any]) -> CrossvalSummary:
    runs = []
    for row in values["runs"]:
        run = CrossvalRun(row["fraction"], row["seed"], row["fold"], row["several_fractions"])
        runs.append((run, {name: float(row[name]) for name in names_in(row)}, row["chosen_on"]))
    return CrossvalSummary(
        str(values["folds"]), runs, values["mean_and_std"], values["label_efficiency"], values["pooled"]
    )
