"""DeepSpeed, and transformers' coupling to it. DeepSpeed itself is never imported here.

Verified with deepspeed 0.19 and transformers 5.17 to 5.24.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def disable_zero3_init() -> Iterator[None]:
    """Lets `from_pretrained` load whole weights under ZeRO-3 too, where transformers would share them out at once.

    DeepSpeed shares them out when the model is prepared; until then they are read, converted and compared.
    """
    name = "transformers.integrations.deepspeed"
    if name not in sys.modules:  # then nobody has told transformers of DeepSpeed
        yield
        return
    integration: Any = sys.modules[name]
    held = integration._hf_deepspeed_config_weak_ref
    integration._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = held


def zero3_shard(parameter: Any) -> Any:
    """This process's share of a parameter under ZeRO-3, in place; None: no parameter of ZeRO-3."""
    part = getattr(parameter, "ds_tensor", None)
    return None if part is None else part.detach()


def repartition(parameter: Any) -> None:
    """Under ZeRO-3, lets the next pass gather a parameter anew: small ones stay gathered, whatever becomes of the
    shares."""
    if hasattr(parameter, "ds_tensor") and parameter.ds_status.name == "AVAILABLE":
        parameter.partition()


def get_params_with_groups(optimizer: Any) -> list[tuple[list, dict[str, Any]]]:
    """The model's own parameters beside the group that updates them, of torch's and of ZeRO's optimizers.

    Args:
        optimizer: without accelerate's wrapper (`compat.accelerate.bare_optimizer`).
    """
    if hasattr(optimizer, "bit16_groups"):  # ZeRO-1 and 2: the optimizer itself holds flat partitions
        return list(zip(optimizer.bit16_groups, optimizer.optimizer.param_groups))
    if hasattr(optimizer, "sub_group_to_group_id"):  # ZeRO-3
        owners = optimizer.sub_group_to_group_id
        return [(part, optimizer.optimizer.param_groups[owners[i]]) for i, part in enumerate(optimizer.fp16_groups)]
    return [(group["params"], group) for group in optimizer.param_groups]
