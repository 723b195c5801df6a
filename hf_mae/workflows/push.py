"""`push`: a finished run to the Hugging Face Hub."""

from typing import Any

from ..settings.fill import fill
from ..sharing import hub


def push(**flags: Any) -> str:
    """Pushes a finished run in one commit; `flags` are those of `hf-mae push`. Returns the URL of the repository."""
    (options,) = fill("push", None, **flags).parts
    return hub.push(
        options.run,
        options.repo_id,
        private=options.private,
        update=options.update,
        leave_out=options.leave_out,
    )
