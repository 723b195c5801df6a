"""Builds stock transformers models from a checkpoint or a configuration."""

import logging
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..compat.deepspeed import disable_zero3_init
from ..compat.transformers import StockModel
from ..conversion.convert import ConversionReport, convert_to_model
from ..conversion.initialization import initialize_mae_weights
from ..conversion.metadata import LAYER_NORM_EPS, SIZES
from ..errors import UsageError
from ..settings.models import ModelArguments, PretrainingModelArguments
from .auto_classifier import build_comparator, is_comparator
from .introspection import config_image_size
from .messages import ModelMessage
from .model_zoo import resolve_checkpoint
from .stochastic_depth import set_drop_path

logger = logging.getLogger(__name__)


def build_classifier(
    model_name_or_path: str | Path,
    *,
    pooling: str = "mean",
    num_labels: int | None = None,
    id2label: dict[int, str] | None = None,
    label2id: dict[str, int] | None = None,
    image_size: int | None = None,
    drop_path: float = 0.0,
    num_attention_heads: int | None = None,
    random_weights: bool = False,
) -> StockModel:
    """Builds a `BeitForImageClassification` (mean pooling) or `ViTForImageClassification` (class token), ready to
    train.

    For a network other than an MAE ViT, the result is its own stock classifier.

    Args:
        model_name_or_path: an MAE `.pth` (pre-trained or fine-tuned), a transformers folder, or a Hub id; also any
            image classifier of transformers or timm (`timm/NAME`).
        pooling: `mean`, `cls`, or `auto` (as a fine-tuned checkpoint was trained, else mean).
        num_labels: number of classes; not needed if `id2label` or the checkpoint's head determines it.
        id2label, label2id: class names, stored in the configuration.
        image_size: pixels; position embeddings are resized (bicubic).
        drop_path: stochastic depth rate of the last block, growing linearly from 0 at the first.
        num_attention_heads: needed if neither the width nor the checkpoint's args determine it.
        random_weights: use only the sizes of the checkpoint, with the initial weights of the original MAE code.

    Returns:
        The model, with a report on its weights in `model.conversion_report`.

    Raises:
        ConversionError: If the checkpoint cannot be used.
        UsageError: If the labels are inconsistent.
    """
    labels = _resolve_label_names(num_labels, id2label, label2id)
    if is_comparator(model_name_or_path, random_weights):
        _check_mae_only_options(model_name_or_path, pooling, num_attention_heads)
        with disable_zero3_init():
            return build_comparator(model_name_or_path, labels, num_labels, image_size, drop_path, random_weights)
    with disable_zero3_init():
        model, report = convert_to_model(
            model_name_or_path,
            to="classifier",
            pooling=pooling,
            num_labels=num_labels,
            labels=labels,
            image_size=image_size,
            num_attention_heads=num_attention_heads,
        )
    config_image_size(model.config, model_name_or_path)
    model = _detach_from_mmap(model, report)
    set_drop_path(model, drop_path)
    if random_weights:
        initialize_mae_weights(model, report.target["pooling"])
        logger.info("Random weights: only the sizes of %s are used.", model_name_or_path)
    return model


def build_training_model(
    options: ModelArguments, class_names: list[str], seed: int, drop_path: float = 0.0
) -> StockModel:
    """Builds the classifier of a run.

    Args:
        options: the checkpoint, and how the classifier is built from it.
        seed: seed of the new head.
        drop_path: stochastic depth rate of the last block.
    """
    set_seed(seed)
    return build_classifier(
        resolve_checkpoint(options.model_name_or_path or ""),
        pooling=options.pooling,
        num_labels=len(class_names),
        id2label=dict(enumerate(class_names)),
        image_size=options.image_size,
        drop_path=drop_path,
        num_attention_heads=options.num_attention_heads,
        random_weights=options.random_weights,
    )


def build_pretraining_model(
    options: PretrainingModelArguments, seed: int, mask_ratio: float | None, norm_pix_loss: bool | None
) -> StockModel:
    """Builds the masked autoencoder of a run (see `build_pretrainer`); `seed`: of random weights."""
    set_seed(seed)
    return build_pretrainer(
        options.model_name_or_path and resolve_checkpoint(options.model_name_or_path),
        size=options.size,
        image_size=options.image_size,
        mask_ratio=mask_ratio,
        norm_pix_loss=norm_pix_loss,
        num_attention_heads=options.num_attention_heads,
        decoder_num_attention_heads=options.decoder_num_attention_heads,
        **options.from_scratch_sizes(),
    )


def _check_mae_only_options(source: str | Path, pooling: str, num_attention_heads: int | None) -> None:
    if pooling == "cls":
        raise UsageError(ModelMessage.POOLING_NEEDS_MAE, source=source)
    if num_attention_heads is not None:
        raise UsageError(ModelMessage.ATTENTION_HEADS_NEED_MAE, source=source)


def _resolve_label_names(num_labels, id2label, label2id) -> list[str] | None:
    if id2label is None and label2id is not None:
        id2label = {index: name for name, index in label2id.items()}
    if id2label is None:
        return None
    id2label = {int(index): name for index, name in id2label.items()}
    if sorted(id2label) != list(range(len(id2label))):
        raise UsageError(ModelMessage.LABEL_IDS_HAVE_GAPS, count=len(id2label))
    names = [id2label[index] for index in range(len(id2label))]
    if num_labels is not None and num_labels != len(names):
        raise UsageError(ModelMessage.NUM_LABELS_DIFFER, num_labels=num_labels, count=len(names))
    if label2id is not None and {name: index for index, name in id2label.items()} != dict(label2id):
        raise UsageError(ModelMessage.LABEL_MAPS_DISAGREE)
    return names


def _detach_from_mmap(model: StockModel, report: ConversionReport) -> StockModel:
    """Copies weights out of a memory-mapped file, and attaches the report."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    model.conversion_report = report
    return model


def build_pretrainer(
    model_name_or_path: str | Path | None = None,
    *,
    size: str = "vit_base_patch16",
    image_size: int | None = None,
    mask_ratio: float | None = None,
    norm_pix_loss: bool | None = None,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    **sizes: int,
) -> StockModel:
    """Builds a `ViTMAEForPreTraining` from a checkpoint, or from scratch with the initialization of the original code.

    Args:
        model_name_or_path: an MAE `.pth`, a transformers folder or a Hub id; None: from scratch.
        size: a key of `conversion.metadata.SIZES`, if from scratch.
        image_size: pixels; 224 if from scratch.
        mask_ratio, norm_pix_loss: stored in the configuration; None: the checkpoint's, or 0.75 and False.
        sizes: fields of transformers' `ViTMAEConfig` that differ from `size`, if from scratch.
    """
    overrides: dict[str, Any] = {"mask_ratio": mask_ratio, "norm_pix_loss": norm_pix_loss}
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if model_name_or_path is not None:
        with disable_zero3_init():
            model, report = convert_to_model(
                model_name_or_path,
                to="pretraining",
                image_size=image_size,
                num_attention_heads=num_attention_heads,
                decoder_num_attention_heads=decoder_num_attention_heads,
            )
        config_image_size(model.config, model_name_or_path)
        model.config.update(overrides)
        return _detach_from_mmap(model, report)
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    if size not in SIZES:
        raise UsageError(ModelMessage.UNKNOWN_SIZE, size=size, sizes=list(SIZES))
    width, depth, heads, patch = SIZES[size]
    fields: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": num_attention_heads or heads,
        "intermediate_size": 4 * width,
        "image_size": image_size or 224,
        "patch_size": patch,
        "layer_norm_eps": LAYER_NORM_EPS,
        "decoder_num_attention_heads": decoder_num_attention_heads or 16,
    }
    scratch: Any = ViTMAEForPreTraining(ViTMAEConfig(**fields | sizes | overrides))
    scratch.conversion_report = None
    return initialize_mae_weights(scratch, "pretraining")
