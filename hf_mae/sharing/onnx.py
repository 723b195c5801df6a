"""A fine-tuned model for onnxruntime, in float32 and in int8, compared with PyTorch."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..compat.transformers import StockModel
from ..evaluation.metrics import classification_scores
from ..models.introspection import NUM_CHANNELS, input_size

TOLERANCE = 1e-4  # of the float32 logits
NUM_RANDOM_IMAGES = 4
ONNX_DIR = "onnx"  # where transformers.js looks for them, beside config.json
FLOAT32, INT8 = f"{ONNX_DIR}/model.onnx", f"{ONNX_DIR}/model_quantized.onnx"
EXAMPLE_SCRIPT = Path(__file__).parent / "onnx_example.py"


class _LogitsOnly(nn.Module):
    """A classifier that gives its logits alone."""

    def __init__(self, model: StockModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits


def export_to_onnx(model: StockModel, path: Path) -> None:
    """Writes ONNX: `pixel_values` (batch, 3, height, width) float32 -> `logits` (batch, classes), for any batch.

    Args:
        model: a stock classifier in evaluation mode, in float32.
    """
    size = input_size(model)
    torch.onnx.export(
        _LogitsOnly(model).eval(),
        (torch.zeros(2, NUM_CHANNELS, size, size),),
        path,
        input_names=["pixel_values"],
        output_names=["logits"],
        dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
        external_data=sum(p.nbytes for p in model.parameters()) > 1.8e9,  # a protocol buffer holds 2 GB at most
        verbose=False,
        dynamo=True,
    )


def quantize_to_int8(source: Path, destination: Path) -> None:
    """Weights in int8, one scale for each output channel; activations are scaled as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().disabled = True  # it advises on its own preprocessing, which makes no difference here
    try:
        quantize_dynamic(source, destination, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.getLogger().disabled = False


def create_session(path: Path):
    """An onnxruntime session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def compute_onnx_logits(onnx_session, batches: list[np.ndarray]) -> np.ndarray:
    """Logits (images, classes)."""
    return np.concatenate([onnx_session.run(["logits"], {"pixel_values": batch})[0] for batch in batches])


def compare_logits(
    logits: np.ndarray, expected: np.ndarray, labels: np.ndarray | None, names: list[str]
) -> dict[str, float]:
    """How an exported model's logits compare with PyTorch's."""
    found = {
        "largest_difference": float(np.abs(logits - expected).max()),
        "agreement": float((logits.argmax(-1) == expected.argmax(-1)).mean()),
    }
    if labels is not None:
        found["accuracy"] = classification_scores(logits.argmax(-1), labels, names)["accuracy"]
    return found


def format_onnx_report(check_results: dict[str, Any], sizes_mb: dict[str, float]) -> str:
    """What the check found, a few lines."""
    lines = [f"Checked on {check_results['images']} images ({check_results['of']}):"]
    for kind, file in (("float32", FLOAT32), ("int8", INT8)):
        if kind in check_results:
            row = check_results[kind]
            accuracy = f", accuracy {100 * row['accuracy']:.2f} %" if "accuracy" in row else ""
            lines.append(
                f"  {file:16} {sizes_mb[file]:8.1f} MB  largest difference of a logit {row['largest_difference']:.2g}, "
                f"same class {100 * row['agreement']:.2f} %{accuracy}"
            )
    if "pytorch" in check_results:
        lines.append(f"  {'PyTorch':28}  accuracy {100 * check_results['pytorch']['accuracy']:.2f} %")
    return "\n".join(lines)
