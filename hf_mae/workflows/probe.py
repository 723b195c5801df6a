"""`probe`: linear probe and k-NN on the frozen features of a checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from transformers import set_seed

from ..compat.transformers import StockModel
from ..conversion import convert_to_model, initialize_mae_weights
from ..data.columns import get_image_paths
from ..data.fingerprint import data_fingerprint
from ..data.images.torch_datasets import EvalDataset
from ..data.images.transforms import image_processor, parse_mean_std
from ..data.sources.split_loading import load_splits
from ..errors import UsageError
from ..files.caches import files_fingerprint
from ..inference.attentive_probe import attentive_probe
from ..inference.features import POOLED, POOLINGS, load_or_extract_features, write_features
from ..inference.probes import SELECTION_FRACTION, probe_features, probe_splits
from ..models.auto_classifier import build_comparator, is_comparator
from ..models.introspection import get_non_mae_network, input_size
from ..models.model_zoo import resolve_checkpoint
from ..reporting.embedding_plots import plot_embeddings
from ..runs.environment import get_environment
from ..runs.record import DataSource, RunRecord
from ..runs.record_io import write_record
from ..settings.evaluation import ProbeArguments
from ..settings.models import RANDOM_WEIGHTS
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage


@command("probe")
def probe(settings: Settings) -> RunRecord:
    """Trains and evaluates a linear probe and k-NN on the frozen features of a checkpoint.

    Returns:
        The record. `record.probe` contains the metrics of `linear` and `knn` by pooling (if requested, also those of
        `tokens`), `record.probe_splits` the splits for training, validation and test.
    """
    options = settings.options
    splits = _load_splits(options)
    split_by_role = probe_splits(splits)
    model, key = _load_backbone(options)
    images = _build_datasets(options, splits, split_by_role, input_size(model))
    features = {
        role: load_or_extract_features(
            model,
            images[role],
            get_image_paths(splits[split]),
            f"{key} {images[role].processor.to_dict()}",
            options.batch_size,
            split,
        )
        for role, split in split_by_role.items()
    }
    labels = {role: np.array(dataset.labels) for role, dataset in images.items()}
    names = splits["train"].features["labels"].names
    results: dict[str, Any] = {
        pooling: probe_features({role: f[pooling] for role, f in features.items()}, labels, names, options.seed)
        for pooling in (POOLED, *POOLINGS)
        if pooling in features["test"]
    }
    if options.attentive:
        results["tokens"] = {"attentive": attentive_probe(model, images, labels, names, options.seed)}
    if options.features:
        write_features(Path(options.features), features, images, split_by_role, names)
    record = RunRecord(
        kind="probe",
        base=str(options.model_name_or_path),
        data=DataSource.from_settings(options, options.seed, data_fingerprint(splits)),
        images={role: len(values) for role, values in labels.items()},
        environment=get_environment(),
        settings=settings.overrides,
        classes=names,
        probe=results,
        probe_splits=split_by_role,
        network=None if POOLED not in results else get_non_mae_network(model),
    )
    if options.output_dir:
        folder = Path(options.output_dir)
        write_record(record, folder)
        plot_embeddings(
            folder,
            features["test"]["mean" if "mean" in features["test"] else POOLED],
            labels["test"],
            names,
            options,
        )
    return record


def _load_splits(options: ProbeArguments) -> DatasetDict:
    """Loads the splits; without other images to select the settings, holds out a fraction of the training images."""
    splits = load_splits(options, options.seed)
    if len(next(iter(splits.values())).features["labels"].names) < 2:
        raise UsageError(WorkflowMessage.PROBE_NEEDS_CLASSES, data=options.data_dir)
    if "test" not in splits and "selection" not in splits:
        splits = load_splits(replace(options, selection_fraction=SELECTION_FRACTION), options.seed)
    return splits


def _load_backbone(options: ProbeArguments) -> tuple[StockModel, str]:
    """Loads the frozen encoder (the classifier, for networks other than an MAE ViT), and a key for its weights."""
    source = resolve_checkpoint(options.model_name_or_path or "")
    if is_comparator(source, options.random_weights):
        _check_token_options(options, source)
        set_seed(options.seed)
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
    """Checks that no flag for MAE ViTs is set; other networks have pooled features only."""
    for flag in ("attentive", "num_attention_heads"):
        if getattr(options, flag):
            raise UsageError(WorkflowMessage.PROBE_FLAG_NEEDS_MAE, flag=flag, source=source)


def _build_datasets(
    options: ProbeArguments, splits: DatasetDict, split_by_role: dict[str, str], size: int
) -> dict[str, EvalDataset]:
    """Builds the preprocessed datasets by role."""
    mean, std = parse_mean_std(options.mean_std, options.transforms, splits["train"], size)
    processor = image_processor(options.transforms, size, mean, std)
    workers = options.preprocessing_num_workers
    return {role: EvalDataset(splits[split], processor, num_workers=workers) for role, split in split_by_role.items()}
