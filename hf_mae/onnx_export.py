"""`hf-mae export-onnx`: a fine-tuned model for onnxruntime, in float32 and in int8, checked beside PyTorch."""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .arguments import DataSourceArguments
from .conversion.writing import whole_folder
from .errors import UsageError
from .metrics import classification_scores
from .recipe import parse
from .results import write_json
from .runs import set_up_logging

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of the float32 logits
RANDOM_IMAGES = 4
FLOAT32, INT8 = "model.onnx", "model_int8.onnx"
EXAMPLE = Path(__file__).parent / "onnx_example.py"


@dataclass
class OnnxArguments(DataSourceArguments):
    """What is exported, and on which images it is checked."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "A fine-tuned model: a folder or a Hub id."})
    output_dir: str | None = field(
        default=None, metadata={"help": "A new folder for model.onnx and what goes with it."}
    )
    int8: bool = field(
        default=False, metadata={"help": "Weights in int8 too (dynamic quantisation).", "nargs": "?", "const": True}
    )
    split: str = field(default="validation", metadata={"help": "Of data_dir, on which the exported model is checked."})
    overwrite: bool = field(default=False, metadata={"help": "Replace the folder.", "nargs": "?", "const": True})
    batch_size: int = field(default=16, metadata={"help": "Images per forward pass of the check."})


class _Logits(nn.Module):
    """A classifier that gives its logits alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits


def export(model: nn.Module, path: Path) -> None:
    """Writes ONNX: `pixel_values` (batch, 3, height, width) float32 -> `logits` (batch, classes), for any batch.

    Args:
        model: a stock classifier in evaluation mode, in float32.
    """
    size = model.config.image_size
    torch.onnx.export(
        _Logits(model).eval(),
        (torch.zeros(2, model.config.num_channels, size, size),),
        path,
        input_names=["pixel_values"],
        output_names=["logits"],
        dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
        external_data=sum(p.nbytes for p in model.parameters()) > 1.8e9,  # a protocol buffer holds 2 GB at most
        verbose=False,
        dynamo=True,
    )


def quantize(source: Path, destination: Path) -> None:
    """Weights in int8, one scale for each output channel; activations are scaled as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().disabled = True  # it advises on its own preprocessing, which makes no difference here
    try:
        quantize_dynamic(source, destination, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.getLogger().disabled = False


def session(path: Path):
    """An onnxruntime session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def logits_of(onnx_session, batches: list[np.ndarray]) -> np.ndarray:
    """Logits (images, classes)."""
    return np.concatenate([onnx_session.run(["logits"], {"pixel_values": batch})[0] for batch in batches])


def main(argv: list[str]) -> int:
    words = []
    while argv and not argv[0].startswith("-"):  # RUN and OUT may stand without flags
        words.append(argv.pop(0))
    for name, word in zip(("--model_name_or_path", "--output_dir"), words):
        argv = [name, word, *argv]
    (options,), _ = parse(
        "export-onnx",
        "RUN OUT: a fine-tuned model for onnxruntime, checked beside PyTorch.",
        [OnnxArguments],
        argv,
        required=("model_name_or_path", "output_dir"),
    )
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'hf_mae[onnx]'.") from None
    if options.int8 and not options.data_dir:
        raise UsageError("--int8 changes scores: pass --data_dir, so that what it costs is measured.")
    from .models import load_classifier

    set_up_logging(True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model, processor = load_classifier(options.model_name_or_path)
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    batches, labels, what = images_to_check_on(options, model, processor, names)
    with whole_folder(options.output_dir, options.overwrite) as folder:
        export(model, folder / FLOAT32)
        with torch.inference_mode():
            expected = np.concatenate([model(pixel_values=torch.from_numpy(batch)).logits.numpy() for batch in batches])
        checked = {"images": len(expected), "of": what}
        checked["float32"] = compare(logits_of(session(folder / FLOAT32), batches), expected, labels, names)
        difference = checked["float32"]["largest_difference"]
        if not difference <= TOLERANCE:
            raise UsageError(
                f"the exported model's logits differ from PyTorch's by {difference:.2g}, more than {TOLERANCE:g}: "
                "nothing was written. Please tell us, with the versions of torch and onnxruntime."
            )
        if options.int8:
            quantize(folder / FLOAT32, folder / INT8)
            checked["int8"] = compare(logits_of(session(folder / INT8), batches), expected, labels, names)
        if labels is not None:
            checked["pytorch"] = {"accuracy": classification_scores(expected.argmax(-1), labels, names)["accuracy"]}
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)
        shutil.copy(EXAMPLE, folder / "example.py")
        write_json(folder / "check.json", checked)
        sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(folder.glob("*.onnx"))}
    print(report(checked, sizes))
    print(f"The ONNX model, its labels, and example.py, which uses it without torch, are in {options.output_dir}")
    return 0


def images_to_check_on(options: OnnxArguments, model, processor, names: list[str]):
    """Batches (images, 3, height, width) float32, class ids or None, and what images they are."""
    if not options.data_dir:
        size = model.config.image_size
        noise = torch.randn(RANDOM_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
        return [noise.numpy()], None, "random noise (pass --data_dir to check on images)"
    from .data import EvaluationImages, load_splits
    from .data.images import collate

    splits = load_splits(options, 0, label_names=names)
    if options.split not in splits:
        raise UsageError(f"{options.data_dir} has no split {options.split}; it has {', '.join(splits)}.")
    images = EvaluationImages(splits[options.split], processor, num_workers=options.preprocessing_num_workers)
    loader = torch.utils.data.DataLoader(images, options.batch_size, collate_fn=collate)
    return [batch["pixel_values"].numpy() for batch in loader], images.labels, f"{options.data_dir}, {options.split}"


def compare(logits: np.ndarray, expected: np.ndarray, labels: np.ndarray | None, names: list[str]) -> dict[str, float]:
    """How an exported model's logits compare with PyTorch's."""
    found = {
        "largest_difference": float(np.abs(logits - expected).max()),
        "agreement": float((logits.argmax(-1) == expected.argmax(-1)).mean()),
    }
    if labels is not None:
        found["accuracy"] = classification_scores(logits.argmax(-1), labels, names)["accuracy"]
    return found


def report(checked: dict, sizes: dict[str, float]) -> str:
    lines = [f"Checked on {checked['images']} images ({checked['of']}):"]
    for kind, file in (("float32", FLOAT32), ("int8", INT8)):
        if kind in checked:
            row = checked[kind]
            accuracy = f", accuracy {100 * row['accuracy']:.2f} %" if "accuracy" in row else ""
            lines.append(
                f"  {file:16} {sizes[file]:8.1f} MB  largest difference of a logit {row['largest_difference']:.2g}, "
                f"same class {100 * row['agreement']:.2f} %{accuracy}"
            )
    if "pytorch" in checked:
        lines.append(f"  {'PyTorch':28}  accuracy {100 * checked['pytorch']['accuracy']:.2f} %")
    return "\n".join(lines)
