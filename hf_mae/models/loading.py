"""Fine-tuned stock classifiers, as they are read back."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from ..errors import UsageError, first_line
from .checkpoints import resolve


def load_classifier(model_name_or_path: str):
    """A fine-tuned stock model in float32, and its image processor.

    Raises:
        UsageError: it is not there, or has no trained head or no image processor.
    """
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    path = Path(model_name_or_path := resolve(model_name_or_path))
    if path.is_file():
        raise UsageError(f"{path} is a file: convert it first (hf-mae convert {path} FOLDER) and pass the folder.")
    try:
        model, info = AutoModelForImageClassification.from_pretrained(
            model_name_or_path, dtype=torch.float32, output_loading_info=True
        )
        processor = AutoImageProcessor.from_pretrained(model_name_or_path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{model_name_or_path} is no image classifier that can be loaded ({first_line(error)})"
        ) from None
    if info["missing_keys"]:
        raise UsageError(
            f"{model_name_or_path} has no trained {', '.join(sorted(info['missing_keys'])[:3])}: fine-tune it first."
        )
    image = processor(Image.new("RGB", (64, 48)), return_tensors="pt")["pixel_values"]
    size = model.config.image_size
    if tuple(image.shape[-2:]) != (size, size):
        raise UsageError(
            f"{model_name_or_path} takes images of {size} pixels, but its preprocessor_config.json makes them "
            f"{image.shape[-1]} x {image.shape[-2]}: put the two in agreement."
        )
    return model.eval(), processor


def class_names(model: Any) -> list[str]:
    """The class names of a classifier, by class id."""
    return [model.config.id2label[index] for index in range(model.config.num_labels)]


def own_label_names(model_name_or_path: str) -> list[str] | None:
    """The class names of a saved classifier, in the order of its head; None where there are none."""
    path = resolve(model_name_or_path)
    if Path(path).is_file():
        return None
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError):
        return None  # whoever builds the model says what is wrong
    names = [config.id2label[index] for index in sorted(config.id2label)]
    return None if not names or names[0] == "LABEL_0" else names
