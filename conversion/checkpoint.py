"""Reads checkpoints: `.pth` pickles, `.safetensors` files, and transformers folders or Hub ids.

The result is always a canonical state dict under the original names, with its metadata.
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
from .messages import ConversionMessage
from .metadata import CheckpointMetadata, find_args, metadata_from_args
from .weights_io import INDEX_SUFFIX, WEIGHT_SUFFIXES, read_weights_file


@dataclass
class Checkpoint:
    """Parameters under their original names, and facts about their source."""

    state: dict[str, torch.Tensor]
    source: str
    layout: str  # description, e.g. "{model, optimizer, epoch, scaler, args}"
    unused: list[dict[str, Any]] = field(default_factory=list)  # {"source", "reason"} of entries that are not used
    notes: list[str] = field(default_factory=list)
    metadata: CheckpointMetadata = field(default_factory=CheckpointMetadata)
    file: Path | None = None
    stock_class: str | None = None  # the transformers class that loads the source
    is_self_distilled: bool = False  # teacher weights of a self-distillation, not a masked autoencoder
    _digest: Future[str] | None = None

    @property
    def size(self) -> int | None:
        """Size of the file in bytes."""
        return self.file.stat().st_size if self.file else None

    @property
    def sha256(self) -> str | None:
        """Digest of the file; waits until the background thread has computed it."""
        return self._digest.result() if self._digest else None

    def start_digest(self) -> None:
        """Computes the digest of the file in a background thread."""
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
        source: a `.pth`/`.pt`/`.bin`/`.ckpt` or `.safetensors` file (or its `.safetensors.index.json`), a folder saved
            by transformers, or a Hub id.
        weights: `plain` or `ema`, if a file contains both; None: the choice of `layouts.find_vit_state_dict`.

    Returns:
        Parameters under their original names, in float32 (memory-mapped if no conversion is needed); BEiT parameters
        are returned as stored.

    Raises:
        ConversionError: If the source is missing, damaged, unsafe or of an unsupported architecture.
    """
    path = Path(source)
    if path.is_file():
        checkpoint = _read_file(path, weights)
    elif path.name.endswith((*WEIGHT_SUFFIXES, INDEX_SUFFIX)):
        raise ConversionError(ConversionMessage.NOT_FOUND, path=path)
    else:
        from .pretrained import read_pretrained

        checkpoint = read_pretrained(str(source))
    if not is_beit(checkpoint.state):
        checkpoint.state, notes = canonicalize_state_dict(checkpoint.state, checkpoint.metadata, checkpoint.source)
        checkpoint.notes += notes
    checkpoint.start_digest()
    return checkpoint


def _read_file(path: Path, weights: str | None) -> Checkpoint:
    content = read_weights_file(path)
    if isinstance(content, Mapping) and any(str(n).startswith(("vit.", "beit.", "embeddings.")) for n in content):
        if (path.parent / "config.json").is_file():
            raise ConversionError(ConversionMessage.IS_TRANSFORMERS_WEIGHTS_FILE, path=path, folder=path.parent)
    vit = find_vit_state_dict(content, str(path), weights)
    checkpoint = Checkpoint(vit.state, str(path), "a bare state dict", vit.unused, vit.notes, file=path)
    checkpoint.is_self_distilled = vit.is_self_distilled
    if vit.location:
        checkpoint.layout = (
            "{" + ", ".join(str(key) for key in content if not isinstance(content[key], torch.Tensor)) + "}"
        )
        used = vit.location.split(":")[0].split(".")[0]
        reported = {entry["source"].split(":")[0].split(".")[0] for entry in vit.unused} | {used}
        checkpoint.unused += [
            {"source": str(key), "reason": "state of the training run, not model weights"}
            for key, value in content.items()
            if str(key) not in reported and not isinstance(value, torch.Tensor)
        ]
    checkpoint.metadata = metadata_from_args(find_args(content), str(path))
    return checkpoint
