"""DeepSpeed, and its integration in transformers. DeepSpeed itself is imported only if it is the engine.

Verified with deepspeed 0.19 and transformers 5.17 to 5.24.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def get_checkpoint_classes() -> list[Any]:
    """Returns the classes of DeepSpeed's own objects in its checkpoints. Call it if DeepSpeed is the engine."""
    names = {
        "runtime.fp16.loss_scaler": ("LossScaler", "DynamicLossScaler"),
        "runtime.zero.config": ("ZeroStageEnum",),
        "runtime.zero.offload_config": ("OffloadDeviceEnum",),
        "utils.tensor_fragment": ("fragment_address",),
    }
    return [getattr(import_module(f"deepspeed.{module}"), name) for module in names for name in names[module]]


@contextmanager
def disable_zero3_init() -> Iterator[None]:
    """Within the block, `from_pretrained` loads complete weights under ZeRO-3 instead of partitioning them.

    The weights are read, converted and compared before DeepSpeed partitions them when the model is prepared.
    """
    name = "transformers.integrations.deepspeed"
    if name not in sys.modules:  # DeepSpeed is not configured
        yield
        return
    integration: Any = sys.modules[name]
    config = integration._hf_deepspeed_config_weak_ref
    integration._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = config


def zero3_shard(parameter: Any) -> Any:
    """Returns this process's partition of a ZeRO-3 parameter (a view), or None for another parameter."""
    partition = getattr(parameter, "ds_tensor", None)
    return None if partition is None else partition.detach()


def repartition(parameter: Any) -> None:
    """Partitions a gathered ZeRO-3 parameter, so that the next pass gathers its changed partitions.

    Small parameters would otherwise stay gathered with their old values.
    """
    if hasattr(parameter, "ds_tensor") and parameter.ds_status.name == "AVAILABLE":
        parameter.partition()


def get_params_with_groups(optimizer: Any) -> list[tuple[list, dict[str, Any]]]:
    """Returns the model parameters of each group with the group that updates them, for torch and ZeRO optimizers.

    Args:
        optimizer: the result of `compat.accelerate.unwrap_optimizer`.
    """
    if hasattr(optimizer, "bit16_groups"):  # ZeRO-1 and 2: the optimizer contains flat partitions
        return list(zip(optimizer.bit16_groups, optimizer.optimizer.param_groups))
    if hasattr(optimizer, "sub_group_to_group_id"):  # ZeRO-3
        group_ids, groups = optimizer.sub_group_to_group_id, optimizer.optimizer.param_groups
        return [(parameters, groups[group_ids[i]]) for i, parameters in enumerate(optimizer.fp16_groups)]
    return [(group["params"], group) for group in optimizer.param_groups]


def process_deepspeed_config(args: Any) -> None:
    """Fills the values `auto` of `args.deepspeed` from the final settings.

    transformers does so while it builds the arguments, before the learning rate and the accumulation are known.
    """
    if not args.deepspeed:
        return
    from accelerate.utils import DeepSpeedPlugin
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    args.hf_deepspeed_config = HfTrainerDeepSpeedConfig(args.deepspeed)
    args.hf_deepspeed_config.trainer_config_process(args)
    args.deepspeed_plugin = DeepSpeedPlugin(hf_ds_config=args.hf_deepspeed_config)


def find_deepspeed_conflicts(accelerator: Any) -> tuple[list[str], list[str]]:
    """Finds what a DeepSpeed config decides against the settings.

    Returns:
        The sections that replace the optimizer or the schedule, and the values that differ from the settings.
    """
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    config = getattr(plugin, "hf_ds_config", None)
    if config is None:
        return [], []
    sections = [name for name in ("optimizer", "scheduler") if name in config.config]
    return sections, [str(mismatch).removeprefix("- ds ") for mismatch in getattr(config, "mismatches", [])]
