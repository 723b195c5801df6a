"""Fine-tuned stock classifiers, as they are read back."""

import logging
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ..conversion.canonicalize import is_untrained_head
from ..conversion.pretrained import is_mae_vit, load_stock_model, read_config, read_processor_config
from ..conversion.safety import is_timm
from ..errors import UsageError, first_error_line
from .auto_classifier import set_input_size
from .ensemble import Ensemble, read_ensemble_members
from .introspection import config_image_size, find_head, input_size
from .model_zoo import resolve_checkpoint

logger = logging.getLogger(__name__)


def load_classifier(model_name_or_path: str):
    """A fine-tuned stock model in float32 (of an ensemble's folder, an `Ensemble`), and its image processor.

    Raises:
        UsageError: it is not there, is no classifier of images as they are read here, or has no image processor.
    """
    if members := read_ensemble_members(model_name_or_path := resolve_checkpoint(model_name_or_path)):
        folders = [str(Path(model_name_or_path) / member.folder) for member in members]
        models, processors = zip(*(load_stock_classifier(folder) for folder in folders), strict=True)
        return Ensemble(list(models), list(processors)).eval(), processors[0]
    return load_stock_classifier(model_name_or_path)


def load_stock_classifier(model_name_or_path: str):
    """`load_classifier` of one model.

    Args:
        model_name_or_path: resolved.
    """
    from PIL import Image

    path = Path(model_name_or_path)
    if path.is_file():
        raise UsageError(
            f"{path} is a file: convert it first (hf-mae convert {path} FOLDER) and pass the folder; one that is only "
            f"pre-trained is fine-tuned before (hf-mae finetune {path} DATA)."
        )
    model, processor = _load_model(model_name_or_path), _load_processor(model_name_or_path)
    try:
        image = processor(Image.new("RGB", (64, 48)), return_tensors="pt")["pixel_values"]
    except Exception as error:  # whatever a class makes of the values of its fields
        raise UsageError(
            f"The preprocessor_config.json of {model_name_or_path} makes no image ({first_error_line(error)})."
        ) from None
    height, width = image.shape[-2:]
    if not is_mae_vit(model.config, model_name_or_path) and height == width:
        set_input_size(model, height, model_name_or_path)
    elif (height, width) != (size := input_size(model), size):
        raise UsageError(
            f"{model_name_or_path} takes images of {size} pixels, but its preprocessor_config.json makes them "
            f"{width} x {height}: put the two in agreement."
        )
    return model.eval(), processor


def _load_model(source: str) -> Any:
    """A stock classifier in float32, with all of its weights."""
    config = read_config(source)  # which refuses what would be built without bounds
    if is_timm(config) and not config.num_labels:
        raise UsageError(f"{source} has no head: fine-tune it first (hf-mae finetune {source} DATA).")
    model, info = load_stock_model(source, "AutoModelForImageClassification")
    if missing := sorted(info["missing_keys"]):
        raise UsageError(f"{source} has no trained {', '.join(missing[:3])}: fine-tune it first.")
    _validate_classifier(model, source)
    return model


def _load_processor(source: str) -> Any:
    from transformers import AutoImageProcessor

    read_processor_config(source)  # which refuses images without bounds
    try:
        return AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # whatever a class makes of fields that it does not expect
        raise UsageError(f"{source} has no image processor that can be read ({first_error_line(error)})") from None


def _validate_classifier(model: Any, source: str) -> None:
    """Refuses what has no head of its own and other images, and says so of a head that was never trained."""
    try:
        _, head = find_head(model)
        config_image_size(model.config)
    except UsageError as error:
        raise UsageError(f"{source} cannot be used: {error}") from None
    if is_untrained_head(head.weight, head.bias):
        logger.warning(
            "The head of %s is fresh: it was never trained, so what it says of an image is chance. Fine-tune it first.",
            source,
        )


def class_names(model: Any) -> list[str]:
    """The class names of a classifier, by class id."""
    return [model.config.id2label[index] for index in range(model.config.num_labels)]


def read_class_names(model_name_or_path: str) -> list[str] | None:
    """The class names of a saved classifier, in the order of its head; None where there are none."""
    path = resolve_checkpoint(model_name_or_path)
    if Path(path).is_file():
        return None
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError):
        return None  # whoever builds the model says what is wrong
    names = [config.id2label[index] for index in sorted(config.id2label, key=int)]
    return None if not names or names[0] == "LABEL_0" else names
