"""Attentive probe: a learned query that attends to the frozen tokens, instead of their mean.

A masked autoencoder stores what it knows about an image region in the token of that region; the mean of the tokens
loses the position. One cross-attention block with a learned query (Bardes et al., 2024, V-JEPA; Darcet et al., 2025,
CAPI) pools the tokens, and a linear layer classifies the result. The backbone is frozen. Endoscopic images have no
preferred orientation, so training uses rotated and mirrored images, and scores are averaged over these views.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..data.images.torch_datasets import EvalDataset, collate
from .forward import compute_outputs
from .probes import score_best_setting
from .tta import NUM_VIEWS, make_view, make_views

LEARNING_RATES, WEIGHT_DECAYS = (3e-4, 1e-3, 3e-3), (0.05, 0.3)
EPOCHS, BATCH_SIZE, LABEL_SMOOTHING, DROPOUT = 60, 64, 0.1, 0.1
HEAD_DIM = 64  # channels per attention head


class AttentiveHead(nn.Module):
    """Attention pooling and a linear layer: tokens (images, tokens, width) -> logits (images, classes)."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.pool = AttentionPoolLatent(
            width, num_heads=max(1, width // HEAD_DIM), norm_layer=nn.LayerNorm, drop=DROPOUT
        )
        self.drop = nn.Dropout(DROPOUT)
        self.linear = nn.Linear(width, num_classes)
        nn.init.zeros_(self.linear.bias)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logits of tokens."""
        logits: Tensor = self.linear(self.drop(self.pool(self.norm(tokens))))
        return logits


def attentive_probe(
    model: Any,
    images: dict[str, EvalDataset],
    labels: dict[str, np.ndarray],
    names: list[str],
    seed: int = 0,
    epochs: int = EPOCHS,
) -> dict[str, float]:
    """Trains one head per learning rate and weight decay, all at once on the same tokens, and evaluates the best.

    Args:
        model: a frozen `ViTModel` in evaluation mode.
        images, labels: by role: `train`, `val` (selects learning rate and weight decay), `test`.

    Returns:
        The headline metrics on `test`, `learning_rate` and `weight_decay`.
    """
    settings = list(product(LEARNING_RATES, WEIGHT_DECAYS))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        heads = nn.ModuleList(AttentiveHead(model.config.hidden_size, len(names)) for _ in settings).to(model.device)
        _train(heads, settings, model, images["train"], labels["train"], epochs, seed)
        predicted = {role: _predict_classes(heads.eval(), model, images[role]) for role in ("val", "test")}
    return score_best_setting(predicted, labels, names, settings)


def _train(
    heads: nn.ModuleList,
    settings: list[tuple[float, float]],
    model: Any,
    images: EvalDataset,
    labels: np.ndarray,
    epochs: int,
    seed: int,
) -> None:
    groups = [
        {"params": list(head.parameters()), "lr": learning_rate, "weight_decay": weight_decay}
        for head, (learning_rate, weight_decay) in zip(heads, settings, strict=True)
    ]
    optimizer = torch.optim.AdamW(groups)
    steps = epochs * -(-len(images) // BATCH_SIZE)
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 * (1 + np.cos(np.pi * step / steps)))
    )
    all_targets = torch.as_tensor(labels)
    heads.train()
    for indices, tokens in tqdm(
        _iter_augmented_tokens(model, images, epochs, seed), total=steps, desc="Attentive probe", delay=1
    ):
        targets = all_targets[indices].to(tokens.device)
        losses = [F.cross_entropy(head(tokens), targets, label_smoothing=LABEL_SMOOTHING) for head in heads]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()


def _iter_augmented_tokens(model: Any, images: EvalDataset, epochs: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields image indices and the tokens of one random view of each image, in a new random order every epoch."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator).tolist()
        loader = torch.utils.data.DataLoader(images, BATCH_SIZE, sampler=order, collate_fn=collate)
        for start, batch in zip(range(0, len(images), BATCH_SIZE), loader, strict=True):
            views = torch.randint(NUM_VIEWS, (len(batch["pixel_values"]),), generator=generator).tolist()
            augmented = [make_view(image, view) for image, view in zip(batch["pixel_values"], views, strict=True)]
            yield torch.tensor(order[start : start + BATCH_SIZE]), _encode_tokens(model, torch.stack(augmented))


@torch.no_grad()
def _encode_tokens(model: Any, pixel_values: Tensor) -> Tensor:
    tokens: Tensor = model(pixel_values=pixel_values.to(model.device)).last_hidden_state
    return tokens.float()


def _predict_classes(heads: nn.ModuleList, model: Any, images: EvalDataset) -> np.ndarray:
    """Computes class ids (settings, images) by the mean score over the eight views."""

    def compute(pixel_values: Tensor) -> list[Tensor]:
        scores = torch.zeros(())
        for view in make_views(pixel_values):
            tokens = _encode_tokens(model, view)
            scores = scores + torch.stack([head(tokens).softmax(-1) for head in heads]).cpu()
        return [scores.argmax(-1).T]

    (classes,) = compute_outputs(model, images, BATCH_SIZE, compute, "Attentive probe")
    return classes.T
