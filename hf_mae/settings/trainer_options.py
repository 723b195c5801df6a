"""The options of `transformers.TrainingArguments` that would be without effect here, or fail in the middle of a run.

Every field that `finetune` and `pretrain` offer works, or is named here with the reason; a test goes through all of
them.
"""

from typing import Any

from ..errors import UsageError

LANGUAGE_MODELS_ONLY = "is for language models"
# Field -> why another value than its default is refused.
UNSUPPORTED_OPTIONS = {
    "label_smoothing_factor": "has no effect here: --smoothing is what smooths the labels",
    "optim_target_modules": "makes optimizer groups of its own, and layer-wise lr decay makes others",
    "average_tokens_across_devices": "counts tokens; losses are averaged over the images of all processes anyway",
    "use_liger_kernel": LANGUAGE_MODELS_ONLY,
    "liger_kernel_config": LANGUAGE_MODELS_ONLY,
    "use_cache": LANGUAGE_MODELS_ONLY,
    "neftune_noise_alpha": LANGUAGE_MODELS_ONLY,
    "include_num_input_tokens_seen": LANGUAGE_MODELS_ONLY,
    "length_column_name": LANGUAGE_MODELS_ONLY,
    "auto_find_batch_size": (
        "would train with another batch than the record and the learning rate say: pass a smaller "
        "--per_device_train_batch_size, with --effective_batch_size to keep the updates"
    ),
    "prediction_loss_only": "leaves no predictions to score",
    "eval_do_concat_batches": "leaves predictions that cannot be scored together",
    "batch_eval_metrics": "would average scores over batches, and macro scores are of all images together",
    "include_for_metrics": "has no effect here: scores are of predictions and labels",
    "remove_unused_columns": "has no effect that helps: columns that the model does not take are ignored",
    "label_names": "has no effect here: the labels are `labels`",
    "parallelism_config": "is for models that no single device holds",
    "enable_jit_checkpoint": "is not needed: a run that gets SIGTERM saves a checkpoint by itself",
    "local_rank": "is set by the launcher, in the environment: use accelerate launch",
}
# transformers sets these itself, so that only whoever writes them can be told.
SET_BY_TRANSFORMERS = {
    "do_train": "has no effect here: the verb says what is done",
    "do_eval": "has no effect here: every held-out split is evaluated",
    "do_predict": "has no effect here: every held-out split is predicted",
}
# Of numbers, in the words of `options.Option`.
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
SAMPLING_STRATEGIES = ("random", "sequential")


def check_trainer_option(name: str, value: Any, default: Any) -> None:
    """Raises UsageError, with the reason, for a value of an option that would do nothing, or what nobody wants."""
    reason, off = UNSUPPORTED_OPTIONS.get(name), value is None or value is False or value in ([], "")
    if reason and value != default and (default is True or not off):
        raise UsageError(f"--{name} {str(value).lower()} {reason}.")
    if name == "train_sampling_strategy" and value not in SAMPLING_STRATEGIES:
        raise UsageError(
            f"--{name} takes {' or '.join(SAMPLING_STRATEGIES)}, not {value}: all images are as long as each other."
        )
    if name == "accelerator_config" and isinstance(value, dict) and value.get("split_batches"):
        raise UsageError(f"--{name} split_batches makes the batch smaller than the learning rate's rule says.")


def check_explicit_trainer_option(name: str, value: Any) -> None:
    """The same for an option that somebody wrote, on a command line or in a recipe."""
    if value and name in SET_BY_TRANSFORMERS:
        raise UsageError(f"--{name} {SET_BY_TRANSFORMERS[name]}.")
