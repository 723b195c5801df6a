"""`plan`: what a fine-tuning would do. Also loads the data of `finetune`, and chooses settings with `--auto`."""

import copy
import logging
import tempfile
from typing import Any

from ..data.images.torch_datasets import TrainDataset
from ..data.images.transforms import image_processor, training_transform_from_processor
from ..data.labelled_data import LabelledData, load_labelled_data
from ..errors import inform
from ..models.building import build_training_model
from ..models.introspection import find_head, input_size
from ..models.loading import read_class_names
from ..reporting.plan_summary import describe_auto_reason
from ..runs.output_dir import check_recipe_data, check_same_run, resolve_resume_checkpoint
from ..runs.record import DataSource
from ..settings.arguments import FinetuningArguments
from ..settings.parse import Settings
from ..training.auto_settings import AutoSetting
from ..training.finetuner import MaeFinetuner
from ..training.run_trainer import disable_evaluation_without_split
from ..training.training_plan import Plan, build_plan
from .autoconfig import choose_settings, choose_split_settings
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)


@command("plan")
def plan(settings: Settings) -> Plan:
    """Plans what `finetune` would do with the same flags; trains and writes nothing."""
    settings, _ = choose_auto_settings(settings)
    data = load_data(settings)
    check_recipe_data(settings.data.data_fingerprint, data.fingerprint)
    args = disable_evaluation_without_split(settings.training, data.selection_split)
    checkpoint = resolve_resume_checkpoint(args) if args.resume_from_checkpoint else None
    model = build_training_model(settings.model, data.class_names, args.seed)
    if checkpoint:
        check_same_run(checkpoint, model.config, DataSource.from_settings(settings.data, args.seed, data.fingerprint))
    with tempfile.TemporaryDirectory() as folder:  # the trainer creates its output folder
        trainer = _build_trainer(data, model, args, folder)
        return build_plan(trainer, data.splits, data.exclusion_log, settings.data, measure=True)


def _build_trainer(data: LabelledData, model: Any, args: FinetuningArguments, folder: str) -> MaeFinetuner:
    """Builds the trainer of a run without preparing its images."""
    args = copy.copy(args)
    args.output_dir, args.report_to, args.push_to_hub = folder, [], False
    transform = training_transform_from_processor(image_processor("endoscopy", input_size(model)))
    images = TrainDataset(data.splits["train"], transform, args.seed, cache=False, sampling=args.sampling)
    return MaeFinetuner(model=model, args=args, train_dataset=images, eval_dataset=images, ordered=data.ordered)


def load_data(settings: Settings) -> LabelledData:
    """Loads the labelled data of a run; classes have the order of the checkpoint if it has the same ones."""
    class_names = read_class_names(settings.model.model_name_or_path)
    return load_labelled_data(settings.data, settings.training.seed, class_names)


def choose_auto_settings(settings: Settings) -> tuple[Settings, list[AutoSetting]]:
    """With `auto`, chooses the settings that are not explicit, and logs them with their reasons.

    Returns:
        The settings, and the chosen ones (empty without `auto`).
    """
    if not settings.run.auto:
        return settings, []
    explicit, model_args = set(settings.values), settings.model
    splits = load_data(settings).splits
    auto_settings = [setting for setting in choose_split_settings(splits) if setting.name not in explicit]
    if auto_settings:
        settings = _replace(settings, auto_settings)
        splits = load_data(settings).splits
    model, args = build_training_model(model_args, ["a", "b"], settings.training.seed), settings.training
    micro_batches = args.world_size * args.gradient_accumulation_steps
    candidates = choose_settings(
        splits, find_head(model)[1].in_features, input_size(model), args, settings.values, micro_batches
    )
    if "learning_rate" in explicit:
        explicit.add("base_learning_rate")  # it overrides the linear rule
    auto_settings += [setting for setting in candidates if setting.name not in explicit]
    for setting in auto_settings:
        reason = describe_auto_reason(setting)
        inform(logger, WorkflowMessage.AUTO_SETTING, name=setting.name, value=setting.value, reason=reason)
    return _replace(settings, auto_settings), auto_settings


def _replace(settings: Settings, auto_settings: list[AutoSetting]) -> Settings:
    return settings.replace(**{setting.name: setting.value for setting in auto_settings})
