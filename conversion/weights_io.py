"""Reads weights files: `.pth` pickles without executing them, and `.safetensors`.

A pickle may contain tensors, plain Python values, numpy scalars and arrays, paths, and `argparse.Namespace`. Any other
object is rejected before it is built.
"""

import argparse
import json
import pickle
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy
import torch

from .messages import ConversionError, ConversionMessage
from .safety import check_zip_checkpoint

WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
INDEX_SUFFIX = ".safetensors.index.json"  # index of weights in several files


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """Replaces the constructor of a defaultdict or similar class; the items follow in the pickle."""
    return {}


def _safe_globals() -> list[Any]:
    """Returns the objects that a pickle may name in addition to torch's own list; all of them only build values.

    Subclasses of dict become plain dicts, and paths become pure paths without file access.
    """
    allowed: list[Any] = [argparse.Namespace]
    for name in ("collections.defaultdict", *(f"{m}.AttributeDict" for m in _LIGHTNING_MODULES)):
        allowed.append((_plain_dict, name))
    allowed += [(kind, f"{m}.{kind.__name__}") for kind in (dict, list, set) for m in ("builtins", "__builtin__")]
    for module in ("pathlib", "pathlib._local"):
        for name in ("PosixPath", "PurePosixPath"):
            allowed.append((PurePosixPath, f"{module}.{name}"))
        for name in ("WindowsPath", "PureWindowsPath"):
            allowed.append((PureWindowsPath, f"{module}.{name}"))
    return allowed + _numpy_globals()


_LIGHTNING_MODULES = (
    "lightning.fabric.utilities.data",
    "lightning_fabric.utilities.data",
    "pytorch_lightning.utilities.parsing",
)


def _numpy_globals() -> list[Any]:
    """Returns the constructors of numpy scalars (loss, accuracy) and arrays, under their old and new module names."""
    scalar, array = numpy.float64(0).__reduce__()[0], numpy.zeros(1).__reduce__()[0]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    named = [(scalar, f"{module}.scalar") for module in modules]
    named += [(array, f"{module}._reconstruct") for module in modules]
    kinds = [
        getattr(numpy.dtypes, f"{name}DType") for name in ("Bool", "Float16", "Float32", "Float64", "Int32", "Int64")
    ]
    return [numpy.dtype, numpy.ndarray, scalar, *named, *kinds]


def _load_pickle(path: Path) -> Any:
    """Calls `torch.load` with the safe list, memory-mapped if the format allows it."""
    with torch.serialization.safe_globals(_safe_globals()):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error) or "zip" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # the format of torch before 1.6


def check_weights_file(path: Path) -> None:
    """Checks that a file is not empty, a web page or a Git LFS pointer.

    Raises:
        ConversionError: If it is one of these.
    """
    with open(path, "rb") as file:
        head = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        raise ConversionError(ConversionMessage.FILE_EMPTY, path=path)
    if head.startswith(b"version https://git-lfs"):
        raise ConversionError(ConversionMessage.FILE_IS_LFS_POINTER, path=path)
    if head.startswith(b"<"):
        raise ConversionError(ConversionMessage.FILE_IS_WEB_PAGE, path=path)


def read_pickle(path: Path) -> Any:
    """Reads the object in a `.pth` without executing anything in the file.

    Raises:
        ConversionError: If the file is damaged, is not a checkpoint, or names an object that is not on the safe list.
    """
    check_weights_file(path)
    check_zip_checkpoint(path)
    try:
        return _load_pickle(path)
    except pickle.UnpicklingError as error:
        if match := re.search(r"GLOBAL (\S+) (?:was not|whose module)", str(error)):
            raise ConversionError(ConversionMessage.PICKLE_FORBIDDEN_NAME, path=path, name=match.group(1)) from None
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
        raise ConversionError(ConversionMessage.FILE_DAMAGED, path=path, reason=reason) from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, MemoryError) as error:
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise ConversionError(ConversionMessage.FILE_DAMAGED, path=path, reason=reason) from None


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a `.safetensors` file, or of all files of a `.safetensors.index.json`.

    Raises:
        ConversionError: If a file is damaged or missing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for file in _list_shards(path):
        check_weights_file(file)
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ConversionError(ConversionMessage.FILE_DAMAGED, path=file, reason=error) from None
    return tensors


def _list_shards(path: Path) -> list[Path]:
    if not path.name.endswith(INDEX_SUFFIX):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConversionError(ConversionMessage.INDEX_INVALID, path=path, reason=type(error).__name__) from None
    files = [path.parent / str(name) for name in names]
    if missing := next((file for file in files if file.name not in names or not file.is_file()), None):
        raise ConversionError(ConversionMessage.SHARD_MISSING, path=path, file=missing.name)
    return files


def read_weights_file(path: Path) -> Any:
    """Reads a weights file: the object of a pickle, or the dict of a safetensors file."""
    return read_safetensors(path) if path.name.endswith((".safetensors", INDEX_SUFFIX)) else read_pickle(path)
