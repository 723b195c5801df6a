"""Reads checkpoints: `.pth` pickles, `.safetensors` files, and transformers folders or Hub ids.

The result is always a canonical state dict under the original names, with its metadata.
"""

import json
import re
from pathlib import Path
from typing import Any

from .canonicalize import canonicalize
from .checkpoint import Checkpoint
from .facts import FactCode, fact
from .key_mapping import to_original_state_dict
from .layouts.mae import TARGETS
from .layouts.stock import STOCK
from .messages import ConversionError, ConversionMessage
from .metadata import COPIED_CONFIG_FIELDS, LICENCE_KEY, CheckpointMetadata, find_args
from .nesting import find_vit_state_dict
from .report import REPORT_FILE
from .stock_models import (
    config_class_names,
    find_weight_files,
    load_stock_model,
    read_config,
    read_processor_config,
    stock_target,
)
from .weights_io import INDEX_SUFFIX, WEIGHT_SUFFIXES, read_weights_file


def read_checkpoint(source: str | Path, *, weights: str | None = None) -> Checkpoint:
    """Reads any supported source.

    Args:
        source: a `.pth`/`.pt`/`.bin`/`.ckpt` or `.safetensors` file (or its `.safetensors.index.json`), a folder saved
            by transformers, or a Hub id.
        weights: `plain` or `ema`, if a file contains both; None: the choice of `nesting.find_vit_state_dict`.

    Returns:
        Parameters under their original names, in float32 (memory-mapped if no conversion is needed).

    Raises:
        ConversionError: If the source is missing, damaged, unsafe or of an unsupported architecture.
    """
    path = Path(source)
    if path.is_file():
        checkpoint = find_vit_state_dict(read_weights_file(path), str(path), weights)
        checkpoint.file = path
    elif path.name.endswith((*WEIGHT_SUFFIXES, INDEX_SUFFIX)):
        raise ConversionError(ConversionMessage.NOT_FOUND, path=path)
    else:
        checkpoint = _read_stock_model(str(source))
    canonicalize(checkpoint)
    checkpoint.start_digest()
    return checkpoint


def read_args_licence(path: Path) -> str | None:
    """Returns the licence in the arguments of a `.pth` (`export_checkpoint`); None: it has none, or is unreadable."""
    if path.suffix == ".safetensors":
        return None
    try:
        content = read_weights_file(path)
    except ConversionError:
        return None
    licence = find_args(content).get(LICENCE_KEY) if isinstance(content, dict) else None
    return licence if isinstance(licence, str) else None


def _read_stock_model(source: str) -> Checkpoint:
    """Reads the weights, the configuration and the image processor of a transformers folder or Hub id."""
    folder = Path(source)
    if not folder.exists() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise ConversionError(ConversionMessage.NOT_A_PATH_OR_HUB_ID, source=source)
    if folder.exists() and not (folder / "config.json").is_file():
        raise ConversionError(ConversionMessage.NOT_A_MODEL_FOLDER, source=source)
    files = find_weight_files(folder)
    config = read_config(source)
    target = stock_target(config)
    if target is None:
        raise ConversionError(ConversionMessage.UNSUPPORTED_MODEL_TYPE, source=source, model_type=config.model_type)
    is_encoder_of_mae = config.model_type == "vit_mae" and target == "backbone"
    class_name = "ViTMAEModel" if is_encoder_of_mae else TARGETS[target].class_name
    model, info = load_stock_model(source, class_name)
    if missing := sorted(info["missing_keys"]):
        raise ConversionError(
            ConversionMessage.PARAMETERS_MISSING,
            source=source,
            layout=class_name,
            count=len(missing),
            names=missing[:5],
        )
    state, unknown = to_original_state_dict(model.state_dict(), TARGETS[target])
    checkpoint = Checkpoint(state, source, STOCK, stock_class=class_name)
    reasons = dict.fromkeys(unknown, FactCode.NOT_A_PARAMETER)
    reasons |= dict.fromkeys(sorted(info["unexpected_keys"]), FactCode.NOT_LOADED)
    checkpoint.unused = [
        {"source": name, "reason": fact(code, class_name=class_name)} for name, code in reasons.items()
    ]
    report = _read_conversion_report(folder)
    checkpoint.metadata = _metadata_from_config(config, target, set(report.get("assumed", {})))
    checkpoint.is_self_distilled = report.get("source", {}).get("distilled") is True
    checkpoint.metadata.image_processor = read_processor_config(source)
    checkpoint.file = files[0] if files else None
    return checkpoint


def _metadata_from_config(config: Any, target: str, assumed: set[str]) -> CheckpointMetadata:
    """Reads the metadata of a configuration; values that its conversion report marks as assumed stay unknown."""
    size = config.image_size
    metadata = CheckpointMetadata(
        num_attention_heads=config.num_attention_heads,
        image_size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        pooling=TARGETS[target].pooling,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
    )
    if target == "pretraining":
        metadata.decoder_num_attention_heads = config.decoder_num_attention_heads
        metadata.mask_ratio, metadata.norm_pix_loss = config.mask_ratio, config.norm_pix_loss
    if metadata.pooling:
        metadata.class_names = config_class_names(config)
        changed = config.to_diff_dict()
        copied = {name: changed[name] for name in COPIED_CONFIG_FIELDS if changed.get(name) is not None}
        metadata.config = copied or None
    for name in assumed & {"norm_pix_loss", "mask_ratio"}:
        setattr(metadata, name, None)
    return metadata


def _read_conversion_report(folder: Path) -> dict[str, Any]:
    """Reads the facts of an earlier conversion; an empty dict if its report is missing or damaged."""
    try:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(report, dict):
        return {}
    return {name: report[name] for name in ("assumed", "source") if isinstance(report.get(name), dict)}
