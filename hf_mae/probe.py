"""`hf-mae probe`: how good a checkpoint's frozen features are, without fine-tuning: linear probe and k-NN.

The linear probe is the reference's (main_linprobe.py of facebookresearch/mae): batch normalisation without affine
parameters, then a linear layer, by SGD with momentum; here on features that are computed once, all learning rates and
weight decays of a sweep at the same time.
"""

import logging
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import set_seed

from . import figures
from .arguments import DataSourceArguments
from .cache import cache_folder
from .checkpoints import RANDOM_WEIGHTS, resolve
from .conversion import convert_to_model, initialize_as_reference
from .data import EvaluationImages, image_processor
from .data.check import files_fingerprint
from .data.folders import image_files
from .data.images import collate
from .data.sources import load_splits
from .data.transforms import parse_mean_std
from .errors import UsageError
from .metrics import HEADLINE, TITLES, classification_scores
from .recipe import parse
from .results import write_json
from .runs import set_up_logging

logger = logging.getLogger(__name__)

POOLINGS = ("cls", "mean")  # the class token, and the mean of the patch tokens, both of the normalised last layer
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
DECAYS = (0.0, 1e-4, 1e-3, 1e-2)
EPOCHS, BATCH, MOMENTUM = 100, 256, 0.9
NEIGHBOURS = 20
SWEEP_SHARE = 0.2  # of the training images, where there is no test split: they choose, the validation split judges


@dataclass
class ProbeArguments(DataSourceArguments):
    """Which checkpoint, on what."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "An MAE .pth, a folder, a Hub id, or a name of hf-mae checkpoints."}
    )
    output_dir: str | None = field(default=None, metadata={"help": "Where scores and figures go."})
    transforms: str = field(
        default="endoscopy",
        metadata={"help": "Family of the evaluation's transform.", "choices": ["endoscopy", "imagenet"]},
    )
    mean_std: list[str] | None = field(default=None, metadata={"help": "As for finetune."})
    image_size: int | None = field(default=None, metadata={"help": "Pixels; not given: the checkpoint's."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "Where the width does not tell."})
    random_weights: bool = field(
        default=False, metadata={"help": "Take the checkpoint's sizes alone, and fresh weights (of the seed)."}
    )
    batch_size: int = field(default=64, metadata={"help": "Images per forward pass."})
    seed: int = field(default=0, metadata={"help": "Of held-out shares and of the probe."})
    tsne: bool = field(default=True, metadata={"help": "Draw a t-SNE of the features, coloured by class."})
    umap: bool = field(default=False, metadata={"help": "Draw a UMAP too (pip install 'hf_mae[umap]')."})


@torch.inference_mode()
def features_of(model, images: EvaluationImages, batch_size: int, name: str) -> dict[str, np.ndarray]:
    """Features (images, width) float32 of each pooling, from the last layer after its norm.

    Args:
        model: a `ViTModel`.
        name: for the progress bar.
    """
    loader = torch.utils.data.DataLoader(images, batch_size, collate_fn=collate)
    found: dict[str, list[np.ndarray]] = {pooling: [] for pooling in POOLINGS}
    for batch in tqdm(loader, desc=f"Features of {name}", unit="batch", delay=1):
        hidden = model(pixel_values=batch["pixel_values"].to(model.device)).last_hidden_state.float().cpu()
        found["cls"].append(hidden[:, 0].numpy())
        found["mean"].append(hidden[:, 1:].mean(1).numpy())
    return {pooling: np.concatenate(parts) for pooling, parts in found.items()}


def cached_features(model, images: EvaluationImages, paths: list[str], key: str, batch_size: int, name: str):
    """`features_of`, kept while the files do not change.

    Args:
        paths: of the image files; without them (a parquet file) nothing is kept.
        key: of the weights and the transform.
    """
    if not paths:
        return features_of(model, images, batch_size, name)
    kept = cache_folder() / "features" / f"{files_fingerprint(paths, '1', key)}.npz"
    if kept.is_file():
        with np.load(kept) as arrays:
            return {pooling: arrays[pooling] for pooling in POOLINGS}
    found = features_of(model, images, batch_size, name)
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(".partial.npz")
    np.savez(temporary, **found)
    temporary.replace(kept)
    return found


def linear_probe(train: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0, epochs: int = EPOCHS):
    """Linear layers on normalised features, one for each learning rate and weight decay of the sweep.

    Args:
        train: features (images, width).
        labels: class ids (images,).

    Returns:
        A function features -> logits (settings, images, classes), and the settings (lr, weight decay).
    """
    mean, std = train.mean(0), np.sqrt(train.var(0) + 1e-6)
    settings = list(product(RATES, DECAYS))
    values = torch.from_numpy((train - mean) / std).float()
    targets = torch.from_numpy(labels).long()
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(len(settings), train.shape[1], num_classes, requires_grad=True)
    weight.data += 0.01 * torch.randn(weight.shape[1:], generator=generator)
    bias = torch.zeros(len(settings), 1, num_classes, requires_grad=True)
    rates = torch.tensor([rate for rate, _ in settings]).view(-1, 1, 1)
    decays = torch.tensor([decay for _, decay in settings]).view(-1, 1, 1)
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    batches = max(1, -(-len(values) // BATCH))
    for step in range(epochs * batches):
        if step % batches == 0:
            order = torch.randperm(len(values), generator=generator)
        chosen = order[step % batches * BATCH : (step % batches + 1) * BATCH]
        logits = values[chosen] @ weight + bias
        loss = F.cross_entropy(logits.flatten(0, 1), targets[chosen].repeat(len(settings)), reduction="sum") / len(
            chosen
        )
        gradients = torch.autograd.grad(loss, [weight, bias])
        factor = 0.5 * (1 + np.cos(np.pi * step / (epochs * batches)))
        with torch.no_grad():
            for parameter, gradient, velocity in zip((weight, bias), gradients, speed):
                velocity.mul_(MOMENTUM).add_(gradient + decays * parameter)
                parameter -= factor * rates * velocity

    @torch.no_grad()
    def logits_of(features: np.ndarray) -> np.ndarray:
        return (torch.from_numpy((features - mean) / std).float() @ weight + bias).numpy()

    return logits_of, settings


def probe(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray], names: list[str], seed: int = 0
) -> dict[str, dict]:
    """Scores of the linear probe and of k-NN on one pooling's features.

    Args:
        features, labels: by part: `train`, `sweep` (chooses learning rate and weight decay), `judge`.
    """
    logits_of, settings = linear_probe(features["train"], labels["train"], len(names), seed)
    swept = logits_of(features["sweep"]).argmax(-1)
    scores = [classification_scores(predicted, labels["sweep"], names)["macro_f1"] for predicted in swept]
    best = int(np.argmax(scores))
    linear = classification_scores(logits_of(features["judge"])[best].argmax(-1), labels["judge"], names)
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(labels["train"])), weights="distance", metric="cosine")
    neighbours.fit(features["train"], labels["train"])
    nearest = classification_scores(neighbours.predict(features["judge"]), labels["judge"], names)
    return {
        "linear": {name: linear[name] for name in HEADLINE}
        | {"learning_rate": settings[best][0], "weight_decay": settings[best][1]},
        "knn": {name: nearest[name] for name in HEADLINE} | {"neighbours": neighbours.n_neighbors},
    }


def parts_of(splits) -> dict[str, str]:
    """Which split trains, chooses and judges the probe."""
    if "train" not in splits:
        raise UsageError("A probe needs training images.")
    if "test" in splits and ("validation" in splits or "selection" in splits):
        return {"train": "train", "sweep": "selection" if "selection" in splits else "validation", "judge": "test"}
    if "validation" in splits and "selection" in splits:
        return {"train": "train", "sweep": "selection", "judge": "validation"}
    raise UsageError("A probe needs a split that judges it: pass --val_fraction 0.2.")


def main(argv: list[str]) -> int:
    (options,), _ = parse(
        "probe",
        "Linear probe and k-NN on the frozen features of a checkpoint.",
        [ProbeArguments],
        argv,
        required=("model_name_or_path", "data_dir"),
    )
    set_up_logging(True)
    splits = load_splits(options, options.seed)
    if "test" not in splits and "selection" not in splits:
        options.select_on = SWEEP_SHARE
        splits = load_splits(options, options.seed)
    parts = parts_of(splits)
    source = resolve(options.model_name_or_path)
    model, _ = convert_to_model(
        source, to="backbone", image_size=options.image_size, num_attention_heads=options.num_attention_heads
    )
    if options.random_weights:
        set_seed(options.seed)
        initialize_as_reference(model, "backbone")
        source = f"{RANDOM_WEIGHTS} {model.config.to_json_string()} {options.seed}"
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    mean, std = parse_mean_std(options.mean_std, options.transforms, splits["train"], model.config.image_size)
    processor = image_processor(options.transforms, model.config.image_size, mean, std)
    weights = []  # of random ones the seed says all
    if not options.random_weights:
        weights = [source] if Path(source).is_file() else sorted(map(str, Path(source).glob("*.safetensors")))
    key = f"{files_fingerprint(weights) if weights else source} {processor.to_dict()} {options.image_size}"
    names = splits["train"].features["labels"].names
    features, labels = {}, {}
    for part, split in parts.items():
        images = EvaluationImages(splits[split], processor, num_workers=options.preprocessing_num_workers)
        paths = image_files(splits[split])
        features[part] = cached_features(model, images, paths, key, options.batch_size, split)
        labels[part] = images.labels
    results = {}
    for pooling in POOLINGS:
        results[pooling] = probe({part: f[pooling] for part, f in features.items()}, labels, names, options.seed)
    print("; ".join(f"{part}: {len(labels[part])} images ({split})" for part, split in parts.items()))
    print(f"{'features':9} {'probe':7} " + "  ".join(f"{TITLES[name]:>15}" for name in HEADLINE))
    for pooling, kinds in results.items():
        for kind, scores in kinds.items():
            print(f"{pooling:9} {kind:7} " + "  ".join(f"{100 * scores[name]:15.2f}" for name in HEADLINE))
    if options.output_dir:
        folder = Path(options.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"model": options.model_name_or_path, "parts": parts, "images": {p: len(v) for p, v in labels.items()}}
        write_json(folder / "probe.json", results | facts)
        draw(folder, features["judge"]["mean"], labels["judge"], names, options)
    return 0


def draw(folder: Path, features: np.ndarray, labels: np.ndarray, names: list[str], options: ProbeArguments) -> None:
    """t-SNE and UMAP figures of the judged images."""
    if options.tsne and len(features) > 3:
        from sklearn.manifold import TSNE

        flat = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), random_state=options.seed).fit_transform(features)
        figures.scatter(flat, labels, names, folder / "tsne", "t-SNE of the frozen features")
    if options.umap:
        try:
            from umap import UMAP
        except ImportError:
            raise UsageError("--umap needs a package that is not installed: pip install 'hf_mae[umap]'.") from None
        flat = UMAP(random_state=options.seed).fit_transform(features)
        figures.scatter(flat, labels, names, folder / "umap", "UMAP of the frozen features")
