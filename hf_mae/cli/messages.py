"""Messages of the command line: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class CliMessage(Message):
    """Errors of the command line."""

    UNRECOGNIZED_FLAGS = "unrecognized arguments: {flags:list}. See 'hf-mae {command} --help_all'."
    INVALID_USAGE = "{error}. See '{program} --help'."
    DISK_FULL = (
        "{location}The disk is full. Existing output is unchanged. Free disk space and run the same command again "
        "(training: with --resume_from_checkpoint last; predict: with --resume)."
    )
