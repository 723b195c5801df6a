"""transformers weights -> a reference checkpoint (`.pth`) that facebookresearch/mae and timm load."""

from pathlib import Path
from typing import Any

import torch

from hf_mae.files.writing import whole_file

from .architecture import Architecture, read_architecture
from .checkpoint import read_checkpoint
from .errors import ConversionError
from .names import to_reference


def export_checkpoint(source: str | Path, destination: str | Path, *, overwrite: bool = False) -> Architecture:
    """Writes `{"model": state_dict, "args": {...}}` under the reference's names.

    Bit-exact, except that BEiT's missing key biases come back as zeros. `args` holds what the shapes do not tell
    (heads, epsilon, activation, mask ratio, class names, the image processor), so that the file converts again without
    flags, into what gives the same scores.

    Args:
        source: a transformers folder (ViTMAE, ViT, mean-pooling BEiT), a Hub id, or any source of `convert_checkpoint`.
        destination: the `.pth` to write.

    Raises:
        ConversionError: one sentence on what is wrong; nothing was written.
    """
    with whole_file(destination, overwrite, ConversionError) as file:
        checkpoint = read_checkpoint(source)
        architecture = read_architecture(checkpoint.state, checkpoint.known, source=checkpoint.source)
        torch.save({"model": _own_storages(checkpoint.state), "args": checkpoint.known.to_args()}, file)
    return architecture


def export_model(model: Any, target: str) -> dict[str, torch.Tensor]:
    """The reference's state dict of a stock model in memory; `target` is a key of `names.TARGETS`."""
    state, unknown = to_reference(model.state_dict(), target)
    if unknown:
        raise ValueError(f"not a {target} model of this architecture: unknown parameters {', '.join(unknown[:5])}")
    return _own_storages(state)


def _own_storages(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`torch.save` writes whole storages: a view must not take the rest of its storage with it."""
    return {
        name: tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
        for name, tensor in state.items()
    }
