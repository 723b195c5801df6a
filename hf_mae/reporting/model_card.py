"""Model cards of runs, pre-trained models and ensembles."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.sources.benchmark_files import Benchmark
from ..data.sources.benchmarks import find_benchmark_or_none
from ..evaluation.metrics import available_metric_names
from ..files.atomic import write_text
from ..models.ensemble import MemberInfo
from ..models.model_zoo import find_licence
from ..runs.record import FIGURES_DIR, RunRecord, Scores, run_name
from ..settings.metrics import METRICS
from ..settings.models import RANDOM_WEIGHTS
from ..settings.parse import looks_like_path
from .document import Block, BulletList, Code, Document, Heading, Image, Paragraph
from .headline import split_table
from .renderers import markdown
from .run_sentences import (
    describe_hardware,
    describe_selection,
    describe_temperature,
    describe_undefined_scores,
    describe_versions,
)
from .table import Column, Number, Table, number_columns

MAE_TAG = "masked-autoencoder"
MAE_CLASSIFIER_CLASSES = ("ViTForImageClassification", "BeitForImageClassification")  # of converted MAE encoders
TAGS = ["vision", MAE_TAG, "endoscopy", "hf_mae"]

USAGE_CODE = """from transformers import pipeline

classifier = pipeline("image-classification", model="{name}")
print(classifier("image.jpg"))"""

ENSEMBLE_CODE = """from transformers import pipeline

members = [pipeline("image-classification", model=f"{path}/{{name}}", top_k=None) for name in {folders}]
predictions = [{{entry["label"]: entry["score"] for entry in member("image.jpg")}} for member in members]
scores = {{label: sum(one[label] for one in predictions) / len(predictions) for label in predictions[0]}}"""

INTENDED_USE = (
    "Research on endoscopy images similar to the training images. The model is not a medical device, and its output is "
    "not a diagnosis."
)
IMAGE_LIMITS = (
    " Images are read as 8-bit RGB. hf_mae scales 16-bit grey levels to 8 bits; `pipeline()` clips them, so convert "
    "such images first."
)
LIMITS_TITLE = "Intended use and limitations."

CALIBRATION_SENTENCE = (
    "Dividing the logits by the {words} (fitted on the {fitted_on} split, in `temperature.json`) "
    "changes the expected calibration error on that split from {ece_before:.3f} to {ece_after:.3f}."
)

PREDICTION_SETS_SENTENCE = (
    "Prediction sets (`hf-mae predict --prediction_sets`; conformal, fitted on the {fitted_on} split, in "
    "`uncertainty.json`) with a nominal coverage of {level:.0f} % for each class contain the true class in "
    "{coverage:.1f} % of the {images} images of the {split} split, with {size:.2f} classes on average."
)

# Figures of the card, if they exist in the output folder.
CARD_FIGURES = {
    "Confusion matrix": "confusion_matrix_{split}.png",
    "F1 by class": "per_class_f1_{split}.png",
    "Calibration": "reliability_{split}.png",
    "Risk and coverage": "risk_coverage_{split}.png",
    "Learning curves": "learning_curves.png",
}


def _licence_text(base: str) -> str:
    licence, licence_source = find_licence(base)
    if base == RANDOM_WEIGHTS:
        return "Trained from random weights: choose any licence."
    if licence is None:
        return (
            f"The licence of the initial checkpoint, `{base}`, which is not known here ({licence_source}). The public "
            "ImageNet MAE weights, and models derived from them, are CC BY-NC 4.0 (non-commercial)."
        )
    only = " Non-commercial use only." if "-nc" in licence else ""
    return f"`{licence}`, inherited from the initial checkpoint, `{base}` (source: {licence_source}).{only}"


def write_model_card(folder: Path, record: RunRecord, architecture: str, recipe: str) -> None:
    """Writes the model card `README.md`, with a `model-index` for the Hub.

    Args:
        folder: the output folder of the run, with its figures.
        record: the record of the run.
        architecture: class of the model.
        recipe: YAML of the recipe of the run.
    """
    document = build_model_card(folder, record, architecture, recipe)
    _write_card(folder, document, _metadata(run_name(folder), record, architecture))


def _write_card(folder: Path, document: Document, metadata: Any) -> None:
    from huggingface_hub import ModelCard

    write_text(folder / "README.md", str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{markdown.render(document)}")))


def build_model_card(folder: Path, record: RunRecord, architecture: str, recipe: str) -> list[Block]:
    """Builds the text of the model card (see `write_model_card`)."""
    name = run_name(folder)
    benchmark = find_benchmark_or_none(record.data.benchmark)
    data_licence = f" The data, {benchmark.title}: {benchmark.licence}." if benchmark else ""
    sizes = ", ".join(f"{split} {count}" for split, count in record.images.items())
    return [
        Heading(name, 1),
        Paragraph(
            f"{architecture} for image classification into {len(record.classes)} classes, fine-tuned from "
            f"`{record.base}` with hf_mae. It is a stock transformers model: no custom code is needed to load it."
        ),
        Code(USAGE_CODE.format(name=name), "python"),
        Paragraph(INTENDED_USE + IMAGE_LIMITS, LIMITS_TITLE),
        Paragraph(_licence_text(record.base) + data_licence, "Licence."),
        Heading("Results"),
        *_results_blocks(folder, record),
        Heading("Training"),
        Paragraph(f"Data: `{record.data.data_dir}` ({sizes}). {_training_text(record)}"),
        Paragraph("Reproduce the run with `hf-mae finetune --recipe recipe.yaml`:"),
        Code(recipe, "yaml"),
        *_citation_blocks(benchmark),
    ]


def _citation_blocks(benchmark: Benchmark | None) -> list[Block]:
    if benchmark is None:
        return []
    return [Heading("Citation"), Paragraph(f"{benchmark.citation} ({benchmark.homepage})")]


def _results_blocks(folder: Path, record: RunRecord) -> list[Block]:
    """Builds the scores of all splits, and the classes and figures of the last one."""
    selection = describe_selection(record.selection)
    blocks: list[Block] = [Paragraph(f"In per cent; [ ]: 95 % interval. {selection}{_contamination_text(record)}")]
    if not record.scores:
        return [*blocks, Paragraph("No split was evaluated.")]
    split = list(record.scores)[-1]
    notes = [f"{part}: {note}" for part, scores in record.scores.items() for note in describe_undefined_scores(scores)]
    return [
        *blocks,
        split_table(record.scores),
        BulletList(notes),
        Heading(f"By class ({split})", 3),
        _class_table(record.scores[split]),
        *_list_figures(folder, split),
        *map(Paragraph, _calibration_sentences(record)),
    ]


def _metadata(name: str, record: RunRecord, architecture: str) -> Any:
    """Returns the metadata of the card."""
    from huggingface_hub import EvalResult, ModelCardData

    evaluations = [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name=Path(record.data.data_dir).name or record.data.data_dir,
            dataset_split=part,
            metric_type=METRICS[metric].hub_type or metric,
            metric_name=METRICS[metric].title,
            metric_value=round(values[metric], 6),
        )
        for part, values in record.scores.items()
        for metric in available_metric_names(values)
    ]
    return ModelCardData(
        license=find_licence(record.base)[0],
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=[tag for tag in TAGS if tag != MAE_TAG or architecture in MAE_CLASSIFIER_CLASSES],
        base_model=parse_hub_id(record.base),
        datasets=[data] if (data := parse_hub_id(record.data.data_dir)) else None,
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )


def parse_hub_id(name: str) -> str | None:
    """Returns `name` if it is a Hub id (OWNER/NAME) and not a path; otherwise None."""
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not looks_like_path(name) and not Path(name).exists()
    return name if is_id else None


def _calibration_sentences(record: RunRecord) -> list[str]:
    """Returns sentences on the temperature and on prediction sets."""
    sentences = []
    if record.calibration:
        words = describe_temperature(record.calibration)
        sentences.append(CALIBRATION_SENTENCE.format(words=words, **record.calibration))
    if record.uncertainty:
        values = record.uncertainty | {name: 100 * record.uncertainty[name] for name in ("level", "coverage")}
        sentences.append(PREDICTION_SETS_SENTENCE.format(**values))
    return sentences


def _class_table(scores: Scores) -> Table:
    """Builds the table of the precision, recall and F1 of each class, in per cent."""
    rows = [
        [label, *(Number(100 * values[name], 1) for name in ("precision", "recall", "f1")), values["support"]]
        for label, values in scores.get("per_class", {}).items()
    ]
    return Table([Column("class"), *number_columns(["precision", "recall", "F1", "images"])], rows)


def _list_figures(folder: Path, split: str) -> list[Image]:
    files = {title: folder / FIGURES_DIR / file.format(split=split) for title, file in CARD_FIGURES.items()}
    return [Image(path, title, folder) for title, path in files.items() if path.is_file()]


def _contamination_text(record: RunRecord) -> str:
    return "".join(
        f" {count} of the {split} images {'was' if count == 1 else 'were'} in the pre-training set."
        for split, count in (record.seen_in_pretraining or {}).items()
    )


def _training_text(record: RunRecord) -> str:
    """Returns a sentence on duration, hardware and versions."""
    environment = f"{describe_hardware(record.environment.hardware)}; {describe_versions(record.environment)}."
    if record.train is None:
        return environment
    return f"{record.train.updates} updates in {record.train.seconds / 60:.1f} minutes on {environment}"


def build_ensemble_card(folder: Path, members: Sequence[MemberInfo], classes: list[str]) -> str:
    """Builds the model card of an ensemble.

    Args:
        folder: the folder of the ensemble, which need not exist yet.
        members: its members.
        classes: class names.
    """
    rows = [[f"`{member.folder}`", f"`{member.source}`"] for member in members]
    document: list[Block] = [
        Heading(folder.resolve().name, 1),
        Paragraph(
            f"An ensemble of {len(members)} image classifiers; its scores are the mean of the scores of its members. "
            "Each member is a stock transformers model in its own folder. hf_mae accepts this folder as a model "
            "(`hf-mae evaluate`, `predict`, `demo`, `export-onnx`). Without hf_mae, use:"
        ),
        Code(ENSEMBLE_CODE.format(path=folder, folders=tuple(member.folder for member in members)), "python"),
        Paragraph(f"Classes: {', '.join(classes)}."),
        Table([Column("member"), Column("source")], rows),
        Paragraph(INTENDED_USE, LIMITS_TITLE),
    ]
    return markdown.render(document)


def write_pretraining_card(folder: Path, record: RunRecord, model: Any, recipe: str) -> None:
    """Writes the model card `README.md` of a pre-trained model.

    Args:
        folder: the output folder of the run.
        record: the record of the run.
        model: the model.
        recipe: YAML of the recipe of the run.
    """
    from huggingface_hub import ModelCardData

    name, excluded = run_name(folder), record.excluded
    document: list[Block] = [
        Heading(name, 1),
        Paragraph(
            f"A masked autoencoder (`{type(model).__name__}`, {model.config.image_size} pixels, mask ratio "
            f"{100 * model.config.mask_ratio:g} %) pre-trained on {record.images['train']} unlabelled images of "
            f"`{record.data.data_dir}`, starting from `{record.base}`, with hf_mae. It is a stock transformers model. "
            f"Fine-tune it with `hf-mae finetune --model_name_or_path {name} --data_dir IMAGES --output_dir RUN`."
        ),
        Paragraph(_licence_text(record.base), "Licence."),
        Paragraph(
            "`pretraining_images.csv` lists every image with its name and perceptual hash. `hf-mae finetune` warns if "
            "images that it evaluates are among them. "
            + (f"{excluded} images were excluded (`--exclude`)." if excluded else "No image was excluded."),
            "Pre-training images.",
        ),
        Paragraph(_training_text(record)),
        Code(recipe, "yaml"),
    ]
    metadata = ModelCardData(license=find_licence(record.base)[0], library_name="transformers", tags=TAGS)
    _write_card(folder, document, metadata)
