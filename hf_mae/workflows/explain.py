"""`explain`: saliency maps of images, and of the most confident mistakes of a classifier."""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..compat.accelerate import create_inference_accelerator
from ..data.images.torch_datasets import EvalDataset
from ..data.sources.predict_inputs import estimate_total, find_input_paths, iter_inputs, iter_pixel_values
from ..data.sources.split_loading import load_splits
from ..data.splits import get_split
from ..errors import UsageError
from ..evaluation.metrics import softmax
from ..files.atomic import write_image
from ..inference.forward import predict_logits
from ..models.ensemble import Ensemble, read_ensemble_members
from ..models.introspection import get_network, is_vit
from ..models.loading import class_names, load_classifier
from ..reporting.explanations import Explanation, explain_batch, write_explanation_sheet
from ..settings.evaluation import ExplainArguments
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage

COLUMNS, ROWS = 3, 4  # of a contact sheet


@dataclass
class Explanations:
    """Result of `explain`.

    Args:
        num_explained: number of images with overlay files.
        sheets: number of contact sheets with these images.
        errors: images that cannot be read, with the reason.
        mistakes: number of mistakes on the contact sheet `mistakes_sheet`; None: no dataset was given.
        classes: number of true classes of these mistakes.
        images: number of images in the split.
    """

    folder: Path
    num_explained: int = 0
    sheets: int = 0
    errors: list[str] = field(default_factory=list)
    mistakes: int | None = None
    classes: int = 0
    images: int = 0
    mistakes_sheet: Path | None = None


@command("explain")
def explain(settings: Settings) -> Explanations:
    """Draws saliency maps of a classifier."""
    options = settings.options
    model, processor = load_classifier(options.model_name_or_path)
    if isinstance(model, Ensemble):
        folder = Path(str(options.model_name_or_path))
        raise UsageError(
            WorkflowMessage.EXPLAIN_ENSEMBLE,
            ensemble=folder,
            member=folder / read_ensemble_members(folder)[0].folder,
        )
    if not is_vit(model.config):
        raise UsageError(WorkflowMessage.EXPLAIN_NEEDS_VIT, source=options.model_name_or_path, model=get_network(model))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if options.target is not None and options.target not in model.config.label2id:
        raise UsageError(
            WorkflowMessage.UNKNOWN_TARGET,
            target=options.target,
            model=options.model_name_or_path,
            classes=list(model.config.label2id),
        )
    result = Explanations(Path(options.output_dir))
    result.folder.mkdir(parents=True, exist_ok=True)
    if options.images:
        _explain_images(model, processor, options, result)
    if options.data_dir:
        _explain_mistakes(model, processor, options, result)
    return result


def _explain_images(model: Any, processor: Any, options: ExplainArguments, result: Explanations) -> None:
    """Writes overlays of each image, and contact sheets of all images."""
    explanations: list[Explanation] = []
    paths = find_input_paths(options.images or [], include_videos=True)
    bar = tqdm(
        iter_pixel_values(iter_inputs(paths), processor, options.fps, options.preprocessing_num_workers or 1),
        total=estimate_total(paths, options.fps),
        desc="Explaining",
        unit="image",
        delay=1,
    )
    images = iter(bar)
    while prepared := list(islice(images, options.batch_size)):
        result.errors += [f"{path}: {tensor}" for path, tensor in prepared if isinstance(tensor, str)]
        readable = [(path, tensor) for path, tensor in prepared if not isinstance(tensor, str)]
        if readable:
            tensors = torch.stack([tensor for _, tensor in readable])
            explanations += explain_batch(model, processor, tensors, [path for path, _ in readable], options.target)
    for number, explanation in enumerate(explanations, 1):
        name = f"{number:04d}_{Path(explanation.name).stem[:50]}"  # a file name may have 255 bytes
        write_image(result.folder / f"{name}_grad_cam.png", explanation.grad_cam)
    per_page = COLUMNS * ROWS
    pages = [explanations[start : start + per_page] for start in range(0, len(explanations), per_page)]
    for number, page in enumerate(pages, 1):
        rows = [("", page[start : start + COLUMNS]) for start in range(0, len(page), COLUMNS)]
        write_explanation_sheet(
            rows, result.folder / f"images_{number}.png", Path(str(options.model_name_or_path)).name
        )
    result.num_explained, result.sheets = len(explanations), len(pages)


def _explain_mistakes(model: Any, processor: Any, options: ExplainArguments, result: Explanations) -> None:
    """Writes `mistakes_<split>.png`, the most confident mistakes of each true class."""
    names = class_names(model)
    splits = load_splits(options, 0, label_names=names)
    images = EvalDataset(
        get_split(splits, options.split, options.data_dir), processor, num_workers=options.preprocessing_num_workers
    )
    logits = predict_logits(model, images, create_inference_accelerator(bf16=False), options.batch_size)
    mistakes = confident_mistakes(softmax(logits), images.labels, options.mistakes_per_class)
    result.images, result.mistakes = len(images), 0
    if not mistakes:
        return
    rows: list[tuple[str, list[Explanation]]] = []
    for label, indices in mistakes.items():
        tensors = torch.stack([images[index]["pixel_values"] for index in indices])
        files = [images.file_names[index] for index in indices]
        rows.append((f"true: {names[label]}", explain_batch(model, processor, tensors, files, options.target)))
    result.mistakes_sheet = result.folder / f"mistakes_{options.split}.png"
    title = f"{options.split}: the most confident mistakes of each true class"
    write_explanation_sheet(rows, result.mistakes_sheet, title)
    result.mistakes, result.classes = sum(len(row) for _, row in rows), len(rows)


def confident_mistakes(scores: np.ndarray, labels: np.ndarray, per_class: int) -> dict[int, list[int]]:
    """Indices of the misclassified images with the highest scores, by true class, highest score first.

    Args:
        scores: (images, classes).
        labels: class ids (images,).
        per_class: maximum number of images per true class.
    """
    predicted = scores.argmax(-1)
    wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")]
    return {int(label): order[labels[order] == label][:per_class].tolist() for label in np.unique(labels[wrong])}
