"""`demo`: a fine-tuned model in the browser, on this machine alone unless told otherwise."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from ..data.folders import load_image_folder
from ..data.images import EvaluationImages
from ..errors import UsageError
from ..models.loading import class_names, load_classifier
from ..runs.record import ALL_RESULTS, run_name
from ..runs.record_files import read_record
from ..settings.fill import fill
from ..sharing.demo import LOOPBACK, MEGABYTES, Classifier, page

logger = logging.getLogger(__name__)


def open_demo(**flags: Any) -> Any:
    """Opens the page; `flags` are those of `hf-mae demo`.

    Returns:
        gradio's `Blocks`, running (`local_url`, `share_url`, `block_thread()`, `close()`).
    """
    (options,) = fill("demo", None, **flags).parts
    try:
        import captum  # noqa: F401
        import gradio  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'hf_mae[demo]'.") from None
    model, processor = load_classifier(options.model_name_or_path)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    classifier = Classifier(model, processor, training_images(options.data_dir, model, processor))
    run = Path(options.model_name_or_path)
    blocks = page(classifier, run_name(run), _known_of(run))
    if options.host != LOOPBACK or options.share:
        logger.warning("The demo can be reached from other machines, and whatever they upload comes to this one.")
    _reach_ourselves(options.host)
    try:
        blocks.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            max_file_size=f"{MEGABYTES}mb",
            quiet=True,
            prevent_thread_lock=True,
            enable_monitoring=False,
        )
    except OSError:
        raise UsageError(f"Port {options.port} of {options.host} cannot be used: pass another --port.") from None
    return blocks


def _reach_ourselves(host: str) -> None:
    """Lets gradio's look at its own page go past a proxy of the environment, which does not know this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [part for part in os.environ.get(name, "").split(",") if part.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, host, LOOPBACK, "localhost"]))


def _known_of(run: Path) -> str:
    """How well the model does, where its run says so."""
    if not (run / ALL_RESULTS).is_file():
        return ""
    scores = read_record(run).scores
    told = [f"{split}: macro F1 {100 * values['macro_f1']:.1f} %" for split, values in scores.items()]
    return "; ".join(told)


def training_images(data_dir: str | None, model: Any, processor: Any) -> EvaluationImages | None:
    """The training images of a data set, prepared as the model wants them; None without a data set."""
    if not data_dir:
        return None
    splits = load_image_folder(data_dir, label_names=class_names(model))
    return EvaluationImages(splits["train" if "train" in splits else next(iter(splits))], processor)
