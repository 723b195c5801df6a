"""Saliency maps of a classifier as images: Grad-CAM."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from ..evaluation.metrics import softmax
from ..inference.saliency import grad_cam
from .figures.style import PlainTextFigure, save_figure, truncate_text

GRAD_CAM = "Grad-CAM"
COLORMAP = "viridis"
OPACITY = 0.45


def overlay_heatmap(image: Image.Image, relevance: np.ndarray) -> Image.Image:
    """Blends an image with a saliency map (grid, grid), from 0 (violet) to 1 (yellow)."""
    grey = Image.fromarray((255 * relevance).round().astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    colours = Image.fromarray((255 * colormaps[COLORMAP](np.asarray(grey))[..., :3]).round().astype(np.uint8))
    return Image.blend(image.convert("RGB"), colours, OPACITY)


def denormalize_image(processor: Any, pixel_values: Tensor) -> Image.Image:
    """Converts the input of the model (3, height, width), after preprocessing, to an image."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    pixels = (pixel_values.cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    return Image.fromarray((255 * pixels).round().astype(np.uint8))


@dataclass
class Explanation:
    """An image with its saliency map and prediction.

    Args:
        image: the input of the model.
        target: the class that Grad-CAM explains.
        label: the true class, if it is known.
    """

    name: str
    image: Image.Image
    grad_cam: Image.Image
    prediction: str
    score: float
    target: str
    label: str | None = None


def explain_batch(
    model: Any, processor: Any, pixel_values: Tensor, names: list[str], target: str | None = None
) -> list[Explanation]:
    """Explains a batch.

    Args:
        model: a stock ViT or BEiT classifier in evaluation mode.
        pixel_values: output of the processor, (batch, 3, height, width).
        target: class that Grad-CAM explains; None: the predicted class of each image.
    """
    pixel_values = pixel_values.to(model.device)
    with torch.no_grad():
        scores = softmax(model(pixel_values=pixel_values).logits.float().cpu().numpy())
    best = scores.argmax(-1)
    targets = best if target is None else np.full(len(best), model.config.label2id[target])
    maps = grad_cam(model, pixel_values, torch.as_tensor(targets, device=model.device)).cpu().numpy()
    explanations = []
    for index, relevance in enumerate(maps):
        image = denormalize_image(processor, pixel_values[index])
        explanations.append(
            Explanation(
                name=names[index],
                image=image,
                grad_cam=overlay_heatmap(image, relevance),
                prediction=model.config.id2label[int(best[index])],
                score=float(scores[index, best[index]]),
                target=model.config.id2label[int(targets[index])],
            )
        )
    return explanations


def write_explanation_sheet(rows: list[tuple[str, list[Explanation]]], path: Path, title: str) -> None:
    """Writes a sheet with one row of images per heading; each image is followed by its Grad-CAM."""
    columns = 2 * max(len(explanations) for _, explanations in rows)
    figure = PlainTextFigure(figsize=(1.5 * columns, 1.85 * len(rows) + 0.6))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (heading, explanations) in zip(grid, rows):
        line[0].text(-0.06, 0.5, heading, transform=line[0].transAxes, rotation=90, ha="right", va="center", fontsize=9)
        for index, entry in enumerate(explanations):
            panels = line[2 * index : 2 * index + 2]
            for axes, image in zip(panels, (entry.image, entry.grad_cam)):
                axes.imshow(image)
            panels[0].set_title(truncate_text(Path(entry.name).name, 22), fontsize=6, loc="left")
            explained = "" if entry.target == entry.prediction else f"\n{GRAD_CAM}: {entry.target}"
            panels[1].set_title(f"{entry.prediction} {entry.score:.2f}{explained}", fontsize=6)
    figure.suptitle(f"{title}\nimage, {GRAD_CAM}", fontsize=10)
    figure.tight_layout()
    save_figure(figure, path, dpi=110)
