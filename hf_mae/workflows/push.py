"""`push`: a finished run to the Hugging Face Hub, and its page in the browser to a Space."""

import importlib.util
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..models.loading import own_label_names
from ..runs.record import run_name
from ..settings.fill import fill
from ..sharing import hub
from ..sharing.facts import facts_of
from ..sharing.space import push_space

logger = logging.getLogger(__name__)


def push(**flags: Any) -> str:
    """Pushes a finished run in one commit; `flags` are those of `hf-mae push`. Returns the URL of the repository."""
    (options,) = fill("push", None, **flags).parts
    folder = Path(options.run)
    space = _prepared_space(folder, options.repo_id, options.update) if options.demo else None
    url = hub.push(folder, options.repo_id, private=options.private, update=options.update, leave_out=options.leave_out)
    if space is not None:
        facts, name, exists = space
        where = push_space(facts, name, exists=exists, private=options.private)
        logger.info("The page is at %s", where)
        if options.private:
            logger.warning("The model is private: the Space reads it with a secret HF_TOKEN, in its settings.")
    return url


def _prepared_space(folder: Path, repo_id: str | None, update: bool) -> tuple[Any, str, bool]:
    """What the page says, and where it goes; asked before anything is pushed."""
    if importlib.util.find_spec("gradio") is None:  # its version is the Space's
        raise UsageError("gradio is not installed: pip install 'hf_mae[demo]'.")
    hub.files_of(folder)  # of an unfinished run, a sentence
    names = own_label_names(str(folder))
    if names is None:
        raise UsageError(f"{folder} is no classifier: there is no page of it.")
    name, exists = hub.check_target(repo_id, update, run_name(folder), "space")
    return replace(facts_of(folder, names), model=name, title=run_name(folder)), name, exists
