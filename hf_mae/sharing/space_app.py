"""A classifier in the browser: the page of `hf-mae demo`, and the app.py of a Space (`hf-mae push --demo`).

It imports nothing of hf_mae: beside it a Space needs demo.json, which says what the page shows, and the packages of its
requirements.txt. It is for research: no medical device, and no diagnosis.
"""

import csv
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

TOP_K, NUM_SIMILAR = 5, 6
MAX_IMAGE_MB = 20  # of an uploaded image, at most
MAX_VIDEO_MB = 100
MAX_PIXELS = 50_000_000  # of a decoded one
MAX_FILES, MAX_FRAMES, MAX_SECONDS = 500, 600, 300  # of one folder or video: files, frames, and time for all of them
MAX_QUEUE_SIZE = 100  # requests, at most; who comes later is told so
UPLOAD_LIFETIME_SECONDS = 3600  # seconds that an upload is kept on this machine's disk
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
TOO_MANY_FILES = "Too many files"
INPUT_CAPTION = "as it is seen"
DISCLAIMER = "For research: not a medical device, and no diagnosis."
MOBILE_CSS = """
@media (max-width: 600px) {
  .pictures .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
  .gradio-container { padding: 4px !important; }
}
"""


class UserError(ValueError):
    """What a visitor is told, in a sentence."""


@dataclass
class DemoMetadata:
    """What the page says of the model.

    Args:
        title: of the page.
        model: a folder, or USER/NAME.
        description: sentences: what it is, what it was trained on, how good it is.
        temperature: by which logits are divided, so that scores say how often they are right.
        class_temperatures: in its place, those of the class that is predicted.
        classes: by class, what it means when the model says it.
        positive: the classes that the operating point is of.
        threshold: on their summed score (of the model, at temperature 1), from which on an image is positive.
        operating_point: how it was chosen, and what it comes to.
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
    """A stock classifier, and what the page shows of an image.

    Args:
        model, processor: of `AutoModelForImageClassification` and `AutoImageProcessor`.
    """

    has_similar = False

    def __init__(self, model: Any, processor: Any, metadata: DemoMetadata):
        self.model, self.processor, self.metadata = model, processor, metadata
        self.names = [model.config.id2label[index] for index in range(len(model.config.id2label))]

    def read(self, path: str) -> Image.Image:
        """An uploaded file as an upright RGB image.

        Raises:
            Mistake: it is none.
        """
        name = self.check_upload(path, SUFFIXES, MAX_IMAGE_MB)
        try:
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(f"{name} has more than {MAX_PIXELS / 1e6:g} million pixels.")
                if image.mode.startswith(("I", "F")):
                    raise UserError(f"{name} has more than 256 levels: save it with 8 bits.")
                return ImageOps.exif_transpose(image).convert("RGB")
        except UserError:
            raise
        except Exception:  # PIL raises whatever the format's plugin does
            raise UserError(f"{name} cannot be read as an image.") from None

    def check_upload(self, path: str, suffixes: tuple[str, ...], megabytes: int) -> str:
        """The name of an uploaded file that may be opened."""
        name = os.path.basename(path)
        if not name.lower().endswith(suffixes):
            raise UserError(f"{name} is no image file ({', '.join(suffixes)}).")
        if os.path.getsize(path) > megabytes * 1e6:
            raise UserError(f"{name} is larger than {megabytes} MB.")
        return name

    def iter_frames(self, path: str) -> Iterator[tuple[float, Image.Image]]:
        """The frame of every second of a video.

        Raises:
            Mistake: it is none that can be read.
        """
        import cv2

        video = cv2.VideoCapture(path)
        rate, number = video.get(cv2.CAP_PROP_FPS), 0
        if not video.isOpened() or not rate > 0:
            raise UserError(f"{os.path.basename(path)} cannot be read as a video.")
        while video.grab():
            if number % max(1, round(rate)) == 0:
                good, pixels = video.retrieve()
                if good:
                    yield number / rate, Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            number += 1
        video.release()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """(1, 3, height, width)."""
        return self.processor([image], return_tensors="pt")["pixel_values"].to(self.model.device)

    @torch.inference_mode()
    def logits(self, image: Image.Image) -> torch.Tensor:
        """(classes,)."""
        return self.model(pixel_values=self.preprocess(image)).logits[0].float().cpu()

    def scores(self, logits: torch.Tensor) -> dict[str, float]:
        """Class -> calibrated score."""
        predicted = self.names[int(logits.argmax())]
        temperature = self.metadata.class_temperatures.get(predicted, self.metadata.temperature)
        return dict(zip(self.names, (logits / temperature).softmax(-1).tolist(), strict=True))

    def apply_operating_point(self, logits: torch.Tensor) -> str:
        """On which side of the operating point it is; empty where there is none."""
        if self.metadata.threshold is None:
            return ""
        score = sum(logits.softmax(-1)[self.names.index(name)].item() for name in self.metadata.positive)
        return "positive" if score >= self.metadata.threshold else "negative"

    def remarks(self, image: Image.Image, logits: torch.Tensor) -> list[str]:
        """Sentences on what the model does not know of an image."""
        return []

    def visualizations(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """The image as the model sees it, and under what reaches its decision through the attention of all blocks
        (attention rollout, Abnar and Zuidema 2020)."""
        values = self.preprocess(image)
        if self.model.config.model_type not in ("vit", "beit"):
            return [(self.denormalize(values[0]), INPUT_CAPTION)]
        self.model.set_attn_implementation("eager")
        with torch.inference_mode():
            attentions = self.model(pixel_values=values, output_attentions=True).attentions
        rolled = torch.eye(attentions[0].shape[-1], device=values.device)
        for attention in attentions:
            rolled = 0.5 * (attention[0].float().mean(0) @ rolled) + 0.5 * rolled  # half is the residual connection
        read = rolled[1:].mean(0) if getattr(self.model.config, "use_mean_pooling", False) else rolled[0]
        side = round((len(read) - 1) ** 0.5)
        found = read[1:].view(side, side).cpu().numpy()
        grey = 255 * (found - found.min()) / max(float(np.ptp(found)), 1e-12)
        seen = self.denormalize(values[0])
        map_ = Image.fromarray(grey.astype(np.uint8)).resize(seen.size, Image.Resampling.BICUBIC)
        bright = ImageOps.colorize(map_, (68, 1, 84), (253, 231, 37), mid=(33, 145, 140))
        return [(seen, INPUT_CAPTION), (Image.blend(seen, bright, 0.45), "attention rollout")]

    def denormalize(self, values: torch.Tensor) -> Image.Image:
        """(3, height, width) of the processor, as a picture."""
        timms = getattr(self.processor, "data_config", None)
        made = (timms["mean"], timms["std"]) if timms else (self.processor.image_mean, self.processor.image_std)
        mean, std = (torch.tensor(of).view(3, 1, 1) for of in made)
        pixels = (values.cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
        return Image.fromarray((255 * pixels).round().astype(np.uint8))

    def similar_images(self, image: Image.Image) -> list[tuple[Image.Image, str]]:
        """Similar training images: a Space has none."""
        return []

    def write_csv(self, path: Path, head: list[str], rows: list[list[str]]) -> None:
        """A table to take away; what a spreadsheet would take for a formula is quoted."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows([head, *rows])


def gradio_error(sentence: str, title: str) -> Exception:
    """What the page shows of a mistake; the terminal says nothing of it."""

    import gradio

    return gradio.Error(sentence, title=title, print_exception=False)


def describe_prediction(demo_model: DemoModel, scores: dict[str, float], outcome: str) -> str:
    """What is said of an image, in words."""
    best = max(scores, key=lambda name: scores[name])
    lines = [f"**{best}**: {demo_model.metadata.classes[best]}"] if best in demo_model.metadata.classes else []
    if outcome:
        lines.append(
            f"**{' or '.join(demo_model.metadata.positive)}: {outcome}.** {demo_model.metadata.operating_point}"
        )
    return "\n\n".join(lines)


class Handlers:
    """What the page answers to an image, to many files, and to a video."""

    def __init__(self, demo_model: DemoModel):
        self.demo_model = demo_model
        self.tables = tempfile.TemporaryDirectory(prefix="tables-")
        self.columns = [
            "class",
            "score",
            *([" or ".join(demo_model.metadata.positive)] if demo_model.metadata.positive else []),
        ]

    def classify_image(self, path: str | None) -> tuple[Any, ...]:
        """Classes, what they mean, where it looks, similar images."""
        if not path:
            return None, "", [], []
        try:
            image = self.demo_model.read(path)
        except UserError as error:
            raise gradio_error(str(error), "Not this file") from None
        logits = self.demo_model.logits(image)
        scores = self.demo_model.scores(logits)
        said = [
            describe_prediction(self.demo_model, scores, self.demo_model.apply_operating_point(logits)),
            *self.demo_model.remarks(image, logits),
        ]
        text = "\n\n".join(filter(None, said))
        return scores, text, self.demo_model.visualizations(image), self.demo_model.similar_images(image)

    def classify_files(self, paths: list[str] | None) -> tuple[list[list[str]], str]:
        """A row for each file, and the same as CSV."""
        if not paths:
            raise gradio_error("Drop a folder, or some files, first.", "Nothing to classify")
        if len(paths) > MAX_FILES:
            raise gradio_error(
                f"{len(paths)} files came, and {MAX_FILES} at most are classified: use hf-mae predict.", TOO_MANY_FILES
            )
        rows: list[list[str]] = []
        started = time.monotonic()
        for path in paths:
            name = os.path.basename(path)
            if time.monotonic() - started > MAX_SECONDS:
                rows.append(self._row(name, "left out: the time is up"))
                continue
            try:
                rows.append(self._row(name, self.demo_model.read(path)))
            except UserError as error:
                rows.append(self._row(name, str(error)))
        return rows, self._csv("file", rows)

    def classify_video(self, path: str | None) -> tuple[list[list[str]], str]:
        """A row for the frame of each second, and the same as CSV."""
        import gradio

        if not path:
            raise gradio_error("Drop a video first.", "Nothing to classify")
        rows: list[list[str]] = []
        started = time.monotonic()
        try:
            for seconds, image in self.demo_model.iter_frames(path):
                if len(rows) == MAX_FRAMES or time.monotonic() - started > MAX_SECONDS:
                    gradio.Warning(f"The first {len(rows)} seconds were classified: use hf-mae predict for the rest.")
                    break
                rows.append(self._row(f"{seconds:.1f}", image))
        except UserError as error:
            raise gradio_error(str(error), "Not this file") from None
        return rows, self._csv("second", rows)

    def _row(self, name: str, image: Image.Image | str) -> list[str]:
        blank = [""] * (len(self.columns) - 1)
        if isinstance(image, str):
            return [name, image, *blank]
        logits = self.demo_model.logits(image)
        scores = self.demo_model.scores(logits)
        best = max(scores, key=lambda name: scores[name])
        return [name, best, f"{scores[best]:.3f}", self.demo_model.apply_operating_point(logits)][
            : 1 + len(self.columns)
        ]

    def _csv(self, first: str, rows: list[list[str]]) -> str:
        path = Path(tempfile.mkdtemp(dir=self.tables.name)) / "predictions.csv"
        self.demo_model.write_csv(path, [first, *self.columns], rows)
        return str(path)


def build_page(demo_model: DemoModel) -> Any:
    """The page, to be launched with `launch(shown, ...)`."""

    import gradio

    facts, answers = demo_model.metadata, Handlers(demo_model)
    cleaning = (UPLOAD_LIFETIME_SECONDS // 6, UPLOAD_LIFETIME_SECONDS)  # every so many seconds, of what is older
    with gradio.Blocks(title=facts.title, analytics_enabled=False, delete_cache=cleaning) as blocks:
        gradio.Markdown("\n\n".join([f"## {escape_markdown(facts.title)}", DISCLAIMER]))
        with gradio.Tab("Image"):
            _image_tab(demo_model, answers)
        with gradio.Tab("Folder"):
            files = gradio.File(file_count="directory", label="Drop a folder")
            _table_tab(files, answers.classify_files, ["file", *answers.columns], "classify_files")
        with gradio.Tab("Video"):
            video = gradio.File(file_types=["video"], label="Drop a video: the frame of every second is classified")
            _table_tab(video, answers.classify_video, ["second", *answers.columns], "classify_video")
        with gradio.Tab("Model"):
            gradio.Markdown("\n\n".join(facts.description) or "Nothing is known of it.")
            if facts.operating_point:
                gradio.Markdown(
                    f"**Operating point, {' or '.join(map(escape_markdown, facts.positive))}.** {facts.operating_point}"
                )
            told = [
                f"- **{escape_markdown(name)}**: {facts.classes[name]}"
                for name in demo_model.names
                if name in facts.classes
            ]
            gradio.Markdown("\n".join(told))
    return blocks.queue(max_size=MAX_QUEUE_SIZE)


def _image_tab(demo_model: DemoModel, handlers: Handlers) -> None:
    import gradio

    with gradio.Row():
        given: Any = gradio.Image(
            type="filepath", sources=["upload", "webcam", "clipboard"], label="Drop an image, or use the camera"
        )
        # The file as it came: gradio would open it before it is checked.
        given.preprocess = lambda payload: payload.path if payload else None
        with gradio.Column():
            answer = gradio.Label(num_top_classes=TOP_K, label="Classes")
            words = gradio.Markdown()
    where = _gallery("Where it looks", 3)
    like = _gallery("Similar training images", NUM_SIMILAR, visible=demo_model.has_similar)
    given.change(handlers.classify_image, given, [answer, words, where, like], api_name="classify")


def _gallery(label: str, columns: int, **options: Any) -> Any:
    import gradio

    return gradio.Gallery(
        label=label, columns=columns, height="auto", object_fit="contain", elem_classes="pictures", **options
    )


def _table_tab(upload: Any, handler: Callable[..., Any], head: list[str], api_name: str) -> None:
    import gradio

    table = gradio.Dataframe(headers=head, label="Classes", interactive=False, wrap=True)
    csv_file = gradio.DownloadButton("Download as CSV")
    upload.upload(handler, upload, [table, csv_file], api_name=api_name)


def escape_markdown(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#|!" else letter for letter in text)


def launch_demo(demo_model: DemoModel, **launch_options: Any) -> Any:
    """Opens the page; `launch_options` goes to gradio's `launch`."""
    blocks = build_page(demo_model)
    blocks.launch(max_file_size=f"{MAX_VIDEO_MB}mb", css=MOBILE_CSS, **launch_options)
    return blocks


def main() -> None:
    """The Space: the model of demo.json."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    facts = DemoMetadata(**json.loads(Path(__file__).with_name("demo.json").read_text(encoding="utf-8")))
    model = AutoModelForImageClassification.from_pretrained(facts.model).eval()
    launch_demo(DemoModel(model, AutoImageProcessor.from_pretrained(facts.model), facts))


if __name__ == "__main__":
    main()
