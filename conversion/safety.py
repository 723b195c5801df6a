"""Bounds on what a file may make us spend, looked at before it is spent: sizes, depths, and code of its own."""

import json
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from hf_mae.errors import short_repr

from .errors import ConversionError

MAX_LAYERS, MAX_WIDTH, MAX_PIXELS, MAX_CLASSES = 1_000, 65_536, 16_384, 1_000_000
MAX_PICKLE_VALUES = (
    20_000_000  # values of a pickle; a checkpoint of a ViT-H with its optimizer has some hundred thousand
)
FILL_OPCODES = (
    "APPEND",
    "APPENDS",
    "SETITEM",
    "SETITEMS",
    "ADDITEMS",
    "BUILD",
)  # opcodes that put values into the first one
# Fields of a configuration, and the largest number that a ViT of this kind may have there.
CONFIG_LIMITS = {
    "num_hidden_layers": MAX_LAYERS,
    "decoder_num_hidden_layers": MAX_LAYERS,
    "num_attention_heads": MAX_WIDTH,
    "decoder_num_attention_heads": MAX_WIDTH,
    "hidden_size": MAX_WIDTH,
    "decoder_hidden_size": MAX_WIDTH,
    "intermediate_size": 16 * MAX_WIDTH,
    "decoder_intermediate_size": 16 * MAX_WIDTH,
    "image_size": MAX_PIXELS,
    "patch_size": MAX_PIXELS,
    "num_channels": 1_000,
    "num_labels": MAX_CLASSES,
    # of other networks
    "depths": MAX_LAYERS,
    "hidden_sizes": MAX_WIDTH,
    "embed_dim": MAX_WIDTH,
    "embedding_size": MAX_WIDTH,
    "hidden_dim": MAX_WIDTH,
    "window_size": MAX_PIXELS,
}
FACTOR_FIELDS = (
    "depth_coefficient",
    "width_coefficient",
    "mlp_ratio",
)  # of configurations, which are at most MAX_FACTOR
MAX_FACTOR = 100
# Arguments of timm's `create_model` by which it would read something itself.
TIMM_FILE_ARGUMENTS = ("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
NESTED_CONFIGS = ("vision_config", "text_config")  # configurations within configurations


def check_zip_checkpoint(path: Path) -> None:
    """Refuses a `.pth` that is compressed inside, which torch never writes, or whose pickle unfolds without end.

    Raises:
        ConversionError: it is such a file.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if packed:
                size = sum(entry.file_size for entry in entries)
                raise ConversionError(
                    f"{path} is compressed inside (it would take {size / 1e9:.1f} GB), which torch.save never does: "
                    "unpack it, and save its weights anew."
                )
            for entry in entries:
                if entry.filename.endswith("/data.pkl"):
                    check_pickle_size(archive.read(entry), path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise ConversionError(f"{path} is truncated or no PyTorch checkpoint ({error}): fetch it again.") from None


def check_pickle_size(content: bytes, path: Path) -> None:
    """Refuses values that a pickle builds of the same few by reference, again and again.

    40 pairs, each of the last one twice, are a few hundred bytes; to hash, print or copy them takes 2 ** 40 steps. What
    a value would be, written out, is counted as the pickle is read, without building it.

    Raises:
        ConversionError: it holds more than `WRITTEN_OUT` values, or is no pickle.
    """
    stack: list[_PickleValue] = []
    marks: list[int] = []
    memo: dict[int, _PickleValue] = {}
    operations: Any = pickletools.genops(content)
    try:
        for opcode, argument, _ in operations:
            name = opcode.name
            if name == "MARK":
                marks.append(len(stack))
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                stack.append(memo.get(int(argument)) or _PickleValue())
            elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
                memo[len(memo) if name == "MEMOIZE" else int(argument)] = stack[-1] if stack else _PickleValue()
            else:
                start = _first_popped_index(opcode, stack, marks)
                taken = stack[start:]
                del stack[start:]
                value = taken[0] if name in FILL_OPCODES and taken else _PickleValue()
                value.size += sum(part.size for part in taken if part is not value)
                stack += [value] * len(opcode.stack_after)
                if value.size > MAX_PICKLE_VALUES:
                    break
        else:
            return
    except (ValueError, IndexError) as error:
        raise ConversionError(
            f"{path} is damaged, or no PyTorch checkpoint ({error}): fetch or copy it again."
        ) from None
    raise ConversionError(
        f"{path} repeats values within values, beyond {MAX_PICKLE_VALUES:,} if written out, which no checkpoint does."
    )


class _PickleValue:
    """A value of a pickle, as large as it would be if written out."""

    def __init__(self) -> None:
        self.size = 1


def _first_popped_index(opcode: Any, stack: list[_PickleValue], marks: list[int]) -> int:
    """From where on an opcode takes values off the stack."""
    if pickletools.markobject in opcode.stack_before:
        before_mark: int = opcode.stack_before.index(pickletools.markobject)
        return max(0, (marks.pop() if marks else 0) - before_mark)
    return max(0, len(stack) - len(opcode.stack_before))


def check_tensor_storage(state: dict[str, torch.Tensor], source: str) -> None:
    """Refuses tensors that are larger than what they are stored in: a view without strides unfolds as it is copied."""
    for name, tensor in state.items():
        if tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), 64):
            raise ConversionError(
                f"{source}: {name} is of shape {tuple(tensor.shape)}, more than the "
                f"{tensor.untyped_storage().nbytes()} bytes that the file holds of it."
            )


def check_model_folder(folder: Path) -> None:
    """Refuses a folder that brings code of its own, weights from elsewhere, or JSON that is none of a model's.

    Nothing of it is ever run: `trust_remote_code` is False everywhere; here it is said in a sentence.

    Raises:
        ConversionError: it does.
    """
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        check_config_dict(read_json(folder / name) or {}, str(folder / name))
    for path in sorted(folder.glob("*.index.json")):
        weight_map = (read_json(path) or {}).get("weight_map")
        names = set(weight_map.values()) if isinstance(weight_map, dict) else {None}
        wrong = [name for name in names if not isinstance(name, str) or Path(name).name != name]
        if wrong:
            raise ConversionError(f"{path} names weights that are not beside it ({wrong[0]}): they are not read.")


def check_config_dict(values: dict[str, Any], source: str) -> None:
    """Refuses a configuration that asks for code of its own, for kernels to download, or for quantised weights.

    Raises:
        ConversionError: it does.
    """
    if "auto_map" in values:
        raise ConversionError(
            f"{source} asks for Python code of its own (auto_map), which is never run: only stock models of "
            "transformers are read."
        )
    if values.get("quantization_config"):
        raise ConversionError(f"{source} is of quantised weights (quantization_config): take the plain ones.")
    for name, value in values.items():
        if name.endswith("_implementation") and "/" in str(value):
            raise ConversionError(
                f"{source} asks for kernels from elsewhere ({name} = {short_repr(value)}), which are code and are never run: "
                "take that line out."
            )


def is_timm(config: Any) -> bool:
    """Whether a configuration is of a timm model, in the wrapper of transformers."""
    return bool(config.model_type == "timm_wrapper")


def check_timm_config(values: dict[str, Any], source: str) -> None:
    """Refuses a configuration of a timm model that names files or repositories, which timm would read by itself.

    Raises:
        ConversionError: it does, or asks for a size out of all bounds.
    """
    architecture = values.get("architecture")
    if not isinstance(architecture, str) or not re.fullmatch(r"\w+", architecture):
        raise ConversionError(
            f"{source} asks for architecture = {short_repr(architecture)}, which is no model of timm's."
        )
    made = values.get("pretrained_cfg") or {}
    sides = made.get("input_size", [1]) if isinstance(made, dict) else None
    if not isinstance(sides, (list, tuple)) or not all(isinstance(s, int) and 0 < s <= MAX_PIXELS for s in sides):
        raise ConversionError(
            f"{source} asks for input_size = {short_repr(sides)}, which are no images that can be made."
        )
    share = made.get("crop_pct", 1.0)
    if share is not None and not (isinstance(share, (int, float)) and 0.1 <= share <= 10):
        raise ConversionError(f"{source} asks for crop_pct = {short_repr(share)}, which is no share of an image.")
    arguments = values.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise ConversionError(f"{source} has model_args = {short_repr(arguments)}, and not names with numbers.")
    for name, value in arguments.items():
        values_of = value if isinstance(value, (list, tuple)) else [value]
        if name in TIMM_FILE_ARGUMENTS or not all(_is_safe_model_argument(one) for one in values_of):
            raise ConversionError(
                f"{source} asks for model_args with {name} = {short_repr(value)}: only sizes up to {MAX_WIDTH:,} and words "
                "are read."
            )


def _is_safe_model_argument(value: Any) -> bool:
    """Whether an argument of a model is a size, a switch, or a word that names no file."""
    if isinstance(value, str):
        return bool(re.fullmatch(r"\w{,40}", value))
    return value is None or (isinstance(value, (int, float)) and abs(value) <= MAX_WIDTH)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file.

    Raises:
        ConversionError: it is no JSON, or no object.
    """
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ConversionError(f"{path} is no JSON ({str(error)[:100]}).") from None
    if not isinstance(values, dict):
        raise ConversionError(f"{path} holds a {type(values).__name__}, and a model's has names and values.")
    return values


def check_config_sizes(config: Any, source: str) -> None:
    """Refuses a configuration whose model nobody could hold, before it is built.

    Raises:
        ConversionError: a size is out of all bounds, or none at all.
    """
    for part in NESTED_CONFIGS:
        if (own := getattr(config, part, None)) is not None:
            check_config_sizes(own, source)
    for name in FACTOR_FIELDS:
        factor = getattr(config, name, None)
        if factor is not None and not (isinstance(factor, (int, float)) and 0 < factor <= MAX_FACTOR):
            raise ConversionError(
                f"{source}: its config.json says {name} = {short_repr(factor)}, which is no factor up to {MAX_FACTOR}."
            )
    for name, largest in CONFIG_LIMITS.items():
        value = getattr(config, name, None)
        numbers = value if isinstance(value, (list, tuple)) else [value]
        for number in numbers:
            if number is None or (name == "num_labels" and number == 0 and is_timm(config)):
                continue  # an encoder without a head, as timm calls it
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= largest:
                raise ConversionError(
                    f"{source}: its config.json says {name} = {short_repr(value)}, and at most {largest:,} can be read."
                )


def check_config_values(config: Any, source: str) -> None:
    """Refuses class names that are no text, and rates that are none.

    Raises:
        ConversionError: there is one.
    """
    names = getattr(config, "id2label", None) or {}
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ConversionError(
            f"{source}: its config.json says id2label = {short_repr(names)}, which are no class names."
        )
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "mask_ratio")
    for name, largest in (("layer_norm_eps", 1.0), ("initializer_range", 1e6), *((name, 1.0) for name in rates)):
        value = getattr(config, name, None)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= largest:
            raise ConversionError(
                f"{source}: its config.json says {name} = {short_repr(value)}, which is no number from 0 to {largest:g}."
            )


def check_processor_sizes(processor: dict[str, Any], source: str) -> None:
    """Refuses an image processor that would make images of unheard-of size.

    Raises:
        ConversionError: it would, or its sizes are no numbers.
    """
    for name in ("size", "crop_size", "pad_size"):
        value = processor.get(name)
        if value is None:
            continue
        for number in value.values() if isinstance(value, dict) else [value]:
            if number is not None and (
                isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_PIXELS
            ):
                raise ConversionError(
                    f"{source}: its preprocessor_config.json says {name} = {short_repr(value)}, and images of at most "
                    f"{MAX_PIXELS:,} pixels a side are made."
                )
