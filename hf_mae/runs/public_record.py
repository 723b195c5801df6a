"""The published form of records and recipes: fields on a list of allowed ones, without paths and names of files."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ..data.cohort import Cohort
from ..data.exclusion_log import Relabelling
from ..settings.benchmarks import BENCHMARKS_DIR
from ..settings.commands import command_options
from ..settings.inputs import CATALOGUE_FILE, looks_like_path
from ..settings.models import RANDOM_WEIGHTS
from ..settings.yaml_files import parse_yaml
from .identifiers import NameRules
from .record import DataSource, RunRecord

LOCAL_MODEL, LOCAL_DATA = "local-checkpoint", "local-images"  # in the place of names that are not published
PUBLIC_FIELDS = (  # of `RunRecord`: numbers, and names of classes, metrics, packages and networks
    *("kind", "images", "environment", "classes", "scores", "calibration", "uncertainty", "seen_in_pretraining"),
    *("averaged_views", "excluded", "ordered", "network", "model", "precision"),
)
PUBLIC_DATA_FIELDS = (  # of `DataSource`
    *("benchmark", "fold", "val_fraction", "train_fraction", "selection_fraction", "seed", "fingerprint"),
    "class_order",
)
PUBLIC_TEXTS = (  # settings whose text is a class, a size, or a name of this package or of transformers
    *("class_order", "positive", "class_weights", "mean_std", "auto_augment", "cache_limit", "lr_scheduler_type"),
    *("lr_scheduler_kwargs", "metric_for_best_model", "optim", "eval_strategy", "save_strategy", "logging_strategy"),
    *("report_to", "train_sampling_strategy", "size", "gradient_checkpointing_kwargs"),
)
SOURCE_SETTINGS = {"model_name_or_path": LOCAL_MODEL, "teacher": LOCAL_MODEL, "data_dir": LOCAL_DATA, "benchmark": ""}
PATH_SETTINGS = ("output_dir", "class_map")  # in addition to those whose value is a FILE or PATH in the help
PUBLIC_COMMENTS = ("effective batch", "processes", "versions")  # of a recipe


def parse_hub_id(name: str) -> str | None:
    """Returns `name` if it is a Hub id (OWNER/NAME) and not a path; otherwise None."""
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not looks_like_path(name) and not Path(name).exists()
    return name if is_id else None


def public_source(name: str, rules: NameRules, replacement: str) -> str:
    """Returns the published name of a model or dataset: that of the Hub or of this package, or its file name."""
    if _is_public(name):
        return name
    file = Path(name.split("?")[0]).name
    return replacement if rules.find_identifier(file) or not file else file


def _is_public(name: str) -> bool:
    """Whether a name is on the Hub, or is a checkpoint or benchmark of this package."""
    checkpoints = (line.split(",")[0] for line in CATALOGUE_FILE.read_text(encoding="utf-8").splitlines())
    is_listed = name in (RANDOM_WEIGHTS, *checkpoints) or (BENCHMARKS_DIR / f"{Path(name).name}.yaml").is_file()
    return parse_hub_id(name) is not None or (is_listed and not Path(name).exists())


def make_public_record(record: RunRecord, rules: NameRules) -> RunRecord:
    """Copies the fields of a record that are published."""
    data = {name: getattr(record.data, name) for name in PUBLIC_DATA_FIELDS}
    if data["benchmark"] and not _is_public(data["benchmark"]):
        data["benchmark"] = None
    selection, train = record.selection, record.train
    if selection is not None:
        teacher = selection.teacher and public_source(selection.teacher, rules, LOCAL_MODEL)
        selection = replace(selection, checkpoint=None, teacher=teacher)
    if train is not None:
        numbers = {name: value for name, value in train.metrics.items() if isinstance(value, int | float)}
        train = replace(train, metrics=numbers)
    return RunRecord(
        **{name: getattr(record, name) for name in PUBLIC_FIELDS},
        base=public_source(record.base, rules, LOCAL_MODEL),
        data=DataSource(public_source(record.data.data_dir, rules, LOCAL_DATA), **data),
        settings=public_settings(record.settings, record.kind, rules)[0],
        selection=selection,
        train=train,
        study=record.study and _make_public_study(record.study),
        licences=[replace(fact, source=public_source(fact.source, rules, LOCAL_MODEL)) for fact in record.licences],
    )


def _make_public_study(study: Cohort) -> Cohort:
    """Copies the numbers of images, without names of files and values of columns."""
    excluded = [
        replace(step, detail=None if isinstance(step.detail, str) else step.detail, examples=[])
        for step in study.excluded
    ]
    relabelled = study.relabelled and Relabelling(LOCAL_DATA, study.relabelled.images)
    return Cohort(study.total, excluded, study.splits, relabelled=relabelled)


def public_settings(settings: Mapping[str, Any], kind: str, rules: NameRules) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the settings that are published, and a hint for each of the others."""
    options = command_options(kind)
    public: dict[str, Any] = {}
    hints: dict[str, str] = {}
    for name, value in settings.items():
        option = options.get(name)
        texts = [str(text) for text in (value if isinstance(value, list) else [value])]
        if name in SOURCE_SETTINGS and all(map(_is_public, texts)):
            public[name] = value
        elif name in (*SOURCE_SETTINGS, *PATH_SETTINGS) or (option and option.metavar in ("FILE", "PATH")):
            files = [Path(text.split("?")[0]).name for text in texts]
            is_neutral = not any(map(rules.find_identifier, files))
            hints[name] = f"your path (in the original run: {' '.join(files)})" if is_neutral else "your path"
        elif option and (name in PUBLIC_TEXTS or option.choices or option.value_type not in (str, dict)):
            public[name] = value
        else:
            hints[name] = "your value"
    return public, hints


def make_portable_recipe(recipe: str, kind: str, rules: NameRules) -> str:
    """Turns the settings of a recipe that are not published into comments, so that it can be used elsewhere."""
    settings = parse_yaml(recipe.encode(), Path("recipe.yaml"))
    public, hints = public_settings(settings, kind, rules)
    lines = [line for line in recipe.splitlines() if line.startswith(tuple(f"# {name}: " for name in PUBLIC_COMMENTS))]
    for name in settings:
        if name == "data_fingerprint":
            lines.append(f"# data_fingerprint: {settings[name]}")
        elif name in public:
            lines.append(yaml.safe_dump({name: public[name]}, allow_unicode=True).rstrip())
        else:
            lines.append(f"# {name}: {hints[name]}")
    return "\n".join(lines) + "\n"
