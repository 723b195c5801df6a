"""Sizes of a ViT MAE, read from the shapes of its parameters, and the transformers configurations of that size."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from .errors import ConversionError

# Number of heads by width, from the reference's constructors. A width that is not here has to be told.
ENCODER_HEADS = {768: 12, 1024: 16, 1280: 16}
DECODER_HEADS = {512: 16}
LAYER_NORM_EPS = 1e-6  # models_mae.py, models_vit.py: partial(nn.LayerNorm, eps=1e-6)
ARGS_HEADS = ("num_attention_heads", "num_heads", "heads")
ARGS_DECODER_HEADS = ("decoder_num_attention_heads", "decoder_num_heads", "decoder_heads")


@dataclass
class Architecture:
    """Sizes of the encoder, and of the decoder and head where the checkpoint has them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    image_size: int
    patch_size: int
    num_channels: int
    has_decoder: bool = False
    decoder_hidden_size: int = 512  # the reference's decoder, for a checkpoint that has none
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int = 2048
    num_labels: int | None = None

    def encoder_sizes(self) -> dict[str, int]:
        """The encoder's fields of a transformers configuration."""
        names = (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "image_size",
            "patch_size",
            "num_channels",
        )
        return {name: getattr(self, name) for name in names}


def count_blocks(state: dict[str, torch.Tensor], prefix: str) -> int:
    """How many blocks there are under a prefix (`blocks`, `decoder_blocks`)."""
    return 1 + max((int(name.split(".")[1]) for name in state if name.startswith(f"{prefix}.")), default=-1)


def number_of_heads(
    width: int, given: int | None, args: dict[str, Any], args_names: tuple[str, ...], known: dict[int, int], flag: str
) -> int:
    """The flag, else the checkpoint's own args, else the known widths; a guess is an error."""
    heads = (
        given if given is not None else next((args[name] for name in args_names if args.get(name)), known.get(width))
    )
    if heads is None:
        choices = [n for n in range(1, width + 1) if width % n == 0 and width // n >= 8]
        raise ConversionError(
            f"The number of attention heads of a width of {width} cannot be read from the weights and is not in the "
            f"checkpoint's args: pass --{flag} N (it divides {width}: one of {', '.join(map(str, choices))})."
        )
    if width % heads:
        raise ConversionError(f"--{flag} {heads} does not divide the width of {width}.")
    return heads


def square_grid(num_patches: int, what: str) -> int:
    """Patches along a side, of a number of patches; a ConversionError where that is no square."""
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ConversionError(f"{what} has {num_patches} patch positions, which is no square: only square images work.")
    return side


def required_names(depth: int, decoder_depth: int | None) -> list[str]:
    """Every encoder (and decoder) parameter that a checkpoint of this depth must hold; norms and heads vary."""
    block = [
        f"{m}.{p}"
        for m in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for p in ("weight", "bias")
    ]
    names = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    names += [f"blocks.{i}.{name}" for i in range(depth) for name in block]
    if decoder_depth is not None:
        names += ["mask_token", "decoder_pos_embed"]
        names += [f"{m}.{p}" for m in ("decoder_embed", "decoder_norm", "decoder_pred") for p in ("weight", "bias")]
        names += [f"decoder_blocks.{i}.{name}" for i in range(decoder_depth) for name in block]
    return names


def read_architecture(
    state: dict[str, torch.Tensor],
    args: dict[str, Any],
    *,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    source: str = "the checkpoint",
) -> Architecture:
    """Reads the sizes from the shapes, checks that nothing is missing and that the shapes fit together.

    Args:
        state: parameters by the reference's names; `patch_embed.proj.weight` is (width, channels, patch, patch),
            `pos_embed` (1, 1 + patches, width).
        args: the checkpoint's own arguments (`argparse.Namespace` of the run), for the number of heads.

    Raises:
        ConversionError: a parameter is missing, a shape is wrong, or the number of heads is not known.
    """
    has_decoder = any(name.startswith("decoder_") for name in state)
    depth = count_blocks(state, "blocks")
    if depth == 0:
        raise ConversionError(f"{source} has no transformer blocks (blocks.0...): it holds no ViT encoder.")
    _refuse_missing(state, depth, has_decoder, source)
    width, channels, patch, patch_width = state["patch_embed.proj.weight"].shape
    grid = square_grid(state["pos_embed"].shape[1] - 1, f"pos_embed of {source}")
    if patch != patch_width:
        raise ConversionError(f"{source} has patches of {patch} x {patch_width}: only square patches work.")
    architecture = Architecture(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=number_of_heads(
            width, num_attention_heads, args, ARGS_HEADS, ENCODER_HEADS, "num_attention_heads"
        ),
        intermediate_size=state["blocks.0.mlp.fc1.weight"].shape[0],
        image_size=grid * patch,
        patch_size=patch,
        num_channels=channels,
        has_decoder=has_decoder,
        num_labels=state["head.weight"].shape[0] if "head.weight" in state else None,
    )
    if has_decoder:
        _read_decoder(architecture, state, args, decoder_num_attention_heads)
    elif decoder_num_attention_heads is not None:
        architecture.decoder_num_attention_heads = decoder_num_attention_heads
    return architecture


def _refuse_missing(state: dict[str, torch.Tensor], depth: int, has_decoder: bool, source: str) -> None:
    """Names the parameters that a checkpoint of this depth lacks."""
    required = required_names(depth, count_blocks(state, "decoder_blocks") if has_decoder else None)
    for module in ("norm", "fc_norm", "head"):
        pair = [f"{module}.weight", f"{module}.bias"]
        if any(name in state for name in pair) or (module == "norm" and "fc_norm.weight" not in state):
            required += pair
    if missing := [name for name in required if name not in state]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ConversionError(
            f"{source} lacks parameters of a ViT MAE of {depth} blocks: {', '.join(missing[:5])}{more}."
        )


def _read_decoder(
    architecture: Architecture, state: dict[str, torch.Tensor], args: dict[str, Any], heads: int | None
) -> None:
    width = state["decoder_embed.weight"].shape[0]
    architecture.decoder_hidden_size = width
    architecture.decoder_num_hidden_layers = count_blocks(state, "decoder_blocks")
    architecture.decoder_intermediate_size = state["decoder_blocks.0.mlp.fc1.weight"].shape[0]
    architecture.decoder_num_attention_heads = number_of_heads(
        width, heads, args, ARGS_DECODER_HEADS, DECODER_HEADS, "decoder_num_attention_heads"
    )


def transformers_config(architecture: Architecture, target: str, **extra: Any) -> Any:
    """The configuration of the stock class for one of `names.TARGETS`, with the reference's layer norm epsilon.

    Mean pooling is BEiT without its own additions (no relative positions, no layer scale): the reference's
    `fc_norm(mean(patch tokens))`.
    """
    from transformers import BeitConfig, ViTConfig, ViTMAEConfig

    sizes: dict[str, Any] = architecture.encoder_sizes() | {"layer_norm_eps": LAYER_NORM_EPS} | extra
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
