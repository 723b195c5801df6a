"""Linear probe and k-NN on the frozen features of a checkpoint.

The linear probe follows main_linprobe.py of facebookresearch/mae: batch normalization without affine parameters, then a
linear layer, trained by SGD with momentum. Here the features are computed once, and all learning rates and weight
decays of the sweep are trained at the same time.
"""

from collections.abc import Callable, Container
from itertools import product
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from ..errors import UsageError
from ..evaluation.messages import EvaluationMessage
from ..evaluation.metrics import classification_scores, headline_metric_names

LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2)
EPOCHS, BATCH_SIZE, MOMENTUM = 100, 256, 0.9
NUM_NEIGHBOURS = 20
# Share of the training images that selects the settings without a test split; the validation split then is the
# test.
SELECTION_FRACTION = 0.2


def fit_linear_probe(
    train_features: np.ndarray, train_labels: np.ndarray, num_classes: int, seed: int = 0, epochs: int = EPOCHS
) -> tuple[Callable[[np.ndarray], np.ndarray], list[tuple[float, float]]]:
    """Trains a linear layer on normalized features for each learning rate and weight decay of the sweep.

    Args:
        train_features: features (images, width).
        train_labels: class ids (images,).

    Returns:
        A function features -> logits (settings, images, classes), and the settings (learning rate, weight decay).
    """
    mean, std = train_features.mean(0), np.sqrt(train_features.var(0) + 1e-6)
    settings = list(product(LEARNING_RATES, WEIGHT_DECAYS))
    values = torch.from_numpy((train_features - mean) / std).float()
    targets = torch.from_numpy(train_labels).long()
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(len(settings), train_features.shape[1], num_classes, requires_grad=True)
    weight.data += 0.01 * torch.randn(weight.shape[1:], generator=generator)
    bias = torch.zeros(len(settings), 1, num_classes, requires_grad=True)
    learning_rates = torch.tensor([learning_rate for learning_rate, _ in settings]).view(-1, 1, 1)
    weight_decays = torch.tensor([weight_decay for _, weight_decay in settings]).view(-1, 1, 1)
    velocities = [torch.zeros_like(weight), torch.zeros_like(bias)]
    batches = max(1, -(-len(values) // BATCH_SIZE))
    for step in range(epochs * batches):
        if step % batches == 0:
            order = torch.randperm(len(values), generator=generator)
        indices = order[step % batches * BATCH_SIZE : (step % batches + 1) * BATCH_SIZE]
        logits = values[indices] @ weight + bias
        loss_sum = F.cross_entropy(logits.flatten(0, 1), targets[indices].repeat(len(settings)), reduction="sum")
        gradients = torch.autograd.grad(loss_sum / len(indices), [weight, bias])
        factor = 0.5 * (1 + np.cos(np.pi * step / (epochs * batches)))
        with torch.no_grad():
            for parameter, gradient, velocity in zip((weight, bias), gradients, velocities):
                velocity.mul_(MOMENTUM).add_(gradient + weight_decays * parameter)
                parameter -= factor * learning_rates * velocity

    @torch.no_grad()
    def predict_logits(features: np.ndarray) -> np.ndarray:
        return (torch.from_numpy((features - mean) / std).float() @ weight + bias).numpy()

    return predict_logits, settings


def probe_features(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray], names: list[str], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Evaluates the linear probe and k-NN on the features of one pooling.

    Args:
        features, labels: by role: `train`, `val` (selects learning rate and weight decay), `test`.
    """
    linear = sweep_linear_probe(features, labels, names, seed)
    knn = KNeighborsClassifier(min(NUM_NEIGHBOURS, len(labels["train"])), weights="distance", metric="cosine")
    knn.fit(features["train"], labels["train"])
    scores = headline_scores(knn.predict(features["test"]), labels["test"], names)
    return {"linear": linear, "knn": scores | {"neighbours": knn.n_neighbors}}


def sweep_linear_probe(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray], names: list[str], seed: int = 0
) -> dict[str, float]:
    """Evaluates the linear probe on `test` with the settings that have the best macro F1 on `val`."""
    predict_logits, settings = fit_linear_probe(features["train"], labels["train"], len(names), seed)
    predicted = {role: predict_logits(features[role]).argmax(-1) for role in ("val", "test")}
    return score_best_setting(predicted, labels, names, settings)


def score_best_setting(
    predicted: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    names: list[str],
    settings: list[tuple[float, float]],
) -> dict[str, float]:
    """Scores the setting with the best macro F1 on `val`.

    Args:
        predicted: class ids (settings, images) of `val` and `test`.
        labels: class ids (images,) of both.
        settings: learning rate and weight decay.

    Returns:
        The headline metrics on `test`, `learning_rate` and `weight_decay`.
    """
    val_scores = [classification_scores(row, labels["val"], names)["macro_f1"] for row in predicted["val"]]
    best = int(np.argmax(val_scores))
    learning_rate, weight_decay = settings[best]
    metrics = headline_scores(predicted["test"][best], labels["test"], names)
    return metrics | {"learning_rate": learning_rate, "weight_decay": weight_decay}


def headline_scores(predicted: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, float]:
    """Returns the headline metrics of class ids (images,)."""
    scores = classification_scores(predicted, labels, names)
    return {name: scores[name] for name in headline_metric_names(ordered=False)}


def probe_splits(available_splits: Container[str]) -> dict[str, str]:
    """Assigns splits to the roles `train`, `val` and `test` of a probe.

    Raises:
        UsageError: If a split is missing.
    """
    if "train" not in available_splits:
        raise UsageError(EvaluationMessage.PROBE_WITHOUT_TRAIN_SPLIT)
    if "test" in available_splits and ("validation" in available_splits or "selection" in available_splits):
        val = "selection" if "selection" in available_splits else "validation"
        return {"train": "train", "val": val, "test": "test"}
    if "validation" in available_splits and "selection" in available_splits:
        return {"train": "train", "val": "selection", "test": "validation"}
    raise UsageError(EvaluationMessage.PROBE_WITHOUT_TEST_SPLIT)
