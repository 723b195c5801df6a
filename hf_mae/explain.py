"""`hf-mae explain`: where a classifier looks (attention rollout, Grad-CAM), and its most confident mistakes."""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from .arguments import DataSourceArguments
from .errors import UsageError
from .recipe import parse
from .results import softmax
from .runs import set_up_logging

logger = logging.getLogger(__name__)

ROLLOUT, GRAD_CAM = "attention rollout", "Grad-CAM"
COLOURS = "jet"
OPACITY = 0.45


@dataclass
class ExplainArguments(DataSourceArguments):
    """What is explained."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "A fine-tuned model: a folder or a Hub id."})
    images: list[str] | None = field(default=None, metadata={"help": "Image files, folders and globs to look at."})
    split: str = field(default="validation", metadata={"help": "Of data_dir, whose mistakes are shown."})
    output_dir: str | None = field(default=None, metadata={"help": "Where the pictures go."})
    target: str | None = field(
        default=None, metadata={"help": "Class that Grad-CAM explains. Not given: the predicted one of each image."}
    )
    mistakes_per_class: int = field(default=4, metadata={"help": "Most confident mistakes of each true class."})
    batch_size: int = field(default=16, metadata={"help": "Images per forward pass."})


def pools_patches(model: nn.Module) -> bool:
    """Whether the classifier reads the mean of the patch tokens, rather than the class token."""
    return bool(getattr(model.config, "use_mean_pooling", False))


@torch.no_grad()
def attention_rollout(model: nn.Module, pixel_values: Tensor) -> Tensor:
    """How much each patch reaches what is classified through the attention of all blocks (Abnar and Zuidema 2020).

    Args:
        model: a stock ViT or BEiT classifier in evaluation mode.
        pixel_values: (batch, 3, height, width).

    Returns:
        (batch, grid, grid), each image's from 0 to 1.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the only one that gives its attention away
    try:
        attentions = model(pixel_values=pixel_values, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)
    rolled = None
    for attention in attentions:
        mixed = attention.float().mean(1)
        mixed = 0.5 * mixed + 0.5 * torch.eye(mixed.shape[-1], device=mixed.device)  # the residual connection
        rolled = mixed if rolled is None else mixed @ rolled
    read = rolled[:, 1:].mean(1) if pools_patches(model) else rolled[:, 0]
    return _from_0_to_1(_as_grid(read[:, 1:]))


class _AsMap(nn.Module):
    """Tokens (batch, 1 + patches, width) -> a map (batch, width, grid, grid), as Grad-CAM knows them, and the rest."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        side = math.isqrt(tokens.shape[1] - 1)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side)), tokens[:, :1]


class _AsTokens(nn.Module):
    """The way back."""

    def forward(self, parts: tuple[Tensor, Tensor]) -> Tensor:
        patches, first = parts
        return torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)


def grad_cam(model: nn.Module, pixel_values: Tensor, targets: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) of captum, on what the last block's attention reads.

    Behind that attention the patches no longer reach a class token, so that they would have no gradient there.

    Args:
        model, pixel_values: as of `attention_rollout`.
        targets: class ids (batch,) that are explained.

    Returns:
        (batch, grid, grid), each image's from 0 to 1.
    """
    from captum.attr import LayerGradCam

    block = model.base_model.layers[-1]
    norm, as_map = block.layernorm_before, _AsMap()
    block.layernorm_before = nn.Sequential(norm, as_map, _AsTokens())
    try:
        cam = LayerGradCam(lambda values: model(pixel_values=values).logits, as_map)
        relevance = cam.attribute(pixel_values, targets, relu_attributions=True)[0]
    finally:
        block.layernorm_before = norm
    return _from_0_to_1(relevance[:, 0].detach().float())


def _as_grid(patches: Tensor) -> Tensor:
    side = math.isqrt(patches.shape[-1])
    return patches.unflatten(-1, (side, side))


def _from_0_to_1(maps: Tensor) -> Tensor:
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)


def overlay(image: Image.Image, relevance: np.ndarray) -> Image.Image:
    """The image under the colours of a map (grid, grid) from 0 (blue) to 1 (red)."""
    grey = Image.fromarray((255 * relevance).round().astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    colours = Image.fromarray((255 * colormaps[COLOURS](np.asarray(grey))[..., :3]).round().astype(np.uint8))
    return Image.blend(image.convert("RGB"), colours, OPACITY)


def seen_by(processor, pixel_values: Tensor) -> Image.Image:
    """The image (3, height, width) as the model gets it, turned and cut and resized, as a picture."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    pixels = (pixel_values.cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    return Image.fromarray((255 * pixels).round().astype(np.uint8))


@dataclass
class Explained:
    """An image with what the model makes of it."""

    name: str
    image: Image.Image
    rollout: Image.Image
    grad_cam: Image.Image
    prediction: str
    score: float
    target: str  # the class that Grad-CAM explains
    label: str | None = None


def explain(model, processor, pixel_values: Tensor, names: list[str], target: str | None = None) -> list[Explained]:
    """Explains a batch.

    Args:
        model: a stock ViT or BEiT classifier in evaluation mode.
        pixel_values: (batch, 3, height, width), of `processor`.
        names: of the images.
        target: class that Grad-CAM explains; None: each image's predicted one.
    """
    pixel_values = pixel_values.to(model.device)
    with torch.no_grad():
        scores = softmax(model(pixel_values=pixel_values).logits.float().cpu().numpy())
    best = scores.argmax(-1)
    targets = best if target is None else np.full(len(best), model.config.label2id[target])
    maps = zip(
        attention_rollout(model, pixel_values).cpu().numpy(),
        grad_cam(model, pixel_values, torch.as_tensor(targets, device=model.device)).cpu().numpy(),
    )
    found = []
    for index, (rollout, relevance) in enumerate(maps):
        image = seen_by(processor, pixel_values[index])
        found.append(
            Explained(
                name=names[index],
                image=image,
                rollout=overlay(image, rollout),
                grad_cam=overlay(image, relevance),
                prediction=model.config.id2label[int(best[index])],
                score=float(scores[index, best[index]]),
                target=model.config.id2label[int(targets[index])],
            )
        )
    return found


def contact_sheet(rows: list[tuple[str, list[Explained]]], path: Path, title: str) -> None:
    """A row of images for each heading, each beside its rollout and its Grad-CAM.

    Args:
        rows: heading and images.
    """
    columns = 3 * max(len(found) for _, found in rows)
    figure = Figure(figsize=(1.5 * columns, 1.85 * len(rows) + 0.6))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (heading, found) in zip(grid, rows):
        line[0].text(-0.06, 0.5, heading, transform=line[0].transAxes, rotation=90, ha="right", va="center", fontsize=9)
        for place, entry in enumerate(found):
            panels = line[3 * place : 3 * place + 3]
            for axes, picture in zip(panels, (entry.image, entry.rollout, entry.grad_cam)):
                axes.imshow(picture)
            panels[0].set_title(_short(Path(entry.name).name), fontsize=6, loc="left")
            panels[1].set_title(f"{entry.prediction} {entry.score:.2f}", fontsize=7)
            panels[2].set_title(f"{GRAD_CAM}: {entry.target}", fontsize=6)
    figure.suptitle(f"{title}\nimage, {ROLLOUT}, {GRAD_CAM}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _short(text: str, length: int = 22) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def confident_mistakes(scores: np.ndarray, labels: np.ndarray, per_class: int) -> dict[int, list[int]]:
    """True class -> the images of it that are most confidently taken for another, surest first.

    Args:
        scores: (images, classes); labels: class ids (images,).
    """
    best = scores.argmax(-1)
    wrong = np.flatnonzero(best != labels)
    surest = wrong[np.argsort(-scores[wrong, best[wrong]], kind="stable")]
    return {int(c): surest[labels[surest] == c][:per_class].tolist() for c in np.unique(labels[wrong])}


def main(argv: list[str]) -> int:
    # RUN and IMAGES may stand without flags.
    words = []
    while argv and not argv[0].startswith("-"):
        words.append(argv.pop(0))
    if words:
        argv = ["--model_name_or_path", words[0], *(["--images", *words[1:]] if words[1:] else []), *argv]
    (options,), _ = parse(
        "explain",
        "Where a classifier looks: RUN [IMAGES ...], or RUN --data_dir D for its most confident mistakes.",
        [ExplainArguments],
        argv,
        required=("model_name_or_path", "output_dir"),
    )
    if not options.images and not options.data_dir:
        raise UsageError("name images to explain, or a --data_dir whose mistakes are shown.")
    try:
        import captum  # noqa: F401
    except ImportError:
        raise UsageError("explain needs a package that is not installed: pip install 'hf_mae[explain]'.") from None
    from .models import load_classifier

    set_up_logging(True)
    model, processor = load_classifier(options.model_name_or_path)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if options.target is not None and options.target not in model.config.label2id:
        known = ", ".join(model.config.label2id)
        raise UsageError(f"--target {options.target} is no class of {options.model_name_or_path}: {known}.")
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    bad = explain_images(model, processor, options, folder) if options.images else []
    if options.data_dir:
        explain_mistakes(model, processor, options, folder)
    return 1 if bad else 0


def explain_images(model, processor, options: ExplainArguments, folder: Path) -> list[str]:
    """Overlays of every image, and sheets of all; returns those that cannot be read."""
    from .predict import find_images, prepare

    found, bad = [], []
    paths = find_images(options.images)
    for start in tqdm(range(0, len(paths), options.batch_size), desc="Explaining", unit="batch", delay=1):
        batch = paths[start : start + options.batch_size]
        prepared = [(path, prepare(path, lambda path=path: Image.open(path), processor)) for path in batch]
        bad += [f"{path}: {tensor}" for path, tensor in prepared if isinstance(tensor, str)]
        good = [(path, tensor) for path, tensor in prepared if not isinstance(tensor, str)]
        if good:
            tensors = torch.stack([tensor for _, tensor in good])
            found += explain(model, processor, tensors, [path for path, _ in good], options.target)
    for number, entry in enumerate(found, 1):
        name = f"{number:04d}_{Path(entry.name).stem}"
        entry.rollout.save(folder / f"{name}_rollout.png")
        entry.grad_cam.save(folder / f"{name}_grad_cam.png")
    pages = [found[start : start + 12] for start in range(0, len(found), 12)]
    for number, page in enumerate(pages, 1):
        rows = [("", page[start : start + 3]) for start in range(0, len(page), 3)]
        contact_sheet(rows, folder / f"images_{number}.png", f"{Path(options.model_name_or_path).name}")
    for fault in bad:
        logger.warning("Left out: %s", fault)
    print(f"{len(found)} images explained: overlays, and {len(pages)} sheets images_*.png, are in {folder}")
    return bad


def explain_mistakes(model, processor, options: ExplainArguments, folder: Path) -> None:
    """`mistakes_<split>.png`: of every true class the images that are most confidently taken for another."""
    from .data import EvaluationImages, load_splits
    from .data.images import collate

    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    splits = load_splits(options, 0, label_names=names)
    if options.split not in splits:
        raise UsageError(f"{options.data_dir} has no split {options.split}; it has {', '.join(splits)}.")
    images = EvaluationImages(splits[options.split], processor, num_workers=options.preprocessing_num_workers)
    loader = torch.utils.data.DataLoader(images, options.batch_size, collate_fn=collate)
    logits = []
    with torch.inference_mode():
        for batch in tqdm(loader, desc=f"Classifying {options.split}", unit="batch", delay=1):
            logits.append(model(pixel_values=batch["pixel_values"].to(model.device)).logits.float().cpu().numpy())
    mistakes = confident_mistakes(softmax(np.concatenate(logits)), images.labels, options.mistakes_per_class)
    if not mistakes:
        print(f"No mistake in the {len(images)} images of {options.split}.")
        return
    rows: list[tuple[str, list[Any]]] = []
    for label, chosen in mistakes.items():
        tensors = torch.stack([images[index]["pixel_values"] for index in chosen])
        entries = explain(model, processor, tensors, [images.file_names[index] for index in chosen], options.target)
        rows.append((f"true: {names[label]}", entries))
    path = folder / f"mistakes_{options.split}.png"
    contact_sheet(rows, path, f"{options.split}: the most confident mistakes of each true class")
    print(f"{sum(len(found) for _, found in rows)} mistakes of {len(rows)} classes: {path}")
