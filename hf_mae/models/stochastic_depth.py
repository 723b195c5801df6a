"""Stochastic depth (drop path) and patch dropout."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..compat.transformers import StockModel, build_beit_drop_path
from ..errors import UsageError
from .introspection import get_network, is_vit
from .messages import ModelMessage


def set_drop_path(model: StockModel, rate: float) -> None:
    """Sets stochastic depth as in the original MAE code: per sample, on both branches of a block, with a rate that
    grows linearly from 0 at the first block to `rate` at the last.

    BEiT supports it. In ViT, `ViTLayer.dropout` is exactly where the original code has `DropPath`, so timm's `DropPath`
    replaces it; neither has parameters, and the saved weights and configuration stay stock.
    """
    from timm.layers import DropPath

    layers = model.base_model.layers
    for index, layer in enumerate(layers):
        layer_rate = rate * index / max(len(layers) - 1, 1)
        if hasattr(layer, "drop_path"):
            layer.drop_path = (
                build_beit_drop_path(layer_rate).train(layer.training) if layer_rate > 0 else nn.Identity()
            )
        else:
            dropout = DropPath(layer_rate) if layer_rate > 0 else nn.Dropout(model.config.hidden_dropout_prob)
            layer.dropout = dropout.train(layer.training)
    if hasattr(model.config, "drop_path_rate"):
        model.config.drop_path_rate = float(rate)


def get_patch_embeddings(model: StockModel) -> nn.Module:
    """Returns the embedding module of a ViT, whose `dropout` is applied to all tokens.

    Raises:
        UsageError: If the model is not a ViT.
    """
    if not is_vit(model.config):
        raise UsageError(ModelMessage.PATCH_DROPOUT_NEEDS_MAE, model=get_network(model))
    embeddings: nn.Module = model.base_model.embeddings
    return embeddings


@contextmanager
def apply_patch_dropout(model: StockModel, rate: float) -> Iterator[None]:
    """Within the block, drops a random fraction of each image's patches (Liu et al., 2022, arXiv:2208.07220).

    timm's `PatchDropout` replaces the dropout of the embeddings. It has no parameters, and is inactive in evaluation.

    Args:
        model: a ViT or BEiT classifier of transformers.
        rate: fraction of dropped patches, below 1; 0 changes nothing.
    """
    from timm.layers import PatchDropout

    if not rate:
        yield
        return
    embeddings = get_patch_embeddings(model)
    previous = embeddings.dropout
    embeddings.dropout = PatchDropout(rate).train(embeddings.training)
    try:
        yield
    finally:
        embeddings.dropout = previous


def get_drop_path_rate(model: StockModel) -> float:
    """Returns the drop path rate of the last block; 0 without stochastic depth."""
    if not is_vit(model.config):
        rates = (getattr(module, "drop_prob", 0.0) for module in model.modules())
        return max((float(rate) for rate in rates if isinstance(rate, (int, float))), default=0.0)
    layer = model.base_model.layers[-1]
    return float(getattr(getattr(layer, "drop_path", layer.dropout), "drop_prob", 0.0))
