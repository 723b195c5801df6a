"""transformers weights -> a reference checkpoint (`.pth`) that facebookresearch/mae and timm load, or a timm folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_mae.files.atomic import atomic_write_dir, atomic_write_file

from .architecture import Architecture, read_architecture
from .checkpoint import Checkpoint, read_checkpoint
from .errors import ConversionError
from .key_mapping import to_mae_state_dict
from .timm_layout import CLASS_MAP_FILE, has_different_timm_order, timm_validate_args, write_timm_folder

EXPORT_FORMATS = ("reference", "timm")


@dataclass
class ExportResult:
    """What was written, and how timm's `validate.py` evaluates it."""

    architecture: Architecture
    timm_validate_args: str | None = None  # None: it is no classifier, or timm cannot evaluate it the same way
    note: str = ""  # a sentence on why timm cannot, or what else it needs


def export_checkpoint(
    source: str | Path, destination: str | Path, *, to: str = "reference", overwrite: bool = False
) -> ExportResult:
    """Writes weights under the reference's names.

    Bit-exact, except that BEiT's missing key biases come back as zeros. `to="reference"` writes a `.pth`,
    `{"model": state_dict, "args": {...}}`; `args` holds what the shapes do not tell (heads, epsilon, activation, mask
    ratio, class names, the image processor), so that the file converts again without flags, into what gives the same
    scores. `to="timm"` writes the folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` reads (and, once
    it is on the Hub, `hf-hub:USER/NAME`); a decoder stays behind.

    Args:
        source: a transformers folder (ViTMAE, ViT, mean-pooling BEiT), a Hub id, or any source of `convert_checkpoint`.
        destination: the `.pth`, or the folder, to write.

    Raises:
        ConversionError: one sentence on what is wrong; nothing was written.
    """
    if to not in EXPORT_FORMATS:
        raise ConversionError(f"--to takes one of {', '.join(EXPORT_FORMATS)}, not {to}.")
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
        return ExportResult(architecture, note=str(error))
    names = checkpoint.metadata.class_names
    if names and has_different_timm_order(names):
        return ExportResult(
            architecture,
            flags,
            f"timm sorts these classes otherwise: --to timm writes a {CLASS_MAP_FILE} with their order.",
        )
    return ExportResult(architecture, flags)


def export_model(model: Any, target: str) -> dict[str, torch.Tensor]:
    """The reference's state dict of a stock model in memory; `target` is a key of `names.TARGETS`."""
    state, unknown = to_mae_state_dict(model.state_dict(), target)
    if unknown:
        raise ValueError(f"not a {target} model of this architecture: unknown parameters {', '.join(unknown[:5])}")
    return _clone_views(state)


def _clone_views(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`torch.save` writes whole storages: a view must not take the rest of its storage with it."""
    return {
        name: tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
        for name, tensor in state.items()
    }
