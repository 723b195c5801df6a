"""Exports transformers weights to a `.pth` in the format of facebookresearch/mae, or to a folder for timm."""

from pathlib import Path
from typing import Any

import torch

from hf_mae.files.atomic import atomic_write_dir, atomic_write_file, write_text

from .architecture import Architecture, read_architecture, without_decoder
from .key_mapping import to_original_state_dict
from .layouts.mae import TARGETS
from .messages import ConversionError, ConversionMessage
from .metadata import LICENCE_KEY
from .reading import read_checkpoint
from .timm_layout import write_timm_folder

EXPORT_FORMATS = ("mae", "timm")


def export_checkpoint(
    source: str | Path, destination: str | Path, *, to: str = "mae", overwrite: bool = False, licence: str | None = None
) -> Architecture:
    """Writes weights under their original names, and returns their architecture.

    The export is bit-exact, except that the missing key biases of BEiT become zeros.

    Args:
        source: a transformers folder (ViTMAE, ViT, BEiT with mean pooling), a Hub id, or any source of
            `convert_checkpoint`.
        destination: the `.pth` or the folder to write.
        to: `mae` writes a `.pth`, `{"model": state_dict, "args": {...}}`. `args` contains the facts that the shapes do
            not define (heads, epsilon, activation, mask ratio, class names, image processor), so that the file can be
            converted back without flags, with the same scores. `timm` writes a folder without decoder for
            `timm.create_model("local-dir:FOLDER", pretrained=True)` (on the Hub: `hf-hub:USER/NAME`).
        licence: of the weights, as an id of the Hub; it is written into `args`, or into the model card.

    Raises:
        ConversionError: If the export fails; nothing was written.
    """
    if to not in EXPORT_FORMATS:
        raise ConversionError(ConversionMessage.NOT_A_CHOICE, flag="to", value=to, choices=EXPORT_FORMATS)
    write = atomic_write_file if to == "mae" else atomic_write_dir
    with write(destination, overwrite, ConversionError) as path:
        checkpoint = read_checkpoint(source)
        state = checkpoint.state if to == "mae" else without_decoder(checkpoint.state)
        architecture = read_architecture(state, checkpoint.metadata, source=checkpoint.source)
        if to == "mae":
            args = checkpoint.metadata.to_args() | ({LICENCE_KEY: licence} if licence else {})
            torch.save({"model": _clone_views(state), "args": args}, path)
        else:
            write_timm_folder(path, checkpoint.metadata, architecture, state)
            if licence:
                write_text(path / "README.md", f"---\nlicense: {licence}\nlibrary_name: timm\n---\n")
    return architecture


def export_model(model: Any, target: str) -> dict[str, torch.Tensor]:
    """Returns the parameters of a stock model under their original names.

    Args:
        target: a key of `layouts.mae.TARGETS`.
    """
    state, unknown = to_original_state_dict(model.state_dict(), TARGETS[target])
    if unknown:
        raise ValueError(f"not a {target} model of this architecture: unknown parameters {', '.join(unknown[:5])}")
    return _clone_views(state)


def _clone_views(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Clones tensors that are views of a larger storage, because `torch.save` writes complete storages."""
    return {
        name: tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
        for name, tensor in state.items()
    }
