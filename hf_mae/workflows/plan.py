"""`plan`: what a fine-tuning would do. Also resolves the settings of `finetune`, with `--auto`."""

import logging
from collections.abc import Mapping
from typing import Any

from datasets import DatasetDict

from ..data.exclusion_log import ExclusionLog, track_exclusions
from ..data.sources.split_loading import load_splits
from ..errors import inform
from ..models.building import build_classifier
from ..models.introspection import head_in_features, input_size
from ..models.loading import read_class_names
from ..models.model_zoo import resolve_checkpoint
from ..settings.data import DataArguments
from ..settings.models import ModelArguments
from ..settings.parse import Settings, parse_settings, read_values
from ..training.training_plan import Plan, build_plan
from .autoconfig import BATCH_SIZE_FLAGS, AutoSetting, choose_settings, choose_split_settings
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)


def plan(*, recipe: str | None = None, **flags: Any) -> Plan:
    """Plans what `finetune` would do with the same flags; trains and writes nothing.

    Args:
        recipe: a recipe of the package, or a YAML file; `flags` override it.
        flags: the flags of `hf-mae finetune`.

    Raises:
        UsageError: If a flag, the data or the checkpoint is invalid.
    """
    settings, _ = resolve_settings(recipe, flags)
    model_args, data_args, args, _ = settings.arguments
    splits, exclusion_log = load_data(model_args, data_args, args.seed)
    model = build_classifier(
        resolve_checkpoint(model_args.model_name_or_path or ""),
        pooling=model_args.pooling,
        id2label=dict(enumerate(splits["train"].features["labels"].names)),
        image_size=model_args.image_size,
        num_attention_heads=model_args.num_attention_heads,
        random_weights=model_args.random_weights,
    )
    return build_plan(splits, exclusion_log, model, data_args, args, measure=True)


def load_data(model_args: ModelArguments, data_args: DataArguments, seed: int) -> tuple[DatasetDict, ExclusionLog]:
    """Loads the splits of a run, and logs the excluded images."""
    with track_exclusions() as exclusion_log:
        return load_splits(data_args, seed, read_class_names(str(model_args.model_name_or_path))), exclusion_log


def resolve_settings(recipe: str | None, flags: Mapping[str, Any]) -> tuple[Settings, list[AutoSetting]]:
    """Parses the settings of a run; with `auto`, chooses the settings that are not explicit, and logs them."""
    settings = parse_settings("finetune", recipe, **flags)
    if not settings.arguments[3].auto:
        return settings, []
    explicit = set(read_values("finetune", recipe, flags))
    model_args, data_args, args, _ = settings.arguments
    splits, _ = load_data(model_args, data_args, args.seed)
    auto_settings = [setting for setting in choose_split_settings(splits) if setting.name not in explicit]
    if auto_settings:
        settings = _override_settings(recipe, flags, auto_settings)
        splits, _ = load_data(model_args, settings.arguments[1], args.seed)
    model = build_classifier(
        resolve_checkpoint(model_args.model_name_or_path or ""),
        pooling="auto",
        num_labels=2,
        random_weights=model_args.random_weights,
    )
    batch_sizes = {name: getattr(args, name) for name in BATCH_SIZE_FLAGS if name in explicit}
    micro_batches = args.world_size * args.gradient_accumulation_steps
    candidates = choose_settings(splits, head_in_features(model), input_size(model), args, batch_sizes, micro_batches)
    if "learning_rate" in explicit:
        explicit.add("base_learning_rate")  # it overrides the linear rule
    auto_settings += [setting for setting in candidates if setting.name not in explicit]
    for setting in auto_settings:
        inform(logger, WorkflowMessage.AUTO_SETTING, name=setting.name, value=setting.value, reason=setting.reason)
    return _override_settings(recipe, flags, auto_settings), auto_settings


def _override_settings(recipe: str | None, flags: Mapping[str, Any], auto_settings: list[AutoSetting]) -> Settings:
    return parse_settings(
        "finetune", recipe, **dict(flags) | {setting.name: setting.value for setting in auto_settings}
    )
