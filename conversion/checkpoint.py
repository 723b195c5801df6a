"""Reading checkpoints: `.pth` pickles, `.safetensors`, and transformers folders or Hub ids.

Whatever the source, what comes out is a state dict under the reference's names, in its form, and what is known
beside it.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .canonicalize import canonicalize_state_dict
from .errors import ConversionError
from .layouts import find_vit_state_dict, is_beit
from .metadata import CheckpointMetadata, find_args, metadata_from_args
from .weights_io import INDEX_SUFFIX, WEIGHT_SUFFIXES, read_weights_file


@dataclass
class Checkpoint:
    """A source of weights: parameters by the reference's names, and what is known about where they come from."""

    state: dict[str, torch.Tensor]
    source: str
    layout: str  # in words, e.g. "{model, optimizer, epoch, scaler, args}"
    unused: list[dict[str, Any]] = field(default_factory=list)  # {"source", "reason"}: what is no parameter
    notes: list[str] = field(default_factory=list)
    metadata: CheckpointMetadata = field(default_factory=CheckpointMetadata)
    file: Path | None = None
    stock_class: str | None = None  # of transformers, that the source itself is loaded by
    is_self_distilled: bool = (
        False  # the weights are those that a self-distillation hands on, not a masked autoencoder's
    )
    _digest: Future[str] | None = None

    @property
    def size(self) -> int | None:
        """Bytes of the file."""
        return self.file.stat().st_size if self.file else None

    @property
    def sha256(self) -> str | None:
        """Of the file; computed beside the conversion, and waited for here."""
        return self._digest.result() if self._digest else None

    def start_digest(self) -> None:
        """Begins to compute the digest of the file, in a thread."""
        if self.file:
            executor = ThreadPoolExecutor(1)
            self._digest = executor.submit(_sha256, self.file)
            executor.shutdown(wait=False)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def read_checkpoint(source: str | Path, *, weights: str | None = None) -> Checkpoint:
    """Reads any supported source.

    Args:
        source: a `.pth`/`.pt`/`.bin`/`.ckpt` or `.safetensors` file (or its `.safetensors.index.json`), a folder that
            transformers saved, or a Hub id.
        weights: `plain` or `ema`, where a file holds both; None: as `layouts.find_vit` chooses, and says.

    Returns:
        Parameters under the reference's names, in float32 (memory-mapped where they are that already); of BEiT as the
        file has them.

    Raises:
        ConversionError: the source is missing, damaged, hostile or not this architecture.
    """
    path = Path(source)
    if path.is_file():
        checkpoint = _read_file(path, weights)
    elif path.name.endswith((*WEIGHT_SUFFIXES, INDEX_SUFFIX)):
        raise ConversionError(f"{path} does not exist.")
    else:
        from .pretrained import read_pretrained

        checkpoint = read_pretrained(str(source))
    if not is_beit(checkpoint.state):
        checkpoint.state, notes = canonicalize_state_dict(checkpoint.state, checkpoint.metadata, checkpoint.source)
        checkpoint.notes += notes
    checkpoint.start_digest()
    return checkpoint


def _read_file(path: Path, weights: str | None) -> Checkpoint:
    loaded = read_weights_file(path)
    if isinstance(loaded, Mapping) and any(str(n).startswith(("vit.", "beit.", "embeddings.")) for n in loaded):
        if (path.parent / "config.json").is_file():
            raise ConversionError(
                f"{path} is the weights file of a transformers model: pass its folder, {path.parent}."
            )
    found = find_vit_state_dict(loaded, str(path), weights)
    checkpoint = Checkpoint(found.state, str(path), "a bare state dict", found.unused, found.notes, file=path)
    checkpoint.is_self_distilled = found.is_self_distilled
    if found.location:
        checkpoint.layout = (
            "{" + ", ".join(str(key) for key in loaded if not isinstance(loaded[key], torch.Tensor)) + "}"
        )
        used = found.location.split(":")[0].split(".")[0]
        said = {entry["source"].split(":")[0].split(".")[0] for entry in found.unused} | {used}
        checkpoint.unused += [
            {"source": str(key), "reason": "state of the training run, no weights of the model"}
            for key, value in loaded.items()
            if str(key) not in said and not isinstance(value, torch.Tensor)
        ]
    checkpoint.metadata = metadata_from_args(find_args(loaded), str(path))
    return checkpoint
