"""Features of a frozen backbone, cached while the image files do not change."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor
from transformers import ViTModel

from ..data.images.torch_datasets import EvalDataset
from ..files.atomic import atomic_write_file
from ..files.caches import cached, files_fingerprint
from .forward import compute_outputs
from .uncertainty import extract_layer_features

POOLED = "pooled"  # input of the head, for networks other than an MAE ViT
POOLINGS = ("cls", "mean")  # class token, and mean of the patch tokens, both of the normalized last layer


def extract_pooled_features(model: Any, images: EvalDataset, batch_size: int, name: str) -> dict[str, np.ndarray]:
    """Extracts features (images, width) float32 per pooling, from the last layer after its norm.

    Args:
        model: a `ViTModel`, or a classifier of another network, which gives the input of its head.
        name: for the progress bar.
    """
    if not isinstance(model, ViTModel):
        return {POOLED: extract_layer_features(model, images, batch_size)[-1]}

    def pool(pixel_values: Tensor) -> list[Tensor]:
        tokens = model(pixel_values=pixel_values).last_hidden_state.float().cpu()
        return [tokens[:, 0], tokens[:, 1:].mean(1)]

    return dict(zip(POOLINGS, compute_outputs(model, images, batch_size, pool, f"Features of {name}"), strict=True))


def load_or_extract_features(
    model: Any, images: EvalDataset, paths: list[str], key: str, batch_size: int, name: str
) -> dict[str, np.ndarray]:
    """Returns the result of `extract_pooled_features`, cached while the files do not change.

    Args:
        paths: of the image files; if empty (parquet files), the features are not cached.
        key: identifies the weights and the transform.
    """
    if not paths:
        return extract_pooled_features(model, images, batch_size, name)

    def read(path: Path) -> dict[str, np.ndarray]:
        with np.load(path) as arrays:
            return dict(arrays)

    return cached(
        f"features/{files_fingerprint(paths, '1', key)}.npz",
        make=lambda: extract_pooled_features(model, images, batch_size, name),
        read=read,
        write=_save_npz,
    )


def _save_npz(path: Path, features: dict[str, np.ndarray]) -> None:
    np.savez(path, **features)  # type: ignore[arg-type]  # no name equals a parameter of savez


def write_features(
    path: Path,
    features: dict[str, dict[str, np.ndarray]],
    images: dict[str, EvalDataset],
    split_names: dict[str, str],
    names: list[str],
) -> None:
    """Writes one row per image, as .parquet or .npz: `file_name`, `split`, `label`, `group` (if known), features.

    Args:
        features, images: by role.
        split_names: split of each role.
    """
    columns: dict[str, Any] = {
        "file_name": [name for dataset in images.values() for name in dataset.file_names],
        "split": [split_names[role] for role, dataset in images.items() for _ in dataset.file_names],
        "label": [names[int(label)] for data in images.values() if data.labels is not None for label in data.labels],
    }
    if all(dataset.groups for dataset in images.values()):
        columns["group"] = [group for dataset in images.values() for group in dataset.groups or []]
    arrays = {name: np.concatenate([features[role][name] for role in images]) for name in features["train"]}
    with atomic_write_file(path) as temporary:
        if path.suffix == ".npz":
            with temporary.open("r+b") as file:  # given a path, numpy would append a suffix
                arrays = {name: np.array(values) for name, values in columns.items()} | arrays
                np.savez(file, **arrays)  # type: ignore[arg-type]  # no name equals a parameter of savez
        else:
            lists = {name: pa.FixedSizeListArray.from_arrays(v.ravel(), v.shape[1]) for name, v in arrays.items()}
            pq.write_table(pa.table(columns | lists), temporary)
