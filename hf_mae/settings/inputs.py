"""Checks of the inputs of a command before anything is imported or looked up on the Hub: missing paths, and arguments
in the wrong order."""

import csv
import glob
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..compat.launchers import read_launch
from ..errors import UsageError, did_you_mean
from ..files.archive_members import is_remote
from ..files.atomic import find_write_error
from ..files.messages import FileMessage
from .commands import find_command
from .messages import SettingsMessage
from .models import RANDOM_WEIGHTS

CATALOGUE_FILE = Path(__file__).parents[1] / "published" / "checkpoints.csv"
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "all_results.json",
    "ensemble.json",
)  # each identifies a model folder
MODEL_OPTIONS = ("model_name_or_path", "teacher", "runs")
DATA_OPTIONS = ("data_dir", "images")
OUTPUT_OPTIONS = ("output_dir", "output")
FILE_OPTIONS = ("manifest", "exclude_pairs", "corrections", "class_map", "class_notes", "costs", "labels", "split_file")
LOCAL_RUN_COMMANDS = ("report", "push", "audit")  # their runs are folders of this machine
HUB_ID = re.compile(r"(hf-hub:)?[\w.-]+/[\w.-]+")


def check_inputs(command: str, values: Mapping[str, Any]) -> None:
    """Checks that the inputs of a command exist, and that a model and its data or output are in the right order.

    Args:
        command: name of the command.
        values: explicit values by the name of the option.

    Raises:
        UsageError: If a path does not exist, or arguments are swapped; the message contains the right command.
    """
    _check_order(command, values)
    for name in (*MODEL_OPTIONS, "data_dir", *FILE_OPTIONS):
        for value in _texts(values.get(name)):
            _check_exists(command, name, value)
    images = _texts(values.get("images"))
    if images and not any(map(_is_input, images)):  # single missing images have an error in their row
        raise UsageError(SettingsMessage.PATH_NOT_FOUND, path=images[0])


def _texts(value: Any) -> list[str]:
    """Returns the texts of an option with one or several values."""
    return [item for item in (value if isinstance(value, list | tuple) else [value]) if item and isinstance(item, str)]


def _is_input(path: str) -> bool:
    return is_remote(path) or os.path.exists(path) or glob.has_magic(path) or any(map(os.path.isfile, _parents(path)))


def _parents(path: str) -> Iterator[str]:
    return map(str, Path(path).parents)


def _check_exists(command: str, name: str, value: str) -> None:
    if _is_input(value) or value == RANDOM_WEIGHTS:
        return
    is_model = name in MODEL_OPTIONS
    may_be_hub_id = name not in FILE_OPTIONS and not (is_model and command in LOCAL_RUN_COMMANDS)
    if not may_be_hub_id or looks_like_path(value):
        raise UsageError(SettingsMessage.PATH_NOT_FOUND, path=value)
    if HUB_ID.fullmatch(value):
        return
    names = _catalogue_names() if is_model else []
    if value not in names:
        raise UsageError(SettingsMessage.NAME_NOT_FOUND, name=value, suggestion=did_you_mean(value, names))


def _catalogue_names() -> list[str]:
    """Returns the names of the public checkpoints."""
    with open(CATALOGUE_FILE, encoding="utf-8", newline="") as file:
        return [row["name"] for row in csv.DictReader(file)]


def looks_like_path(name: str) -> bool:
    """Whether a name is a path and cannot be a Hub id (`OWNER/NAME`)."""
    has_path_prefix = name.startswith((os.sep, ".", "~"))
    has_path_suffix = name.endswith((os.sep, *WEIGHT_SUFFIXES, ".csv", ".jsonl"))
    return has_path_prefix or has_path_suffix or name.count("/") > 1 or os.path.isdir(name.split("/")[0])


def is_local_model(path: str) -> bool:
    """Whether a path is a weights file or a folder of a model."""
    if os.path.isfile(path):
        return path.lower().endswith(WEIGHT_SUFFIXES)
    return any(os.path.isfile(os.path.join(path, name)) for name in MODEL_FILES)


def _check_order(command: str, values: Mapping[str, Any]) -> None:
    """Checks that no model is given as data or output, with something else as the model."""
    positionals = find_command(command).positionals
    for model_name in (name for name in positionals if name in MODEL_OPTIONS and isinstance(values.get(name), str)):
        model = values[model_name]
        if is_local_model(model):
            continue
        for other in (name for name in positionals if name in (*DATA_OPTIONS, *OUTPUT_OPTIONS)):
            for value in filter(is_local_model, _texts(values.get(other))):
                is_certain = os.path.isfile(value) or (other in DATA_OPTIONS and os.path.exists(model))
                if is_certain or (command == "export" and model.endswith(WEIGHT_SUFFIXES)):
                    swapped = {model_name: value, other: _replace(values[other], value, model)}
                    corrected = format_command(command, {**values, **swapped})
                    raise UsageError(SettingsMessage.ARGUMENTS_SWAPPED, model=value, command=corrected)


def _replace(values: Any, value: str, replacement: str) -> Any:
    return replacement if isinstance(values, str) else [replacement if item == value else item for item in values]


def format_command(command: str, values: Mapping[str, Any]) -> str:
    """Returns the command line of values by the name of the option."""
    positionals = [name for name in find_command(command).positionals if values.get(name) is not None]
    parts = ["hf-mae", command, *(part for name in positionals for part in _format_values(values[name]))]
    for name, value in values.items():
        if name not in positionals and value is not None:
            parts += [f"--{name}", *([] if value is True else _format_values(value))]
    return shlex.join(parts)


def _format_values(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in items]


def check_outputs(values: Mapping[str, Any]) -> None:
    """Checks that the outputs of a command can be written, before it starts; creates nothing.

    Raises:
        UsageError: If a folder cannot be written, e.g. on a read-only disk.
    """
    if read_launch().rank:  # the main process writes
        return
    for name in (*OUTPUT_OPTIONS, "features"):
        if not isinstance(values.get(name), str) or is_remote(values[name]):
            continue
        path = Path(os.path.realpath(values[name]))
        is_folder = name == "output_dir" or path.is_dir()
        if path.is_file() and (is_folder or os.access(path, os.W_OK)):
            continue  # a file in the place of a folder has its own message
        if reason := find_write_error(path if is_folder else path.parent):
            raise UsageError(FileMessage.CANNOT_WRITE, path=values[name], reason=reason)
