"""Opening files of weights: `.pth` pickles without executing them, and `.safetensors`.

A pickle may hold tensors, plain Python values, numpy scalars and arrays, paths, and `argparse.Namespace`; anything else
is refused before it is built. Files that are no weights are called what they are.
"""

import argparse
import json
import pickle
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from .errors import ConversionError
from .safety import check_zip_checkpoint

WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
INDEX_SUFFIX = ".safetensors.index.json"  # of weights in several files


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """An empty dict in place of a defaultdict or another kind of dict, whose items follow in the pickle."""
    return {}


def _safe_globals() -> list[Any]:
    """What a pickle may name beside torch's own list; nothing of it does more than to build a value.

    Dicts of other kinds become plain ones, and paths pure ones, which touch no file.
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
    """numpy scalars (loss, accuracy) and arrays, under their old and new module names."""
    try:
        import numpy
        from numpy.dtypes import BoolDType, Float16DType, Float32DType, Float64DType, Int32DType, Int64DType
    except ImportError:
        return []
    scalar, array = numpy.float64(0).__reduce__()[0], numpy.zeros(1).__reduce__()[0]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    named = [(scalar, f"{module}.scalar") for module in modules]
    named += [(array, f"{module}._reconstruct") for module in modules]
    kinds = [BoolDType, Float16DType, Float32DType, Float64DType, Int32DType, Int64DType]
    return [numpy.dtype, numpy.ndarray, scalar, *named, *kinds]


def _load_pickle(path: Path) -> Any:
    """`torch.load` with the short safe list, memory-mapped where the format allows it."""
    with torch.serialization.safe_globals(_safe_globals()):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error) or "zip" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # the format of torch before 1.6


def check_weights_file(path: Path) -> None:
    """Names a file that is something else altogether: empty, a web page, a Git LFS pointer.

    Raises:
        ConversionError: it is one of these.
    """
    with open(path, "rb") as file:
        head = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        raise ConversionError(f"{path} is empty: fetch or copy it again.")
    if head.startswith(b"version https://git-lfs"):
        raise ConversionError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` where it is from.")
    if head.startswith(b"<"):
        raise ConversionError(f"{path} is a web page, not a checkpoint: the download did not fetch the file itself.")


def read_pickle(path: Path) -> Any:
    """The object in a `.pth`; nothing in the file is executed.

    Raises:
        ConversionError: the file is truncated, no checkpoint, or names something that is not on the safe list.
    """
    check_weights_file(path)
    check_zip_checkpoint(path)
    try:
        return _load_pickle(path)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+) (?:was not|whose module)", str(error)):
            name = found.group(1)
            raise ConversionError(
                f"{path} was refused, and nothing in it was executed: it is a pickle that asks for {name}, and a "
                "checkpoint needs only tensors, numpy scalars and argparse.Namespace."
            ) from None
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
        raise ConversionError(
            f"{path} is damaged, or no PyTorch checkpoint ({reason}): fetch or copy it again."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, MemoryError) as error:
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise ConversionError(
            f"{path} is truncated or no PyTorch checkpoint ({reason}): fetch or copy it again."
        ) from None


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors` file, or of all files of a `.safetensors.index.json`.

    Raises:
        ConversionError: a file is damaged, or missing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for file in _list_shards(path):
        check_weights_file(file)
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ConversionError(f"{file} is damaged, or no safetensors file ({error}).") from None
    return tensors


def _list_shards(path: Path) -> list[Path]:
    if not path.name.endswith(INDEX_SUFFIX):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConversionError(f"{path} is no index of safetensors files ({type(error).__name__}).") from None
    files = [path.parent / str(name) for name in names]
    if wrong := next((file for file in files if file.name not in names or not file.is_file()), None):
        raise ConversionError(f"{path} names {wrong.name}, and there is no such file beside it.")
    return files


def read_weights_file(path: Path) -> Any:
    """What a file of weights holds: the object of a pickle, or the dict of a safetensors file."""
    return read_safetensors(path) if path.name.endswith((".safetensors", INDEX_SUFFIX)) else read_pickle(path)
