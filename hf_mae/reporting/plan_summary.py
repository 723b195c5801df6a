"""The start of a run as text: the conversion of its checkpoint, the settings of `--auto` with reasons, and its plan."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..conversion.report import ConversionReport
from ..data.images.cache_eviction import format_bytes
from ..errors import pluralize
from ..files.atomic import write_text
from ..settings.metrics import metric_title
from ..training.auto_settings import AutoReason, AutoSetting
from ..training.training_plan import Device, Plan, html_renderers
from .conversion_summary import format_conversion
from .document import Block
from .renderers import html, terminal
from .run_sentences import describe_exclusion
from .table import fields_table

logger = logging.getLogger(__name__)

MAX_CLASSES = 6  # that are listed


AUTO_REASON_TEXTS = {
    AutoReason.NO_VALIDATION_SPLIT: "selecting the epoch needs a validation split, which the data does not have",
    AutoReason.SIZE_OF_CHECKPOINT: "it is the size of the checkpoint",
    AutoReason.NO_GPU: "without a GPU, float32 is exact (--bf16 is faster on some CPUs)",
    AutoReason.BFLOAT16: "the GPU supports bfloat16",
    AutoReason.NO_BFLOAT16: "the GPU does not support bfloat16",
    AutoReason.NO_BFLOAT16_FOR_HUGE_MODEL: (
        "the GPU does not support bfloat16, and fp16 gives NaN losses with a ViT-H"
    ),
    AutoReason.CPU_CORES: "there are {cores} CPU cores",
    AutoReason.UPDATES_PER_EPOCH: "an epoch of {images} images then has {updates}",
    AutoReason.FITS_INTO_MEMORY: "expected to fit into memory (one step is tried before the first epoch)",
    AutoReason.SQUARE_ROOT_OF_BATCH_SIZE: (
        "AdamW's rate scales with the square root of the batch size ({batch_size}), not linearly"
    ),
    AutoReason.TRAINING_IMAGES: "there are {images} training images; fewer images need more epochs",
    AutoReason.TENTH_OF_EPOCHS: "it is a tenth of the epochs, as in the original MAE code",
    AutoReason.CLASS_RATIO: "the largest class has {ratio} times as many images as the smallest",
    AutoReason.IMBALANCE_AND_RECALL: (
        "the largest class has {ratio} times as many images as the smallest, and {metric} depends on recall only"
    ),
    AutoReason.IMBALANCE_AND_PRECISION: (
        "the largest class has {ratio} times as many images as the smallest, and class weights would cost precision"
    ),
    AutoReason.SIZE_OF_MODEL: "the original MAE code uses it for {is_large}",
}
AUTO_VALUE_FORMATS = {
    "updates": lambda count: pluralize(count, "update"),
    "ratio": lambda ratio: f"{ratio:.1f}",
    "is_large": lambda is_large: "large models" if is_large else "models of this size",
}


def describe_auto_reason(setting: AutoSetting) -> str:
    """Describes why `--auto` chose a setting, as a clause."""
    values = {name: AUTO_VALUE_FORMATS.get(name, str)(value) for name, value in setting.values.items()}
    return AUTO_REASON_TEXTS[setting.reason].format(**values)


def write_auto_recipe(path: Path, settings: Sequence[AutoSetting]) -> None:
    """Writes the settings of `--auto` as a recipe, with the reason as a comment on each line."""
    lines = ["# Chosen by --auto. Pass this file to hf-mae finetune --recipe; flags override it."]
    for setting in settings:
        value = setting.value
        text = str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")
        lines.append(f"{setting.name + ': ' + text:36} # {describe_auto_reason(setting)}")
    write_text(path, "\n".join(lines) + "\n")


def log_conversion(report: ConversionReport) -> None:
    """Logs how the model was built from its checkpoint."""
    logger.info(format_conversion(report))


def log_plan(plan: Plan) -> None:
    """Logs the plan of a run that starts."""
    logger.info("Plan:\n%s", format_plan(plan))


def format_plan(plan: Plan) -> str:
    """Formats a plan in lines of at most 80 columns: a title and its value per entry, with wrapped values indented."""
    return terminal.render(build_plan_summary(plan))


def build_plan_summary(plan: Plan) -> list[Block]:
    """Builds the table of a plan."""
    return [fields_table(_entries(plan))]


def _entries(plan: Plan) -> Iterator[tuple[str, str]]:
    """Returns the title and text of each entry."""
    model = f"{plan.network}, {plan.image_size} pixels, {plan.parameters / 1e6:.1f} M trainable parameters"
    yield "model", f"{model}, on {describe_device(plan.device)}"
    yield from ((split, _describe_split(plan, split)) for split in plan.images)
    if plan.excluded:
        yield "excluded", "; ".join(f"{step.images} {describe_exclusion(step)}" for step in plan.excluded)
    batch = f"{pluralize(plan.images_per_update, 'image')} per update"
    if plan.dropped_images:
        batch += f" ({pluralize(plan.dropped_images, 'image')} of each epoch dropped)"
    yield "batch size", f"{batch}, learning rate {plan.learning_rate:.3g} (head)"
    epochs = "1 epoch" if plan.epochs == 1 else f"{plan.epochs:g} epochs"
    yield "schedule", f"{epochs}, {pluralize(plan.updates, 'update')}, {plan.warmup_updates} of them warm-up"
    yield "selection", _describe_selection(plan)
    if plan.cache_bytes:
        yield "cache", f"about {format_bytes(plan.cache_bytes)} of decoded images"
    if plan.step_profile is not None and plan.seconds_per_epoch is not None:
        profile = plan.step_profile
        method = "measured" if profile.measured else f"estimated from a step of {profile.images} images"
        total = format_duration(plan.seconds_per_epoch * plan.epochs)
        yield "memory", f"about {format_bytes(profile.peak_bytes)} for training and evaluation ({method})"
        yield "time", f"about {format_duration(plan.seconds_per_epoch)} per epoch, {total} in total"
    yield from (("warning", warning.code.render(**warning.values)) for warning in plan.warnings)


def describe_device(device: Device) -> str:
    """Describes the GPUs, or the type of the device."""
    if device.gpu_name is not None:
        return f"{device.processes} x {device.gpu_name}"
    return f"{device.type.upper()} ({pluralize(device.processes, 'process')})"


def _describe_split(plan: Plan, split: str) -> str:
    counts = plan.images[split]
    groups = f" of {plan.groups[split]} patients or videos" if plan.groups.get(split) else ""
    parts = [f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    parts = parts if len(parts) <= MAX_CLASSES else [*parts[:3], "...", *parts[-2:]]
    images, classes = pluralize(sum(counts.values()), "image"), pluralize(len(counts), "class")
    return f"{images}{groups} in {classes} ({', '.join(parts)})"


def _describe_selection(plan: Plan) -> str:
    if plan.selection_split is None:
        return "none: last epoch (--val_fraction 0.2 holds out a validation split)"
    if plan.metric is None:
        return f"none: last epoch; the {plan.selection_split} split is evaluated"
    return f"epoch with the best {metric_title(plan.metric)} on the {plan.selection_split} split"


def format_duration(seconds: float) -> str:
    """Formats a duration with a unit that gives at least 2."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


html_renderers.append(lambda plan: html.render(build_plan_summary(plan)))
