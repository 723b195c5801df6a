"""Features of a frozen backbone, kept while the files do not change."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm.auto import tqdm
from transformers import ViTModel

from ..data.torch_datasets import EvalDataset, collate
from ..files.atomic import atomic_write_file
from ..files.caches import cached, files_fingerprint
from .uncertainty import extract_layer_features

POOLED = "pooled"  # of other networks than MAE's: what their head reads
POOLINGS = ("cls", "mean")  # the class token, and the mean of the patch tokens, both of the normalised last layer
DEPTH_QUARTERS = (1, 2, 3)  # of the depth, where earlier blocks are looked at, too


@torch.inference_mode()
def extract_pooled_features(
    model: Any, images: EvalDataset, batch_size: int, name: str, layers: bool = False
) -> dict[str, np.ndarray]:
    """Features (images, width) float32 of each pooling, from the last layer after its norm.

    Args:
        model: a `ViTModel`; or the classifier of another network, of which there is what its head reads.
        name: for the progress bar.
        layers: also `cls block N` and `mean block N`, of what earlier blocks give.
    """
    if not isinstance(model, ViTModel):
        return {POOLED: extract_layer_features(model, images, batch_size)[-1]}
    blocks = intermediate_blocks(model.config.num_hidden_layers) if layers else []
    loader = torch.utils.data.DataLoader(images, batch_size, collate_fn=collate)
    found: dict[str, list[np.ndarray]] = {name: [] for name in feature_names(blocks)}
    for batch in tqdm(loader, desc=f"Features of {name}", unit="batch", delay=1):
        output = model(pixel_values=batch["pixel_values"].to(model.device), output_hidden_states=layers)
        for suffix, hidden in [
            ("", output.last_hidden_state),
            *((_block_suffix(n), output.hidden_states[n]) for n in blocks),
        ]:
            tokens = hidden.float().cpu()
            found[f"cls{suffix}"].append(tokens[:, 0].numpy())
            found[f"mean{suffix}"].append(tokens[:, 1:].mean(1).numpy())
    return {pooling: np.concatenate(parts) for pooling, parts in found.items()}


def intermediate_blocks(num_blocks: int) -> list[int]:
    """The numbers, from 1, of the blocks at the quarters of a network's depth, but for the last."""
    return sorted(
        {number for quarter in DEPTH_QUARTERS if 0 < (number := round(quarter * num_blocks / 4)) < num_blocks}
    )


def feature_names(blocks: list[int]) -> list[str]:
    """What the features are called."""
    return [f"{pooling}{suffix}" for suffix in ("", *map(_block_suffix, blocks)) for pooling in POOLINGS]


def _block_suffix(block: int) -> str:
    return f" block {block}"


def load_or_extract_features(
    model: Any, images: EvalDataset, paths: list[str], key: str, batch_size: int, name: str, layers: bool = False
) -> dict[str, np.ndarray]:
    """`features_of`, kept while the files do not change.

    Args:
        paths: of the image files; without them (a parquet file) nothing is kept.
        key: of the weights and the transform.
    """
    if not paths:
        return extract_pooled_features(model, images, batch_size, name, layers)

    def read(path: Path) -> dict[str, np.ndarray]:
        with np.load(path) as arrays:
            return dict(arrays)

    return cached(
        f"features/{files_fingerprint(paths, '1', f'{key} layers' if layers else key)}.npz",
        make=lambda: extract_pooled_features(model, images, batch_size, name, layers),
        read=read,
        write=_save_npz,
    )


def _save_npz(path: Path, features: dict[str, np.ndarray]) -> None:
    np.savez(path, **features)  # type: ignore[arg-type]  # a name is never one of its own arguments


def write_features(
    path: Path,
    features: dict[str, dict[str, np.ndarray]],
    images: dict[str, EvalDataset],
    split_names: dict[str, str],
    names: list[str],
) -> None:
    """A row an image: `file_name`, `split`, `label`, (`group`,) and each kind of features, as .parquet or .npz.

    Args:
        features, images: by part.
        split_names: the split of each part.
        names: of the classes.
    """
    columns: dict[str, Any] = {
        "file_name": [name for own in images.values() for name in own.file_names],
        "split": [split_names[part] for part, own in images.items() for _ in own.file_names],
        "label": [names[int(label)] for own in images.values() if own.labels is not None for label in own.labels],
    }
    if all(own.groups for own in images.values()):
        columns["group"] = [group for own in images.values() for group in own.groups or []]
    kinds = {kind: np.concatenate([features[part][kind] for part in images]) for kind in features["train"]}
    with atomic_write_file(path) as temporary:
        if path.suffix == ".npz":
            with temporary.open("r+b") as file:  # to a path, numpy adds a suffix
                arrays = {name: np.array(values) for name, values in columns.items()} | kinds
                np.savez(file, **arrays)  # type: ignore[arg-type]  # a name is never one of its own arguments
        else:
            lists = {kind: pa.FixedSizeListArray.from_arrays(v.ravel(), v.shape[1]) for kind, v in kinds.items()}
            pq.write_table(pa.table(columns | lists), temporary)
