"""The options of `transformers.TrainingArguments` that would be without effect here, or fail in the middle of a run.

Every field that `finetune` and `pretrain` offer works, or is named here with the reason; a test goes through all of them.
"""

from dataclasses import MISSING, fields
from typing import Any

from transformers import TrainingArguments

from ..errors import UsageError

TEXT = "is for language models"
# Field -> why another value than its default is refused.
REFUSED = {
    "label_smoothing_factor": "has no effect here: --smoothing is what smooths the labels",
    "optim_target_modules": "makes optimizer groups of its own, and layer-wise lr decay makes others",
    "average_tokens_across_devices": "counts tokens; losses are averaged over the images of all processes anyway",
    "use_liger_kernel": TEXT,
    "liger_kernel_config": TEXT,
    "use_cache": TEXT,
    "neftune_noise_alpha": TEXT,
    "include_num_input_tokens_seen": TEXT,
    "length_column_name": TEXT,
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
    "do_train": "has no effect here: the verb says what is done",
    "do_eval": "has no effect here: every held-out split is evaluated",
    "do_predict": "has no effect here: every held-out split is predicted",
    "local_rank": "is set by the launcher, in the environment: use accelerate launch",
}
SAMPLING = ("random", "sequential")
OUR_DEFAULTS = {"remove_unused_columns": False}  # where they differ from transformers'


def refuse_without_effect(args: Any) -> None:
    """Raises UsageError, with the reason, for an option that would do nothing, or what nobody wants.

    Args:
        args: of a training.
    """
    for name, default in _defaults().items():
        value = getattr(args, name, default)
        if name in REFUSED and value != default and value not in (None, False, [], ""):
            raise UsageError(f"--{name} {value} {REFUSED[name]}.")
        if name in REFUSED and default is True and value is False:
            raise UsageError(f"--{name} false {REFUSED[name]}.")
    if args.train_sampling_strategy not in SAMPLING:
        raise UsageError(
            f"--train_sampling_strategy takes {' or '.join(SAMPLING)}, not {args.train_sampling_strategy}: all images are "
            "as long as each other."
        )
    config = args.accelerator_config
    if isinstance(config, dict) and config.get("split_batches"):
        raise UsageError("--accelerator_config split_batches would make the batch smaller than the learning rate's rule.")


def _defaults() -> dict[str, Any]:
    found = {}
    for item in fields(TrainingArguments):
        if item.init:
            found[item.name] = item.default if item.default_factory is MISSING else item.default_factory()
    return found | OUR_DEFAULTS
