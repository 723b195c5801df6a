"""Any image classifier of transformers or timm, as a baseline with the same training and evaluation as an MAE ViT.

The weights are loaded by transformers, and the stock class is trained and saved, so `pipeline("image-classification")`
runs it.
"""

import copy
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from torch import nn
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoModelForImageClassification

from ..compat.timm import check_timm_version
from ..compat.transformers import StockModel
from ..conversion.canonicalize import check_weights_finite
from ..conversion.facts import Fact, FactCode, fact
from ..conversion.messages import ConversionError
from ..conversion.report import ConversionReport
from ..conversion.safety import is_timm
from ..conversion.stock_models import check_model_size, config_class_names, is_mae_vit, load_stock_model, read_config
from ..errors import UsageError, first_error_line
from .introspection import DEFAULT_IMAGE_SIZE, NUM_CHANNELS, config_image_size, find_head, get_network
from .messages import ModelMessage

logger = logging.getLogger(__name__)
TIMM_PREFIX = "timm/"  # of timm models on the Hub
HEAD_STD = 0.02  # of new heads, as in timm and transformers
DROP_PATH_FIELDS = ("drop_path_rate", "drop_connect_rate")  # names of the drop path rate in configurations


def is_comparator(model_name_or_path: str | Path, random_weights: bool = False) -> bool:
    """Whether a source is an image classifier (or its backbone) other than an MAE ViT."""
    source = str(model_name_or_path)
    if Path(source).is_file():
        return False
    if random_weights and _timm_name(source):
        return True
    try:
        config = read_config(source)
    except ConversionError:
        return False  # the conversion reports the error
    return type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING and not is_mae_vit(config)


def build_comparator(
    model_name_or_path: str | Path,
    names: list[str] | None = None,
    num_labels: int | None = None,
    image_size: int | None = None,
    drop_path: float = 0.0,
    random_weights: bool = False,
) -> StockModel:
    """Builds a stock classifier from a source for which `is_comparator` is true, ready to train.

    Args:
        model_name_or_path: a transformers folder or a Hub id, including timm's; with `random_weights` also `timm/NAME`
            of any timm model, without a download.
        names: class names; a head of other classes is replaced by a new one.
        num_labels: number of classes, without `names`.
        image_size: pixels; timm resizes the position embeddings if the network supports it.
        drop_path: stochastic depth rate, for networks that support it.

    Returns:
        The model, with a report on its weights in `model.conversion_report`.

    Raises:
        UsageError: If the model cannot be loaded, or does not accept images of this size.
    """
    source = str(model_name_or_path)
    source_config, config = _load_configs(source, names, num_labels, random_weights)
    size = image_size or config_image_size(source_config, source) or DEFAULT_IMAGE_SIZE
    set_config_drop_path(config, drop_path, source)
    reset_reason: Fact | None = fact(FactCode.RANDOM_WEIGHTS)
    if random_weights:
        check_model_size(config, source, AutoModelForImageClassification)
        model = AutoModelForImageClassification.from_config(config)
        report = _make_report(source, model, [])
        logger.info("Random weights: only the sizes of %s are used.", source)
    else:
        model, loaded_keys, reset_reason = _load_pretrained(source, source_config, config)
        report = _make_report(source, model, loaded_keys)
    name, head = find_head(model)
    if reset_reason:
        nn.init.trunc_normal_(head.weight, std=HEAD_STD)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
        report.initialized.append({"target": name, "reason": reset_reason})
    if is_timm(config) and size != config_image_size(config) and hasattr(model.timm_model, "set_input_size"):
        model = _resize_input(model, size, source)
    set_input_size(model, size, source)
    model.conversion_report = report
    return model.train()


def _timm_name(source: str) -> str | None:
    """Returns NAME of `timm/NAME` if timm has this model and no folder has this path; otherwise None."""
    from timm import is_model

    name = source.removeprefix(TIMM_PREFIX)
    return name if source.startswith(TIMM_PREFIX) and not Path(source).exists() and is_model(name) else None


def _load_configs(
    source: str, names: list[str] | None, num_labels: int | None, random_weights: bool
) -> tuple[Any, Any]:
    """Loads the configuration of the source, and a copy of it with the requested classes."""
    name = _timm_name(source) if random_weights else None
    source_config = _timm_config(name) if name else read_config(source)
    config = copy.deepcopy(source_config)
    if names:
        config.id2label, config.label2id = dict(enumerate(names)), {label: i for i, label in enumerate(names)}
    if classes := len(names or []) or num_labels:
        config.num_labels = classes  # a field of its own in some configurations (PVT)
    if not config.num_labels:
        raise UsageError(ModelMessage.NUM_CLASSES_MISSING, source=source)
    if hasattr(config, "label_names"):  # from timm's wrapper; if saved, they would override `id2label`
        del config.label_names
    return source_config, config


def _timm_config(name: str) -> Any:
    """Returns the configuration of a timm model with two classes."""
    from timm import get_pretrained_cfg
    from transformers import TimmWrapperConfig

    check_timm_version()
    values = {"architecture": name.split(".")[0], "num_classes": 2, "model_args": {}}
    return TimmWrapperConfig.from_dict(
        values | {"pretrained_cfg": getattr(get_pretrained_cfg(name), "to_dict", dict)()}
    )


def set_config_drop_path(config: Any, drop_path: float, source: str) -> None:
    """Sets the stochastic depth rate in a configuration; logs a line if the network does not support it."""
    if is_timm(config):
        config.model_args = dict(config.model_args or {}) | {DROP_PATH_FIELDS[0]: float(drop_path)}
        if _can_build(config, source):
            return
        del config.model_args[DROP_PATH_FIELDS[0]]
    elif fields := [name for name in DROP_PATH_FIELDS if hasattr(config, name)]:
        rates = getattr(config, fields[0])
        is_by_stage = isinstance(rates, (list, tuple))  # CvT: the stages before the last have a rate of 0
        rate = float(drop_path)
        with suppress(StrictDataclassFieldValidationError):  # LeViT: an integer, which is always 0
            setattr(config, fields[0], [0.0] * (len(rates) - 1) + [rate] if is_by_stage else rate)
            return
    if drop_path:
        logger.info("%s does not support stochastic depth; drop path %g is ignored.", config.model_type, drop_path)


def _can_build(config: Any, source: str) -> bool:
    """Whether timm supports the arguments of a model."""
    try:
        check_model_size(config, source, AutoModelForImageClassification)
    except ConversionError as error:
        if isinstance(error.__cause__, TypeError):
            return False
        raise
    return True


def _load_pretrained(source: str, source_config: Any, config: Any) -> tuple[StockModel, list[str], Fact | None]:
    """Loads a model; returns it, the loaded keys, and the reason for a new head (None: the head was loaded)."""
    model, info = load_stock_model(source, "AutoModelForImageClassification", config=config)
    head, _ = find_head(model)
    missing = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    if others := sorted(name for name in missing if not name.startswith(f"{head}.")):
        raise UsageError(ModelMessage.WEIGHTS_MISSING, model=type(model).__name__, source=source, names=others[:3])
    state = model.state_dict()
    check_weights_finite(state, source)
    names, source_names = config_class_names(config), config_class_names(source_config)
    reset_reason = None
    if missing:
        reset_reason = fact(FactCode.SOURCE_WITHOUT_HEAD, classes=config.num_labels)
    elif names not in (None, source_names):
        reset_reason = fact(FactCode.SOURCE_CLASSES_DIFFER, names=(source_names or [])[:3])
    return model, sorted(state.keys() - missing), reset_reason


def _make_report(source: str, model: StockModel, loaded_keys: list[str]) -> ConversionReport:
    return ConversionReport(
        source={"name": source, "network": get_network(model)},
        target={"class": type(model).__name__, "pooling": None, "num_labels": model.config.num_labels},
        mapping=[{"source": name, "target": [name]} for name in loaded_keys],
        unused=[],
        initialized=[],
    )


def _resize_input(model: StockModel, size: int, source: str) -> StockModel:
    """Rebuilds a timm model for another image size, as it is built when it is loaded again."""
    config = model.config
    config.model_args = dict(config.model_args or {}) | {"img_size": size}
    try:
        with torch.no_grad():
            model.timm_model.set_input_size(img_size=(size, size))
        resized = type(model)(config)
        resized.timm_model.load_state_dict(model.timm_model.state_dict())
    except Exception as error:  # networks raise any class for an unsupported size
        raise _input_size_error(size, source, error) from None
    return resized


def _input_size_error(size: int, source: str, error: Exception) -> UsageError:
    return UsageError(ModelMessage.INPUT_SIZE_UNSUPPORTED, source=source, size=size, reason=first_error_line(error))


@torch.no_grad()
def set_input_size(model: StockModel, size: int, source: str) -> None:
    """Sets the input size of a model after a trial forward pass.

    Raises:
        UsageError: If the model does not accept images of this size.
    """
    training = model.training
    try:
        model.eval()(pixel_values=torch.zeros(1, NUM_CHANNELS, size, size, device=model.device, dtype=model.dtype))
        model.train(training)
    except Exception as error:  # networks raise any class for an unsupported size
        raise _input_size_error(size, source, error) from None
    model.input_size = size
