"""Stock transformers classes from a checkpoint or a configuration."""

import logging
from pathlib import Path
from typing import Any

from ..compat.deepspeed import disable_zero3_init
from ..compat.transformers import StockModel
from ..conversion.architecture import Architecture, transformers_config
from ..conversion.convert import ConversionReport, convert_to_model
from ..conversion.initialization import initialize_mae_weights
from ..errors import UsageError
from .auto_classifier import build_comparator, is_comparator
from .stochastic_depth import set_drop_path

logger = logging.getLogger(__name__)

# Encoder sizes of the reference's constructors: (width, blocks, heads, patch size); small and tiny are DeiT's.
SIZES = {
    "vit_tiny_patch16": (192, 12, 3, 16),
    "vit_small_patch16": (384, 12, 6, 16),
    "vit_base_patch16": (768, 12, 12, 16),
    "vit_large_patch16": (1024, 24, 16, 16),
    "vit_huge_patch14": (1280, 32, 16, 14),
}


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
    """A `BeitForImageClassification` (mean pooling) or `ViTForImageClassification` (class token), ready to train; of
    another network than the reference's, its own stock classifier.

    Args:
        model_name_or_path: an MAE `.pth` (pre-trained or fine-tuned), a transformers folder, or a Hub id; also any
            image classifier of transformers or timm (`timm/NAME`).
        pooling: `mean`, `cls`, or `auto` (as a fine-tuned checkpoint was trained, else mean).
        num_labels: classes; may be left out where `id2label` or the checkpoint's head tells.
        id2label, label2id: names of the classes, kept in the configuration.
        image_size: pixels; position embeddings are resized (bicubic).
        drop_path: stochastic depth rate of the last block, growing linearly from 0 at the first.
        num_attention_heads: where neither the width nor the checkpoint's args tell.
        random_weights: take the checkpoint's sizes alone, and the reference's initial weights.

    Returns:
        The model, with what became of the checkpoint in `model.conversion_report`.

    Raises:
        ConversionError: the checkpoint cannot be used; UsageError: the labels do not fit together.
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
    check_square_rgb_input(model.config, model_name_or_path)
    model = _detach_from_mmap(model, report)
    set_drop_path(model, drop_path)
    if random_weights:
        initialize_mae_weights(model, report.target["pooling"])
        logger.info("Random weights: of %s only the sizes are taken.", model_name_or_path)
    return model


def _check_mae_only_options(source: str | Path, pooling: str, num_attention_heads: int | None) -> None:
    if pooling == "cls":
        raise UsageError(f"--pooling is for an MAE ViT, and {source} pools in its own way: leave it out.")
    if num_attention_heads is not None:
        raise UsageError(f"--num_attention_heads is for an MAE ViT, and {source} says its own: leave it out.")


def check_square_rgb_input(config: Any, model_name_or_path: str | Path) -> None:
    """Raises UsageError for a model whose images are not square ones of three channels, which is what all data are."""
    if config.num_channels != 3:
        raise UsageError(
            f"{model_name_or_path} takes images of {config.num_channels} channels, and images are read as RGB, of "
            "three."
        )
    if not isinstance(config.image_size, int) and config.image_size[0] != config.image_size[1]:
        height, width = config.image_size
        raise UsageError(
            f"{model_name_or_path} takes images of {height} x {width} pixels, and only square ones are trained on and "
            "judged: pass --image_size N where there is such a flag, so that its positions are resized."
        )


def _resolve_label_names(num_labels, id2label, label2id) -> list[str] | None:
    if id2label is None and label2id is not None:
        id2label = {index: name for name, index in label2id.items()}
    if id2label is None:
        return None
    id2label = {int(index): name for index, name in id2label.items()}
    if sorted(id2label) != list(range(len(id2label))):
        raise UsageError(f"id2label must number its {len(id2label)} classes from 0 without gaps.")
    names = [id2label[index] for index in range(len(id2label))]
    if num_labels is not None and num_labels != len(names):
        raise UsageError(f"num_labels is {num_labels} but id2label names {len(names)} classes.")
    if label2id is not None and {name: index for index, name in id2label.items()} != dict(label2id):
        raise UsageError("id2label and label2id do not agree.")
    return names


def _detach_from_mmap(model: StockModel, report: ConversionReport) -> StockModel:
    """Views of a memory-mapped file become the model's own memory; the report goes along."""
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
    """A `ViTMAEForPreTraining` from a checkpoint, or from scratch with the reference's initialisation.

    Args:
        model_name_or_path: an MAE `.pth`, a transformers folder or a Hub id; None: from scratch.
        size: from scratch: a key of `SIZES`.
        image_size: pixels; from scratch 224.
        mask_ratio, norm_pix_loss: kept in the configuration; not given: the checkpoint's, or 0.75 and False.
        sizes: from scratch: fields of `conversion.architecture.Architecture` that differ from `size`.
    """
    chosen: dict[str, Any] = {"mask_ratio": mask_ratio, "norm_pix_loss": norm_pix_loss}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if model_name_or_path is not None:
        with disable_zero3_init():
            model, report = convert_to_model(
                model_name_or_path,
                to="pretraining",
                image_size=image_size,
                num_attention_heads=num_attention_heads,
                decoder_num_attention_heads=decoder_num_attention_heads,
            )
        check_square_rgb_input(model.config, model_name_or_path)
        model.config.update(chosen)  # for the training that comes: the checkpoint's own may have been others
        return _detach_from_mmap(model, report)
    from transformers import ViTMAEForPreTraining

    if size not in SIZES:
        raise UsageError(f"No size is called {size}: choose one of {', '.join(SIZES)}.")
    width, depth, heads, patch = SIZES[size]
    given: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": num_attention_heads or heads,
        "intermediate_size": 4 * width,
        "image_size": image_size or 224,
        "patch_size": patch,
        "num_channels": 3,
        "decoder_num_attention_heads": decoder_num_attention_heads or 16,
    }
    architecture = Architecture(**given | sizes)
    fresh: Any = ViTMAEForPreTraining(transformers_config(architecture, "pretraining", **chosen))
    fresh.conversion_report = None
    return initialize_mae_weights(fresh, "pretraining")
