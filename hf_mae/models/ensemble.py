"""Several classifiers as one: the mean of their scores."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from ..data.processors import get_processor_settings
from ..errors import UsageError
from ..files.atomic import write_json
from .introspection import input_size

ENSEMBLE_FILE = "ensemble.json"  # what makes a folder an ensemble
FORMAT_VERSION = 1
# Of an image processor: what `Member` makes up for, and what changes no pixel.
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
    """A classifier that is given the images and asked for the classes of another.

    Args:
        model: a stock classifier.
        scale, shift: of each channel, from the other's pixel values to this one's; None: they are the same.
        order: this model's id of each of the other's classes.
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
        """Scores (images, classes) that sum to 1, in float32."""
        if self.scale is not None and self.shift is not None:
            pixel_values = pixel_values * self.scale.to(pixel_values) + self.shift.to(pixel_values)
        return self.model(pixel_values=pixel_values).logits.float().softmax(-1)[:, self.order]


class Ensemble(nn.Module):
    """The mean of several classifiers' scores, in the form of one.

    `logits` are the logarithm of that mean: their softmax is it, so that whatever reads logits goes on as before.
    Classes, input size and `id2label` are those of the first member, in `config`.

    Args:
        models: stock classifiers of the same classes, in any order.
        processors: the image processor of each.

    Raises:
        UsageError: the classes differ, or images are read in ways that no scale of the pixel values makes up for.
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
        """Where its members are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of its members' weights."""
        return next(self.parameters()).dtype

    def forward(self, pixel_values: Tensor, **_: Any) -> ImageClassifierOutput:
        """Args: `pixel_values` (images, 3, height, width), of the first member's processor."""
        scores = torch.stack([member(pixel_values) for member in self.members]).mean(0)
        return ImageClassifierOutput(logits=scores.clamp_min(torch.finfo(torch.float32).tiny).log())


def adapt_classifier(model: Any, processor: Any, other: Any, other_processor: Any, number: int = 2) -> EnsembleMember:
    """Another classifier, given the pixel values and asked for the classes of a model.

    Args:
        number: what the other is called in an error.

    Raises:
        UsageError: as of `Ensemble`.
    """
    order = _class_order(model, other, number)
    return EnsembleMember(
        other,
        *_pixel_rescaling(get_processor_settings(processor), get_processor_settings(other_processor), number),
        order,
    )


def first_member(model: Any) -> Any:
    """The stock classifier itself, or the first of an ensemble: what can be looked into."""
    return model.members[0].model if isinstance(model, Ensemble) else model


@dataclass(frozen=True)
class MemberInfo:
    """What an ensemble's folder says of a member.

    Args:
        folder: within the ensemble's.
        source: what it was made of.
        random_fold: whether it was trained on a fold of a cross-validation that drew its folds itself.
    """

    folder: str
    source: str
    random_fold: bool = False


def read_ensemble_members(folder: str | Path) -> list[MemberInfo]:
    """The classifiers that an ensemble's folder holds; none where it is no ensemble's.

    Raises:
        UsageError: the folder says that it is one, but not of what.
    """
    path = Path(folder) / ENSEMBLE_FILE
    if not path.is_file():
        return []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = [MemberInfo(**member) for member in values["members"]]
        if not found or not all(Path(member.folder).name == member.folder for member in found):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path} names no members: make the ensemble again (hf-mae ensemble RUN ...).") from None
    if values.get("format") != FORMAT_VERSION:
        raise UsageError(
            f"{path} is of format {values.get('format')}, and this hf_mae reads {FORMAT_VERSION}: make the ensemble again."
        )
    return found


def write_ensemble_members(folder: Path, members: list[MemberInfo]) -> None:
    """Makes a folder the ensemble of classifiers in it."""
    values = {
        "format": FORMAT_VERSION,
        "scores": "mean of the members' softmax",
        "members": [vars(one) for one in members],
    }
    write_json(folder / ENSEMBLE_FILE, values)


def _class_order(first: Any, model: Any, number: int) -> list[int]:
    wanted, ids = first.config.id2label, {name: index for index, name in model.config.id2label.items()}
    if set(ids) != set(wanted.values()):
        differing = sorted(set(ids) ^ set(wanted.values()))
        raise UsageError(
            f"model {number} has other classes than model 1 ({', '.join(differing[:4])}): an ensemble has the same."
        )
    return [ids[wanted[index]] for index in range(len(wanted))]


def _pixel_rescaling(
    first: Mapping[str, Any], other: Mapping[str, Any], number: int
) -> tuple[Tensor | None, Tensor | None]:
    """From pixel values of the first processor to those of another: scale and shift (3, 1, 1)."""
    differing = [
        name
        for name in sorted({*first, *other} - {*IGNORED_PROCESSOR_FIELDS})
        if (first.get(name) or None) != (other.get(name) or None)
    ]
    if differing:
        told = "; ".join(f"{name} {other.get(name)}, not {first.get(name)}" for name in differing[:3])
        raise UsageError(
            f"model {number} reads images otherwise than model 1 ({told}): only mean and standard deviation may differ."
        )
    mean, std, own_mean, own_std = (
        torch.tensor(values[name], dtype=torch.float64).view(3, 1, 1)
        for values in (first, other)
        for name in NORMALIZATION_FIELDS
    )
    if torch.equal(mean, own_mean) and torch.equal(std, own_std):
        return None, None
    return (std / own_std).float(), ((mean - own_mean) / own_std).float()
