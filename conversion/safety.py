"""Limits on untrusted input, checked before memory is allocated: sizes, depths, and custom code."""

import json
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

from .checkpoint import State
from .messages import ConversionError, ConversionMessage

MAX_LAYERS, MAX_WIDTH, MAX_PIXELS, MAX_CLASSES = 1_000, 65_536, 16_384, 1_000_000
MAX_PICKLE_VALUES = 20_000_000  # a checkpoint of a ViT-H with its optimizer has a few hundred thousand values
FILL_OPCODES = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")  # they add values to the first one
# Field of a configuration -> largest allowed value.
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
    # fields of other architectures
    "depths": MAX_LAYERS,
    "hidden_sizes": MAX_WIDTH,
    "embed_dim": MAX_WIDTH,
    "embedding_size": MAX_WIDTH,
    "hidden_dim": MAX_WIDTH,
    "window_size": MAX_PIXELS,
}
FACTOR_FIELDS = ("depth_coefficient", "width_coefficient", "mlp_ratio")  # at most MAX_FACTOR
MAX_FACTOR = 100
# Arguments of timm's `create_model` that make it read files.
TIMM_FILE_ARGUMENTS = ("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
NESTED_CONFIGS = ("vision_config", "text_config")


def check_zip_checkpoint(path: Path) -> None:
    """Checks that a `.pth` is not compressed inside (torch never writes that) and that its pickle has a limited size.

    Raises:
        ConversionError: If the file violates a limit or is damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ConversionError(
                    ConversionMessage.FILE_COMPRESSED,
                    path=path,
                    gigabytes=sum(entry.file_size for entry in entries) / 1e9,
                )
            for entry in entries:
                if entry.filename.endswith("/data.pkl"):
                    check_pickle_size(archive.read(entry), path)
    except ConversionError:
        raise
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise ConversionError(ConversionMessage.FILE_DAMAGED, path=path, reason=error) from None


def check_pickle_size(content: bytes, path: Path) -> None:
    """Checks the expanded size of the values in a pickle, which can reference the same value many times.

    40 nested pairs, each with the previous pair twice, need a few hundred bytes; to hash, print or copy them takes
    2 ** 40 steps. The expanded size is computed from the opcodes, without building the values.

    Raises:
        ConversionError: If the pickle expands to more than `MAX_PICKLE_VALUES` values, or is damaged.
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
                popped = stack[start:]
                del stack[start:]
                value = popped[0] if name in FILL_OPCODES and popped else _PickleValue()
                value.size += sum(part.size for part in popped if part is not value)
                stack += [value] * len(opcode.stack_after)
                if value.size > MAX_PICKLE_VALUES:
                    break
        else:
            return
    except (ValueError, IndexError) as error:
        raise ConversionError(ConversionMessage.FILE_DAMAGED, path=path, reason=error) from None
    raise ConversionError(ConversionMessage.PICKLE_TOO_LARGE, path=path, limit=MAX_PICKLE_VALUES)


class _PickleValue:
    """The expanded size of a value in a pickle."""

    def __init__(self) -> None:
        self.size = 1


def _first_popped_index(opcode: Any, stack: list[_PickleValue], marks: list[int]) -> int:
    """Returns the index of the first value that an opcode pops from the stack."""
    if pickletools.markobject in opcode.stack_before:
        before_mark: int = opcode.stack_before.index(pickletools.markobject)
        return max(0, (marks.pop() if marks else 0) - before_mark)
    return max(0, len(stack) - len(opcode.stack_before))


def check_tensor_storage(state: State, source: str) -> None:
    """Raises ConversionError for tensors that are larger than their storage: views with stride 0 expand when copied."""
    for name, tensor in state.items():
        stored = tensor.untyped_storage().nbytes()
        if tensor.numel() * tensor.element_size() > max(stored, 64):
            raise ConversionError(
                ConversionMessage.TENSOR_LARGER_THAN_STORAGE,
                source=source,
                name=name,
                shape=tuple(tensor.shape),
                stored=stored,
            )


def check_model_folder(folder: Path) -> None:
    """Checks that a model folder requests no custom code and no weights outside the folder, and that its JSON is valid.

    Custom code is never executed in any case, because `trust_remote_code` is always False.

    Raises:
        ConversionError: If a check fails.
    """
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        check_config_dict(read_json(folder / name) or {}, str(folder / name))
    for path in sorted(folder.glob("*.index.json")):
        weight_map = (read_json(path) or {}).get("weight_map")
        names = set(weight_map.values()) if isinstance(weight_map, dict) else {None}
        outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
        if outside:
            raise ConversionError(ConversionMessage.WEIGHT_MAP_OUTSIDE_FOLDER, path=path, name=outside[0])


def check_config_dict(values: dict[str, Any], source: str) -> None:
    """Checks that a configuration requests no custom code, no kernels to download and no quantized weights.

    Raises:
        ConversionError: If a check fails.
    """
    if "auto_map" in values:
        raise ConversionError(ConversionMessage.CUSTOM_CODE, source=source)
    if values.get("quantization_config"):
        raise ConversionError(ConversionMessage.QUANTIZED_CONFIG, source=source)
    for name, value in values.items():
        if name.endswith("_implementation") and "/" in str(value):
            raise ConversionError(ConversionMessage.CUSTOM_KERNELS, source=source, name=name, value=value)


def is_timm(config: Any) -> bool:
    """Whether a configuration describes a timm model in the wrapper of transformers."""
    return bool(config.model_type == "timm_wrapper")


def check_timm_config(values: dict[str, Any], source: str) -> None:
    """Checks that the configuration of a timm model names no files or repositories, which timm would read.

    Raises:
        ConversionError: If a check fails, or a size exceeds the limits.
    """
    architecture = values.get("architecture")
    if not isinstance(architecture, str) or not re.fullmatch(r"\w+", architecture):
        raise ConversionError(ConversionMessage.TIMM_ARCHITECTURE_INVALID, source=source, value=architecture)
    data = values.get("pretrained_cfg") or {}
    sizes = data.get("input_size", [1]) if isinstance(data, dict) else None
    if not isinstance(sizes, (list, tuple)) or not all(isinstance(s, int) and 0 < s <= MAX_PIXELS for s in sizes):
        raise ConversionError(ConversionMessage.TIMM_INPUT_SIZE_INVALID, source=source, value=sizes, limit=MAX_PIXELS)
    crop_pct = data.get("crop_pct", 1.0)
    if crop_pct is not None and not (isinstance(crop_pct, (int, float)) and 0.1 <= crop_pct <= 10):
        raise ConversionError(ConversionMessage.TIMM_CROP_PCT_INVALID, source=source, value=crop_pct)
    arguments = values.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise ConversionError(ConversionMessage.TIMM_MODEL_ARGS_NOT_AN_OBJECT, source=source, value=arguments)
    for name, value in arguments.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        if name in TIMM_FILE_ARGUMENTS or not all(_is_safe_model_argument(item) for item in items):
            raise ConversionError(
                ConversionMessage.TIMM_MODEL_ARG_INVALID, source=source, name=name, value=value, limit=MAX_WIDTH
            )


def _is_safe_model_argument(value: Any) -> bool:
    """Whether a model argument is safe: a limited number, a short word (not a path), or None."""
    if isinstance(value, str):
        return bool(re.fullmatch(r"\w{,40}", value))
    return value is None or (isinstance(value, (int, float)) and abs(value) <= MAX_WIDTH)


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None if the file does not exist.

    Raises:
        ConversionError: If the file is not valid JSON, or not an object.
    """
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ConversionError(ConversionMessage.JSON_INVALID, path=path, reason=str(error)[:100]) from None
    if not isinstance(values, dict):
        raise ConversionError(ConversionMessage.JSON_NOT_AN_OBJECT, path=path, type=type(values).__name__)
    return values


def check_config_sizes(config: Any, source: str) -> None:
    """Checks the sizes of a configuration before its model is built.

    Raises:
        ConversionError: If a size is invalid or exceeds its limit.
    """
    for name in NESTED_CONFIGS:
        if (nested := getattr(config, name, None)) is not None:
            check_config_sizes(nested, source)
    for name in FACTOR_FIELDS:
        factor = getattr(config, name, None)
        if factor is not None and not (isinstance(factor, (int, float)) and 0 < factor <= MAX_FACTOR):
            raise ConversionError(
                ConversionMessage.CONFIG_FACTOR_INVALID, source=source, name=name, value=factor, limit=MAX_FACTOR
            )
    for name, limit in CONFIG_LIMITS.items():
        value = getattr(config, name, None)
        numbers = value if isinstance(value, (list, tuple)) else [value]
        for number in numbers:
            if number is None or (name == "num_labels" and number == 0 and is_timm(config)):
                continue  # timm's encoders without a head have 0 labels
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= limit:
                raise ConversionError(
                    ConversionMessage.CONFIG_SIZE_INVALID, source=source, name=name, value=value, limit=limit
                )


def check_config_values(config: Any, source: str) -> None:
    """Checks the class names and the rates of a configuration.

    Raises:
        ConversionError: If a class name is not text, or a rate is not a number in its range.
    """
    names = getattr(config, "id2label", None) or {}
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ConversionError(ConversionMessage.CONFIG_CLASS_NAMES_INVALID, source=source, value=names)
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "mask_ratio")
    for name, limit in (("layer_norm_eps", 1.0), ("initializer_range", 1e6), *((name, 1.0) for name in rates)):
        value = getattr(config, name, None)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= limit:
            raise ConversionError(
                ConversionMessage.CONFIG_NUMBER_INVALID, source=source, name=name, value=value, limit=limit
            )


def check_processor_sizes(processor: dict[str, Any], source: str) -> None:
    """Checks the sizes of an image processor.

    Raises:
        ConversionError: If a size is not a number or exceeds the limit.
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
                    ConversionMessage.PROCESSOR_SIZE_INVALID, source=source, name=name, value=value, limit=MAX_PIXELS
                )
