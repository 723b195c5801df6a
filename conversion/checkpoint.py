"""Reading checkpoints: `.pth` pickles without executing them, `.safetensors`, and transformers folders or Hub ids.

Whatever the source, what comes out is a state dict under the reference's names. A pickle may hold tensors, plain
Python values, numpy scalars and `argparse.Namespace`; anything else is refused before it is built.
"""

import argparse
import hashlib
import pickle
import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .errors import ConversionError
from .names import is_reference_name, to_reference

WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
CONTAINERS = ("model", "state_dict", "model_state_dict")  # where a training checkpoint keeps its weights
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.", "backbone.")  # what wrappers put in front of a name
ANCHOR = "patch_embed.proj.weight"  # the parameter by which a prefix is recognised

# Layouts that are not this architecture, by a name that only they have: (pattern, what it is).
FOREIGN_LAYOUTS = (
    (
        r"lora_[AB]\b|lora_(down|up)\b",
        "a LoRA adapter, which holds no full weights: merge it into its base model first",
    ),
    (r"attn\.(q_bias|v_bias)$", "MAE-pytorch or BEiT (separate q_bias and v_bias), not facebookresearch/mae"),
    (r"relative_position_(bias_table|index)$", "BEiT or Swin (relative position biases), not facebookresearch/mae"),
    (
        r"\.ls[12]\.gamma$|\.gamma_[12]$|lambda_[12]$",
        "a ViT with layer scale (DINOv2, CaiT, BEiT), not facebookresearch/mae",
    ),
    (r"register_tokens$|reg_token$", "a ViT with register tokens (DINOv2), not facebookresearch/mae"),
    (r"dist_token$", "a distilled DeiT, not facebookresearch/mae"),
    (r"(^|\.)norm_pre\.|attn\.[qk]_norm\.", "a ViT with extra norms, not facebookresearch/mae"),
    (r"mlp\.w12\.|mlp\.fc1_g\.", "a ViT with a gated MLP (SwiGLU), not facebookresearch/mae"),
    (r"(^|\.)layer[1-4]\.\d+\.conv[12]\.weight$", "a ResNet, not a Vision Transformer"),
    (r"(^|\.)stages\.\d+\.", "a convolutional or hierarchical network (ConvNeXt, Swin), not a plain ViT"),
    (r"(^|\.)visual\.(transformer|conv1)", "a CLIP model, not facebookresearch/mae"),
    (r"(^|\.)(dino_head|teacher|student)\.", "a DINO checkpoint (teacher and student), not facebookresearch/mae"),
)


@dataclass
class Checkpoint:
    """A source of weights: parameters by the reference's names, and what is known about where they come from."""

    state: dict[str, torch.Tensor]
    source: str
    layout: str  # in words, e.g. "{model, optimizer, epoch, scaler, args}"
    left_out: list[dict[str, Any]] = field(default_factory=list)  # {"source", "reason"}: what is no parameter
    notes: list[str] = field(default_factory=list)
    args: dict[str, Any] = field(default_factory=dict)  # the run's own arguments
    file: Path | None = None
    id2label: dict[int, str] | None = None
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


def _safe_globals() -> list[Any]:
    """What a pickle may name beside torch's own list: the run's arguments, and numpy scalars (loss, accuracy)."""
    allowed: list[Any] = [argparse.Namespace]
    try:
        import numpy
        from numpy.dtypes import BoolDType, Float16DType, Float32DType, Float64DType, Int32DType, Int64DType
    except ImportError:
        return allowed
    scalar = numpy.float64(0).__reduce__()[0]  # numpy's constructor of scalars, under its old and new module name
    allowed += [
        numpy.dtype,
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]
    return allowed + [BoolDType, Float16DType, Float32DType, Float64DType, Int32DType, Int64DType]


def _load_pickle(path: Path) -> Any:
    """`torch.load` with the short safe list, memory-mapped where the format allows it."""
    with torch.serialization.safe_globals(_safe_globals()):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error) or "zip" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # the format of torch before 1.6


def read_pickle(path: Path) -> Any:
    """The object in a `.pth`; nothing in the file is executed.

    Raises:
        ConversionError: the file is truncated, no checkpoint, or names something that is not on the safe list.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith((b"<", b"version https://git-lfs")):
        raise ConversionError(
            f"{path} is a web page or a Git LFS pointer, not a checkpoint: the download did not fetch the file itself."
        )
    try:
        return _load_pickle(path)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+) (?:was not|whose module)", str(error)):
            name = found.group(1)
            raise ConversionError(
                f"{path} was refused, and nothing in it was executed: it is a pickle that asks for {name}, and a "
                "checkpoint needs only tensors, numpy scalars and argparse.Namespace."
            ) from None
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
        raise ConversionError(
            f"{path} is damaged, or no PyTorch checkpoint ({reason}): fetch or copy it again."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise ConversionError(
            f"{path} is truncated or no PyTorch checkpoint ({reason}): fetch or copy it again."
        ) from None


def _as_dict(args: Any) -> dict[str, Any]:
    values = vars(args) if isinstance(args, argparse.Namespace) else args
    return dict(values) if isinstance(values, dict) else {}


def unwrap(loaded: Any, source: str) -> Checkpoint:
    """Finds the state dict in a loaded object and brings its names to the reference's.

    Knows `{model, optimizer, epoch, scaler, args}`, `{model}`, `{state_dict}`, a bare state dict, and wrappers'
    prefixes (`module.`, `encoder.`...), in any combination.
    """
    if not isinstance(loaded, dict):
        raise ConversionError(f"{source} holds a {type(loaded).__name__}, not the dict of a checkpoint or state dict.")
    keys = [str(key) for key in loaded]
    if {"teacher", "student"} & set(keys):
        raise ConversionError(f"{source} is a DINO checkpoint (teacher and student), not facebookresearch/mae.")
    container = next((key for key in CONTAINERS if isinstance(loaded.get(key), dict)), None)
    weights, checkpoint = loaded, Checkpoint({}, source, "a bare state dict")
    if container:
        weights = loaded[container]
        checkpoint.layout = "{" + ", ".join(keys) + "}"
        checkpoint.args = _as_dict(loaded.get("args"))
        checkpoint.left_out = [
            {"source": str(key), "reason": "state of the training run, no weights of the model"}
            for key in keys
            if key != container
        ]
    state = {}
    for name, value in weights.items():
        if isinstance(value, torch.Tensor):
            state[str(name)] = value
        else:
            checkpoint.left_out.append({"source": str(name), "reason": f"no tensor ({type(value).__name__})"})
    if not state:
        raise ConversionError(f"{source} holds no tensors: its keys are {', '.join(keys[:6]) or '(none)'}.")
    refuse_foreign(state, source)

    while ANCHOR not in state:
        prefix = next((p for p in PREFIXES if any(n.startswith(p) and n.endswith(ANCHOR) for n in state)), None)
        if prefix is None:
            break
        stripped = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        if len(stripped) < len(state):
            raise ConversionError(f"{source} holds some parameters both with and without the prefix '{prefix}'.")
        state = stripped
        checkpoint.notes.append(f"the prefix '{prefix}' was taken off the names")
    checkpoint.state = state
    return checkpoint


def refuse_foreign(state: dict[str, torch.Tensor], source: str) -> None:
    """Refuses, by name, layouts that are not this architecture."""
    for pattern, what in FOREIGN_LAYOUTS:
        if found := next((name for name in state if re.search(pattern, name)), None):
            raise ConversionError(f"{source} is {what} (it has {found}).")


def _check_is_vit(checkpoint: Checkpoint) -> None:
    if ANCHOR not in checkpoint.state:
        names = ", ".join(list(checkpoint.state)[:4])
        raise ConversionError(f"{checkpoint.source} is no ViT MAE: it has no {ANCHOR}; its first names are {names}.")
    inside = [
        n
        for n in checkpoint.state
        if re.match(r"(blocks|decoder_blocks|patch_embed)\.", n) and not is_reference_name(n)
    ]
    if inside:
        raise ConversionError(
            f"{checkpoint.source} has parameters inside the encoder that facebookresearch/mae does not have, so it "
            f"computes something else: {', '.join(inside[:4])}."
        )


def _tidy(checkpoint: Checkpoint) -> Checkpoint:
    _check_is_vit(checkpoint)
    if lower := {str(t.dtype) for t in checkpoint.state.values() if t.is_floating_point() and t.dtype != torch.float32}:
        checkpoint.notes.append(f"{', '.join(sorted(lower))} weights were widened or narrowed to float32")
        checkpoint.state = {n: t.float() if t.is_floating_point() else t for n, t in checkpoint.state.items()}
    checkpoint.start_digest()
    return checkpoint


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Reads any supported source.

    Args:
        source: a `.pth`/`.pt`/`.bin`/`.ckpt` or `.safetensors` file, a folder that transformers saved, or a Hub id.

    Returns:
        Parameters under the reference's names, in float32 (memory-mapped where they are that already).

    Raises:
        ConversionError: the source is missing, damaged, hostile or not this architecture.
    """
    path = Path(source)
    if path.is_file():
        if path.stat().st_size == 0:
            raise ConversionError(f"{path} is empty (0 bytes): fetch or copy it again.")
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                loaded = load_file(path)
            except (SafetensorError, OSError) as error:
                raise ConversionError(f"{path} is damaged, or no safetensors file ({error}).") from None
            if any(name.startswith(("vit.", "beit.", "embeddings.")) for name in loaded):
                raise ConversionError(
                    f"{path} is the weights file of a transformers model: pass its folder, {path.parent}."
                )
        else:
            loaded = read_pickle(path)
        checkpoint = unwrap(loaded, str(path))
        checkpoint.file = path
        return _tidy(checkpoint)
    if path.suffix in WEIGHT_SUFFIXES:
        raise ConversionError(f"{path} does not exist.")
    return _tidy(read_pretrained(str(source)))


def read_pretrained(source: str) -> Checkpoint:
    """Reads a transformers folder or Hub id of ViTMAE, ViT or a BEiT that is used for mean pooling."""
    import transformers
    from transformers import AutoConfig

    folder = Path(source)
    if not folder.exists() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise ConversionError(f"{source} does not exist, and it cannot be a Hub id.")
    if folder.exists() and not (folder / "config.json").is_file():
        raise ConversionError(f"{source} is no transformers model: it has no config.json.")
    try:
        config = AutoConfig.from_pretrained(source)
    except Exception as error:  # transformers and huggingface_hub raise many kinds here; one sentence serves them all
        reason = str(error).strip().split("\n")[0]
        raise ConversionError(
            f"{source} is no file, no model folder and cannot be had from the Hub ({reason})."
        ) from None
    class_name, target = _stock_class(config, source)
    model, info = getattr(transformers, class_name).from_pretrained(
        source,
        dtype=torch.float32,
        output_loading_info=True,
        **({"add_pooling_layer": False} if target == "backbone" else {}),
    )
    if missing := sorted(info["missing_keys"]):
        raise ConversionError(f"{source} lacks parameters of a {class_name}: {', '.join(missing[:5])}.")
    state, unknown = to_reference(model.state_dict(), target)
    checkpoint = Checkpoint(state, source, f"transformers {class_name}", args=_known_of(config, target))
    checkpoint.left_out = [{"source": name, "reason": "not a parameter of the MAE ViT"} for name in unknown]
    checkpoint.left_out += [
        {"source": name, "reason": f"not loaded by {class_name}"} for name in sorted(info["unexpected_keys"])
    ]
    if target in ("cls", "mean"):  # by number: as text, 10 comes before 2
        checkpoint.id2label = dict(sorted((int(index), label) for index, label in config.id2label.items()))
    files = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
    checkpoint.file = next((file for file in files if file.is_file()), None)
    return checkpoint


def _known_of(config: Any, target: str) -> dict[str, Any]:
    """What a configuration tells that shapes do not, by the names of a run's arguments."""
    names = ["num_attention_heads"]
    if target == "pretraining":
        names += ["decoder_num_attention_heads", "mask_ratio", "norm_pix_loss"]
    return {name: getattr(config, name) for name in names}


def _stock_class(config: Any, source: str) -> tuple[str, str]:
    """The class that loads a configuration, and its target in `names.TARGETS`; anything else is refused."""
    architectures = " ".join(config.architectures or [])
    if config.model_type == "vit_mae":
        return "ViTMAEForPreTraining", "pretraining"
    if config.model_type == "vit":
        return ("ViTForImageClassification", "cls") if "Classification" in architectures else ("ViTModel", "backbone")
    if config.model_type == "beit":
        plain = (
            config.use_mean_pooling and config.use_absolute_position_embeddings and not config.layer_scale_init_value
        )
        if plain and not config.use_relative_position_bias and not config.use_shared_relative_position_bias:
            return "BeitForImageClassification", "mean"
        raise ConversionError(
            f"{source} is a BEiT of Microsoft's kind (relative positions, layer scale), not an MAE ViT."
        )
    raise ConversionError(
        f"{source} is a {config.model_type} model: only vit_mae, vit and mean-pooling beit can be read."
    )
