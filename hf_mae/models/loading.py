"""Loads fine-tuned classifiers and ensembles."""

import logging
from pathlib import Path
from typing import Any

from ..conversion.canonicalize import is_untrained_head
from ..conversion.messages import ConversionError
from ..conversion.safety import is_timm
from ..conversion.stock_models import (
    config_class_names,
    is_mae_vit,
    load_image_processor,
    load_stock_model,
    read_config,
)
from ..errors import UsageError, first_error_line, warn
from .auto_classifier import set_input_size
from .ensemble import Ensemble, read_ensemble_members
from .introspection import config_image_size, find_head, input_size
from .messages import ModelMessage
from .model_zoo import resolve_checkpoint

logger = logging.getLogger(__name__)


def load_classifier(model_name_or_path: str):
    """Loads a fine-tuned stock classifier in float32, or an `Ensemble`, and its image processor.

    Raises:
        UsageError: If it does not exist, is not an image classifier for square RGB images, or has no image processor.
    """
    if members := read_ensemble_members(model_name_or_path := resolve_checkpoint(model_name_or_path)):
        folders = [str(Path(model_name_or_path) / member.folder) for member in members]
        models, processors = zip(*(load_stock_classifier(folder) for folder in folders), strict=True)
        return Ensemble(list(models), list(processors)).eval(), processors[0]
    return load_stock_classifier(model_name_or_path)


def load_stock_classifier(model_name_or_path: str):
    """Loads a classifier that is not an ensemble, and its image processor.

    Args:
        model_name_or_path: a result of `resolve_checkpoint`.
    """
    from PIL import Image

    path = Path(model_name_or_path)
    if path.is_file():
        raise UsageError(ModelMessage.IS_A_FILE, path=path)
    model, processor = _load_model(model_name_or_path), load_image_processor(model_name_or_path)
    try:
        image = processor(Image.new("RGB", (64, 48)), return_tensors="pt")["pixel_values"]
    except Exception as error:  # processors raise any class for wrong values
        raise UsageError(
            ModelMessage.PROCESSOR_FAILS, source=model_name_or_path, reason=first_error_line(error)
        ) from None
    height, width = image.shape[-2:]
    if not is_mae_vit(model.config) and height == width:
        set_input_size(model, height, model_name_or_path)
    elif (height, width) != (size := input_size(model), size):
        raise UsageError(
            ModelMessage.PROCESSOR_SIZE_DIFFERS, source=model_name_or_path, size=size, width=width, height=height
        )
    return model.eval(), processor


def _load_model(source: str) -> Any:
    """Loads a stock classifier in float32; all weights must be in the source."""
    config = read_config(source)  # checks the size of the model
    if config.model_type == "vit_mae":
        raise UsageError(ModelMessage.ONLY_PRETRAINED, source=source)
    if is_timm(config) and not config.num_labels:
        raise UsageError(ModelMessage.HEAD_MISSING, source=source)
    model, info = load_stock_model(source, "AutoModelForImageClassification")
    if missing := sorted(info["missing_keys"]):
        raise UsageError(ModelMessage.HEAD_WEIGHTS_MISSING, source=source, names=missing[:3])
    _validate_classifier(model, source)
    return model


def _validate_classifier(model: Any, source: str) -> None:
    """Checks the head and the input of a classifier; warns if the head was never trained."""
    config_image_size(model.config, source)
    try:
        _, head = find_head(model)
    except UsageError as error:
        raise UsageError(ModelMessage.UNUSABLE, source=source, reason=error) from None
    if is_untrained_head(head.weight, head.bias):
        warn(logger, ModelMessage.HEAD_IS_UNTRAINED, source=source)


def class_names(model: Any) -> list[str]:
    """Returns the class names of a classifier, in the order of the class ids."""
    return [model.config.id2label[index] for index in range(model.config.num_labels)]


def read_class_names(model_name_or_path: str) -> list[str] | None:
    """Reads the class names of a saved classifier, in the order of its head; None if there are none."""
    path = resolve_checkpoint(model_name_or_path)
    if Path(path).is_file():
        return None
    try:
        return config_class_names(read_config(path))
    except ConversionError:
        return None  # building the model reports the error
