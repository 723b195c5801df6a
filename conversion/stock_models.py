"""Loads configurations, stock models and image processors of folders and Hub ids, without executing their code."""

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hf_mae.compat.timm import check_timm_version
from hf_mae.errors import first_error_line

from .bounds import MAX_VALUES, build_within_bounds
from .messages import ConversionError, ConversionMessage
from .safety import (
    check_config_dict,
    check_config_values,
    check_model_folder,
    check_processor_sizes,
    check_timm_config,
    is_timm,
)
from .weights_io import check_weights_file

MAX_MISSING_PARAMETERS = 50_000_000  # parameters that the weights may lack, e.g. those of a new head


def find_weight_files(folder: Path) -> list[Path]:
    """Returns the weights files of a local folder; raises ConversionError for a file that contains something else."""
    if not folder.exists():
        return []
    files = sorted(
        path for path in folder.iterdir() if re.fullmatch(r"(model|pytorch_model).*\.(safetensors|bin)", path.name)
    )
    if not files:
        raise ConversionError(ConversionMessage.WEIGHTS_MISSING, folder=folder)
    for path in files:
        check_weights_file(path)
    return files


def read_config(source: str) -> Any:
    """Reads the configuration of a folder or Hub id and checks its limits; custom code is never executed.

    Raises:
        ConversionError: If the configuration is missing, invalid or unsafe.
    """
    from transformers import AutoConfig, PretrainedConfig

    if Path(source).is_dir():
        check_model_folder(Path(source))
    try:
        values, _ = PretrainedConfig.get_config_dict(source)
        check_config_dict(values, source)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except ConversionError:
        raise
    except Exception as error:  # transformers and huggingface_hub raise many classes of exceptions
        raise ConversionError(
            ConversionMessage.CANNOT_LOAD_CONFIG, source=source, reason=first_error_line(error)
        ) from None
    check_config_values(config, source)
    if is_timm(config):
        check_timm_version()
        check_timm_config(config.to_dict(), f"The configuration of {source}")
        _drop_wrapper_arguments(config)
    return config


def _drop_wrapper_arguments(config: Any) -> None:
    """Removes the class count and channels from the timm arguments, because transformers passes them a second time."""
    config.model_args = {
        name: value for name, value in (config.model_args or {}).items() if name not in ("num_classes", "in_chans")
    }


def load_stock_model(source: str, class_name: str, config: Any = None) -> tuple[Any, dict[str, Any]]:
    """Loads a model in float32 with its stock class (or an Auto class), and returns the loading info of transformers.

    Args:
        config: a configuration to use instead of that of the source; the caller then handles mismatched weights.

    Raises:
        ConversionError: If weights and configuration do not match, or the weights are missing or damaged.
    """
    import transformers

    files = find_weight_files(Path(source))
    arguments: dict[str, Any] = {"add_pooling_layer": False} if class_name == "ViTModel" else {}
    model_config = read_config(source) if config is None else config
    check_model_size(model_config, source, getattr(transformers, class_name), files)
    try:
        model, info = getattr(transformers, class_name).from_pretrained(
            source,
            config=model_config,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported below
            **arguments,
        )
    except Exception as error:  # safetensors, torch and transformers raise many classes of exceptions
        raise ConversionError(
            ConversionMessage.CANNOT_LOAD_MODEL, source=source, class_name=class_name, reason=first_error_line(error)
        ) from None
    if info["mismatched_keys"] and config is None:
        name, shape, expected = sorted(info["mismatched_keys"])[0]
        raise ConversionError(
            ConversionMessage.CONFIG_CONTRADICTS_WEIGHTS,
            source=source,
            name=name,
            shape=tuple(shape),
            expected=tuple(expected),
        )
    return model, info


def check_model_size(config: Any, source: str, model_class: Any, files: Sequence[Path] = ()) -> None:
    """Checks the size of a model before memory is allocated.

    Args:
        model_class: a stock class or an Auto class of transformers.
        files: its weights. transformers would allocate and initialize parameters that they lack.

    Raises:
        ConversionError: If the model is too large, or cannot be built.
    """
    num_bytes = sum(path.stat().st_size for path in files)  # at least one byte per parameter
    max_values = num_bytes + MAX_MISSING_PARAMETERS if files else MAX_VALUES
    build = getattr(model_class, "from_config", model_class)
    build_within_bounds(lambda: build(copy.deepcopy(config)), source, max_values)


def read_processor_config(source: str) -> dict[str, Any] | None:
    """Reads the preprocessor_config.json of a folder or Hub id; None if it does not exist.

    Raises:
        ConversionError: If the file does not contain an image processor, or a size exceeds the limits.
    """
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        processor, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except (OSError, ValueError):
        return None
    if not isinstance(processor, dict):
        raise ConversionError(ConversionMessage.PROCESSOR_CONFIG_INVALID, source=source, type=type(processor).__name__)
    check_processor_sizes(processor, source)
    return {name: value for name, value in processor.items() if name != "auto_map"}


def load_image_processor(source: str) -> Any:
    """Loads the image processor of a folder or Hub id; custom code is never executed.

    Raises:
        ConversionError: If it cannot be loaded, or a size exceeds the limits.
    """
    from transformers import AutoImageProcessor

    read_processor_config(source)  # checks the sizes
    try:
        return AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # processors raise any class for unexpected fields
        raise ConversionError(
            ConversionMessage.PROCESSOR_UNREADABLE, source=source, reason=first_error_line(error)
        ) from None


def config_class_names(config: Any) -> list[str] | None:
    """Returns the class names of a configuration in the order of their ids; None if it only has the default names."""
    labels = config.id2label or {}
    names = [labels[index] for index in sorted(labels, key=int)]  # as text, 10 comes before 2
    return None if names[:1] in ([], ["LABEL_0"]) else names


def is_mae_vit(config: Any) -> bool:
    """Whether a configuration describes an MAE ViT in one of its stock classes."""
    return stock_target(config) is not None


def stock_target(config: Any) -> str | None:
    """Returns the key of `layouts.mae.TARGETS` for a configuration; None if its architecture is not supported."""
    architectures = " ".join(map(str, config.architectures)) if isinstance(config.architectures, list) else ""
    if config.model_type == "vit_mae":
        return "backbone" if architectures == "ViTMAEModel" else "pretraining"
    if config.model_type == "vit":
        return "cls" if "Classification" in architectures else "backbone"
    if config.model_type != "beit" or config.layer_scale_init_value or not config.use_mean_pooling:
        return None
    is_relative = config.use_relative_position_bias or config.use_shared_relative_position_bias
    return "mean" if config.use_absolute_position_embeddings and not is_relative else None
