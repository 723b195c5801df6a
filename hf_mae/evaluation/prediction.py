"""Top classes of images, batch by batch."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from typing import Any

from ..data.predict_inputs import load_pixel_values
from .calibration import IDENTITY_TEMPERATURE, Temperature
from .scores import softmax
from .uncertainty import Uncertainty, capture_features


def predict_files(
    model: Any,
    processor: Any,
    items: Iterable[tuple[str, Callable[[], Any]]],
    batch_size: int = 32,
    top_k: int = 5,
    num_workers: int = 2,
    *,
    temperature: Temperature = IDENTITY_TEMPERATURE,
    bf16: bool = False,
    uncertainty: Uncertainty | None = None,
    level: float | None = None,
    ood: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yields, in order, `{"file_name", "predictions": [{"label", "score"}, ...]}` or `{"file_name", "error"}`.

    With a `level`, also `set`: the names of the classes in the set of this level, the likeliest first; with `ood`
    also `outlier_p` (of `Outliers.p_values`) and `outlier` (whether the image is one).

    Args:
        model: a stock image classifier in evaluation mode, on the device to use.
        items: of `sources`.
        top_k: how many classes, best first.
        num_workers: threads that decode.
        temperature: what divides the logits.
        bf16: compute in bfloat16.
        uncertainty: what the model does not know, for `level` and `ood`.
    """
    import torch

    names = model.config.id2label
    top_k = min(top_k, model.config.num_labels)
    remaining = iter(items)
    kind = model.device.type
    looked_into = capture_features(model) if uncertainty is not None and ood else nullcontext(None)
    with ThreadPoolExecutor(num_workers) as pool, looked_into as features:
        ahead: list[tuple[list[str], list[Any]]] = []  # batches whose images are being decoded while the model works

        def submit() -> None:
            batch = list(islice(remaining, batch_size))
            if batch:
                prepared = [pool.submit(load_pixel_values, name, opener, processor) for name, opener in batch]
                ahead.append(([name for name, _ in batch], prepared))

        submit()
        while ahead:
            submit()
            batch, futures = ahead.pop(0)
            prepared = [future.result() for future in futures]
            good = [tensor for tensor in prepared if not isinstance(tensor, str)]
            if good:
                pixel_values = torch.stack(good).to(model.device, model.dtype, non_blocking=True)
                with torch.inference_mode(), torch.autocast(kind, torch.bfloat16) if bf16 else nullcontext():
                    logits = model(pixel_values=pixel_values).logits
                rows = map(
                    dict.__or__,
                    _top_k_predictions(logits, temperature, top_k, names),
                    _uncertainty_fields(uncertainty, logits, features, level, names),
                )
            for path, tensor in zip(batch, prepared):
                if isinstance(tensor, str):
                    yield {"file_name": path, "error": tensor}
                else:
                    yield {"file_name": path} | next(rows)


def _top_k_predictions(
    logits: Any, temperature: Temperature, top_k: int, names: dict[int, str]
) -> Iterator[dict[str, Any]]:
    """`predictions` of each image of a batch."""
    import torch

    divisor = torch.as_tensor(temperature.divisor(logits.argmax(-1).cpu().numpy())).to(logits.device, torch.float32)
    top = (logits.float() / divisor).softmax(-1).topk(top_k)
    for scores, ids in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        yield {"predictions": [{"label": names[i], "score": score} for i, score in zip(ids, scores, strict=True)]}


def _uncertainty_fields(
    uncertainty: Uncertainty | None,
    logits: Any,
    features: Callable[[], Any] | None,
    level: float | None,
    names: dict[int, str],
) -> list[dict[str, Any]]:
    """What is added to the row of each image of a batch."""
    found: list[dict[str, Any]] = [{} for _ in logits]
    if uncertainty is not None and level is not None:
        scores = softmax(logits.float().cpu().numpy())
        for row, order, held in zip(
            found, (-scores).argsort(1), uncertainty.conformal_sets.predict_sets(scores, level), strict=True
        ):
            row["set"] = [names[int(index)] for index in order if held[index]]
    if uncertainty is not None and uncertainty.ood is not None and features is not None:
        for row, value in zip(found, uncertainty.ood.p_values(features()), strict=True):
            row |= {"outlier_p": float(value), "outlier": bool(value <= uncertainty.ood.p_value_threshold)}
    return found
