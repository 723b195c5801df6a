"""Folders and Hub ids of transformers: ViTMAE, ViT, and BEiT with mean pooling."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..checkpoint import Baseline, Checkpoint, ConversionPlan, ConversionRequest, State
from ..facts import BaselineModel
from .mae import MAE, make_plan

if TYPE_CHECKING:
    import torch


def plan_stock_model(checkpoint: Checkpoint, request: ConversionRequest) -> ConversionPlan:
    """Plans the conversion like that of an MAE; the baseline is the source itself, if its class and size stay."""
    plan = make_plan(checkpoint, request)
    if checkpoint.stock_class == plan.target.class_name:
        plan.baseline = partial(compute_baseline, checkpoint, plan.baseline)
    return plan


def compute_baseline(
    checkpoint: Checkpoint, otherwise: Baseline, state: State, pixel_values: "torch.Tensor", noise: "torch.Tensor"
) -> "tuple[BaselineModel, torch.Tensor]":
    """Computes outputs with the source itself; with the baseline of MAE if a parameter has another shape."""
    from ..stock_models import load_stock_model
    from ..verification import compute_outputs

    own = checkpoint.state
    if not all(name in own and own[name].shape == tensor.shape for name, tensor in state.items()):
        return otherwise(state, pixel_values, noise)
    model, _ = load_stock_model(checkpoint.source, str(checkpoint.stock_class))
    return BaselineModel.TRANSFORMERS, compute_outputs(model, pixel_values, noise)


STOCK = replace(
    MAE,
    name="transformers",
    title="folders and Hub ids of transformers' ViTMAE, ViT, and BEiT with mean pooling",
    condition=lambda keys, args: False,  # recognized by its config.json, not by the keys of a file
    plan=plan_stock_model,
)
