"""`hf-mae probe`: how good a checkpoint's frozen features are, without fine-tuning: linear probe and k-NN.

The linear probe is the reference's (main_linprobe.py of facebookresearch/mae): batch normalisation without affine
parameters, then a linear layer, by SGD with momentum; here on features that are computed once, all learning rates and
weight decays of a sweep at the same time.
"""

from collections.abc import Callable, Container
from itertools import product
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from ..errors import UsageError
from .metrics import HEADLINE, classification_scores

LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2)
EPOCHS, BATCH_SIZE, MOMENTUM = 100, 256, 0.9
NUM_NEIGHBOURS = 20
SELECTION_FRACTION = (
    0.2  # of the training images, where there is no test split: they choose, the validation split judges
)


def fit_linear_probe(
    train_features: np.ndarray, train_labels: np.ndarray, num_classes: int, seed: int = 0, epochs: int = EPOCHS
) -> tuple[Callable[[np.ndarray], np.ndarray], list[tuple[float, float]]]:
    """Linear layers on normalised features, one for each learning rate and weight decay of the sweep.

    Args:
        train_features: features (images, width).
        train_labels: class ids (images,).

    Returns:
        A function features -> logits (settings, images, classes), and the settings (lr, weight decay).
    """
    mean, std = train_features.mean(0), np.sqrt(train_features.var(0) + 1e-6)
    settings = list(product(LEARNING_RATES, WEIGHT_DECAYS))
    values = torch.from_numpy((train_features - mean) / std).float()
    targets = torch.from_numpy(train_labels).long()
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(len(settings), train_features.shape[1], num_classes, requires_grad=True)
    weight.data += 0.01 * torch.randn(weight.shape[1:], generator=generator)
    bias = torch.zeros(len(settings), 1, num_classes, requires_grad=True)
    rates = torch.tensor([rate for rate, _ in settings]).view(-1, 1, 1)
    decays = torch.tensor([decay for _, decay in settings]).view(-1, 1, 1)
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    batches = max(1, -(-len(values) // BATCH_SIZE))
    for step in range(epochs * batches):
        if step % batches == 0:
            order = torch.randperm(len(values), generator=generator)
        chosen = order[step % batches * BATCH_SIZE : (step % batches + 1) * BATCH_SIZE]
        logits = values[chosen] @ weight + bias
        loss = F.cross_entropy(logits.flatten(0, 1), targets[chosen].repeat(len(settings)), reduction="sum") / len(
            chosen
        )
        gradients = torch.autograd.grad(loss, [weight, bias])
        factor = 0.5 * (1 + np.cos(np.pi * step / (epochs * batches)))
        with torch.no_grad():
            for parameter, gradient, velocity in zip((weight, bias), gradients, speed):
                velocity.mul_(MOMENTUM).add_(gradient + decays * parameter)
                parameter -= factor * rates * velocity

    @torch.no_grad()
    def logits_of(features: np.ndarray) -> np.ndarray:
        return (torch.from_numpy((features - mean) / std).float() @ weight + bias).numpy()

    return logits_of, settings


def probe_features(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray], names: list[str], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Scores of the linear probe and of k-NN on one pooling's features.

    Args:
        features, labels: by part: `train`, `sweep` (chooses learning rate and weight decay), `judge`.
    """
    linear, _ = sweep_linear_probe(features, labels, names, seed)
    neighbours = KNeighborsClassifier(min(NUM_NEIGHBOURS, len(labels["train"])), weights="distance", metric="cosine")
    neighbours.fit(features["train"], labels["train"])
    nearest = classification_scores(neighbours.predict(features["judge"]), labels["judge"], names)
    return {
        "linear": linear,
        "knn": {name: nearest[name] for name in HEADLINE} | {"neighbours": neighbours.n_neighbors},
    }


def probe_best_layer(
    features: dict[str, dict[str, np.ndarray]], labels: dict[str, np.ndarray], names: list[str], seed: int = 0
) -> dict[str, Any]:
    """Scores of the linear probe on the features, of several layers and poolings, that do best on `sweep`.

    Args:
        features: by part, by what they are called.

    Returns:
        As `linear` of `probe_features`, and `features`: what was chosen.
    """
    found = {}
    for kind in features["train"]:
        found[kind] = sweep_linear_probe({part: own[kind] for part, own in features.items()}, labels, names, seed)
    chosen = max(found, key=lambda kind: found[kind][1])
    return found[chosen][0] | {"features": chosen}


def sweep_linear_probe(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray], names: list[str], seed: int = 0
) -> tuple[dict[str, float], float]:
    """Scores of the linear probe on `judge`, with the settings that do best on `sweep`, and how well they do there."""
    logits_of, settings = fit_linear_probe(features["train"], labels["train"], len(names), seed)
    swept = logits_of(features["sweep"]).argmax(-1)
    scores = [classification_scores(predicted, labels["sweep"], names)["macro_f1"] for predicted in swept]
    best = int(np.argmax(scores))
    linear = classification_scores(logits_of(features["judge"])[best].argmax(-1), labels["judge"], names)
    rate, decay = settings[best]
    told = {name: linear[name] for name in HEADLINE} | {"learning_rate": rate, "weight_decay": decay}
    return told, scores[best]


def probe_splits(available_splits: Container[str]) -> dict[str, str]:
    """Which split trains, chooses and judges the probe."""
    if "train" not in available_splits:
        raise UsageError("A probe needs training images.")
    if "test" in available_splits and ("validation" in available_splits or "selection" in available_splits):
        return {
            "train": "train",
            "sweep": "selection" if "selection" in available_splits else "validation",
            "judge": "test",
        }
    if "validation" in available_splits and "selection" in available_splits:
        return {"train": "train", "sweep": "selection", "judge": "validation"}
    raise UsageError("A probe needs a split that judges it: pass --val_fraction 0.2.")
