"""Drop path and patch dropout: what is left out at random while training."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..compat.transformers import StockModel, build_beit_drop_path
from ..errors import UsageError
from .introspection import describe_model, is_vit


def set_drop_path(model: StockModel, rate: float) -> None:
    """Stochastic depth as in the reference: per sample, on both branches of a block, linear from 0 to `rate`.

    BEiT has it. In ViT, `ViTLayer.dropout` stands exactly where the reference has `DropPath`, so timm's takes its
    place; neither has parameters, and the saved weights and configuration stay stock.
    """
    from timm.layers import DropPath

    layers = model.base_model.layers
    for index, layer in enumerate(layers):
        share = rate * index / max(len(layers) - 1, 1)
        if hasattr(layer, "drop_path"):
            layer.drop_path = build_beit_drop_path(share).train(layer.training) if share > 0 else nn.Identity()
        else:
            dropped = DropPath(share) if share > 0 else nn.Dropout(model.config.hidden_dropout_prob)
            layer.dropout = dropped.train(layer.training)
    if hasattr(model.config, "drop_path_rate"):
        model.config.drop_path_rate = float(rate)


def set_patch_dropout(model: StockModel, rate: float) -> None:
    """Leaves out a random share of each image's patches in training (Liu et al. 2022, arXiv:2208.07220).

    timm's module takes the place of the embeddings' dropout; it has no parameters, and evaluation sees every patch.

    Args:
        model: a ViT or BEiT classifier of transformers.
        rate: share of the patches that is left out, below 1; 0 puts the stock dropout back.
    """
    from timm.layers import PatchDropout

    embeddings = get_patch_embeddings(model)
    if rate > 0:
        embeddings.dropout = PatchDropout(rate).train(embeddings.training)
    elif isinstance(embeddings.dropout, PatchDropout):
        embeddings.dropout = nn.Dropout(model.config.hidden_dropout_prob)


def get_patch_embeddings(model: StockModel) -> nn.Module:
    """What makes tokens of an image, whose `dropout` sees them all.

    Raises:
        UsageError: the network has no such part.
    """
    if not is_vit(model.config):
        raise UsageError(f"--patch_dropout is for an MAE ViT, and a {describe_model(model)} drops no patches.")
    embeddings: nn.Module = model.base_model.embeddings
    return embeddings


@contextmanager
def apply_patch_dropout(model: StockModel, rate: float) -> Iterator[None]:
    """`set_patch_dropout` for a block; 0 changes nothing."""
    if not rate:
        yield
        return
    embeddings = get_patch_embeddings(model)
    before = embeddings.dropout
    set_patch_dropout(model, rate)
    try:
        yield
    finally:
        embeddings.dropout = before


def get_drop_path_rate(model: StockModel) -> float:
    """The rate of the last block; 0 where there is none."""
    if not is_vit(model.config):
        rates = (getattr(module, "drop_prob", 0.0) for module in model.modules())
        return max((float(rate) for rate in rates if isinstance(rate, (int, float))), default=0.0)
    layer = model.base_model.layers[-1]
    return float(getattr(getattr(layer, "drop_path", layer.dropout), "drop_prob", 0.0))
