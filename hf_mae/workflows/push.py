"""`push`: a finished run to the Hugging Face Hub, and its page in the browser to a Space."""

import importlib.util
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..models.loading import read_class_names
from ..runs.record import run_name
from ..settings.parse import parse_settings
from ..sharing import hub
from ..sharing.demo_metadata import build_demo_metadata
from ..sharing.space import push_space

logger = logging.getLogger(__name__)


def push(**flags: Any) -> str:
    """Pushes a finished run in one commit; `flags` are those of `hf-mae push`. Returns the URL of the repository."""
    (options,) = parse_settings("push", None, **flags).arguments
    folder = Path(options.run)
    space = _prepare_space(folder, options.repo_id, options.update) if options.demo else None
    url = hub.push_run(
        folder, options.repo_id, private=options.private, update=options.update, ignore_patterns=options.ignore_patterns
    )
    if space is not None:
        facts, name, exists = space
        where = push_space(facts, name, exists=exists, private=options.private)
        logger.info("The page is at %s", where)
        if options.private:
            logger.warning("The model is private: the Space reads it with a secret HF_TOKEN, in its settings.")
    return url


def _prepare_space(folder: Path, repo_id: str | None, update: bool) -> tuple[Any, str, bool]:
    """What the page says, and where it goes; asked before anything is pushed."""
    if importlib.util.find_spec("gradio") is None:  # its version is the Space's
        raise UsageError("gradio is not installed: pip install 'hf_mae[demo]'.")
    hub.list_published_files(folder)  # of an unfinished run, a sentence
    names = read_class_names(str(folder))
    if names is None:
        raise UsageError(f"{folder} is no classifier: there is no page of it.")
    name, exists = hub.check_target(repo_id, update, run_name(folder), "space")
    return replace(build_demo_metadata(folder, names), model=name, title=run_name(folder)), name, exists
