"""`push`: uploads a completed run to the Hugging Face Hub, and optionally its demo to a Space."""

import importlib.util
import logging
from dataclasses import replace
from pathlib import Path

from ..errors import UsageError, warn
from ..models.loading import read_class_names
from ..runs.record import run_name
from ..settings.parse import Settings
from ..sharing import hub
from ..sharing.demo_metadata import build_demo_metadata
from ..sharing.space.app import DemoMetadata
from ..sharing.space.build import push_space
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)


@command("push")
def push(settings: Settings) -> str:
    """Pushes a completed run in one commit. Returns the URL of the repository."""
    options = settings.options
    folder = Path(options.model_name_or_path)
    space = _prepare_space(folder, options.repo_id, options.update) if options.demo else None
    url = hub.push_run(
        folder, options.repo_id, private=options.private, update=options.update, ignore_patterns=options.ignore_patterns
    )
    if space is not None:
        metadata, repo_id, exists = space
        space_url = push_space(metadata, repo_id, exists=exists, private=options.private)
        logger.info("The demo is at %s", space_url)
        if options.private:
            warn(logger, WorkflowMessage.PRIVATE_SPACE_NEEDS_TOKEN)
    return url


def _prepare_space(folder: Path, repo_id: str | None, update: bool) -> tuple[DemoMetadata, str, bool]:
    """Checks everything that the Space needs before anything is pushed.

    Returns:
        The texts of the page, the repository, and whether it exists.
    """
    if importlib.util.find_spec("gradio") is None:  # the Space uses the installed version
        raise UsageError(WorkflowMessage.PACKAGE_NOT_INSTALLED, package="gradio", extra="demo")
    hub.list_published_files(folder)  # raises UsageError if the run is not completed
    names = read_class_names(str(folder))
    if names is None:
        raise UsageError(WorkflowMessage.DEMO_NEEDS_CLASSIFIER, model=folder)
    name, exists = hub.check_target(repo_id, update, run_name(folder), "space")
    return replace(build_demo_metadata(folder, names), model=name, title=run_name(folder)), name, exists
