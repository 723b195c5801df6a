"""The report of a conversion as text: one sentence per fact."""

from collections.abc import Mapping
from typing import Any

from ..conversion.facts import BaselineModel, Fact, FactCode
from ..conversion.layouts import LAYOUTS
from ..conversion.report import ConversionReport, html_renderers
from ..errors import abbreviate_list, pluralize
from .document import Block, Paragraph
from .renderers import html, terminal
from .table import fields_table

FACT_TEXTS = {
    FactCode.NOT_A_TENSOR: "not a tensor ({type})",
    FactCode.TRAINING_STATE: "state of the training run, not model weights",
    FactCode.OUTSIDE_MODULE: "outside the module '{prefix}'",
    FactCode.PREFIX_REMOVED: "the prefix '{prefix}' was removed from the keys",
    FactCode.WRAPPERS_REMOVED: "the names of wrappers were removed from the keys ({names})",
    FactCode.KEYS_RENAMED: "the keys were renamed ({layout})",
    FactCode.AVERAGED_WEIGHTS: "these are the averaged weights ({location})",
    FactCode.OTHER_AVERAGED_WEIGHTS: "averaged weights ({location}); pass --weights ema to convert them",
    FactCode.OTHER_PLAIN_WEIGHTS: "plain weights ({location}); pass --weights plain to convert them",
    FactCode.CAST_TO_FLOAT32: "{dtypes} weights were converted to float32",
    FactCode.NOT_A_PARAMETER: "not a parameter of {class_name}",
    FactCode.NOT_LOADED: "not loaded by {class_name}",
    FactCode.DECODER: "decoder: used in pre-training only",
    FactCode.PRETRAINING_ONLY: "used in pre-training only",
    FactCode.POOLING_NORM_OF_CLASSIFIER: "pooling norm of a classifier; not used by this class",
    FactCode.HEAD_OF_CLASSIFIER: "classification head; not used by this class",
    FactCode.NORM_OF_MEAN_POOLING: "norm of mean pooling; the class token is normalized by `norm`",
    FactCode.NORM_BEFORE_MEAN_POOLING: "mean pooling normalizes the pooled patches (fc_norm) instead",
    FactCode.COMPUTED_FROM_IMAGE_SIZE: "computed from the image size",
    FactCode.NEW_FC_NORM: "the norm of mean pooling is initialized with weight 1 and bias 0, as in the original code",
    FactCode.NEW_NORM: (
        "the checkpoint was fine-tuned with mean pooling and lacks it; initialized with weight 1 and bias 0"
    ),
    FactCode.NO_DECODER: "the checkpoint has no decoder",
    FactCode.NO_HEAD: "the checkpoint has no head",
    FactCode.HEAD_SIZE_DIFFERS: "the head of the checkpoint has {found} labels, not {requested}",
    FactCode.HEAD_CLASSES_DIFFER: ("the head of the checkpoint has different class names or another order of classes"),
    FactCode.RANDOM_WEIGHTS: "random weights were requested",
    FactCode.SOURCE_WITHOUT_HEAD: "the source has no head of {classes} classes",
    FactCode.SOURCE_CLASSES_DIFFER: "the head of the source has other classes ({names})",
    FactCode.HEAD_NAMES_FROM_LABELS: (
        "the head of the checkpoint is kept; the names and the order of its {classes} classes are taken from --labels, "
        "because the checkpoint does not contain them"
    ),
    FactCode.LINEAR_PROBE_FOLDED: ("the head of a linear probe (batch norm, linear) was folded into one linear layer"),
    FactCode.CLASS_TOKEN_POSITION_ADDED: (
        "a row of zeros was added to the position embeddings for the class token (the model uses timm's no_embed_class)"
    ),
    FactCode.ASSUMED: (
        "{name} = {value} is assumed, the original default for this width; the file does not contain it"
    ),
    FactCode.NORM_PIX_LOSS_ASSUMED: (
        "norm_pix_loss = false is assumed; the file does not contain it; pass --norm_pix_loss if the decoder predicts "
        "normalized patches"
    ),
    FactCode.POSITIONS_RESIZED: "position embeddings resized (bicubic) from {old} to {new} pixels",
    FactCode.PROCESSOR_OF_SOURCE: "the image processor is that of the source",
    FactCode.PROCESSOR_SCALED: "the image processor was scaled to {pixels} pixels",
    FactCode.PROCESSOR_RESIZES: "the image processor resizes every image to {height} x {width} pixels",
    FactCode.NO_PROCESSOR: (
        "no image processor was written, because transformers supports no images with {channels} channels"
    ),
    FactCode.MEAN_AND_STD_OF_BEIT: (
        "images are normalized with mean and std 0.5, as in BEiT (--mean_std 0.5 0.5 0.5 0.5 0.5 0.5)"
    ),
}
NEW_HEAD = {
    *(FactCode.NO_HEAD, FactCode.HEAD_SIZE_DIFFERS, FactCode.HEAD_CLASSES_DIFFER),
    *(FactCode.RANDOM_WEIGHTS, FactCode.SOURCE_WITHOUT_HEAD, FactCode.SOURCE_CLASSES_DIFFER),
}
NEW_HEAD_TEXTS = {
    "unused": "; replaced by a new head",
    "initialized": "; truncated normal, std 2e-5",
    "note": "; it was replaced by a new head",
}
BASELINE_TEXTS = {
    BaselineModel.FACEBOOKRESEARCH_MAE: "a reimplementation of facebookresearch/mae",
    BaselineModel.TIMM: "timm",
    BaselineModel.TRANSFORMERS: "the source in transformers",
}


def build_conversion_summary(report: ConversionReport) -> list[Block]:
    """Builds a summary of a report: the used tensors, the reasons of the others, and notes."""
    fields: list[tuple[str, str]] = [("used", f"{pluralize(len(report.mapping), 'tensor')} of the source")]
    names_by_reason: dict[str, list[str]] = {}
    for entry in report.unused:
        names_by_reason.setdefault(describe_fact(entry["reason"], "unused"), []).append(entry["source"])
    fields += [("unused", f"{abbreviate_list(names)}: {reason}") for reason, names in names_by_reason.items()]
    fields += [
        ("initialized", f"{entry['target']}: {describe_fact(entry['reason'], 'initialized')}")
        for entry in report.initialized
    ]
    fields += [("note", describe_fact(note, "note")) for note in report.notes]
    if verification := report.verification:
        fields.append(
            (
                "verified",
                f"against {BASELINE_TEXTS[verification.against]}: largest difference "
                f"{verification.max_abs_difference:.2g} (largest output {verification.max_abs_output:.2g})",
            )
        )
    title = f"{report.source['name']} ({_describe_contents(report.source)}) -> {report.target['class']}"
    return [Paragraph(title), fields_table(fields)]


def format_conversion(report: ConversionReport) -> str:
    """Formats the summary as text, one line per entry."""
    return terminal.render(build_conversion_summary(report), wrap=False)


def describe_fact(fact: Fact, section: str) -> str:
    """Describes a fact in a section of the report: `unused`, `initialized` or `note`."""
    text = FACT_TEXTS[fact.code].format(**{name: _format_value(name, value) for name, value in fact.values.items()})
    if section == "note" and fact.code in (FactCode.OTHER_AVERAGED_WEIGHTS, FactCode.OTHER_PLAIN_WEIGHTS):
        return f"the file also contains {text}"
    return text + (NEW_HEAD_TEXTS[section] if fact.code in NEW_HEAD else "")


def _format_value(name: str, value: Any) -> str:
    if name == "layout":
        return LAYOUTS[value].title
    return ", ".join(value or ["without names"]) if isinstance(value, list) else str(value)


def _describe_contents(source: Mapping[str, Any]) -> str:
    if source.get("class"):
        return f"transformers {source['class']}"
    if network := source.get("network"):
        return str(network)
    return f"{{{', '.join(source['contents'])}}}" if source.get("contents") else "a bare state dict"


html_renderers.append(lambda report: html.render(build_conversion_summary(report)))
