"""`demo`: a fine-tuned model in the browser, on this machine alone unless told otherwise."""

import logging
from pathlib import Path
from typing import Any

import torch

from ..data.folders import load_image_folder
from ..data.torch_datasets import EvalDataset
from ..errors import UsageError
from ..models.loading import class_names, load_classifier
from ..runs.uncertainty_io import UNCERTAINTY_FILE as DOUBT
from ..runs.uncertainty_io import read_uncertainty
from ..settings.parse import parse_settings

logger = logging.getLogger(__name__)


def open_demo(**flags: Any) -> Any:
    """Opens the page; `flags` are those of `hf-mae demo`.

    Returns:
        gradio's `Blocks`, running (`local_url`, `share_url`, `block_thread()`, `close()`).
    """
    (options,) = parse_settings("demo", None, **flags).arguments
    try:
        import captum  # noqa: F401
        import gradio  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'hf_mae[demo]'.") from None
    from ..sharing.demo import LOOPBACK, Classifier, bypass_proxy_for_localhost
    from ..sharing.demo_metadata import build_demo_metadata
    from ..sharing.space_app import launch_demo

    model, processor = load_classifier(options.model_name_or_path)
    facts = build_demo_metadata(
        Path(options.model_name_or_path),
        class_names(model),
        positive=options.positive,
        operating_point=options.operating_point,
        class_notes=options.class_notes,
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    gallery = load_training_images(options.data_dir, model, processor)
    known = (Path(options.model_name_or_path) / DOUBT).is_file()
    doubt = read_uncertainty(options.model_name_or_path, class_names(model)) if known else None
    classifier = Classifier(model, processor, facts, gallery, uncertainty=doubt)
    if options.host != LOOPBACK or options.share:
        logger.warning("The demo can be reached from other machines, and whatever they upload comes to this one.")
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
        raise UsageError(f"Port {options.port} of {options.host} cannot be used: pass another --port.") from None


def load_training_images(data_dir: str | None, model: Any, processor: Any) -> EvalDataset | None:
    """The training images of a data set, prepared as the model wants them; None without a data set."""
    if not data_dir:
        return None
    splits = load_image_folder(data_dir, label_names=class_names(model))
    return EvalDataset(splits["train" if "train" in splits else next(iter(splits))], processor)
