"""What a user's mistake raises: its message is a sentence on what is wrong, where, and what to do."""


class UsageError(ValueError):
    """Shown by the command line as it is, without a traceback, with a non-zero exit status."""
