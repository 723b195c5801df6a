"""Fields of `transformers.TrainingArguments` that are not supported, and bounds of the others.

Every field that `finetune` and `pretrain` accept either works or is listed here; a test checks each of them.
"""

from typing import Any

from ..errors import CommandLineError
from .messages import SettingsMessage

# Field -> message for a value other than its default.
UNSUPPORTED_OPTIONS: dict[str, SettingsMessage] = {
    "label_smoothing_factor": SettingsMessage.LABEL_SMOOTHING_FACTOR,
    "optim_target_modules": SettingsMessage.OPTIM_TARGET_MODULES,
    "average_tokens_across_devices": SettingsMessage.LANGUAGE_MODELS_ONLY,
    "use_liger_kernel": SettingsMessage.LANGUAGE_MODELS_ONLY,
    "liger_kernel_config": SettingsMessage.LANGUAGE_MODELS_ONLY,
    "use_cache": SettingsMessage.LANGUAGE_MODELS_ONLY,
    "neftune_noise_alpha": SettingsMessage.LANGUAGE_MODELS_ONLY,
    "include_num_input_tokens_seen": SettingsMessage.LANGUAGE_MODELS_ONLY,
    "length_column_name": SettingsMessage.LANGUAGE_MODELS_ONLY,
    "auto_find_batch_size": SettingsMessage.AUTO_FIND_BATCH_SIZE,
    "prediction_loss_only": SettingsMessage.SCORES_NEED_ALL_PREDICTIONS,
    "eval_do_concat_batches": SettingsMessage.SCORES_NEED_ALL_PREDICTIONS,
    "batch_eval_metrics": SettingsMessage.SCORES_NEED_ALL_PREDICTIONS,
    "include_for_metrics": SettingsMessage.SCORES_NEED_ALL_PREDICTIONS,
    "remove_unused_columns": SettingsMessage.NOT_NEEDED,
    "label_names": SettingsMessage.NOT_NEEDED,
    "enable_jit_checkpoint": SettingsMessage.NOT_NEEDED,
    "parallelism_config": SettingsMessage.PARALLELISM_CONFIG,
    "local_rank": SettingsMessage.LOCAL_RANK,
}
# transformers sets these fields itself, so they are rejected only if the user sets them.
SET_BY_TRANSFORMERS = ("do_train", "do_eval", "do_predict")
BOUNDS: dict[str, dict[str, float]] = {
    **dict.fromkeys(("adam_beta1", "adam_beta2"), {"ge": 0, "lt": 1}),
    **dict.fromkeys(("adam_epsilon", "eval_delay", "dataloader_num_workers"), {"ge": 0}),
    **dict.fromkeys(
        (
            *("gradient_accumulation_steps", "eval_accumulation_steps", "torch_empty_cache_steps"),
            *("save_total_limit", "dataloader_prefetch_factor", "ddp_bucket_cap_mb", "ddp_timeout"),
        ),
        {"ge": 1},
    ),
    **dict.fromkeys(("eval_steps", "save_steps"), {"gt": 0}),
}
LOADER_OPTIONS = (  # of processes that load images
    *("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context"),
)
EVALUATION_OPTIONS = (  # of trainings with images to evaluate on
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps"),
    *("eval_use_gather_object", "per_device_eval_batch_size", "bf16_full_eval", "fp16_full_eval"),
    *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
)
SCHEDULES_OF_EVALUATION = ("reduce_lr_on_plateau", "greedy")
SAMPLING_STRATEGIES = ("random", "sequential")


def check_trainer_option(name: str, value: Any, default: Any) -> None:
    """Checks a field of `TrainingArguments`.

    Raises:
        CommandLineError: If the value would have no effect or an unwanted one.
    """
    message, is_off = UNSUPPORTED_OPTIONS.get(name), value is None or value is False or value in ([], "")
    if message and value != default and (default is True or not is_off):
        raise CommandLineError(message, name=name)
    if name == "train_sampling_strategy" and value not in SAMPLING_STRATEGIES:
        raise CommandLineError(SettingsMessage.SAMPLING_STRATEGY, known=SAMPLING_STRATEGIES, value=value)
    if name == "max_steps" and value < 1 and value != default:
        raise CommandLineError(SettingsMessage.OUT_OF_BOUNDS, name=name, bounds="at least 1 (-1: not set)", value=value)


def check_explicit_trainer_option(name: str, value: Any, default: Any, is_evaluated: bool) -> None:
    """Checks a field that the user set on the command line or in a recipe.

    Args:
        is_evaluated: whether the command evaluates during training.

    Raises:
        CommandLineError: If the field has no effect.
    """
    if value and name in SET_BY_TRANSFORMERS:
        raise CommandLineError(SettingsMessage.SET_BY_COMMAND, name=name)
    needs_evaluation = (
        (name in EVALUATION_OPTIONS and value != default)
        or (name == "save_strategy" and value == "best")
        or (name == "lr_scheduler_type" and value in SCHEDULES_OF_EVALUATION)
    )
    if needs_evaluation and not is_evaluated:
        raise CommandLineError(SettingsMessage.PRETRAINING_NOT_EVALUATED, name=name, value=value)
