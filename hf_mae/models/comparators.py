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

from ..compat.timm import refuse_old_networks
from ..compat.transformers import StockModel
from ..conversion.bounds import is_timm
from ..conversion.errors import ConversionError
from ..conversion.normal_form import refuse_not_finite
from ..conversion.pretrained import is_of_the_reference, load_stock, read_config
from ..conversion.report import ConversionReport
from ..errors import UsageError, first_line
from .parts import CHANNELS, describe, head_of, own_size

logger = logging.getLogger(__name__)
TIMM = "timm/"  # what timm's models are called on the Hub
USUAL_SIZE = 224  # of models that take any
HEAD_STD = 0.02  # of fresh heads, as timm's and transformers' own
DROP_PATH = ("drop_path_rate", "drop_connect_rate")  # what configurations call it


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
    return type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING and not is_of_the_reference(config, source)


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
    own, config = _configurations(source, names, num_labels, random_weights)
    try:
        size = image_size or own_size(own) or USUAL_SIZE
    except UsageError as error:
        raise UsageError(f"{source} cannot be used: {error}") from None
    set_rate(config, drop_path, source)
    if random_weights:
        model, fresh = AutoModelForImageClassification.from_config(config), "random weights were asked for"
        report = _report(source, model, [])
        logger.info("Random weights: of %s only the sizes are taken.", source)
    else:
        model, loaded, fresh = _loaded(source, own, config)
        report = _report(source, model, loaded)
    name, head = head_of(model)
    if fresh:
        nn.init.trunc_normal_(head.weight, std=HEAD_STD)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
        report.new.append({"target": name, "reason": f"{fresh}; truncated normal, std {HEAD_STD}"})
    if is_timm(config) and size != own_size(config) and hasattr(model.timm_model, "set_input_size"):
        model = _resized(model, size, source)
    set_input_size(model, size, source)
    model.conversion_report = report
    return model.train()


def _timm_name(source: str) -> str | None:
    """The name of a model that timm knows, of `timm/NAME`."""
    from timm import is_model

    name = source.removeprefix(TIMM)
    return name if source.startswith(TIMM) and not Path(source).exists() and is_model(name) else None


def _configurations(
    source: str, names: list[str] | None, num_labels: int | None, random_weights: bool
) -> tuple[Any, Any]:
    """The source's own configuration, and the same with the classes that are asked for."""
    name = _timm_name(source) if random_weights else None
    own = _of_a_name(name) if name else read_config(source)
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


def _of_a_name(name: str) -> Any:
    """The configuration of a model that timm knows, of two classes."""
    from timm import get_pretrained_cfg
    from transformers import TimmWrapperConfig

    refuse_old_networks()
    values = {"architecture": name.split(".")[0], "num_classes": 2, "model_args": {}}
    return TimmWrapperConfig.from_dict(
        values | {"pretrained_cfg": getattr(get_pretrained_cfg(name), "to_dict", dict)()}
    )


def set_rate(config: Any, rate: float, source: str) -> None:
    """Stochastic depth in a configuration, where its network has it; else says that there is none."""
    if is_timm(config):
        config.model_args = dict(config.model_args or {}) | {DROP_PATH[0]: float(rate)}
        if _builds(config, source):
            return
        del config.model_args[DROP_PATH[0]]
    elif known := [name for name in DROP_PATH if hasattr(config, name)]:
        setattr(config, known[0], float(rate))
        return
    if rate:
        logger.info("%s has no stochastic depth: drop path %g is left out.", config.model_type, rate)


def _builds(config: Any, source: str) -> bool:
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
        raise UsageError(f"{source} cannot be built ({first_line(error)}).") from None
    return True


def _loaded(source: str, own: Any, config: Any) -> tuple[StockModel, list[str], str]:
    """The model with the source's weights, their names, and why its head is fresh ('' where it is not)."""
    model, info = load_stock(source, "AutoModelForImageClassification", config=config)
    head, _ = head_of(model)
    missing = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    if others := sorted(name for name in missing if not name.startswith(f"{head}.")):
        raise UsageError(
            f"{source} lacks weights of a {type(model).__name__}, or has them of another size: {', '.join(others[:3])}."
        )
    state = model.state_dict()
    refuse_not_finite(state, source)
    names, before = list(config.id2label.values()), list(own.id2label.values())
    fresh = ""
    if missing:
        fresh = f"the source has no head of {len(names)} classes"
    elif names != before and names[:1] != ["LABEL_0"]:
        fresh = f"the source's head knows other classes ({', '.join(map(str, before[:3]))})"
    return model, sorted(state.keys() - missing), fresh


def _report(source: str, model: StockModel, loaded: list[str]) -> ConversionReport:
    return ConversionReport(
        source={"name": source, "layout": describe(model)},
        target={"class": type(model).__name__, "pooling": None, "num_labels": model.config.num_labels},
        ledger=[{"source": name, "target": [name]} for name in loaded],
        left_out=[],
        new=[],
    )


def _resized(model: StockModel, size: int, source: str) -> StockModel:
    """A model of timm for images of another size, built as it will be built when it is read back."""
    config = model.config
    config.model_args = dict(config.model_args or {}) | {"img_size": size}
    try:
        with torch.no_grad():
            model.timm_model.set_input_size(img_size=(size, size))
        resized = type(model)(config)
        resized.timm_model.load_state_dict(model.timm_model.state_dict())
    except Exception as error:  # whatever a network makes of a size that is not its own
        raise _cannot_take(size, source, error) from None
    return resized


def _cannot_take(size: int, source: str, error: Exception) -> UsageError:
    return UsageError(f"{source} cannot take images of {size} pixels ({first_line(error)}).")


@torch.no_grad()
def set_input_size(model: StockModel, size: int, source: str) -> None:
    """Lets a model be used with images of a size, and tries it with one.

    Raises:
        UsageError: it cannot be.
    """
    training = model.training
    try:
        model.eval()(pixel_values=torch.zeros(1, CHANNELS, size, size, device=model.device, dtype=model.dtype))
        model.train(training)
    except Exception as error:  # whatever a network makes of a size that is not its own
        raise _cannot_take(size, source, error) from None
    model.input_size = size
