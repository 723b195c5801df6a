"""The top classes of images, in a stream without labels; `forward.predict_logits` gives the logits of a dataset."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch

from ..evaluation.calibration import IDENTITY_TEMPERATURE, Temperature
from ..evaluation.metrics import softmax
from .uncertainty import Uncertainty, capture_features


def predict_files(
    model: Any,
    items: Iterable[tuple[str, Any]],
    batch_size: int = 32,
    top_k: int = 5,
    *,
    temperature: Temperature = IDENTITY_TEMPERATURE,
    bf16: bool = False,
    uncertainty: Uncertainty | None = None,
    level: float | None = None,
    ood: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yields, in order, `{"file_name", "predictions": [{"label", "score"}, ...]}` or `{"file_name", "error"}`.

    With a `level`, rows also have `prediction_set`: the class names in the conformal set, highest score first. With
    `ood`, they have `ood_p_value` and `ood` (whether the image is out of distribution).

    Args:
        model: a stock image classifier in evaluation mode, on the device to use.
        items: from `predict_inputs.iter_pixel_values`.
        top_k: number of classes per image, best first.
        temperature: divisor of the logits.
        uncertainty: required by `level` and `ood`.
    """
    names = model.config.id2label
    top_k = min(top_k, model.config.num_labels)
    remaining = iter(items)
    device_type = model.device.type
    capture = capture_features(model) if uncertainty is not None and ood else nullcontext(None)
    with capture as get_features:
        while batch := list(islice(remaining, batch_size)):
            tensors = [values for _, values in batch if not isinstance(values, str)]
            if tensors:
                pixel_values = torch.stack(tensors).to(model.device, model.dtype, non_blocking=True)
                with torch.inference_mode(), torch.autocast(device_type, torch.bfloat16) if bf16 else nullcontext():
                    logits = model(pixel_values=pixel_values).logits
                rows = map(
                    dict.__or__,
                    _top_k_predictions(logits, temperature, top_k, names),
                    _uncertainty_fields(uncertainty, logits, get_features, level, names),
                )
            for name, values in batch:
                if isinstance(values, str):  # the reason why the image cannot be read
                    yield {"file_name": name, "error": values}
                else:
                    yield {"file_name": name} | next(rows)


def _top_k_predictions(
    logits: Any, temperature: Temperature, top_k: int, names: dict[int, str]
) -> Iterator[dict[str, Any]]:
    """Yields `predictions` of each image of a batch."""
    divisor = torch.as_tensor(temperature.divisor(logits.argmax(-1).cpu().numpy())).to(logits.device, torch.float32)
    top = (logits.float() / divisor).softmax(-1).topk(top_k)
    for scores, ids in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        yield {"predictions": [{"label": names[i], "score": score} for i, score in zip(ids, scores, strict=True)]}


def _uncertainty_fields(
    uncertainty: Uncertainty | None,
    logits: Any,
    get_features: Callable[[], Any] | None,
    level: float | None,
    names: dict[int, str],
) -> list[dict[str, Any]]:
    """Returns the prediction set and out-of-distribution fields of each image of a batch."""
    rows: list[dict[str, Any]] = [{} for _ in logits]
    if uncertainty is not None and level is not None:
        scores = softmax(logits.float().cpu().numpy())
        sets = uncertainty.conformal_sets.predict_sets(scores, level)
        for row, order, members in zip(rows, (-scores).argsort(1), sets, strict=True):
            row["prediction_set"] = [names[int(index)] for index in order if members[index]]
    if uncertainty is not None and uncertainty.ood is not None and get_features is not None:
        for row, p_value in zip(rows, uncertainty.ood.p_values(get_features()), strict=True):
            row |= {"ood_p_value": float(p_value), "ood": bool(p_value <= uncertainty.ood.p_value_threshold)}
    return rows
