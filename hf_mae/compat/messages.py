"""Messages of library versions: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class CompatMessage(Message):
    """Errors and warnings of the installed libraries."""

    TIMM_TOO_OLD = (
        "timm models require timm {required} or newer (installed: {installed}), because older versions lose parameters "
        "when a model is loaded again. Run pip install -U timm."
    )

    # Environment variables of launchers
    LAUNCHER_ENVIRONMENT_INCOMPLETE = (
        "The environment contains {present:list} but not {missing:list}: no launcher started this process. Unset "
        "these variables, or start the run with accelerate launch."
    )
    LAUNCHER_ENVIRONMENT_INVALID = (
        "The environment contains {values:list}, which no launcher sets. Unset these variables, or start the run with "
        "accelerate launch."
    )
    UNKNOWN_PRECISION = (
        "The environment contains ACCELERATE_MIXED_PRECISION={value}. Use no, bf16 or fp16, or unset the variable."
    )
    PEERS_MISSING = (
        "The environment requests {num_processes} processes, but the others did not start within {seconds:.0f} s. "
        "Unset {names:list}, or start the run with accelerate launch. A training waits longer with --ddp_timeout."
    )
