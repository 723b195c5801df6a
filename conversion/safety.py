"""Limits on untrusted input, checked before memory is allocated: sizes, depths, and custom code."""

import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .checkpoint import State
from .messages import ConversionError, ConversionMessage

MAX_INTEGER = 2**20  # in a configuration, also of class counts and vocabularies; `bounds` counts what is built
MAX_PIXELS = 16_384  # per side
MAX_JSON_BYTES = 50_000_000  # of the class names of ImageNet-21k: 2 MB
MAX_PICKLE_VALUES = 20_000_000  # a checkpoint of a ViT-H with its optimizer has a few hundred thousand values
FILL_OPCODES = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")  # they add values to the first one
TEXT_OPCODES = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
IMPORT_OPCODES = ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")
# Fields of a configuration that are at least 1, and the largest allowed integer.
SIZE_LIMITS = {
    ("num_hidden_layers", "decoder_num_hidden_layers", "depths", "num_channels", "num_labels"): MAX_INTEGER,
    ("num_attention_heads", "decoder_num_attention_heads", "hidden_size", "decoder_hidden_size"): MAX_INTEGER,
    ("hidden_sizes", "embed_dim", "hidden_dim", "intermediate_size", "decoder_intermediate_size"): MAX_INTEGER,
    ("image_size", "patch_size", "window_size"): MAX_PIXELS,
}
# Fields of a configuration, and the range of the number.
NUMBER_RANGES = {
    ("depth_coefficient", "width_coefficient", "mlp_ratio"): (0.01, 100),
    ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "mask_ratio", "layer_norm_eps"): (0, 1),
    ("initializer_range",): (0, 1e6),
    ("crop_pct",): (0.1, 10),
}
# Arguments of timm's `create_model` that make it read files.
TIMM_FILE_ARGUMENTS = ("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
NESTED_CONFIGS = ("vision_config", "text_config")


def check_zip_checkpoint(path: Path) -> set[str]:
    """Checks that a `.pth` is not compressed inside (torch never writes that) and that its pickle has a limited size.

    Returns:
        The names of the objects that its pickle imports.

    Raises:
        ConversionError: If the file violates a limit or is damaged.
    """
    names: set[str] = set()
    if not zipfile.is_zipfile(path):
        return names
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
                    names |= check_pickle_size(archive.read(entry), path)
    except ConversionError:
        raise
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise ConversionError(ConversionMessage.FILE_DAMAGED, path=path, reason=error) from None
    return names


def check_pickle_size(content: bytes, path: Path) -> set[str]:
    """Checks the expanded size of the values in a pickle, which can reference the same value many times.

    40 nested pairs, each with the previous pair twice, need a few hundred bytes; to hash, print or copy them takes
    2 ** 40 steps. The expanded size is computed from the opcodes, without building the values.

    Returns:
        The names of the objects that the pickle imports; "?" for a name that is computed.

    Raises:
        ConversionError: If the pickle expands to more than `MAX_PICKLE_VALUES` values, or is damaged.
    """
    stack: list[_PickleValue] = []
    marks: list[int] = []
    memo: dict[int, _PickleValue] = {}
    imported: set[str] = set()
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
                if name in TEXT_OPCODES:
                    value.text = argument
                elif name in IMPORT_OPCODES:
                    imported.add(_imported_name(argument, popped))
                stack += [value] * len(opcode.stack_after)
                if value.size > MAX_PICKLE_VALUES:
                    break
        else:
            return imported
    except (ValueError, IndexError) as error:
        raise ConversionError(ConversionMessage.FILE_DAMAGED, path=path, reason=error) from None
    raise ConversionError(ConversionMessage.PICKLE_TOO_LARGE, path=path, limit=MAX_PICKLE_VALUES)


class _PickleValue:
    """The expanded size of a value in a pickle, and the value of a text."""

    def __init__(self) -> None:
        self.size, self.text = 1, "?"


def _imported_name(argument: Any, popped: list[_PickleValue]) -> str:
    """Returns the name that an opcode imports, from its argument (`GLOBAL`, `INST`) or the stack (`STACK_GLOBAL`)."""
    if isinstance(argument, str):
        return argument.replace(" ", ".")
    return ".".join(value.text for value in popped) or "?"


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
        check_config_dict(read_json(folder / name) or {}, str(folder), name)
    for path in sorted(folder.glob("*.index.json")):
        weight_map = (read_json(path) or {}).get("weight_map")
        names = set(weight_map.values()) if isinstance(weight_map, dict) else {None}
        outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
        if outside:
            raise ConversionError(ConversionMessage.WEIGHT_MAP_OUTSIDE_FOLDER, path=path, name=outside[0])


def check_config_dict(values: dict[str, Any], source: str, file: str = "config.json") -> None:
    """Checks that a configuration requests no custom code, no kernels to download and no quantized weights.

    Integers are limited in every field, because some networks make lists of their length before a module is built.

    Raises:
        ConversionError: If a check fails.
    """
    for name, value in _iter_values(values):
        if name == "auto_map":
            raise ConversionError(ConversionMessage.CUSTOM_CODE, source=f"{source}/{file}")
        if name == "quantization_config" and value:
            raise ConversionError(ConversionMessage.QUANTIZED_CONFIG, source=f"{source}/{file}")
        if name.endswith("_implementation") and "/" in str(value):
            raise ConversionError(ConversionMessage.CUSTOM_KERNELS, source=f"{source}/{file}", name=name, value=value)
        if isinstance(value, int) and not isinstance(value, bool):
            _check_range(name, value, source, -MAX_INTEGER, MAX_INTEGER, file=file)


def _iter_values(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Iterates over the fields of nested objects; the items of a list have its name. Class names are skipped."""
    stack = list(values.items())
    while stack:
        name, value = stack.pop()
        yield name, value
        if isinstance(value, dict) and name not in ("id2label", "label2id"):
            stack += [(str(key), item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            stack += [(name, item) for item in value]


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
    data, arguments = (values.get(name) or {} for name in ("pretrained_cfg", "model_args"))
    for name, value in (("pretrained_cfg", data), ("model_args", arguments)):
        if not isinstance(value, dict):
            raise ConversionError(ConversionMessage.TIMM_NOT_AN_OBJECT, source=source, name=name, value=value)
    _check_range("input_size", data.get("input_size"), source, 1, MAX_PIXELS, int)
    _check_range("crop_pct", data.get("crop_pct"), source, *NUMBER_RANGES[("crop_pct",)])
    for name, value in arguments.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        if name in TIMM_FILE_ARGUMENTS or not all(_is_safe_model_argument(item) for item in items):
            raise ConversionError(ConversionMessage.TIMM_MODEL_ARG_INVALID, source=source, name=name, value=value)


def _is_safe_model_argument(value: Any) -> bool:
    """Whether a model argument is safe: a number, a short word (not a path), or None."""
    if isinstance(value, str):
        return bool(re.fullmatch(r"\w{,40}", value))
    return value is None or isinstance(value, (int, float))


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None if the file does not exist.

    Raises:
        ConversionError: If the file is not valid JSON, or not an object.
    """
    if not path.is_file():
        return None
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ValueError(f"{size / 1e6:.0f} MB")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ConversionError(ConversionMessage.JSON_INVALID, path=path, reason=str(error)[:100]) from None
    if not isinstance(values, dict):
        raise ConversionError(ConversionMessage.JSON_NOT_AN_OBJECT, path=path, type=type(values).__name__)
    return values


def check_config_values(config: Any, source: str) -> None:
    """Checks the sizes, the rates and the class names of a configuration before its model is built.

    Raises:
        ConversionError: If a value is invalid or exceeds its limit.
    """
    for nested in (getattr(config, name, None) for name in NESTED_CONFIGS):
        if nested is not None:
            check_config_values(nested, source)
    for names, limit in SIZE_LIMITS.items():
        for name in names:
            smallest = 0 if name == "num_labels" and is_timm(config) else 1  # timm's encoders without a head
            _check_range(name, getattr(config, name, None), source, smallest, limit, int)
    for names, (low, high) in NUMBER_RANGES.items():
        for name in names:
            _check_range(name, getattr(config, name, None), source, low, high)
    classes = getattr(config, "id2label", None) or {}
    if not isinstance(classes, dict) or not all(isinstance(name, str) for name in classes.values()):
        raise ConversionError(ConversionMessage.CONFIG_CLASS_NAMES_INVALID, source=source, value=classes)


def check_processor_sizes(processor: dict[str, Any], source: str) -> None:
    """Checks the sizes of an image processor.

    Raises:
        ConversionError: If a size is not a number or exceeds the limit.
    """
    for name in ("size", "crop_size", "pad_size"):
        size = processor.get(name)
        values = list(size.values()) if isinstance(size, dict) else size
        _check_range(name, values, source, 1, MAX_PIXELS, int, "preprocessor_config.json")
    _check_range("crop_pct", processor.get("crop_pct"), source, *NUMBER_RANGES[("crop_pct",)])


def _check_range(
    name: str, value: Any, source: str, low: float, high: float, types: Any = (int, float), file: str = "config.json"
) -> None:
    """Checks a number, or each number of a list; None is not checked."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        is_number = isinstance(number, types) and not isinstance(number, bool)
        if number is not None and not (is_number and low <= number <= high):
            raise ConversionError(
                ConversionMessage.VALUE_OUT_OF_RANGE,
                source=source,
                name=name,
                value=value,
                file=file,
                low=low,
                high=high,
            )
