"""Features of a frozen backbone, kept while the files do not change."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.images import EvaluationImages, collate
from ..files.caches import files_fingerprint, kept

POOLINGS = ("cls", "mean")  # the class token, and the mean of the patch tokens, both of the normalised last layer


@torch.inference_mode()
def features_of(model: Any, images: EvaluationImages, batch_size: int, name: str) -> dict[str, np.ndarray]:
    """Features (images, width) float32 of each pooling, from the last layer after its norm.

    Args:
        model: a `ViTModel`.
        name: for the progress bar.
    """
    loader = torch.utils.data.DataLoader(images, batch_size, collate_fn=collate)
    found: dict[str, list[np.ndarray]] = {pooling: [] for pooling in POOLINGS}
    for batch in tqdm(loader, desc=f"Features of {name}", unit="batch", delay=1):
        hidden = model(pixel_values=batch["pixel_values"].to(model.device)).last_hidden_state.float().cpu()
        found["cls"].append(hidden[:, 0].numpy())
        found["mean"].append(hidden[:, 1:].mean(1).numpy())
    return {pooling: np.concatenate(parts) for pooling, parts in found.items()}


def cached_features(
    model: Any, images: EvaluationImages, paths: list[str], key: str, batch_size: int, name: str
) -> dict[str, np.ndarray]:
    """`features_of`, kept while the files do not change.

    Args:
        paths: of the image files; without them (a parquet file) nothing is kept.
        key: of the weights and the transform.
    """
    if not paths:
        return features_of(model, images, batch_size, name)

    def read(path: Path) -> dict[str, np.ndarray]:
        with np.load(path) as arrays:
            return {pooling: arrays[pooling] for pooling in POOLINGS}

    return kept(
        f"features/{files_fingerprint(paths, '1', key)}.npz",
        make=lambda: features_of(model, images, batch_size, name),
        read=read,
        write=_save,
    )


def _save(path: Path, found: dict[str, np.ndarray]) -> None:
    np.savez(path, **found)  # type: ignore[arg-type]  # a name is never one of its own arguments
