"""`demo`: opens a fine-tuned model in the browser, accessible from this machine only by default."""

import logging
from pathlib import Path
from typing import Any

import torch

from ..data.images.torch_datasets import EvalDataset
from ..data.sources.split_loading import load_image_folder
from ..errors import CommandLineError, UsageError, warn
from ..models.loading import class_names, load_classifier
from ..runs.uncertainty_io import UNCERTAINTY_FILE, read_uncertainty
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)


@command("demo")
def demo(settings: Settings) -> Any:
    """Opens the page.

    Returns:
        gradio's `Blocks`, running (`local_url`, `share_url`, `block_thread()`, `close()`).
    """
    options = settings.options
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UsageError(WorkflowMessage.PACKAGE_NOT_INSTALLED, package=error.name, extra="demo") from None
    from ..sharing.demo import LOOPBACK, Classifier, bypass_proxy_for_localhost
    from ..sharing.demo_metadata import build_demo_metadata
    from ..sharing.space.app import launch_demo

    is_public = options.host != LOOPBACK or options.share
    if is_public and options.data_dir and not options.publish_images:
        raise CommandLineError(WorkflowMessage.DEMO_SHOWS_IMAGES)
    model, processor = load_classifier(options.model_name_or_path)
    metadata = build_demo_metadata(
        Path(options.model_name_or_path),
        class_names(model),
        positive=options.positive,
        operating_point=options.operating_point,
        class_notes=options.class_notes,
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    training = load_training_images(options.data_dir, model, processor)
    has_uncertainty = (Path(options.model_name_or_path) / UNCERTAINTY_FILE).is_file()
    uncertainty = read_uncertainty(options.model_name_or_path, class_names(model)) if has_uncertainty else None
    classifier = Classifier(model, processor, metadata, training, uncertainty=uncertainty)
    if is_public:
        warn(logger, WorkflowMessage.DEMO_REACHABLE)
    bypass_proxy_for_localhost(options.host)
    try:
        return launch_demo(
            classifier,
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            quiet=True,
            prevent_thread_lock=True,
            enable_monitoring=False,
        )
    except OSError:
        raise UsageError(WorkflowMessage.PORT_UNAVAILABLE, port=options.port, host=options.host) from None


def load_training_images(data_dir: str | None, model: Any, processor: Any) -> EvalDataset | None:
    """Loads the training images with the preprocessing of the model; None if `data_dir` is not given."""
    if not data_dir:
        return None
    splits = load_image_folder(data_dir, label_names=class_names(model))
    return EvalDataset(splits["train" if "train" in splits else next(iter(splits))], processor)
