"""Reading transformers folders and Hub ids of ViTMAE, ViT, and a BEiT that is used for mean pooling."""

import json
import re
from pathlib import Path
from typing import Any

import torch

from hf_mae.compat.timm import check_timm_version
from hf_mae.errors import first_error_line

from .checkpoint import Checkpoint
from .errors import ConversionError
from .key_mapping import to_mae_state_dict
from .metadata import COPIED_CONFIG_FIELDS, CheckpointMetadata
from .report import REPORT_FILE
from .safety import (
    check_config_dict,
    check_config_sizes,
    check_config_values,
    check_model_folder,
    check_processor_sizes,
    check_timm_config,
    is_timm,
)
from .weights_io import check_weights_file

MAX_MISSING_PARAMETERS = 50_000_000  # parameters of a fresh head and the like, which the weights need not hold


def read_pretrained(source: str) -> Checkpoint:
    """Reads a transformers folder or Hub id, and what its configuration and image processor tell.

    Raises:
        ConversionError: it is not there, damaged, or not this architecture.
    """
    folder = Path(source)
    if not folder.exists() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise ConversionError(f"{source} does not exist, and it cannot be a Hub id.")
    if folder.exists() and not (folder / "config.json").is_file():
        raise ConversionError(f"{source} is no transformers model: it has no config.json.")
    files = _find_weight_files(folder)
    config = read_config(source)
    class_name, target = find_stock_class(config, source)
    model, info = load_stock_model(source, class_name)
    if missing := sorted(info["missing_keys"]):
        raise ConversionError(f"{source} lacks parameters of a {class_name}: {', '.join(missing[:5])}.")
    state, unknown = to_mae_state_dict(model.state_dict(), target)
    checkpoint = Checkpoint(state, source, f"transformers {class_name}", stock_class=class_name)
    checkpoint.unused = [{"source": name, "reason": "not a parameter of the MAE ViT"} for name in unknown]
    checkpoint.unused += [
        {"source": name, "reason": f"not loaded by {class_name}"} for name in sorted(info["unexpected_keys"])
    ]
    certificate = _read_conversion_report(folder)
    checkpoint.metadata = metadata_from_config(config, target, set(certificate.get("assumed", {})))
    checkpoint.is_self_distilled = certificate.get("source", {}).get("distilled") is True
    checkpoint.metadata.image_processor = read_processor_config(source)
    checkpoint.file = files[0] if files else None
    return checkpoint


def _find_weight_files(folder: Path) -> list[Path]:
    """The files of weights of a local folder; what is no weights is refused by its name."""
    if not folder.exists():
        return []
    files = sorted(
        path for path in folder.iterdir() if re.fullmatch(r"(model|pytorch_model).*\.(safetensors|bin)", path.name)
    )
    if not files:
        raise ConversionError(f"{folder} has a config.json and no weights (model.safetensors or pytorch_model.bin).")
    for path in files:
        check_weights_file(path)
    return files


def read_config(source: str) -> Any:
    """The configuration of a folder or Hub id, within all bounds; no code of it is run.

    Raises:
        ConversionError: there is none, or it is of a model that is not read here.
    """
    from transformers import AutoConfig, PretrainedConfig

    if Path(source).is_dir():
        check_model_folder(Path(source))
    try:
        values, _ = PretrainedConfig.get_config_dict(source)
        check_config_dict(values, f"The configuration of {source}")
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except ConversionError:
        raise
    except Exception as error:  # transformers and huggingface_hub raise many kinds here; one sentence serves them all
        raise ConversionError(
            f"{source} is no file, no model folder and cannot be had from the Hub ({first_error_line(error)})."
        ) from None
    check_config_sizes(config, source)
    check_config_values(config, source)
    if is_timm(config):
        check_timm_version()
        check_timm_config(config.to_dict(), f"The configuration of {source}")
        _drop_wrapper_arguments(config)
    return config


def _drop_wrapper_arguments(config: Any) -> None:
    """Of a configuration that timm wrote: its class count and channels, which transformers passes on a second time."""
    config.model_args = {
        name: value for name, value in (config.model_args or {}).items() if name not in ("num_classes", "in_chans")
    }


def load_stock_model(source: str, class_name: str, config: Any = None) -> tuple[Any, dict[str, Any]]:
    """A source in its own stock class (or one of transformers' Auto classes), in float32, and what loading it says.

    Args:
        config: another configuration than its own; what then does not fit is left to the caller.

    Raises:
        ConversionError: weights and configuration do not fit together, or the weights are missing or damaged.
    """
    import transformers

    files = _find_weight_files(Path(source))
    arguments: dict[str, Any] = {"add_pooling_layer": False} if class_name == "ViTModel" else {}
    used = read_config(source) if config is None else config
    if files:
        _check_parameter_count(source, getattr(transformers, class_name), used, files)
    try:
        loaded, info = getattr(transformers, class_name).from_pretrained(
            source,
            config=used,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # so that they are named below
            **arguments,
        )
    except Exception as error:  # many kinds, from safetensors, torch and transformers
        raise ConversionError(f"{source} cannot be loaded as {class_name} ({first_error_line(error)}).") from None
    if info["mismatched_keys"] and config is None:
        name, weights, configured = sorted(info["mismatched_keys"])[0]
        raise ConversionError(
            f"{source} contradicts itself: {name} is {tuple(weights)} in its weights, and its config.json asks for "
            f"{tuple(configured)}."
        )
    return loaded, info


def _check_parameter_count(source: str, model_class: Any, config: Any, files: list[Path]) -> None:
    """Refuses a configuration of many more parameters than the files can hold: what is missing would be made up, and
    memory taken for it.

    Raises:
        ConversionError: it is one, or no model can be built of it.
    """
    try:
        with torch.device("meta"):
            model = model_class.from_config(config) if hasattr(model_class, "from_config") else model_class(config)
    except Exception as error:  # whatever a class makes of values that it does not expect
        raise ConversionError(
            f"{source} cannot be built as its config.json says ({first_error_line(error)})."
        ) from None
    asked, held = sum(p.numel() for p in model.parameters()), sum(path.stat().st_size for path in files)
    if asked > held + MAX_MISSING_PARAMETERS:  # a byte for each at least
        raise ConversionError(
            f"{source} contradicts itself: its config.json asks for {asked / 1e6:,.0f} million parameters, and its "
            f"weights are of {held / 1e6:,.0f} MB."
        )


def metadata_from_config(config: Any, target: str, assumed: set[str]) -> CheckpointMetadata:
    """What a configuration tells; what its certificate calls supposed is not known."""
    size = config.image_size
    known = CheckpointMetadata(
        num_attention_heads=config.num_attention_heads,
        image_size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        pooling=target if target in ("cls", "mean") else None,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
    )
    if target == "pretraining":
        known.decoder_num_attention_heads = config.decoder_num_attention_heads
        known.mask_ratio, known.norm_pix_loss = config.mask_ratio, config.norm_pix_loss
    if target in ("cls", "mean"):  # by number: as text, 10 comes before 2
        names = [label for _, label in sorted((int(index), label) for index, label in config.id2label.items())]
        known.class_names = None if names[:1] == ["LABEL_0"] else names
        changed = config.to_diff_dict()
        known.config = {name: changed[name] for name in COPIED_CONFIG_FIELDS if changed.get(name) is not None} or None
    for name in assumed & {"norm_pix_loss", "mask_ratio"}:
        setattr(known, name, None)
    return known


def _read_conversion_report(folder: Path) -> dict[str, Any]:
    """What an earlier conversion says of itself; nothing where there was none, or its file is damaged."""
    try:
        told = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    parts = ("assumed", "source")
    return {part: told[part] for part in parts if isinstance(told.get(part), dict)} if isinstance(told, dict) else {}


def read_processor_config(source: str) -> dict[str, Any] | None:
    """The image processor of a folder or Hub id, as its file holds it; None where there is none.

    Raises:
        ConversionError: it is no image processor, or one without bounds.
    """
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        processor, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except (OSError, ValueError):
        return None
    if not isinstance(processor, dict):
        raise ConversionError(
            f"{source}: its preprocessor_config.json is no image processor ({type(processor).__name__})."
        )
    check_processor_sizes(processor, source)
    return {name: value for name, value in processor.items() if name != "auto_map"}


def is_mae_vit(config: Any, source: str) -> bool:
    """Whether a configuration is of the MAE ViT, in one of its stock classes."""
    try:
        find_stock_class(config, source)
    except ConversionError:
        return False
    return True


def find_stock_class(config: Any, source: str) -> tuple[str, str]:
    """The class that loads a configuration, and its target in `names.TARGETS`; anything else is refused."""
    listed = config.architectures if isinstance(config.architectures, list) else []
    architectures = " ".join(map(str, listed))
    if config.model_type == "vit_mae":
        return (
            ("ViTMAEModel", "backbone") if architectures == "ViTMAEModel" else ("ViTMAEForPreTraining", "pretraining")
        )
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
