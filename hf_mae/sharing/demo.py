"""A fine-tuned model in the browser."""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..compat.transformers import StockModel
from ..errors import UsageError
from ..reporting.document import cell

TOP, SIMILAR = 5, 6
MEGABYTES = 20  # of an uploaded file, at most
PIXELS = 50_000_000  # of a decoded one
FILES, SECONDS = 500, 300  # of one folder: files, and time for all of them
WAITING = 100  # requests, at most; who comes later is told so
KEPT = 3600  # seconds that an upload is kept on this machine's disk
LOOPBACK = "127.0.0.1"
MANY = "Too many files"
NOTE = "For research: not a medical device, and no diagnosis."


class Classifier:
    """A model with what the page shows of it.

    Args:
        model, processor: of `models.loading.load_classifier`.
        training: `EvaluationImages` that are looked through for similar ones; None: no such gallery.
    """

    def __init__(self, model: StockModel, processor: Any, training=None, batch_size: int = 32):
        self.model, self.processor, self.training = model, processor, training
        self.features = None if training is None else self._features_of_all(batch_size)

    def read(self, path: str | None) -> Image.Image:
        """An uploaded file as an upright RGB image, or a sentence on why not."""
        from ..data.files import readable_suffixes
        from ..data.opening import open_image, reason_of, to_rgb

        if not path:
            raise UsageError("Drop an image first.")
        name = os.path.basename(path)
        if not name.lower().endswith(readable_suffixes()):
            raise UsageError(f"{name} is no image file ({', '.join(readable_suffixes())}).")
        if os.path.getsize(path) > MEGABYTES * 1e6:
            raise UsageError(f"{name} is larger than {MEGABYTES} MB.")
        try:
            with open_image(path) as image:
                if image.width * image.height > PIXELS:
                    raise UsageError(f"{name} has more than {PIXELS / 1e6:g} million pixels.")
                return to_rgb(image)
        except UsageError:
            raise
        except Exception as error:  # PIL raises whatever the format's plugin does
            raise UsageError(f"{name} cannot be read as an image ({reason_of(error, path)}).") from None

    def scores(self, images: list[Image.Image]) -> list[dict[str, float]]:
        """Class -> score, of each image."""
        pixel_values = self._prepared(images)
        with torch.inference_mode():
            scores = self.model(pixel_values=pixel_values).logits.float().softmax(-1)
        names = self.model.config.id2label
        return [{names[i]: score for i, score in enumerate(row)} for row in scores.tolist()]

    def overlays(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """The image under what the model looks at, with captions."""
        from ..reporting.explanations import GRAD_CAM, ROLLOUT, explain_batch

        (found,) = explain_batch(self.model, self.processor, self._prepared([image]), [""])
        return [(found.grad_cam, f"{GRAD_CAM} of {found.target}"), (found.rollout, ROLLOUT)]

    def similar(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """The training images whose features are nearest (cosine), with their class."""
        if self.features is None:
            return []
        nearness = self.features @ self._features(self._prepared([image]))[0]
        names = self.model.config.id2label
        chosen = np.argsort(-nearness)[:SIMILAR]
        return [
            (self.training.pixels[int(i)], f"{names[int(self.training.labels[i])]} ({nearness[i]:.2f})") for i in chosen
        ]

    def _prepared(self, images: list[Image.Image]) -> torch.Tensor:
        return self.processor(images, return_tensors="pt")["pixel_values"].to(self.model.device)

    @torch.inference_mode()
    def _features(self, pixel_values: torch.Tensor) -> np.ndarray:
        """What the head reads, of length 1: (images, width)."""
        kept = []
        hook = self.model.classifier.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
        try:
            self.model(pixel_values=pixel_values)
        finally:
            hook.remove()
        return torch.nn.functional.normalize(kept[0].float(), dim=-1).cpu().numpy()

    def _features_of_all(self, batch_size: int) -> np.ndarray:
        from tqdm.auto import tqdm

        from ..data.images import collate

        loader = torch.utils.data.DataLoader(self.training, batch_size, collate_fn=collate)
        batches = tqdm(loader, desc="Looking at the training images", unit="batch", delay=1)
        return np.concatenate([self._features(batch["pixel_values"].to(self.model.device)) for batch in batches])


def _told(sentence: str, title: str) -> Exception:
    """What the page shows of a mistake; the terminal says nothing of it."""
    import gradio

    return gradio.Error(sentence, title=title, print_exception=False)


def _answers(classifier: Classifier) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What the page answers to an image, and to many files."""

    def one(path: str | None) -> tuple[Any, Any, Any]:
        try:
            image = classifier.read(path)
        except UsageError as error:
            raise _told(str(error), "Not this file") from None
        (scores,) = classifier.scores([image])
        return scores, classifier.overlays(image), classifier.similar(image)

    def many(paths: list[str] | None) -> list[list[str]]:
        rows: list[list[str]] = []
        started = time.monotonic()
        if len(paths or []) > FILES:
            raise _told(f"{len(paths or [])} files came, and {FILES} at most are classified: use hf-mae predict.", MANY)
        for path in paths or []:
            name = os.path.basename(path)
            if time.monotonic() - started > SECONDS:
                rows.append([name, "left out: the time is up", ""])
                continue
            try:
                (scores,) = classifier.scores([classifier.read(path)])
            except UsageError as error:
                rows.append([name, str(error), ""])
                continue
            best = max(scores, key=lambda name: scores[name])
            rows.append([name, best, f"{scores[best]:.3f}"])
        if not rows:
            raise _told("Drop a folder, or some files, first.", "Nothing to classify")
        return rows

    return one, many


def page(classifier: Classifier, title: str, known: str = "") -> Any:
    """The page, of gradio.

    Args:
        known: how well the model does, for whoever reads the page.
    """
    import gradio

    one, many = _answers(classifier)
    cleaning = (KEPT // 6, KEPT)  # every so many seconds, of what is older
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=cleaning) as blocks:
        title = cell(title)
        gradio.Markdown("\n\n".join([f"## {title}\n{NOTE}", *([f"On its own data: {known}."] if known else [])]))
        with gradio.Tab("An image"):
            with gradio.Row():
                given: Any = gradio.Image(type="filepath", sources=["upload", "clipboard"], label="Drop an image")
                # The file as it came: gradio would open it before it is checked.
                given.preprocess = lambda payload: payload.path if payload else None
                answer = gradio.Label(num_top_classes=TOP, label="Classes")
            where = gradio.Gallery(label="Where it looks", columns=2, height="auto", object_fit="contain")
            like = gradio.Gallery(
                label="Similar training images",
                columns=SIMILAR,
                height="auto",
                object_fit="contain",
                visible=classifier.features is not None,
            )
            given.upload(one, given, [answer, where, like], api_name="classify")
        with gradio.Tab("A folder"):
            files = gradio.File(file_count="directory", label="Drop a folder")
            table = gradio.Dataframe(headers=["file", "class", "score"], label="Classes", interactive=False)
            files.upload(many, files, table, api_name="classify_files")
    return blocks.queue(max_size=WAITING)
