"""`probe`: how good a checkpoint's frozen features are, without fine-tuning: linear probe and k-NN."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from transformers import set_seed

from ..compat.transformers import StockModel
from ..conversion import convert_to_model, initialize_mae_weights
from ..data.fingerprint import data_fingerprint
from ..data.samples import get_image_paths
from ..data.split_loading import load_splits
from ..data.torch_datasets import EvalDataset
from ..data.transforms import image_processor, parse_mean_std
from ..errors import UsageError
from ..evaluation.attentive_probe import attentive_probe
from ..evaluation.features import POOLED, POOLINGS, load_or_extract_features, write_features
from ..evaluation.probes import SELECTION_FRACTION, probe_best_layer, probe_features, probe_splits
from ..files.caches import files_fingerprint
from ..models.auto_classifier import build_comparator, is_comparator
from ..models.introspection import describe_non_mae_model, input_size
from ..models.model_zoo import resolve_checkpoint
from ..reporting.embedding_plots import plot_embeddings
from ..runs.environment import get_environment
from ..runs.record import DataSource, RunRecord
from ..runs.record_io import write_record
from ..settings.evaluation import ProbeArguments
from ..settings.models import RANDOM_WEIGHTS
from ..settings.parse import parse_settings


def probe(*, recipe: str | None = None, **flags: Any) -> RunRecord:
    """Linear probe and k-NN on the frozen features of a checkpoint.

    Args:
        recipe: a YAML file of flags; `flags` win over it.
        flags: the flags of `hf-mae probe`.

    Returns:
        What was found: `record.probe` has, by pooling, the scores of `linear` and `knn` (where asked for, also of
        `chosen` layers and of `tokens`), and under `parts` which split trained, chose and judged.
    """
    settings = parse_settings("probe", recipe, **flags)
    (options,) = settings.arguments
    splits = _load_splits(options)
    parts = probe_splits(splits)
    model, key = _load_backbone(options)
    images = _build_datasets(options, splits, parts, input_size(model))
    features = {
        part: _extract_features(options, splits[split], images[part], model, key, split)
        for part, split in parts.items()
    }
    labels = {part: np.array(own.labels) for part, own in images.items()}
    names = splits["train"].features["labels"].names
    found: dict[str, Any] = {
        pooling: probe_features({part: f[pooling] for part, f in features.items()}, labels, names, options.seed)
        for pooling in (POOLED, *POOLINGS)
        if pooling in features["judge"]
    }
    if options.layers:
        found["chosen"] = {"linear": probe_best_layer(features, labels, names, options.seed)}
    if options.attentive:
        found["tokens"] = {"attentive": attentive_probe(model, images, labels, names, options.seed)}
    if options.features:
        write_features(Path(options.features), features, images, parts, names)
    record = RunRecord(
        kind="probe",
        base=str(options.model_name_or_path),
        data=DataSource.from_settings(options, options.seed, data_fingerprint(splits)),
        images={part: len(values) for part, values in labels.items()},
        environment=get_environment(),
        settings=settings.overrides,
        classes=names,
        probe=found | {"parts": parts},
        network="" if POOLED not in found else describe_non_mae_model(model),
    )
    if options.output_dir:
        folder = Path(options.output_dir)
        write_record(record, folder)
        plot_embeddings(
            folder,
            features["judge"]["mean" if "mean" in features["judge"] else POOLED],
            labels["judge"],
            names,
            options,
        )
    return record


def _load_splits(options: ProbeArguments) -> DatasetDict:
    """The splits; where nothing else chooses the probe's settings, a share of the training images does."""
    splits = load_splits(options, options.seed)
    if len(next(iter(splits.values())).features["labels"].names) < 2:
        raise UsageError(f"{options.data_dir} has one class, and a probe tells two classes or more from each other.")
    if "test" not in splits and "selection" not in splits:
        splits = load_splits(replace(options, selection_fraction=SELECTION_FRACTION), options.seed)
    return splits


def _load_backbone(options: ProbeArguments) -> tuple[StockModel, str]:
    """The frozen encoder (of another network than MAE's, its classifier), and a text that tells its weights."""
    source = resolve_checkpoint(options.model_name_or_path or "")
    if is_comparator(source, options.random_weights):
        _check_token_options(options, source)
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
            initialize_mae_weights(model, "backbone")
    if options.random_weights:
        key = f"{RANDOM_WEIGHTS} {model.config.to_json_string()} {options.seed}"
    else:
        weights = [source] if Path(source).is_file() else sorted(map(str, Path(source).glob("*.safetensors")))
        key = files_fingerprint(weights) if weights else source
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return model, f"{key} {options.image_size}"


def _check_token_options(options: ProbeArguments, source: str) -> None:
    """Of another network there is what its head reads, and nothing else."""
    for flag in ("layers", "attentive", "num_attention_heads"):
        if getattr(options, flag):
            raise UsageError(f"--{flag} is for an MAE ViT, and {source} is another network: leave it out.")


def _build_datasets(
    options: ProbeArguments, splits: DatasetDict, split_by_role: dict[str, str], size: int
) -> dict[str, EvalDataset]:
    """The images by part, as they are seen."""
    mean, std = parse_mean_std(options.mean_std, options.transforms, splits["train"], size)
    processor = image_processor(options.transforms, size, mean, std)
    workers = options.preprocessing_num_workers
    return {part: EvalDataset(splits[split], processor, num_workers=workers) for part, split in split_by_role.items()}


def _extract_features(
    options: ProbeArguments, dataset: Any, images: EvalDataset, model: Any, key: str, split: str
) -> dict[str, np.ndarray]:
    """Features by what they are called."""
    whole_key = f"{key} {images.processor.to_dict()}"
    return load_or_extract_features(
        model, images, get_image_paths(dataset), whole_key, options.batch_size, split, options.layers
    )
