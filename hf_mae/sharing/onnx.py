"""ONNX export in float32 and int8, and comparison with PyTorch."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..compat.transformers import StockModel
from ..evaluation.metrics import classification_scores
from ..models.introspection import NUM_CHANNELS, input_size

TOLERANCE = 1e-4  # of the float32 logits
NUM_RANDOM_IMAGES = 4
ONNX_DIR = "onnx"  # next to config.json, as transformers.js expects
FLOAT32, INT8 = f"{ONNX_DIR}/model.onnx", f"{ONNX_DIR}/model_quantized.onnx"
EXAMPLE_SCRIPT = Path(__file__).parent / "onnx_example.py"


class _LogitsOnly(nn.Module):
    """A classifier that returns only the logits."""

    def __init__(self, model: StockModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits


def export_to_onnx(model: StockModel, path: Path) -> None:
    """Writes ONNX: `pixel_values` (batch, 3, height, width) float32 -> `logits` (batch, classes), for any batch size.

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
        external_data=sum(p.nbytes for p in model.parameters()) > 1.8e9,  # protocol buffers are limited to 2 GB
        verbose=False,
        dynamo=True,
    )
    _remove_metadata(path)


def _remove_metadata(path: Path) -> None:
    """Removes the stack traces of the export, which contain paths of this machine."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    graphs = [model.graph, *model.functions]
    for part in [model, *graphs, *(node for graph in graphs for node in graph.node)]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    path.write_bytes(model.SerializeToString())


def quantize_to_int8(source: Path, destination: Path) -> None:
    """Quantizes weights to int8, with one scale per output channel; activations are quantized dynamically."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().disabled = True  # it recommends its preprocessing, which has no effect on these models
    try:
        quantize_dynamic(source, destination, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.getLogger().disabled = False


def create_session(path: Path):
    """Creates an onnxruntime session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def compute_onnx_logits(onnx_session, batches: list[np.ndarray]) -> np.ndarray:
    """Computes the logits (images, classes)."""
    return np.concatenate([onnx_session.run(["logits"], {"pixel_values": batch})[0] for batch in batches])


def compare_logits(
    logits: np.ndarray, expected: np.ndarray, labels: np.ndarray | None, names: list[str]
) -> dict[str, float]:
    """Compares the logits of an exported model with those of PyTorch."""
    results = {
        "largest_difference": float(np.abs(logits - expected).max()),
        "agreement": float((logits.argmax(-1) == expected.argmax(-1)).mean()),
    }
    if labels is not None:
        results["accuracy"] = classification_scores(logits.argmax(-1), labels, names)["accuracy"]
    return results
