"""Uncertainty of a classifier: conformal prediction sets and out-of-distribution detection, fitted to its outputs."""

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.images.torch_datasets import EvalDataset
from ..evaluation.conformal import ConformalSets
from ..evaluation.metrics import softmax
from ..evaluation.ood import MahalanobisOOD
from ..models.ensemble import first_member
from ..models.introspection import find_blocks, find_head, mean_pool
from .forward import compute_outputs

MAX_IMAGES = 2000  # images of a split that features are extracted from


@dataclass(frozen=True)
class Uncertainty:
    """Conformal prediction sets and out-of-distribution detector of a model.

    Args:
        conformal_sets: of the scores before temperature scaling.
        ood: of the features; None: not fitted.
        classes: names, by class id.
        fitted_on: the split that both were calibrated on.
        averaged_views: whether the scores were averaged over test-time augmentations.
    """

    conformal_sets: ConformalSets
    ood: MahalanobisOOD | None
    classes: list[str]
    fitted_on: str
    averaged_views: bool = False


@contextmanager
def capture_features(model: Any) -> Iterator[Callable[[], list[np.ndarray]]]:
    """Yields a function that returns the features of the last forward pass, (images, width) per depth.

    The depths are the mean tokens before the first block and after the first half of the blocks, and the input of the
    head. In an ensemble they are those of the first member.
    """
    classifier = first_member(model)
    blocks = find_blocks(classifier)
    features: dict[int, Tensor] = {}

    def make_input_hook(depth: int) -> Callable[..., None]:
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            features[depth] = mean_pool(inputs[0].detach().float())

        return hook

    def output_hook(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        features[1] = mean_pool(tokens.detach().float())

    hooks = [
        blocks[0].register_forward_pre_hook(make_input_hook(0)),
        blocks[(len(blocks) - 1) // 2].register_forward_hook(output_hook),
        find_head(classifier)[1].register_forward_pre_hook(make_input_hook(2)),
    ]
    try:
        yield lambda: [features[depth].cpu().numpy() for depth in sorted(features)]
    finally:
        for hook in hooks:
            hook.remove()


def extract_layer_features(model: Any, images: Any, batch_size: int) -> list[np.ndarray]:
    """Extracts features (images, width) per depth of an `EvalDataset` (see `capture_features`)."""
    with capture_features(model) as get_features:

        def compute(pixel_values: Tensor) -> list[np.ndarray]:
            model(pixel_values=pixel_values)
            return get_features()

        return compute_outputs(model, images, batch_size, compute, "Features")


def fit_uncertainty(
    model: Any,
    train_dataset: Any,
    calibration_dataset: EvalDataset,
    logits: np.ndarray,
    classes: list[str],
    fitted_on: str,
    averaged_views: bool = False,
    batch_size: int = 32,
) -> Uncertainty:
    """Fits prediction sets and, given training images, an out-of-distribution detector.

    Args:
        model: in evaluation mode, on its device.
        train_dataset: the dataset that the model was trained on; None: no out-of-distribution detector.
        calibration_dataset: the labelled images of `logits` (images, classes).
    """
    ood = None
    if train_dataset is not None and len(calibration_dataset):
        train_images = EvalDataset(
            train_dataset.select(_sample_indices(train_dataset)), calibration_dataset.processor, cache=False
        )
        calibration_images = torch.utils.data.Subset(calibration_dataset, _sample_indices(calibration_dataset))
        train_features, calibration_features = (
            extract_layer_features(model, images, batch_size) for images in (train_images, calibration_images)
        )
        if all(np.isfinite(depth).all() for depth in (*train_features, *calibration_features)):
            ood = MahalanobisOOD.fit(train_features, np.asarray(train_images.labels), calibration_features)
    sets = ConformalSets.fit(softmax(logits), calibration_dataset.labels, calibration_dataset.groups)
    return Uncertainty(sets, ood, classes, fitted_on, averaged_views)


def _sample_indices(images: Sized) -> list[int]:
    """Samples at most `MAX_IMAGES` indices, the same ones each time."""
    indices: list[int] = np.sort(np.random.default_rng(0).permutation(len(images))[:MAX_IMAGES]).tolist()
    return indices
