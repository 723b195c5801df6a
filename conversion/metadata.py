"""Reads the facts that a checkpoint stores in addition to its weights: the arguments of its run.

Files store the same fact as a number, as text, or as a list with one number. A value that cannot be parsed is an
error; it is never ignored.
"""

import argparse
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

from .messages import ConversionError, ConversionMessage

T = TypeVar("T")

# Encoder sizes (width, blocks, heads, patch size) of the original MAE code; small and tiny are DeiT's.
SIZES = {
    "vit_tiny_patch16": (192, 12, 3, 16),
    "vit_small_patch16": (384, 12, 6, 16),
    "vit_base_patch16": (768, 12, 12, 16),
    "vit_large_patch16": (1024, 24, 16, 16),
    "vit_huge_patch14": (1280, 32, 16, 14),
}
HEADS_BY_MODEL_SIZE = {name.split("_")[1]: heads for name, (_, _, heads, _) in SIZES.items()}
# Width -> number of heads of the original code; assumed, with a note, if a checkpoint does not contain it.
ENCODER_HEADS = {768: 12, 1024: 16, 1280: 16}
DECODER_HEADS = {512: 16}
LAYER_NORM_EPS = 1e-6  # models_mae.py, models_vit.py: partial(nn.LayerNorm, eps=1e-6)
ACTIVATION = "gelu"
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "quick_gelu": "quick_gelu", "silu": "silu", "swish": "silu"}
COPIED_CONFIG_FIELDS = (
    "problem_type",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "initializer_range",
)
IMAGE_SIZE_KEYS = ("input_size", "img_size", "image_size")
LICENCE_KEY = "licence"  # in the args of an exported checkpoint
# Keys under which checkpoints store the arguments of their run.
ARGS_KEYS = ("args", "hyper_parameters", "hparams", "config", "cfg", "opt")


@dataclass
class CheckpointMetadata:
    """Facts about a model in addition to its weights; None: unknown."""

    num_attention_heads: int | None = None
    decoder_num_attention_heads: int | None = None
    image_size: tuple[int, int] | None = None  # height, width
    pooling: str | None = None  # mean, cls, or another pooling that no stock class computes
    model: str | None = None  # constructor, e.g. vit_large_patch16 or RETFound_mae
    hidden_act: str | None = None
    layer_norm_eps: float | None = None
    norm_pix_loss: bool | None = None
    mask_ratio: float | None = None
    class_names: list[str] | None = None
    image_processor: dict[str, Any] | None = None  # content of preprocessor_config.json
    imagenet_mean_and_std: bool | None = None  # BEiT: normalized with the values of ImageNet instead of 0.5
    config: dict[str, Any] | None = None  # the COPIED_CONFIG_FIELDS of a classifier's configuration

    def to_args(self) -> dict[str, Any]:
        """Returns the `args` of an exported checkpoint, which `metadata_from_args` reads."""
        args = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.image_size is not None:
            args["image_size"] = list(self.image_size)
        args["transformers_config"] = args.pop("config", None)
        return {name: value for name, value in args.items() if value is not None}


def args_to_dict(args: Any) -> dict[str, Any]:
    """Returns the arguments of a run as a dict; an empty dict for any other object."""
    values = vars(args) if isinstance(args, argparse.Namespace) else args
    return {str(name): value for name, value in values.items()} if isinstance(values, Mapping) else {}


def find_args(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns the arguments of the run in a loaded checkpoint, or an empty dict."""
    return next((args for name in ARGS_KEYS if (args := args_to_dict(content.get(name)))), {})


def metadata_from_args(args: dict[str, Any], source: str) -> CheckpointMetadata:
    """Reads the metadata from the arguments of a run.

    Raises:
        ConversionError: If a value cannot be parsed.
    """

    def read(names: Iterable[str], parse: Callable[[Any], T], expected: str) -> T | None:
        for name in names:
            if args.get(name) is None or args[name] == "":
                continue
            try:
                return parse(args[name])
            except (TypeError, ValueError):
                raise ConversionError(
                    ConversionMessage.ARGS_VALUE_INVALID, source=source, name=name, value=args[name], expected=expected
                ) from None
        return None

    model = read(("model", "arch", "model_name"), str, "a name")
    return CheckpointMetadata(
        num_attention_heads=read(
            ("num_attention_heads", "num_heads", "heads"), _parse_positive_int, "a positive number of attention heads"
        )
        or _heads_from_model_name(model),
        decoder_num_attention_heads=read(
            ("decoder_num_attention_heads", "decoder_num_heads", "decoder_heads"),
            _parse_positive_int,
            "a positive number of attention heads",
        ),
        image_size=next((size for name in IMAGE_SIZE_KEYS if (size := _try_parse_height_width(args.get(name)))), None),
        pooling=_parse_pooling(args, source),
        model=model,
        hidden_act=read(
            ("hidden_act", "act_layer"), _parse_activation, f"one of {', '.join(sorted(set(ACTIVATIONS)))}"
        ),
        layer_norm_eps=read(
            ("layer_norm_eps", "norm_eps"), partial(_parse_within, math.ulp(0), math.inf), "a positive number"
        ),
        norm_pix_loss=read(("norm_pix_loss",), _parse_bool, "true or false"),
        mask_ratio=read(("mask_ratio",), partial(_parse_within, 0, 1), "at least 0 and less than 1"),
        class_names=read(("class_names",), _parse_class_names, "a list of class names"),
        image_processor=read(("image_processor",), _parse_mapping, "an image processor"),
        imagenet_mean_and_std=read(("imagenet_default_mean_and_std",), _parse_bool, "true or false"),
        config=read(("transformers_config",), _parse_config_fields, "a configuration"),
    )


def _unwrap_single(value: Any) -> Any:
    """Returns the value in a list, tuple or array of length 1; any other value is returned unchanged."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return value


def _parse_number(value: Any) -> float:
    value = _unwrap_single(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    return float(value)


def _parse_positive_int(value: Any) -> int:
    number = _parse_number(value)
    if not (1 <= number < math.inf) or number != int(number):
        raise ValueError
    return int(number)


def _parse_within(low: float, high: float, value: Any) -> float:
    """Parses a number with low <= number < high."""
    number = _parse_number(value)
    if not low <= number < high:
        raise ValueError
    return number


def _parse_bool(value: Any) -> bool:
    value = _unwrap_single(value)
    if isinstance(value, str):
        booleans = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        return booleans[value.strip().lower()] if value.strip().lower() in booleans else _parse_bool(None)
    if value in (0, 1):  # includes True and False
        return bool(value)
    raise ValueError


def _parse_height_width(value: Any) -> tuple[int, int]:
    """Parses an image size: one number, (height, width), or (channels, height, width)."""
    value = _unwrap_single(value)
    if isinstance(value, str) and "," in value:
        value = value.strip("()[] ").split(",")
    if isinstance(value, (list, tuple)):
        if len(value) not in (2, 3):
            raise ValueError
        height, width = value[-2:]
        return _parse_positive_int(height), _parse_positive_int(width)
    return _parse_positive_int(value), _parse_positive_int(value)


def _try_parse_height_width(value: Any) -> tuple[int, int] | None:
    """Parses an image size; None if that fails, because the position embeddings define the size of square images."""
    try:
        return None if value is None else _parse_height_width(value)
    except (TypeError, ValueError):
        return None


def _parse_activation(value: Any) -> str:
    name = str(_unwrap_single(value)).lower()
    if name not in ACTIVATIONS:
        raise ValueError
    return ACTIVATIONS[name]


def _parse_class_names(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError
    return list(value)


def _parse_mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return {str(name): entry for name, entry in value.items()}


def _parse_config_fields(value: Any) -> dict[str, Any]:
    return {
        name: entry
        for name, entry in _parse_mapping(value).items()
        if name in COPIED_CONFIG_FIELDS and isinstance(entry, (str, float))
    }


def _heads_from_model_name(model_name: str | None) -> int | None:
    """Returns the heads of an original or DeiT constructor (`vit_large_patch16`, `mae_vit_base_patch16_dec512d8b`)."""
    words = (model_name or "").lower().split("_")
    if "vit" not in words or len(words) <= words.index("vit") + 1:
        return None
    return HEADS_BY_MODEL_SIZE.get(words[words.index("vit") + 1])


def _parse_pooling(args: dict[str, Any], source: str) -> str | None:
    """Returns `mean`, `cls`, or the name of another pooling.

    `global_pool` is a boolean in the original code and a name in timm.
    """
    value = _unwrap_single(args.get("pooling") or args.get("global_pool"))
    if args.get("pooling") is None and args.get("global_pool") is None:
        return None
    if value in ("avg", "mean"):
        return "mean"
    if value in ("token", "cls", "", None):
        return "cls"
    try:
        return "mean" if _parse_bool(value) else "cls"
    except ValueError:
        return str(value)
