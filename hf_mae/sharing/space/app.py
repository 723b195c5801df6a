"""A classifier in the browser: the page of `hf-mae demo`, and the app.py of a Space (`hf-mae push --demo`).

In a Space, the module does not import hf_mae: the Space contains the folder image_reader, demo.json (the texts of the
page) and requirements.txt. For research only: not a medical device, and not for diagnosis.
"""

import csv
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

if __package__:
    from ...data.images import decoding, videos
else:  # in a Space, which contains the reader
    from image_reader.data.images import decoding, videos  # type: ignore[no-redef]

TOP_K, NUM_SIMILAR = 5, 6
MAX_IMAGE_MB, MAX_VIDEO_MB = 20, 100  # per uploaded file
MAX_PIXELS = 50_000_000  # per image
MAX_FILES, MAX_FRAMES, MAX_SECONDS = 500, 600, 300  # per folder or video: files, frames, processing time
MAX_UPLOAD_MB, MAX_REQUEST_MB = 1000, 1  # per request: uploads; other requests, which contain no files
MAX_QUEUE_SIZE = 100  # requests; gradio rejects further ones with a message
UPLOAD_LIFETIME_SECONDS = 3600  # until an upload is deleted from the disk
TOO_MANY_FILES, INVALID_FILE, NO_INPUT = "Too many files", "Invalid file", "Nothing to classify"  # titles of errors
INPUT_CAPTION = "model input"
DISCLAIMER = "For research only: not a medical device, and not for diagnosis."
MOBILE_CSS = """
@media (max-width: 600px) {
  .pictures .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
  .gradio-container { padding: 4px !important; }
}
"""


class UserError(ValueError):
    """An error whose message is shown to the visitor."""


@dataclass
class DemoMetadata:
    """Texts and settings of the page.

    Args:
        model: a folder, or USER/NAME.
        description: sentences on architecture, training data and scores.
        temperature: logits are divided by it to calibrate the scores.
        class_temperatures: temperature by predicted class; replaces `temperature` for these classes.
        classes: explanation by class.
        positive: positive classes of the operating point.
        threshold: an image is positive if the summed score of the positive classes (at temperature 1) reaches it.
        operating_point: how the threshold was chosen, and its performance.
    """

    title: str
    model: str
    description: list[str] = field(default_factory=list)
    temperature: float = 1.0
    class_temperatures: dict[str, float] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    positive: list[str] = field(default_factory=list)
    threshold: float | None = None
    operating_point: str = ""


class DemoModel:
    """A stock classifier and its image processor, and everything that the page shows about an image."""

    has_similar = False

    def __init__(self, model: Any, processor: Any, metadata: DemoMetadata):
        self.model, self.processor, self.metadata = model, processor, metadata
        self.names = [model.config.id2label[index] for index in range(len(model.config.id2label))]

    def read(self, path: str) -> Image.Image:
        """Reads an uploaded file as an upright RGB image.

        Raises:
            UserError: If it is not a supported image.
        """
        name = self.check_upload(path, MAX_IMAGE_MB)
        try:
            with decoding.open_frames(path) as frames:
                if frames.size[0] * frames.size[1] > MAX_PIXELS:
                    raise UserError(f"{name} has more than {MAX_PIXELS / 1e6:g} million pixels.")
                if frames.num_frames > 1:
                    raise UserError(f"{name} contains {frames.num_frames} frames. Save one of them as an image.")
                return frames.read()
        except OSError as error:
            raise UserError(f"{name} cannot be read as an image ({error}).") from None

    def check_upload(self, path: str, megabytes: int) -> str:
        """Checks the size of an uploaded file. Returns its name."""
        name = os.path.basename(path)
        if os.path.getsize(path) > megabytes * 1e6:
            raise UserError(f"{name} is larger than {megabytes} MB.")
        return name

    def iter_frames(self, path: str) -> Iterator[tuple[float, Image.Image]]:
        """Yields one frame per second of a video: (seconds, RGB image).

        Raises:
            UserError: If it is not a readable video.
        """
        name = self.check_upload(path, MAX_VIDEO_MB)
        try:
            yield from videos.iter_frames(path, 1.0)
        except OSError as error:
            raise UserError(f"{name} cannot be read as a video ({error}).") from None

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """Preprocesses an image: (1, 3, height, width)."""
        return self.processor([image], return_tensors="pt")["pixel_values"].to(self.model.device)

    @torch.inference_mode()
    def logits(self, image: Image.Image) -> torch.Tensor:
        """Computes the logits (classes,)."""
        return self.model(pixel_values=self.preprocess(image)).logits[0].float().cpu()

    def scores(self, logits: torch.Tensor) -> dict[str, float]:
        """Computes the calibrated score of each class."""
        predicted = self.names[int(logits.argmax())]
        temperature = self.metadata.class_temperatures.get(predicted, self.metadata.temperature)
        return dict(zip(self.names, (logits / temperature).softmax(-1).tolist(), strict=True))

    def apply_operating_point(self, logits: torch.Tensor) -> str:
        """Returns `positive` or `negative`; an empty string without an operating point."""
        if self.metadata.threshold is None:
            return ""
        score = sum(logits.softmax(-1)[self.names.index(name)].item() for name in self.metadata.positive)
        return "positive" if score >= self.metadata.threshold else "negative"

    def remarks(self, image: Image.Image, logits: torch.Tensor) -> list[str]:
        """Returns sentences on the uncertainty of the prediction; a Space has none."""
        return []

    def saliency_model(self) -> Any:
        """Returns the ViT that Grad-CAM explains; None for another network."""
        return self.model if self.model.config.model_type in ("vit", "beit") else None

    def visualizations(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """Returns the preprocessed image, and its overlay with Grad-CAM of the predicted class (Selvaraju 2017)."""
        values = self.preprocess(image)
        model_input = self.denormalize(values[0])
        if (model := self.saliency_model()) is None:
            return [(model_input, INPUT_CAPTION)]
        outputs: list[Any] = []  # at the input of the last attention: after it, no patch reaches the class token
        *_, norm = (module for name, module in model.named_modules() if name.endswith("layernorm_before"))
        hook = norm.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        with torch.enable_grad():
            logits = model(pixel_values=values).logits[0]
        hook.remove()
        (gradient,) = torch.autograd.grad(logits.max(), outputs)
        relevance = (gradient[0, 1:].mean(0) * outputs[0][0, 1:]).sum(-1).clamp_min(0).detach().float().cpu().numpy()
        side = round(len(relevance) ** 0.5)
        levels = 255 * (relevance - relevance.min()) / max(float(np.ptp(relevance)), 1e-12)
        grey = Image.fromarray(levels.reshape(side, side).astype(np.uint8)).resize(
            model_input.size, Image.Resampling.BICUBIC
        )
        overlay = ImageOps.colorize(grey, (68, 1, 84), (253, 231, 37), mid=(33, 145, 140))
        caption = f"Grad-CAM of {self.names[int(logits.argmax())]}"
        return [(model_input, INPUT_CAPTION), (Image.blend(model_input, overlay, 0.45), caption)]

    def denormalize(self, values: torch.Tensor) -> Image.Image:
        """Converts preprocessed values (3, height, width) to an image."""
        config = getattr(self.processor, "data_config", None)  # of timm
        mean_std = (config["mean"], config["std"]) if config else (self.processor.image_mean, self.processor.image_std)
        mean, std = (torch.tensor(statistic).view(3, 1, 1) for statistic in mean_std)
        pixels = (values.cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
        return Image.fromarray((255 * pixels).round().astype(np.uint8))

    def similar_images(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """Returns similar training images with captions; a Space has none."""
        return []

    def write_csv(self, path: Path, head: list[str], rows: list[list[str]]) -> None:
        """Writes a table for download. File names are join keys, so formulas in them stay as they are."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows([head, *rows])


def gradio_error(message: str, title: str) -> Exception:
    """Builds an error that the page shows, without a traceback in the terminal."""
    import gradio

    return gradio.Error(message, title=title, print_exception=False)


def describe_prediction(demo_model: DemoModel, scores: dict[str, float], outcome: str) -> str:
    """Explains the predicted class and the operating point in Markdown."""
    best = max(scores, key=lambda name: scores[name])
    lines = [f"**{best}**: {demo_model.metadata.classes[best]}"] if best in demo_model.metadata.classes else []
    if outcome:
        lines.append(
            f"**{' or '.join(demo_model.metadata.positive)}: {outcome}.** {demo_model.metadata.operating_point}"
        )
    return "\n\n".join(lines)


class Handlers:
    """Event handlers of the page: classify an image, a folder, or a video."""

    def __init__(self, demo_model: DemoModel):
        self.demo_model = demo_model
        self.tables = tempfile.TemporaryDirectory(prefix="tables-")
        self.columns = [
            "class",
            "score",
            *([" or ".join(demo_model.metadata.positive)] if demo_model.metadata.positive else []),
        ]

    def classify_image(self, path: str | None) -> tuple[Any, ...]:
        """Classifies an image. Returns scores, explanation, visualizations and similar images."""
        if not path:
            return None, "", [], []
        try:
            image = self.demo_model.read(path)
        except UserError as error:
            raise gradio_error(str(error), INVALID_FILE) from None
        logits = self.demo_model.logits(image)
        scores = self.demo_model.scores(logits)
        paragraphs = [
            describe_prediction(self.demo_model, scores, self.demo_model.apply_operating_point(logits)),
            *self.demo_model.remarks(image, logits),
        ]
        text = "\n\n".join(filter(None, paragraphs))
        return scores, text, self.demo_model.visualizations(image), self.demo_model.similar_images(image)

    def classify_files(self, paths: list[str] | None) -> tuple[list[list[str]], str]:
        """Classifies files. Returns one row per file, and the path of the same table as CSV."""
        if not paths:
            raise gradio_error("Drop a folder or files first.", NO_INPUT)
        if len(paths) > MAX_FILES:
            raise gradio_error(
                f"Received {len(paths)} files; the limit is {MAX_FILES}. Use hf-mae predict.", TOO_MANY_FILES
            )
        rows: list[list[str]] = []
        started = time.monotonic()
        for path in paths:
            name = os.path.basename(path)
            if time.monotonic() - started > MAX_SECONDS:
                rows.append(self._row(name, "skipped: time limit reached"))
                continue
            try:
                rows.append(self._row(name, self.demo_model.read(path)))
            except UserError as error:
                rows.append(self._row(name, str(error)))
        return rows, self._csv("file", rows)

    def classify_video(self, path: str | None) -> tuple[list[list[str]], str]:
        """Classifies one frame per second. Returns one row per frame, and the path of the same table as CSV."""
        import gradio

        if not path:
            raise gradio_error("Drop a video first.", NO_INPUT)
        rows: list[list[str]] = []
        started = time.monotonic()
        try:
            for seconds, image in self.demo_model.iter_frames(path):
                if len(rows) == MAX_FRAMES or time.monotonic() - started > MAX_SECONDS:
                    gradio.Warning(f"Only the first {len(rows)} seconds were classified. Use hf-mae predict instead.")
                    break
                rows.append(self._row(f"{seconds:.1f}", image))
        except UserError as error:
            raise gradio_error(str(error), INVALID_FILE) from None
        return rows, self._csv("second", rows)

    def _row(self, name: str, image: Image.Image | str) -> list[str]:
        if isinstance(image, str):
            return [name, image, *[""] * (len(self.columns) - 1)]
        logits = self.demo_model.logits(image)
        scores = self.demo_model.scores(logits)
        best = max(scores, key=lambda name: scores[name])
        return [name, best, f"{scores[best]:.3f}", self.demo_model.apply_operating_point(logits)][
            : 1 + len(self.columns)
        ]

    def _csv(self, first_column: str, rows: list[list[str]]) -> str:
        path = Path(tempfile.mkdtemp(dir=self.tables.name)) / "predictions.csv"
        self.demo_model.write_csv(path, [first_column, *self.columns], rows)
        return str(path)


@cache
def _make_upload_folder() -> tempfile.TemporaryDirectory[str]:
    """Makes a folder for the uploads that only this process reads: that of gradio has a known name in a shared one."""
    return tempfile.TemporaryDirectory(prefix="uploads-")


def accept_uploads_only(component: Any) -> None:
    """Makes an `Image` or `File` accept files of the upload folder only, links resolved; its value is their paths.

    By default, gradio accepts the path of any file in a request without `meta`, downloads URLs, and opens an image
    before it is checked.
    """
    folder = Path(component.GRADIO_CACHE).resolve()

    def check_upload(path: str) -> str:
        with suppress(OSError, RuntimeError, TypeError, ValueError):  # not a path; a loop of links
            if (file := Path(path).resolve()).is_relative_to(folder) and file.is_file():
                return str(file)
        raise gradio_error("This file was not uploaded.", INVALID_FILE)

    async def move_to_cache(path: str) -> str:
        return check_upload(path)

    def preprocess(payload: Any) -> list[str] | str | None:
        paths = [check_upload(file.path) for file in (getattr(payload, "root", [payload]) if payload else [])]
        return paths if getattr(component, "file_count", "single") != "single" else next(iter(paths), None)

    component.async_move_resource_to_block_cache, component.preprocess = move_to_cache, preprocess


class RequestLimits:
    """Middleware of the server: rejects requests that are too large, and those that make the server open a URL."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request with an error, or passes it on."""
        from starlette.responses import PlainTextResponse

        status = _find_rejection(scope["path"], dict(scope["headers"])) if scope["type"] == "http" else 0
        await (PlainTextResponse("Rejected.", status) if status else self.app)(scope, receive, send)


def _find_rejection(path: str, headers: dict[bytes, bytes]) -> int:
    """Returns the status of the answer to a request that is rejected; otherwise 0."""
    if re.search("/(file|proxy)=[a-z]+:", path, re.IGNORECASE):
        return 403
    limit = 1e6 * (MAX_UPLOAD_MB if path.rstrip("/").endswith("/upload") else MAX_REQUEST_MB)
    length = headers.get(b"content-length", b"0")
    return 413 if b"transfer-encoding" in headers or not length.isdigit() or int(length) > limit else 0


def build_page(demo_model: DemoModel) -> Any:
    """Builds the page: gradio's `Blocks`."""
    import gradio

    if not os.environ.get("GRADIO_TEMP_DIR"):
        os.environ["GRADIO_TEMP_DIR"] = _make_upload_folder().name
    metadata, handlers = demo_model.metadata, Handlers(demo_model)
    delete_cache = (UPLOAD_LIFETIME_SECONDS // 6, UPLOAD_LIFETIME_SECONDS)  # interval and age in seconds
    with gradio.Blocks(title=metadata.title, analytics_enabled=False, delete_cache=delete_cache) as blocks:
        gradio.Markdown("\n\n".join([f"## {escape_markdown(metadata.title)}", DISCLAIMER]))
        with gradio.Tab("Image"):
            _image_tab(demo_model, handlers)
        with gradio.Tab("Folder"):
            files = gradio.File(file_count="directory", label="Drop a folder")
            _table_tab(files, handlers.classify_files, ["file", *handlers.columns], "classify_files")
        with gradio.Tab("Video"):
            video = gradio.File(file_types=["video"], label="Drop a video (one frame per second is classified)")
            _table_tab(video, handlers.classify_video, ["second", *handlers.columns], "classify_video")
        with gradio.Tab("Model"):
            gradio.Markdown("\n\n".join(metadata.description) or "The model has no description.")
            if metadata.operating_point:
                positive = " or ".join(map(escape_markdown, metadata.positive))
                gradio.Markdown(f"**Operating point for {positive}.** {metadata.operating_point}")
            classes = [
                f"- **{escape_markdown(name)}**: {metadata.classes[name]}"
                for name in demo_model.names
                if name in metadata.classes
            ]
            gradio.Markdown("\n".join(classes))
    return blocks.queue(max_size=MAX_QUEUE_SIZE)


def _image_tab(demo_model: DemoModel, handlers: Handlers) -> None:
    import gradio

    with gradio.Row():
        upload: Any = gradio.Image(
            type="filepath", sources=["upload", "webcam", "clipboard"], label="Drop an image, or use the camera"
        )
        accept_uploads_only(upload)
        with gradio.Column():
            scores = gradio.Label(num_top_classes=TOP_K, label="Classes")
            explanation = gradio.Markdown()
    heatmaps = _gallery("Visual explanations", 3)
    similar = _gallery("Similar training images", NUM_SIMILAR, visible=demo_model.has_similar)
    upload.change(handlers.classify_image, upload, [scores, explanation, heatmaps, similar], api_name="classify")


def _gallery(label: str, columns: int, **options: Any) -> Any:
    import gradio

    return gradio.Gallery(
        label=label, columns=columns, height="auto", object_fit="contain", elem_classes="pictures", **options
    )


def _table_tab(upload: Any, handler: Callable[..., Any], headers: list[str], api_name: str) -> None:
    import gradio

    accept_uploads_only(upload)
    table = gradio.Dataframe(headers=headers, label="Classes", interactive=False, wrap=True)
    csv_file = gradio.DownloadButton("Download as CSV")
    upload.upload(handler, upload, [table, csv_file], api_name=api_name)


def escape_markdown(text: str) -> str:
    """Escapes characters that Markdown and HTML interpret."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_{}[]()#|!" else character for character in text)


def launch_demo(demo_model: DemoModel, **launch_options: Any) -> Any:
    """Starts the server of the page; `launch_options` are those of gradio's `launch`. Returns gradio's `Blocks`."""
    from starlette.middleware import Middleware

    blocks = build_page(demo_model)
    server_options = {"middleware": [Middleware(RequestLimits)]}
    blocks.launch(max_file_size=f"{MAX_VIDEO_MB}mb", css=MOBILE_CSS, app_kwargs=server_options, **launch_options)
    return blocks


def main() -> None:
    """Starts the Space with the model of demo.json."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    metadata = DemoMetadata(**json.loads(Path(__file__).with_name("demo.json").read_text(encoding="utf-8")))
    model = AutoModelForImageClassification.from_pretrained(metadata.model, trust_remote_code=False).eval()
    processor = AutoImageProcessor.from_pretrained(metadata.model, trust_remote_code=False)
    launch_demo(DemoModel(model, processor, metadata))


if __name__ == "__main__":
    main()
