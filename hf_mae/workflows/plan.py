"""`plan`: what a fine-tuning would do; and what is chosen for a user who has no opinion."""

import logging
from collections.abc import Mapping
from typing import Any

from datasets import DatasetDict

from ..data.ledger import Ledger, followed
from ..data.sources import load_splits
from ..models.building import build_classifier
from ..models.checkpoints import resolve
from ..models.loading import own_label_names
from ..models.parts import input_size, width_of
from ..settings.data import DataArguments
from ..settings.fill import Settings, fill, read_values
from ..settings.models import ModelArguments
from ..training.choices import BATCH_SIZES, Choice, choose, choose_split
from ..training.planning import Plan
from ..training.planning import plan as plan_of

logger = logging.getLogger(__name__)


def plan(*, recipe: str | None = None, **flags: Any) -> Plan:
    """What `finetune` would do with the same flags; nothing is trained or written.

    Args:
        recipe: a recipe of the package, or a YAML file; `flags` win over it.
        flags: the flags of `hf-mae finetune`.

    Raises:
        UsageError: one sentence on what is wrong.
    """
    settings, _ = settled(recipe, flags)
    model_args, data_args, args, _ = settings.parts
    splits, ledger = read(model_args, data_args, args.seed)
    model = build_classifier(
        resolve(model_args.model_name_or_path or ""),
        pooling=model_args.pooling,
        id2label=dict(enumerate(splits["train"].features["labels"].names)),
        image_size=model_args.image_size,
        num_attention_heads=model_args.num_attention_heads,
        random_weights=model_args.random_weights,
    )
    return plan_of(splits, ledger, model, data_args, args, measure=True)


def read(model_args: ModelArguments, data_args: DataArguments, seed: int) -> tuple[DatasetDict, Ledger]:
    """The splits of a run, and what was found and left out."""
    with followed() as ledger:
        return load_splits(data_args, seed, own_label_names(str(model_args.model_name_or_path))), ledger


def settled(recipe: str | None, flags: Mapping[str, Any]) -> tuple[Settings, list[Choice]]:
    """The settings of a run; with `auto`, what is not given is chosen, and said."""
    settings = fill("finetune", recipe, **flags)
    if not settings.parts[3].auto:
        return settings, []
    given = set(read_values("finetune", recipe, flags))
    model_args, data_args, args, _ = settings.parts
    splits, _ = read(model_args, data_args, args.seed)
    chosen = [choice for choice in choose_split(splits) if choice.name not in given]
    if chosen:
        settings = _with(recipe, flags, chosen)
        splits, _ = read(model_args, settings.parts[1], args.seed)
    model = build_classifier(
        resolve(model_args.model_name_or_path or ""),
        pooling="auto",
        num_labels=2,
        random_weights=model_args.random_weights,
    )
    asked = {name: getattr(args, name) for name in BATCH_SIZES if name in given}
    parts = args.world_size * args.gradient_accumulation_steps
    choices = choose(splits, width_of(model), input_size(model), args, asked, parts)
    if "learning_rate" in given:
        given.add("base_learning_rate")  # which it would follow from
    chosen += [one for one in choices if one.name not in given]
    for one in chosen:
        logger.info("chosen: %s %s, as %s", one.name, one.value, one.reason)
    return _with(recipe, flags, chosen), chosen


def _with(recipe: str | None, flags: Mapping[str, Any], chosen: list[Choice]) -> Settings:
    return fill("finetune", recipe, **dict(flags) | {one.name: one.value for one in chosen})
