"""Ensemble of classifiers: the mean of their scores."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from ..data.images.processors import get_processor_settings
from ..errors import UsageError
from ..files.atomic import write_json
from .introspection import input_size
from .messages import ModelMessage

ENSEMBLE_FILE = "ensemble.json"  # marks a folder as an ensemble
SCHEMA_VERSION = 1
# Fields of an image processor: those that `EnsembleMember` compensates for, and those that change no pixel.
NORMALIZATION_FIELDS = ("image_mean", "image_std")
IGNORED_PROCESSOR_FIELDS = (
    *NORMALIZATION_FIELDS,
    "image_processor_type",
    "processor_class",
    "_processor_class",
    "data_format",
    "device",
)


class EnsembleMember(nn.Module):
    """Classifier that takes the pixel values of another classifier, and returns scores in its class order.

    Args:
        scale, shift: per channel, from the pixel values of the other classifier to those of this one; None: identical.
        order: id in this model of each class of the other one.
    """

    scale: Tensor | None
    shift: Tensor | None
    order: Tensor

    def __init__(self, model: Any, scale: Tensor | None, shift: Tensor | None, order: list[int]):
        super().__init__()
        self.model = model
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Returns scores (images, classes) in float32, each row summing to 1."""
        if self.scale is not None and self.shift is not None:
            pixel_values = pixel_values * self.scale.to(pixel_values) + self.shift.to(pixel_values)
        return self.model(pixel_values=pixel_values).logits.float().softmax(-1)[:, self.order]


class Ensemble(nn.Module):
    """Ensemble with the interface of a classifier.

    `logits` are the logarithm of the mean scores. Their softmax is this mean, so code that reads logits does not
    change. Classes, input size and `id2label` are those of the first member, in `config`.

    Args:
        models: stock classifiers with the same classes, in any order.
        processors: the image processor of each.

    Raises:
        UsageError: If the classes differ, or the preprocessing differs in more than mean and standard deviation.
    """

    main_input_name = "pixel_values"

    def __init__(self, models: list[Any], processors: list[Any]):
        super().__init__()
        self.config = copy.deepcopy(models[0].config)
        self.input_size = input_size(models[0])
        self.members = nn.ModuleList(
            adapt_classifier(models[0], processors[0], model, processor, number)
            for number, (model, processor) in enumerate(zip(models, processors, strict=True), 1)
        )

    @property
    def device(self) -> torch.device:
        """Device of the members."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights of the members."""
        return next(self.parameters()).dtype

    def forward(self, pixel_values: Tensor, **_: Any) -> ImageClassifierOutput:
        """Returns `logits` for pixel values (images, 3, height, width) from the processor of the first member."""
        scores = torch.stack([member(pixel_values) for member in self.members]).mean(0)
        return ImageClassifierOutput(logits=scores.clamp_min(torch.finfo(torch.float32).tiny).log())


def adapt_classifier(model: Any, processor: Any, other: Any, other_processor: Any, number: int = 2) -> EnsembleMember:
    """Adapts another classifier to the pixel values and the class order of a model.

    Args:
        number: number of the other classifier in error messages.

    Raises:
        UsageError: See `Ensemble`.
    """
    order = _class_order(model, other, number)
    return EnsembleMember(
        other,
        *_pixel_rescaling(get_processor_settings(processor), get_processor_settings(other_processor), number),
        order,
    )


def first_member(model: Any) -> Any:
    """Returns the first member of an ensemble; any other model itself."""
    return model.members[0].model if isinstance(model, Ensemble) else model


@dataclass(frozen=True)
class MemberInfo:
    """Entry of a member in `ensemble.json`.

    Args:
        folder: within the folder of the ensemble.
        source: the model that it was copied from.
        random_fold: whether it was trained on a random fold of a cross-validation.
    """

    folder: str
    source: str
    random_fold: bool = False


def read_ensemble_members(folder: str | Path) -> list[MemberInfo]:
    """Reads the members of an ensemble; empty if the folder is not an ensemble.

    Raises:
        UsageError: If `ensemble.json` is damaged, or has another schema version.
    """
    path = Path(folder) / ENSEMBLE_FILE
    if not path.is_file():
        return []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["schema_version"]
        members = [MemberInfo(**member) for member in values["members"]] if version == SCHEMA_VERSION else []
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(ModelMessage.ENSEMBLE_DAMAGED, path=path) from None
    if version != SCHEMA_VERSION:
        raise UsageError(ModelMessage.ENSEMBLE_OF_OTHER_VERSION, path=path, version=version, supported=SCHEMA_VERSION)
    if not members or not all(Path(member.folder).name == member.folder for member in members):
        raise UsageError(ModelMessage.ENSEMBLE_DAMAGED, path=path)
    return members


def write_ensemble_members(folder: Path, members: list[MemberInfo]) -> None:
    """Writes `ensemble.json`, which makes a folder an ensemble of the classifiers in it."""
    values = {"schema_version": SCHEMA_VERSION, "members": [vars(member) for member in members]}
    write_json(folder / ENSEMBLE_FILE, values)


def _class_order(first: Any, model: Any, number: int) -> list[int]:
    names, ids = first.config.id2label, {name: index for index, name in model.config.id2label.items()}
    if differing := sorted(set(ids) ^ set(names.values())):
        raise UsageError(ModelMessage.ENSEMBLE_CLASSES_DIFFER, number=number, names=differing[:4])
    return [ids[names[index]] for index in range(len(names))]


def _pixel_rescaling(
    first: Mapping[str, Any], other: Mapping[str, Any], number: int
) -> tuple[Tensor | None, Tensor | None]:
    """Returns the scale and shift (3, 1, 1) from pixel values of the first processor to those of another; None:
    identical."""
    differing = [
        name
        for name in sorted({*first, *other} - {*IGNORED_PROCESSOR_FIELDS})
        if (first.get(name) or None) != (other.get(name) or None)
    ]
    if differing:
        differences = "; ".join(f"{name} {other.get(name)}, not {first.get(name)}" for name in differing[:3])
        raise UsageError(ModelMessage.ENSEMBLE_PROCESSORS_DIFFER, number=number, differences=differences)
    mean, std, other_mean, other_std = (
        torch.tensor(values[name], dtype=torch.float64).view(3, 1, 1)
        for values in (first, other)
        for name in NORMALIZATION_FIELDS
    )
    if torch.equal(mean, other_mean) and torch.equal(std, other_std):
        return None, None
    return (std / other_std).float(), ((mean - other_mean) / other_std).float()
