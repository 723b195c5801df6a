"""Model cards of runs, pre-trained models and ensembles; their texts are in `templates/cards.yaml`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..evaluation.metrics import available_metric_names
from ..files.atomic import write_text
from ..models.ensemble import MemberInfo
from ..runs.identifiers import NameRules
from ..runs.public_record import (
    LOCAL_MODEL,
    make_portable_recipe,
    make_public_record,
    parse_hub_id,
    public_source,
)
from ..runs.record import FIGURES_DIR, RunRecord, Scores, run_name
from ..runs.run_licences import inherited_licence
from ..settings.benchmarks import find_benchmark_or_none
from ..settings.metrics import METRICS
from ..settings.models import RANDOM_WEIGHTS
from .document import Block, BulletList, Code, Document, Heading, Image, Paragraph
from .headline import split_table
from .renderers import markdown
from .run_sentences import describe_undefined_scores
from .table import Column, Number, Table, number_columns
from .text_templates import load_templates, render_text

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

LIMITS_TITLE = "Intended use and limitations."

# Figures of the card, if they exist in the output folder.
CARD_FIGURES = {
    "Confusion matrix": "confusion_matrix_{split}.png",
    "F1 by class": "per_class_f1_{split}.png",
    "Calibration": "reliability_{split}.png",
    "Risk and coverage": "risk_coverage_{split}.png",
    "Learning curves": "learning_curves.png",
}


def write_model_card(folder: Path, record: RunRecord, architecture: str, recipe: str) -> None:
    """Writes the model card `README.md`, with a `model-index` for the Hub; `recipe` is YAML.

    The card contains no path: it is published as it is.
    """
    rules = NameRules.from_data(record.classes)
    record, recipe = make_public_record(record, rules), make_portable_recipe(recipe, record.kind, rules)
    document = build_model_card(folder, record, architecture, recipe)
    _write_card(folder, document, _metadata(run_name(folder), record, architecture))


def _write_card(folder: Path, document: Document, metadata: Any) -> None:
    from huggingface_hub import ModelCard

    write_text(folder / "README.md", str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{markdown.render(document)}")))


def build_model_card(folder: Path, record: RunRecord, architecture: str, recipe: str) -> list[Block]:
    """Builds the text of the model card (see `write_model_card`)."""
    name, render = run_name(folder), _renderer(record, architecture=architecture)
    benchmark = find_benchmark_or_none(record.data.benchmark)
    citation: list[Block] = []
    if benchmark:
        citation = [Heading("Citation"), Paragraph(f"{benchmark.citation} ({benchmark.homepage})")]
    return [
        Heading(name, 1),
        Paragraph(render("model")),
        Code(USAGE_CODE.format(name=name), "python"),
        Paragraph(f"{render('intended_use')} {render('image_limits')}", LIMITS_TITLE),
        Paragraph(f"{render('licence')} {render('data_licence')}".strip(), "Licence."),
        Heading("Results"),
        Paragraph(render("results")),
        *_results_blocks(folder, record, render),
        Heading("Training"),
        Paragraph(f"{render('data')} {render('training')}"),
        Paragraph("Reproduce the run with `hf-mae finetune --recipe recipe.yaml`:"),
        Code(recipe, "yaml"),
        *citation,
    ]


def _renderer(record: RunRecord, **facts: Any) -> Callable[[str], str]:
    """Returns the function that renders a text of `templates/cards.yaml` with the facts of a record."""
    facts |= {
        "record": record,
        "benchmark": find_benchmark_or_none(record.data.benchmark),
        "is_random": record.base == RANDOM_WEIGHTS,
        "licence": _licence(record),
    }
    return lambda name: render_text(load_templates("cards")[name], facts)


def _licence(record: RunRecord) -> str | None:
    """Returns the licence that a run inherits; None: unknown, or the licences contradict each other."""
    try:
        return inherited_licence(record.licences)
    except UsageError:
        return None


def _results_blocks(folder: Path, record: RunRecord, render: Callable[[str], str]) -> list[Block]:
    """Builds the scores of all splits, and the classes and figures of the last one."""
    if not record.scores:
        return [Paragraph("No split was evaluated.")]
    split = list(record.scores)[-1]
    notes = [f"{part}: {note}" for part, scores in record.scores.items() for note in describe_undefined_scores(scores)]
    return [
        split_table(record.scores),
        BulletList(notes),
        Heading(f"By class ({split})", 3),
        _class_table(record.scores[split]),
        *_list_figures(folder, split),
        *(Paragraph(text) for text in map(render, ("calibration", "prediction_sets")) if text),
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
        license=_licence(record),
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=[tag for tag in TAGS if tag != MAE_TAG or architecture in MAE_CLASSIFIER_CLASSES],
        base_model=parse_hub_id(record.base),
        datasets=[data] if (data := parse_hub_id(record.data.data_dir)) else None,
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )


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


def build_ensemble_card(
    folder: Path, members: Sequence[MemberInfo], classes: list[str], licence: str | None = None
) -> str:
    """Builds the model card of an ensemble, whose folder need not exist yet."""
    templates, facts, rules = load_templates("cards"), {"members": members}, NameRules.from_data(classes)
    sources = [public_source(member.source, rules, LOCAL_MODEL) for member in members]
    document: list[Block] = [
        Heading(folder.resolve().name, 1),
        Paragraph(render_text(templates["ensemble"], facts)),
        Code(ENSEMBLE_CODE.format(path=folder.name, folders=tuple(member.folder for member in members)), "python"),
        Paragraph(f"Classes: {', '.join(classes)}."),
        Table(
            [Column("member"), Column("source")],
            [[f"`{member.folder}`", f"`{source}`"] for member, source in zip(members, sources, strict=True)],
        ),
        Paragraph(render_text(templates["intended_use"], {}), LIMITS_TITLE),
    ]
    return licence_head(licence) + markdown.render(document)


def licence_head(licence: str | None) -> str:
    """Returns the front matter of a card that states a licence; empty if it is unknown."""
    return f"---\nlicense: {licence}\n---\n\n" if licence else ""


def write_pretraining_card(folder: Path, record: RunRecord, model: Any, recipe: str) -> None:
    """Writes the model card `README.md` of a pre-trained model; `recipe` is YAML."""
    from huggingface_hub import ModelCardData

    name, rules = run_name(folder), NameRules()
    record, recipe = make_public_record(record, rules), make_portable_recipe(recipe, record.kind, rules)
    render = _renderer(record, name=name, architecture=type(model).__name__, config=model.config)
    document: list[Block] = [
        Heading(name, 1),
        Paragraph(render("pretraining")),
        Paragraph(render("licence"), "Licence."),
        Paragraph(render("pretraining_images"), "Pre-training images."),
        Paragraph(render("training")),
        Code(recipe, "yaml"),
    ]
    metadata = ModelCardData(license=_licence(record), library_name="transformers", tags=TAGS)
    _write_card(folder, document, metadata)
