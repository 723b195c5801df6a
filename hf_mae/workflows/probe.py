"""`probe`: how good a checkpoint's frozen features are, without fine-tuning: linear probe and k-NN."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from transformers import set_seed

from ..compat.transformers import StockModel
from ..conversion import convert_to_model, initialize_as_reference
from ..data.entries import image_files
from ..data.fingerprint import data_fingerprint
from ..data.images import EvaluationImages
from ..data.sources import load_splits
from ..data.transforms import image_processor, parse_mean_std
from ..errors import UsageError
from ..evaluation.attentive import attentive_probe
from ..evaluation.features import POOLED, POOLINGS, cached_features, write_features
from ..evaluation.probes import SWEEP_SHARE, best_of_layers, parts_of, probe_features
from ..files.caches import files_fingerprint
from ..models.checkpoints import resolve
from ..models.comparators import build_comparator, is_comparator
from ..models.parts import input_size, other_network
from ..reporting.feature_maps import draw
from ..runs.environment import environment
from ..runs.record import DataSource, RunRecord
from ..runs.record_files import write_record
from ..settings.evaluation import ProbeArguments
from ..settings.fill import fill
from ..settings.models import RANDOM_WEIGHTS


def probe(*, recipe: str | None = None, **flags: Any) -> RunRecord:
    """Linear probe and k-NN on the frozen features of a checkpoint.

    Args:
        recipe: a YAML file of flags; `flags` win over it.
        flags: the flags of `hf-mae probe`.

    Returns:
        What was found: `record.probe` has, by pooling, the scores of `linear` and `knn` (where asked for, also of
        `chosen` layers and of `tokens`), and under `parts` which split trained, chose and judged.
    """
    settings = fill("probe", recipe, **flags)
    (options,) = settings.parts
    splits = _splits(options)
    parts = parts_of(splits)
    model, key = _backbone(options)
    images = _images(options, splits, parts, input_size(model))
    features = {
        part: _features(options, splits[split], images[part], model, key, split) for part, split in parts.items()
    }
    labels = {part: np.array(own.labels) for part, own in images.items()}
    names = splits["train"].features["labels"].names
    found: dict[str, Any] = {
        pooling: probe_features({part: f[pooling] for part, f in features.items()}, labels, names, options.seed)
        for pooling in (POOLED, *POOLINGS)
        if pooling in features["judge"]
    }
    if options.layers:
        found["chosen"] = {"linear": best_of_layers(features, labels, names, options.seed)}
    if options.attentive:
        found["tokens"] = {"attentive": attentive_probe(model, images, labels, names, options.seed)}
    if options.features:
        write_features(Path(options.features), features, images, parts, names)
    record = RunRecord(
        kind="probe",
        base=str(options.model_name_or_path),
        data=DataSource.of(options, options.seed, data_fingerprint(splits)),
        images={part: len(values) for part, values in labels.items()},
        environment=environment(),
        settings=settings.given,
        classes=names,
        probe=found | {"parts": parts},
        network="" if POOLED not in found else other_network(model),
    )
    if options.output_dir:
        folder = Path(options.output_dir)
        write_record(record, folder)
        draw(
            folder,
            features["judge"]["mean" if "mean" in features["judge"] else POOLED],
            labels["judge"],
            names,
            options,
        )
    return record


def _splits(options: ProbeArguments) -> DatasetDict:
    """The splits; where nothing else chooses the probe's settings, a share of the training images does."""
    splits = load_splits(options, options.seed)
    if len(next(iter(splits.values())).features["labels"].names) < 2:
        raise UsageError(f"{options.data_dir} has one class, and a probe tells two classes or more from each other.")
    if "test" not in splits and "selection" not in splits:
        splits = load_splits(replace(options, select_on=SWEEP_SHARE), options.seed)
    return splits


def _backbone(options: ProbeArguments) -> tuple[StockModel, str]:
    """The frozen encoder (of another network than MAE's, its classifier), and a text that tells its weights."""
    source = resolve(options.model_name_or_path or "")
    if is_comparator(source, options.random_weights):
        _refuse_what_is_of_tokens(options, source)
        set_seed(options.seed)  # which says all of random weights
        model = build_comparator(
            source, num_labels=2, image_size=options.image_size, random_weights=options.random_weights
        )
    else:
        model, _ = convert_to_model(
            source, to="backbone", image_size=options.image_size, num_attention_heads=options.num_attention_heads
        )
        if options.random_weights:
            set_seed(options.seed)
            initialize_as_reference(model, "backbone")
    if options.random_weights:
        key = f"{RANDOM_WEIGHTS} {model.config.to_json_string()} {options.seed}"
    else:
        weights = [source] if Path(source).is_file() else sorted(map(str, Path(source).glob("*.safetensors")))
        key = files_fingerprint(weights) if weights else source
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return model, f"{key} {options.image_size}"


def _refuse_what_is_of_tokens(options: ProbeArguments, source: str) -> None:
    """Of another network there is what its head reads, and nothing else."""
    for flag in ("layers", "attentive", "num_attention_heads"):
        if getattr(options, flag):
            raise UsageError(f"--{flag} is for an MAE ViT, and {source} is another network: leave it out.")


def _images(
    options: ProbeArguments, splits: DatasetDict, parts: dict[str, str], size: int
) -> dict[str, EvaluationImages]:
    """The images by part, as they are seen."""
    mean, std = parse_mean_std(options.mean_std, options.transforms, splits["train"], size)
    processor = image_processor(options.transforms, size, mean, std)
    workers = options.preprocessing_num_workers
    return {part: EvaluationImages(splits[split], processor, num_workers=workers) for part, split in parts.items()}


def _features(
    options: ProbeArguments, dataset: Any, images: EvaluationImages, model: Any, key: str, split: str
) -> dict[str, np.ndarray]:
    """Features by what they are called."""
    whole_key = f"{key} {images.processor.to_dict()}"
    return cached_features(model, images, image_files(dataset), whole_key, options.batch_size, split, options.layers)
