"""`plan`: what a fine-tuning would do; and what is chosen for a user who has no opinion."""

import logging
from collections.abc import Mapping
from typing import Any

from datasets import DatasetDict

from ..data.exclusion_log import ExclusionLog, track_exclusions
from ..data.split_loading import load_splits
from ..models.building import build_classifier
from ..models.introspection import head_in_features, input_size
from ..models.loading import read_class_names
from ..models.model_zoo import resolve_checkpoint
from ..settings.data import DataArguments
from ..settings.models import ModelArguments
from ..settings.parse import Settings, parse_settings, read_values
from ..training.autoconfig import BATCH_SIZE_FLAGS, AutoSetting, choose_settings, choose_split_settings
from ..training.training_plan import Plan
from ..training.training_plan import build_plan as plan_of

logger = logging.getLogger(__name__)


def plan(*, recipe: str | None = None, **flags: Any) -> Plan:
    """What `finetune` would do with the same flags; nothing is trained or written.

    Args:
        recipe: a recipe of the package, or a YAML file; `flags` win over it.
        flags: the flags of `hf-mae finetune`.

    Raises:
        UsageError: one sentence on what is wrong.
    """
    settings, _ = resolve_settings(recipe, flags)
    model_args, data_args, args, _ = settings.arguments
    splits, ledger = load_data(model_args, data_args, args.seed)
    model = build_classifier(
        resolve_checkpoint(model_args.model_name_or_path or ""),
        pooling=model_args.pooling,
        id2label=dict(enumerate(splits["train"].features["labels"].names)),
        image_size=model_args.image_size,
        num_attention_heads=model_args.num_attention_heads,
        random_weights=model_args.random_weights,
    )
    return plan_of(splits, ledger, model, data_args, args, measure=True)


def load_data(model_args: ModelArguments, data_args: DataArguments, seed: int) -> tuple[DatasetDict, ExclusionLog]:
    """The splits of a run, and what was found and left out."""
    with track_exclusions() as ledger:
        return load_splits(data_args, seed, read_class_names(str(model_args.model_name_or_path))), ledger


def resolve_settings(recipe: str | None, flags: Mapping[str, Any]) -> tuple[Settings, list[AutoSetting]]:
    """The settings of a run; with `auto`, what is not given is chosen, and said."""
    settings = parse_settings("finetune", recipe, **flags)
    if not settings.arguments[3].auto:
        return settings, []
    given = set(read_values("finetune", recipe, flags))
    model_args, data_args, args, _ = settings.arguments
    splits, _ = load_data(model_args, data_args, args.seed)
    chosen = [choice for choice in choose_split_settings(splits) if choice.name not in given]
    if chosen:
        settings = _override_settings(recipe, flags, chosen)
        splits, _ = load_data(model_args, settings.arguments[1], args.seed)
    model = build_classifier(
        resolve_checkpoint(model_args.model_name_or_path or ""),
        pooling="auto",
        num_labels=2,
        random_weights=model_args.random_weights,
    )
    asked = {name: getattr(args, name) for name in BATCH_SIZE_FLAGS if name in given}
    parts = args.world_size * args.gradient_accumulation_steps
    choices = choose_settings(splits, head_in_features(model), input_size(model), args, asked, parts)
    if "learning_rate" in given:
        given.add("base_learning_rate")  # which it would follow from
    chosen += [one for one in choices if one.name not in given]
    for one in chosen:
        logger.info("chosen: %s %s, as %s", one.name, one.value, one.reason)
    return _override_settings(recipe, flags, chosen), chosen


def _override_settings(recipe: str | None, flags: Mapping[str, Any], auto_settings: list[AutoSetting]) -> Settings:
    return parse_settings("finetune", recipe, **dict(flags) | {one.name: one.value for one in auto_settings})
