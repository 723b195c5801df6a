"""`export-onnx`: exports a fine-tuned model to ONNX in float32 and int8, and compares it with PyTorch."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.images.processors import to_transformers_processor
from ..data.images.torch_datasets import EvalDataset, collate
from ..data.sources.split_loading import load_splits
from ..data.splits import get_split
from ..errors import CommandLineError, UsageError
from ..evaluation.metrics import classification_scores
from ..files.atomic import atomic_write_dir, write_json, write_text
from ..models.introspection import input_size
from ..models.loading import class_names, load_classifier
from ..reporting.model_card import licence_head
from ..runs.run_licences import licence_of_exported
from ..settings.export_onnx import OnnxArguments
from ..settings.parse import Settings
from ..sharing import onnx
from ..sharing.image_reader import write_image_reader
from .command import command
from .messages import WorkflowMessage


@dataclass(frozen=True)
class OnnxExport:
    """Result of an export: the comparison with PyTorch, and the size of each file in MB."""

    check_results: dict[str, Any]
    sizes_mb: dict[str, float]
    folder: str


@dataclass(frozen=True)
class _CheckImages:
    """Images for the comparison: batches (images, 3, height, width) float32, class ids, and their source."""

    batches: list[np.ndarray]
    labels: np.ndarray | None
    data_dir: str | None = None
    split: str | None = None


@command("export-onnx")
def export_onnx(settings: Settings) -> OnnxExport:
    """Exports a fine-tuned model."""
    options = settings.options
    try:
        import onnx as _onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(WorkflowMessage.PACKAGE_NOT_INSTALLED, package=error.name, extra="onnx") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model, processor = load_classifier(options.model_name_or_path)
    images = _load_check_images(options, model, processor)
    if options.output_dir is None:
        return _export_into_run(options, model, images)
    with atomic_write_dir(options.output_dir, options.overwrite) as folder:
        check_results = _export_and_check(model, images, folder, options.int8)
        model.config.save_pretrained(folder)
        to_transformers_processor(processor).save_pretrained(folder)
        shutil.copy(onnx.EXAMPLE_SCRIPT, folder / "example.py")
        write_image_reader(folder)
        _write_check(check_results, folder)
        if licence := licence_of_exported([str(options.model_name_or_path)]):
            write_text(folder / "README.md", licence_head(licence))
        return OnnxExport(check_results, _get_file_sizes_mb(folder), str(options.output_dir))


def _export_into_run(options: OnnxArguments, model: Any, images: _CheckImages) -> OnnxExport:
    """Exports into the folder of the run, which contains the configuration and the image processor."""
    run = Path(options.model_name_or_path or "")
    if not (run / "config.json").is_file():
        raise CommandLineError(WorkflowMessage.ONNX_NEEDS_RUN_FOLDER, model=run)
    if not (run / "preprocessor_config.json").is_file():
        raise CommandLineError(WorkflowMessage.ONNX_NEEDS_OUTPUT_DIR, model=run)
    with atomic_write_dir(run / onnx.ONNX_DIR, options.overwrite) as folder:
        check_results = _export_and_check(model, images, folder, options.int8)
        for path in list((folder / onnx.ONNX_DIR).iterdir()):
            path.rename(folder / path.name)
        (folder / onnx.ONNX_DIR).rmdir()
        _write_check(check_results, folder)
    return OnnxExport(check_results, _get_file_sizes_mb(run), str(run))


def _write_check(check_results: dict[str, Any], folder: Path) -> None:
    """Writes the comparison with PyTorch, which is published with the model, without the path of the images."""
    write_json(folder / "check.json", {name: value for name, value in check_results.items() if name != "data_dir"})


def _get_file_sizes_mb(folder: Path) -> dict[str, float]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size / 1e6
        for path in sorted((folder / onnx.ONNX_DIR).glob("*.onnx"))
    }


def _export_and_check(model: Any, images: _CheckImages, folder: Path, int8: bool) -> dict[str, Any]:
    """Writes the ONNX files, and compares their logits with those of PyTorch."""
    names = class_names(model)
    (folder / onnx.ONNX_DIR).mkdir(parents=True, exist_ok=True)
    onnx.export_to_onnx(model, folder / onnx.FLOAT32)
    with torch.inference_mode():
        logits = [model(pixel_values=torch.from_numpy(batch)).logits.numpy() for batch in images.batches]
    expected = np.concatenate(logits)

    def compare(file: str) -> dict[str, float]:
        onnx_logits = onnx.compute_onnx_logits(onnx.create_session(folder / file), images.batches)
        return onnx.compare_logits(onnx_logits, expected, images.labels, names)

    results: dict[str, Any] = {"images": len(expected), "data_dir": images.data_dir, "split": images.split}
    results["float32"] = compare(onnx.FLOAT32)
    difference = results["float32"]["largest_difference"]
    if not difference <= onnx.TOLERANCE:
        raise UsageError(WorkflowMessage.ONNX_LOGITS_DIFFER, difference=difference, tolerance=onnx.TOLERANCE)
    if int8:
        onnx.quantize_to_int8(folder / onnx.FLOAT32, folder / onnx.INT8)
        results["int8"] = compare(onnx.INT8)
    if images.labels is not None:
        scores = classification_scores(expected.argmax(-1), images.labels, names)
        results["pytorch"] = {"accuracy": scores["accuracy"]}
    return results


def _load_check_images(options: OnnxArguments, model: Any, processor: Any) -> _CheckImages:
    if not options.data_dir:
        size = input_size(model)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(onnx.NUM_RANDOM_IMAGES, 3, size, size, generator=generator)
        return _CheckImages([noise.numpy()], None)
    splits = load_splits(options, 0, label_names=class_names(model))
    images = EvalDataset(
        get_split(splits, options.split, options.data_dir), processor, num_workers=options.preprocessing_num_workers
    )
    loader = torch.utils.data.DataLoader(images, options.batch_size, collate_fn=collate)
    batches = [batch["pixel_values"].numpy() for batch in loader]
    return _CheckImages(batches, images.labels, str(options.data_dir), options.split)
