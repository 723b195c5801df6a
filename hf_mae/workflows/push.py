"""`push`: uploads a completed run to the Hugging Face Hub, and optionally its demo to a Space."""

import importlib.util
import logging
from dataclasses import replace
from pathlib import Path

from ..errors import UsageError, warn
from ..models.loading import read_class_names
from ..runs.record import run_name
from ..settings.parse import Settings
from ..settings.push import PushArguments
from ..sharing import hub
from ..sharing.demo_metadata import build_demo_metadata
from ..sharing.published_files import check_completed, check_texts, open_pseudonyms
from ..sharing.space.app import DemoMetadata
from ..sharing.space.build import build_space_files, push_space
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)


@command("push")
def push(settings: Settings) -> str:
    """Pushes a completed run in one commit. Returns the URL of the repository."""
    options = settings.options
    folder = Path(options.model_name_or_path)
    space = _prepare_space(folder, options) if options.demo else None
    url = hub.push_run(
        folder,
        options.repo_id,
        options=options,
        private=options.private,
        update=options.update,
        ignore_patterns=options.ignore_patterns,
        publish_images=options.publish_images,
    )
    if space is not None:
        metadata, repo_id, exists = space
        space_url = push_space(metadata, repo_id, exists=exists, private=options.private)
        logger.info("The demo is at %s", space_url)
        if options.private:
            warn(logger, WorkflowMessage.PRIVATE_SPACE_NEEDS_TOKEN)
    return url


def _prepare_space(folder: Path, options: PushArguments) -> tuple[DemoMetadata, str, bool]:
    """Checks everything that the Space needs before anything is pushed.

    Returns:
        The texts of the page, the repository, and whether it exists.
    """
    if importlib.util.find_spec("gradio") is None:  # the Space uses the installed version
        raise UsageError(WorkflowMessage.PACKAGE_NOT_INSTALLED, package="gradio", extra="demo")
    check_completed(folder)
    names = read_class_names(str(folder))
    if names is None:
        raise UsageError(WorkflowMessage.DEMO_NEEDS_CLASSIFIER, model=folder)
    name, exists = hub.check_target(options.repo_id, options.update, run_name(folder), "space")
    metadata = replace(build_demo_metadata(folder, names), model=name, title=name.rpartition("/")[2])
    if not options.allow_identifiers:
        rules = open_pseudonyms(folder, options.pseudonym_key, names).rules
        check_texts(build_space_files(metadata), rules, name)
    return metadata, name, exists
