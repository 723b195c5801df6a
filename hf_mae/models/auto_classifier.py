"""Any image classifier of transformers or timm, built to be trained and judged as an MAE ViT is.

So that "better than a ConvNeXt" is one cross-validation and one report. The weights are loaded by transformers itself,
and what is trained and saved is its stock class: `pipeline("image-classification")` runs it.
"""

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoModelForImageClassification

from ..compat.timm import check_timm_version
from ..compat.transformers import StockModel
from ..conversion.canonicalize import check_weights_finite
from ..conversion.errors import ConversionError
from ..conversion.pretrained import is_mae_vit, load_stock_model, read_config
from ..conversion.report import ConversionReport
from ..conversion.safety import is_timm
from ..errors import UsageError, first_error_line
from .introspection import NUM_CHANNELS, config_image_size, describe_model, find_head

logger = logging.getLogger(__name__)
TIMM_PREFIX = "timm/"  # what timm's models are called on the Hub
DEFAULT_IMAGE_SIZE = 224  # of models that take any
HEAD_STD = 0.02  # of fresh heads, as timm's and transformers' own
DROP_PATH_FIELDS = ("drop_path_rate", "drop_connect_rate")  # what configurations call it


def is_comparator(model_name_or_path: str | Path, random_weights: bool = False) -> bool:
    """Whether a source is another image classifier (or the network of one) than the reference's ViT."""
    source = str(model_name_or_path)
    if Path(source).is_file():
        return False
    if random_weights and _timm_name(source):
        return True
    try:
        config = read_config(source)
    except ConversionError:
        return False  # whoever reads it next says what is wrong
    return type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING and not is_mae_vit(config, source)


def build_comparator(
    model_name_or_path: str | Path,
    names: list[str] | None = None,
    num_labels: int | None = None,
    image_size: int | None = None,
    drop_path: float = 0.0,
    random_weights: bool = False,
) -> StockModel:
    """A stock classifier that `is_comparator`, ready to train.

    Args:
        model_name_or_path: a transformers folder or a Hub id, of timm too; with `random_weights` also `timm/NAME` of
            any model that timm knows, which downloads nothing.
        names: of the classes; a head of other classes is replaced by a fresh one.
        num_labels: where there are no names.
        image_size: pixels; position embeddings are resized where timm can.
        drop_path: stochastic depth, in networks that have it.

    Returns:
        The model, with what became of the source in `model.conversion_report`.

    Raises:
        UsageError: it cannot be loaded, or not be used with images of this size.
    """
    source = str(model_name_or_path)
    own, config = _load_configs(source, names, num_labels, random_weights)
    try:
        size = image_size or config_image_size(own) or DEFAULT_IMAGE_SIZE
    except UsageError as error:
        raise UsageError(f"{source} cannot be used: {error}") from None
    set_config_drop_path(config, drop_path, source)
    if random_weights:
        model, fresh = AutoModelForImageClassification.from_config(config), "random weights were asked for"
        report = _make_report(source, model, [])
        logger.info("Random weights: of %s only the sizes are taken.", source)
    else:
        model, loaded, fresh = _load_pretrained(source, own, config)
        report = _make_report(source, model, loaded)
    name, head = find_head(model)
    if fresh:
        nn.init.trunc_normal_(head.weight, std=HEAD_STD)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
        report.initialized.append({"target": name, "reason": f"{fresh}; truncated normal, std {HEAD_STD}"})
    if is_timm(config) and size != config_image_size(config) and hasattr(model.timm_model, "set_input_size"):
        model = _resize_input(model, size, source)
    set_input_size(model, size, source)
    model.conversion_report = report
    return model.train()


def _timm_name(source: str) -> str | None:
    """The name of a model that timm knows, of `timm/NAME`."""
    from timm import is_model

    name = source.removeprefix(TIMM_PREFIX)
    return name if source.startswith(TIMM_PREFIX) and not Path(source).exists() and is_model(name) else None


def _load_configs(
    source: str, names: list[str] | None, num_labels: int | None, random_weights: bool
) -> tuple[Any, Any]:
    """The source's own configuration, and the same with the classes that are asked for."""
    name = _timm_name(source) if random_weights else None
    own = _timm_config(name) if name else read_config(source)
    config = copy.deepcopy(own)
    if names:
        config.id2label, config.label2id = dict(enumerate(names)), {label: i for i, label in enumerate(names)}
    elif num_labels:
        config.num_labels = num_labels
    if not config.num_labels:
        raise UsageError(f"{source} has no head: say how many classes it is to have.")
    if hasattr(config, "label_names"):  # in a file of timm's wrapper; saved, they would win over `id2label`
        del config.label_names
    return own, config


def _timm_config(name: str) -> Any:
    """The configuration of a model that timm knows, of two classes."""
    from timm import get_pretrained_cfg
    from transformers import TimmWrapperConfig

    check_timm_version()
    values = {"architecture": name.split(".")[0], "num_classes": 2, "model_args": {}}
    return TimmWrapperConfig.from_dict(
        values | {"pretrained_cfg": getattr(get_pretrained_cfg(name), "to_dict", dict)()}
    )


def set_config_drop_path(config: Any, drop_path: float, source: str) -> None:
    """Stochastic depth in a configuration, where its network has it; else says that there is none."""
    if is_timm(config):
        config.model_args = dict(config.model_args or {}) | {DROP_PATH_FIELDS[0]: float(drop_path)}
        if _can_build(config, source):
            return
        del config.model_args[DROP_PATH_FIELDS[0]]
    elif known := [name for name in DROP_PATH_FIELDS if hasattr(config, name)]:
        setattr(config, known[0], float(drop_path))
        return
    if drop_path:
        logger.info("%s has no stochastic depth: drop path %g is left out.", config.model_type, drop_path)


def _can_build(config: Any, source: str) -> bool:
    """Whether timm knows the arguments of a model.

    Raises:
        UsageError: it cannot build it for another reason.
    """
    try:
        with torch.device("meta"):
            AutoModelForImageClassification.from_config(config)
    except TypeError:
        return False
    except Exception as error:  # whatever transformers and timm make of values that they do not expect
        raise UsageError(f"{source} cannot be built ({first_error_line(error)}).") from None
    return True


def _load_pretrained(source: str, source_config: Any, config: Any) -> tuple[StockModel, list[str], str]:
    """The model with the source's weights, their names, and why its head is fresh ('' where it is not)."""
    model, info = load_stock_model(source, "AutoModelForImageClassification", config=config)
    head, _ = find_head(model)
    missing = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    if others := sorted(name for name in missing if not name.startswith(f"{head}.")):
        raise UsageError(
            f"{source} lacks weights of a {type(model).__name__}, or has them of another size: {', '.join(others[:3])}."
        )
    state = model.state_dict()
    check_weights_finite(state, source)
    names, before = list(config.id2label.values()), list(source_config.id2label.values())
    fresh = ""
    if missing:
        fresh = f"the source has no head of {len(names)} classes"
    elif names != before and names[:1] != ["LABEL_0"]:
        fresh = f"the source's head knows other classes ({', '.join(map(str, before[:3]))})"
    return model, sorted(state.keys() - missing), fresh


def _make_report(source: str, model: StockModel, loaded_keys: list[str]) -> ConversionReport:
    return ConversionReport(
        source={"name": source, "layout": describe_model(model)},
        target={"class": type(model).__name__, "pooling": None, "num_labels": model.config.num_labels},
        mapping=[{"source": name, "target": [name]} for name in loaded_keys],
        unused=[],
        initialized=[],
    )


def _resize_input(model: StockModel, size: int, source: str) -> StockModel:
    """A model of timm for images of another size, built as it will be built when it is read back."""
    config = model.config
    config.model_args = dict(config.model_args or {}) | {"img_size": size}
    try:
        with torch.no_grad():
            model.timm_model.set_input_size(img_size=(size, size))
        resized = type(model)(config)
        resized.timm_model.load_state_dict(model.timm_model.state_dict())
    except Exception as error:  # whatever a network makes of a size that is not its own
        raise _input_size_error(size, source, error) from None
    return resized


def _input_size_error(size: int, source: str, error: Exception) -> UsageError:
    return UsageError(f"{source} cannot take images of {size} pixels ({first_error_line(error)}).")


@torch.no_grad()
def set_input_size(model: StockModel, size: int, source: str) -> None:
    """Lets a model be used with images of a size, and tries it with one.

    Raises:
        UsageError: it cannot be.
    """
    training = model.training
    try:
        model.eval()(pixel_values=torch.zeros(1, NUM_CHANNELS, size, size, device=model.device, dtype=model.dtype))
        model.train(training)
    except Exception as error:  # whatever a network makes of a size that is not its own
        raise _input_size_error(size, source, error) from None
    model.input_size = size
