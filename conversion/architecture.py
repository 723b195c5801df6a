"""The architecture of a ViT MAE: read from parameter shapes, written as a transformers configuration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hf_mae.errors import pluralize

from .checkpoint import State
from .messages import ConversionError, ConversionMessage
from .metadata import ACTIVATION, DECODER_HEADS, ENCODER_HEADS, LAYER_NORM_EPS, CheckpointMetadata

MAX_LAYERS = 1_000  # of a configuration

# Original key -> key of transformers in memory.
EMBEDDING_KEYS = (
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.{p}", "embeddings.patch_embeddings.projection.{p}"),
)
BLOCK_KEYS = (
    ("{i}.norm1.{p}", "{i}.layernorm_before.{p}"),
    ("{i}.attn.qkv.{p}", "{i}.attention.{q_proj|k_proj|v_proj}.{p}"),
    ("{i}.attn.proj.{p}", "{i}.attention.o_proj.{p}"),
    ("{i}.norm2.{p}", "{i}.layernorm_after.{p}"),
    ("{i}.mlp.fc1.{p}", "{i}.mlp.fc1.{p}"),
    ("{i}.mlp.fc2.{p}", "{i}.mlp.fc2.{p}"),
)
DECODER_KEYS = (
    ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed", "decoder.decoder_pos_embed"),
    ("decoder_embed.{p}", "decoder.decoder_embed.{p}"),
    *((f"decoder_blocks.{mae_key}", f"decoder.decoder_layers.{hf_key}") for mae_key, hf_key in BLOCK_KEYS),
    ("decoder_norm.{p}", "decoder.decoder_norm.{p}"),
    ("decoder_pred.{p}", "decoder.decoder_pred.{p}"),
)


@dataclass
class Architecture:
    """Sizes of the encoder, and of the decoder and head if the checkpoint contains them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    image_size: int | tuple[int, int]  # pixels; (height, width) if they differ
    patch_size: int
    num_channels: int
    hidden_act: str = ACTIVATION
    layer_norm_eps: float = LAYER_NORM_EPS
    has_decoder: bool = False
    decoder_hidden_size: int = 512  # the decoder of the original code, for a checkpoint without one
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int = 2048
    num_labels: int | None = None
    assumed: dict[str, Any] = field(default_factory=dict)  # flag -> default that was used for an unknown value

    @property
    def height_width(self) -> tuple[int, int]:
        """Image size in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def grid_size(self) -> tuple[int, int]:
        """Number of patches (vertical, horizontal)."""
        height, width = self.height_width
        return height // self.patch_size, width // self.patch_size

    def encoder_config_kwargs(self) -> dict[str, Any]:
        """Returns the fields of the encoder in a transformers configuration."""
        names = (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "image_size",
            "patch_size",
            "num_channels",
            "hidden_act",
            "layer_norm_eps",
        )
        return {name: getattr(self, name) for name in names}


class PatchGrid(NamedTuple):
    """Meaning of the rows of position embeddings: the patch grid, and whether the class token has a row."""

    height: int
    width: int
    has_class_token: bool


def infer_patch_grid(rows: int, patch: Sequence[int], image_size: tuple[int, int] | None, source: str) -> PatchGrid:
    """Infers the patch grid from the number of position embeddings.

    A grid that matches `image_size` has priority over a square grid.

    Raises:
        ConversionError: If the rows form neither the grid of `image_size` nor a square grid.
    """
    if image_size is not None:
        height, width = image_size[0] // patch[0], image_size[1] // patch[1]
        if rows - height * width in (0, 1):
            return PatchGrid(height, width, rows > height * width)
    for class_row in (1, 0):
        side = math.isqrt(rows - class_row)
        if side and side * side == rows - class_row:
            return PatchGrid(side, side, bool(class_row))
    if image_size is None:
        raise ConversionError(ConversionMessage.POSITIONS_NOT_SQUARE, source=source, rows=rows)
    raise ConversionError(
        ConversionMessage.POSITIONS_CONTRADICT_IMAGE_SIZE,
        source=source,
        rows=rows,
        height=image_size[0],
        width=image_size[1],
    )


def without_decoder(state: State) -> State:
    """Returns the parameters that are not part of a decoder."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(("decoder_", "mask_token"))}


def count_blocks(state: State, prefix: str) -> int:
    """Returns the number of blocks with a prefix (`blocks`, `decoder_blocks`)."""
    return 1 + max((int(name.split(".")[1]) for name in state if name.startswith(f"{prefix}.")), default=-1)


def resolve_num_heads(
    width: int,
    flag_value: int | None,
    checkpoint_value: int | None,
    by_width: dict[int, int],
    flag: str,
    assumed: dict[str, Any],
) -> int:
    """Returns the number of heads from the checkpoint, the flag, or the default for the width (added to `assumed`).

    Raises:
        ConversionError: If flag and checkpoint differ, the number does not divide the width, or it is unknown.
    """
    if flag_value is not None and checkpoint_value is not None and flag_value != checkpoint_value:
        raise ConversionError(
            ConversionMessage.HEADS_CONTRADICT, flag=flag, value=flag_value, recorded=checkpoint_value
        )
    heads = checkpoint_value if flag_value is None else flag_value
    if heads is None and (heads := by_width.get(width)) is not None:
        assumed[flag] = heads
    if heads is None:
        choices = [n for n in range(1, width + 1) if width % n == 0 and width // n >= 8]
        raise ConversionError(ConversionMessage.HEADS_UNKNOWN, width=width, flag=flag, choices=choices)
    if heads < 1 or width % heads:
        raise ConversionError(ConversionMessage.HEADS_DO_NOT_DIVIDE_WIDTH, flag=flag, value=heads, width=width)
    return heads


def required_keys(depth: int, decoder_depth: int | None) -> list[str]:
    """Returns the encoder (and decoder) parameters that a checkpoint of this depth requires, without norms and head."""
    patterns = [key for key, _ in EMBEDDING_KEYS] + [f"blocks.{key}" for key, _ in BLOCK_KEYS]
    patterns += [] if decoder_depth is None else [key for key, _ in DECODER_KEYS]
    names: dict[str, None] = {}
    for pattern in patterns:
        blocks = range((decoder_depth or 0) if pattern.startswith("decoder_blocks") else depth)
        names |= dict.fromkeys(pattern.format(i=i, p=p) for i in blocks for p in ("weight", "bias"))
    return list(names)


def read_architecture(
    state: State,
    metadata: CheckpointMetadata,
    *,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    source: str = "the checkpoint",
) -> Architecture:
    """Reads the architecture from the parameter shapes and checks that no parameter is missing.

    Args:
        state: parameters under their original names; `patch_embed.proj.weight` is (width, channels, patch, patch),
            `pos_embed` is (1, 1 + patches, width).
        metadata: facts that the checkpoint stores in addition to its weights.

    Raises:
        ConversionError: If a parameter is missing, a shape is wrong, or the number of heads is unknown.
    """
    has_decoder = any(name.startswith("decoder_") for name in state)
    depth = count_blocks(state, "blocks")
    if depth == 0:
        raise ConversionError(ConversionMessage.NO_ENCODER, source=source)
    for prefix in ("blocks", "decoder_blocks"):
        if (count := count_blocks(state, prefix)) > len(state):  # before a list of that length is built
            raise ConversionError(
                ConversionMessage.BLOCK_NUMBER_TOO_LARGE, source=source, number=count - 1, prefix=prefix
            )
    _check_required_keys(state, depth, has_decoder, source)
    width, channels, patch, patch_width = state["patch_embed.proj.weight"].shape
    if patch != patch_width:
        raise ConversionError(ConversionMessage.PATCHES_NOT_SQUARE, source=source, height=patch, width=patch_width)
    positions = state["pos_embed"].shape[1]
    rows, columns, _ = infer_patch_grid(positions, (patch, patch), metadata.image_size, source)
    assumed: dict[str, Any] = {}
    architecture = Architecture(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=resolve_num_heads(
            width, num_attention_heads, metadata.num_attention_heads, ENCODER_HEADS, "num_attention_heads", assumed
        ),
        intermediate_size=state["blocks.0.mlp.fc1.weight"].shape[0],
        image_size=rows * patch if rows == columns else (rows * patch, columns * patch),
        patch_size=patch,
        num_channels=channels,
        hidden_act=metadata.hidden_act or ACTIVATION,
        layer_norm_eps=metadata.layer_norm_eps or LAYER_NORM_EPS,
        has_decoder=has_decoder,
        num_labels=state["head.weight"].shape[0] if "head.weight" in state else None,
        assumed=assumed,
    )
    if has_decoder:
        _read_decoder(architecture, state, metadata.decoder_num_attention_heads, decoder_num_attention_heads)
    elif decoder_num_attention_heads is not None:
        architecture.decoder_num_attention_heads = decoder_num_attention_heads
    return architecture


def _check_required_keys(state: State, depth: int, has_decoder: bool, source: str) -> None:
    """Raises ConversionError if a checkpoint of this depth lacks parameters."""
    required = required_keys(depth, count_blocks(state, "decoder_blocks") if has_decoder else None)
    for module in ("norm", "fc_norm", "head"):
        pair = [f"{module}.weight", f"{module}.bias"]
        if any(name in state for name in pair) or (module == "norm" and "fc_norm.weight" not in state):
            required += pair
    if missing := [name for name in required if name not in state]:
        raise ConversionError(
            ConversionMessage.PARAMETERS_MISSING,
            source=source,
            layout=f"a ViT of {pluralize(depth, 'block')}",
            count=len(missing),
            names=missing[:5],
        )


def _read_decoder(
    architecture: Architecture, state: State, checkpoint_value: int | None, flag_value: int | None
) -> None:
    width = state["decoder_embed.weight"].shape[0]
    architecture.decoder_hidden_size = width
    architecture.decoder_num_hidden_layers = count_blocks(state, "decoder_blocks")
    architecture.decoder_intermediate_size = state["decoder_blocks.0.mlp.fc1.weight"].shape[0]
    architecture.decoder_num_attention_heads = resolve_num_heads(
        width, flag_value, checkpoint_value, DECODER_HEADS, "decoder_num_attention_heads", architecture.assumed
    )


def transformers_config(architecture: Architecture, target: str, **extra: Any) -> Any:
    """Builds the configuration of the stock class for a target (a key of `layouts.mae.TARGETS`).

    Mean pooling, `fc_norm(mean(patch tokens))` in the original code, is a BEiT without relative position biases and
    without layer scale.
    """
    from transformers import BeitConfig, ViTConfig, ViTMAEConfig

    sizes: dict[str, Any] = architecture.encoder_config_kwargs() | extra
    if target == "pretraining":
        decoder = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        return ViTMAEConfig(**sizes, **{f"decoder_{n}": getattr(architecture, f"decoder_{n}") for n in decoder})
    if target == "mean":
        sizes = {"drop_path_rate": 0.0} | sizes
        return BeitConfig(
            **sizes,
            use_mean_pooling=True,
            use_absolute_position_embeddings=True,
            use_relative_position_bias=False,
            use_shared_relative_position_bias=False,
            use_mask_token=False,
            layer_scale_init_value=0.0,
        )
    return ViTConfig(**sizes)
