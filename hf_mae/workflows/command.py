"""Commands as functions: a workflow takes `Settings`; the public function takes the arguments of the command line."""

import inspect
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from ..errors import UsageError, first_error_line, raise_on_stop_signal, warn
from ..settings.commands import assign_positionals, find_command, usage
from ..settings.inputs import check_inputs, check_outputs
from ..settings.limits import apply_limits
from ..settings.parse import Settings, parse_settings
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
SHARED_MEMORY = "/dev/shm"  # of Linux, for the batches of workers
MAX_TEMP_PATH = 70  # characters; multiprocessing adds about 35 to it, and a path of a socket has 107 at most
NOT_TRAINING_HINT = (
    " before or after training, so no checkpoint was saved. Repeat the command; to resume from the last checkpoint, "
    "add --resume_from_checkpoint last"
)


CALL_DOC = """Args:
    arguments: the arguments of `{usage}` that have no flag, in this order.
    recipe: a recipe of the package, or a YAML file; `flags` override it.
    flags: the flags of `hf-mae {name}`.

Raises:
    CommandLineError: If a flag is not valid.
    UsageError: If the data or the checkpoint are not valid."""


def _describe_lost_worker(error: RuntimeError) -> UsageError:
    """Returns the error for a DataLoader worker that ended."""
    if len(folder := tempfile.gettempdir()) > MAX_TEMP_PATH:
        return UsageError(WorkflowMessage.TEMP_PATH_TOO_LONG, path=folder)
    size = shutil.disk_usage(SHARED_MEMORY).total if os.path.isdir(SHARED_MEMORY) else 0
    return UsageError(WorkflowMessage.WORKER_LOST, reason=first_error_line(error), megabytes=size / 1e6)


class CommandFunction(Protocol[Result]):
    """A command as a function of its arguments and flags; `run` is the workflow, a function of settings."""

    run: Callable[..., Result]

    def __call__(self, *arguments: Any, recipe: str | None = None, **flags: Any) -> Result:
        """Runs the command."""


def command(name: str) -> Callable[[Callable[[Settings], Result]], CommandFunction[Result]]:
    """Makes a workflow callable with the arguments and flags of a command. They are parsed once.

    Args:
        name: name of the command.
    """

    def decorate(run: Callable[[Settings], Result]) -> CommandFunction[Result]:
        def start(settings: Settings, **outputs: Any) -> Result:
            check_outputs(settings.values)
            if find_command(name).is_training and sys.platform != "linux":
                warn(logger, WorkflowMessage.PLATFORM_UNTESTED, platform=platform.system(), command=name)
            apply_limits(settings.values.get("max_pixels"), settings.values.get("cache_limit"))
            with raise_on_stop_signal(NOT_TRAINING_HINT if find_command(name).is_training else ""):
                try:
                    return run(settings, **outputs)
                except RuntimeError as error:
                    if "DataLoader worker (pid" not in str(error):
                        raise
                    raise _describe_lost_worker(error) from None

        def call(*arguments: Any, recipe: str | None = None, **flags: Any) -> Result:
            settings = parse_settings(name, recipe, **assign_positionals(name, arguments, flags), **flags)
            check_inputs(name, settings.values)
            return start(settings)

        for attribute in ("__module__", "__name__", "__qualname__"):
            setattr(call, attribute, getattr(run, attribute))
        call.__doc__ = f"{inspect.cleandoc(run.__doc__ or '')}\n\n{CALL_DOC.format(name=name, usage=usage(name))}"
        call.__annotations__["return"] = run.__annotations__.get("return")
        function: Any = call
        function.run = start
        return cast(CommandFunction[Result], function)

    return decorate
