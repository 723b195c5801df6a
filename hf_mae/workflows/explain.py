"""`explain`: where a classifier looks, and its most confident mistakes."""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.predict_inputs import estimate_total, find_input_paths, iter_inputs, load_pixel_values
from ..data.split_loading import load_splits
from ..data.splits import get_split
from ..data.torch_datasets import EvalDataset, collate
from ..errors import CommandLineError, UsageError
from ..evaluation.mistakes import confident_mistakes
from ..evaluation.scores import softmax
from ..files.atomic import write_image
from ..models.ensemble import Ensemble, read_ensemble_members
from ..models.introspection import describe_model, is_vit
from ..models.loading import class_names, load_classifier
from ..reporting.explanations import Explanation, explain_batch, write_explanation_sheet
from ..settings.evaluation import ExplainArguments
from ..settings.parse import parse_settings

COLUMNS, ROWS = 3, 4  # images of a row, rows of a sheet


@dataclass
class Explanations:
    """What was drawn.

    Args:
        num_explained: images with overlays of their own.
        sheets: contact sheets of these.
        errors: images that cannot be read, with the reason.
        mistakes: mistakes on the sheet `mistakes_sheet`; None: no data set was given.
        classes: true classes among them.
        images: images of the split that was looked through.
    """

    folder: Path
    num_explained: int = 0
    sheets: int = 0
    errors: list[str] = field(default_factory=list)
    mistakes: int | None = None
    classes: int = 0
    images: int = 0
    mistakes_sheet: Path | None = None


def explain(*, recipe: str | None = None, **flags: Any) -> Explanations:
    """Draws where a classifier looks; `flags` are those of `hf-mae explain`."""
    (options,) = parse_settings("explain", recipe, **flags).arguments
    if not options.images and not options.data_dir:
        raise CommandLineError("name images to explain, or a --data_dir whose mistakes are shown.")
    try:
        import captum  # noqa: F401
    except ImportError:
        raise UsageError("explain needs a package that is not installed: pip install 'hf_mae[explain]'.") from None
    model, processor = load_classifier(options.model_name_or_path)
    if isinstance(model, Ensemble):
        raise UsageError(
            f"{options.model_name_or_path} is an ensemble, whose members look each for itself: explain one of them "
            f"({Path(str(options.model_name_or_path)) / read_ensemble_members(str(options.model_name_or_path))[0].folder})."
        )
    if not is_vit(model.config):
        raise UsageError(f"{options.model_name_or_path} is a {describe_model(model)}: explain is for ViTs.")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if options.target is not None and options.target not in model.config.label2id:
        known = ", ".join(model.config.label2id)
        raise UsageError(f"--target {options.target} is no class of {options.model_name_or_path}: {known}.")
    result = Explanations(Path(options.output_dir))
    result.folder.mkdir(parents=True, exist_ok=True)
    if options.images:
        _explain_images(model, processor, options, result)
    if options.data_dir:
        _explain_mistakes(model, processor, options, result)
    return result


def _explain_images(model: Any, processor: Any, options: ExplainArguments, result: Explanations) -> None:
    """Overlays of every image, and sheets of all."""
    found: list[Explanation] = []
    paths = find_input_paths(options.images or [], include_videos=True)
    bar = tqdm(
        iter_inputs(paths, options.fps, set()),
        total=estimate_total(paths, options.fps),
        desc="Explaining",
        unit="image",
        delay=1,
    )
    images = iter(bar)
    while batch := list(islice(images, options.batch_size)):
        prepared = [(name, load_pixel_values(name, opener, processor)) for name, opener in batch]
        result.errors += [f"{path}: {tensor}" for path, tensor in prepared if isinstance(tensor, str)]
        good = [(path, tensor) for path, tensor in prepared if not isinstance(tensor, str)]
        if good:
            tensors = torch.stack([tensor for _, tensor in good])
            found += explain_batch(model, processor, tensors, [path for path, _ in good], options.target)
    for number, entry in enumerate(found, 1):
        name = f"{number:04d}_{Path(entry.name).stem[:50]}"  # a name may have 255 bytes
        write_image(result.folder / f"{name}_rollout.png", entry.rollout)
        write_image(result.folder / f"{name}_grad_cam.png", entry.grad_cam)
    per_page = COLUMNS * ROWS
    pages = [found[start : start + per_page] for start in range(0, len(found), per_page)]
    for number, page in enumerate(pages, 1):
        rows = [("", page[start : start + COLUMNS]) for start in range(0, len(page), COLUMNS)]
        write_explanation_sheet(
            rows, result.folder / f"images_{number}.png", Path(str(options.model_name_or_path)).name
        )
    result.num_explained, result.sheets = len(found), len(pages)


def _explain_mistakes(model: Any, processor: Any, options: ExplainArguments, result: Explanations) -> None:
    """`mistakes_<split>.png`: of every true class the images that are most confidently taken for another."""
    names = class_names(model)
    splits = load_splits(options, 0, label_names=names)
    images = EvalDataset(
        get_split(splits, options.split, options.data_dir), processor, num_workers=options.preprocessing_num_workers
    )
    scores = softmax(_predict_logits(model, images, options))
    assert images.labels is not None
    mistakes = confident_mistakes(scores, images.labels, options.mistakes_per_class)
    result.images, result.mistakes = len(images), 0
    if not mistakes:
        return
    rows: list[tuple[str, list[Explanation]]] = []
    for label, chosen in mistakes.items():
        tensors = torch.stack([images[index]["pixel_values"] for index in chosen])
        files = [images.file_names[index] for index in chosen]
        rows.append((f"true: {names[label]}", explain_batch(model, processor, tensors, files, options.target)))
    result.mistakes_sheet = result.folder / f"mistakes_{options.split}.png"
    title = f"{options.split}: the most confident mistakes of each true class"
    write_explanation_sheet(rows, result.mistakes_sheet, title)
    result.mistakes, result.classes = sum(len(found) for _, found in rows), len(rows)


@torch.inference_mode()
def _predict_logits(model: Any, images: EvalDataset, options: ExplainArguments) -> np.ndarray:
    loader = torch.utils.data.DataLoader(images, options.batch_size, collate_fn=collate)
    bar = tqdm(loader, desc=f"Classifying {options.split}", unit="batch", delay=1)
    return np.concatenate(
        [model(pixel_values=batch["pixel_values"].to(model.device)).logits.float().cpu().numpy() for batch in bar]
    )
