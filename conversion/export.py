"""Exports transformers weights to a `.pth` in the format of facebookresearch/mae, or to a folder for timm."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_mae.files.atomic import atomic_write_dir, atomic_write_file

from .architecture import Architecture, read_architecture
from .checkpoint import Checkpoint
from .key_mapping import to_original_state_dict
from .layouts.mae import TARGETS
from .messages import ConversionError, ConversionMessage
from .reading import read_checkpoint
from .timm_layout import CLASS_MAP_FILE, has_different_timm_order, timm_validate_args, write_timm_folder

EXPORT_FORMATS = ("mae", "timm")


@dataclass
class ExportResult:
    """Architecture of an exported model, and the arguments with which timm's `validate.py` evaluates it."""

    architecture: Architecture
    timm_validate_args: str | None = None  # None: not a classifier, or timm cannot evaluate it identically
    note: ConversionError | None = None  # why timm cannot evaluate it, or what to consider


def export_checkpoint(
    source: str | Path, destination: str | Path, *, to: str = "mae", overwrite: bool = False
) -> ExportResult:
    """Writes weights under their original names.

    The export is bit-exact, except that the missing key biases of BEiT become zeros.

    Args:
        source: a transformers folder (ViTMAE, ViT, BEiT with mean pooling), a Hub id, or any source of
            `convert_checkpoint`.
        destination: the `.pth` or the folder to write.
        to: `mae` writes a `.pth`, `{"model": state_dict, "args": {...}}`. `args` contains the facts that the shapes do
            not define (heads, epsilon, activation, mask ratio, class names, image processor), so that the file can be
            converted back without flags, with the same scores. `timm` writes a folder without decoder for
            `timm.create_model("local-dir:FOLDER", pretrained=True)` (on the Hub: `hf-hub:USER/NAME`).

    Raises:
        ConversionError: If the export fails; nothing was written.
    """
    if to not in EXPORT_FORMATS:
        raise ConversionError(ConversionMessage.NOT_A_CHOICE, flag="to", value=to, choices=EXPORT_FORMATS)
    if to == "timm":
        return _export_to_timm(source, Path(destination), overwrite)
    with atomic_write_file(destination, overwrite, ConversionError) as file:
        checkpoint = read_checkpoint(source)
        architecture = read_architecture(checkpoint.state, checkpoint.metadata, source=checkpoint.source)
        torch.save({"model": _clone_views(checkpoint.state), "args": checkpoint.metadata.to_args()}, file)
    return _build_result(Path(destination), checkpoint, architecture)


def _export_to_timm(source: str | Path, destination: Path, overwrite: bool) -> ExportResult:
    with atomic_write_dir(destination, overwrite, ConversionError) as folder:
        checkpoint = read_checkpoint(source)
        state = {n: t for n, t in checkpoint.state.items() if not n.startswith(("decoder_", "mask_token"))}
        architecture = read_architecture(state, checkpoint.metadata, source=checkpoint.source)
        write_timm_folder(folder, checkpoint.metadata, architecture, state)
    if "head.weight" not in state:
        return ExportResult(architecture)
    class_map = f" --class-map {destination / CLASS_MAP_FILE}" if checkpoint.metadata.class_names else ""
    return ExportResult(architecture, f"--model local-dir:{destination} --pretrained{class_map}")


def _build_result(destination: Path, checkpoint: Checkpoint, architecture: Architecture) -> ExportResult:
    if "head.weight" not in checkpoint.state:
        return ExportResult(architecture)
    try:
        flags = timm_validate_args(destination, checkpoint.metadata, architecture, checkpoint.state)
    except ConversionError as error:
        return ExportResult(architecture, note=error)
    names = checkpoint.metadata.class_names
    if names and has_different_timm_order(names):
        return ExportResult(
            architecture, flags, ConversionError(ConversionMessage.TIMM_CLASS_ORDER, file=CLASS_MAP_FILE)
        )
    return ExportResult(architecture, flags)


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
