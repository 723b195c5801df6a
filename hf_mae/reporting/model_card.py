"""Model cards of runs, pre-trained models and ensembles."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.sources.benchmarks import find_benchmark_or_none
from ..evaluation.metrics import available_metric_names, display_scale
from ..files.atomic import write_text
from ..models.ensemble import MemberInfo
from ..models.model_zoo import find_licence
from ..runs.record import FIGURES_DIR, RunRecord, Scores, run_name
from ..settings.metrics import METRICS
from ..settings.models import RANDOM_WEIGHTS
from ..settings.parse import looks_like_path
from .render import escape_markdown_cell
from .run_sentences import (
    describe_hardware,
    describe_selection,
    describe_temperature,
    describe_undefined_scores,
    describe_versions,
)

MAE_TAG = "masked-autoencoder"
MAE_CLASSIFIER_CLASSES = ("ViTForImageClassification", "BeitForImageClassification")  # of converted MAE encoders
TAGS = ["vision", MAE_TAG, "endoscopy", "hf_mae"]

FINETUNED_CARD_TEMPLATE = """---
{metadata}
---

# {name}

{architecture} for image classification into {count} classes, fine-tuned from `{base}` with
hf_mae. It is a stock transformers model: no custom code is needed to load it.

```python
from transformers import pipeline

classifier = pipeline("image-classification", model="{model}")
print(classifier("image.jpg"))
```

**Intended use and limitations.** Research on endoscopy images similar to the training images. The model is not a
medical device, and its output is not a diagnosis. Images are read as 8-bit RGB. hf_mae scales 16-bit grey levels to
8 bits; `pipeline()` clips them, so convert such images first.

**Licence.** {licence}{data_licence}

## Results

In per cent. {selection}{contamination}

{results}

{notes}

### By class ({split})

{per_class}

{figures}

{calibration}

## Training

Data: `{data}` ({sizes}). {training}

Reproduce the run with `hf-mae finetune --recipe recipe.yaml`:

```yaml
{recipe}
```
{citation}"""

ENSEMBLE_CARD_TEMPLATE = """# {name}

An ensemble of {count} image classifiers; its scores are the mean of the scores of its members. Each member is a stock
transformers model in its own folder. hf_mae accepts this folder as a model
(`hf-mae evaluate`, `predict`, `demo`, `export-onnx`). Without hf_mae, use:

```python
from transformers import pipeline

members = [pipeline("image-classification", model=f"{path}/{{name}}", top_k=None) for name in {folders}]
predictions = [{{entry["label"]: entry["score"] for entry in member("image.jpg")}} for member in members]
scores = {{label: sum(one[label] for one in predictions) / len(predictions) for label in predictions[0]}}
```

Classes: {classes}.

| member | source |
|---|---|
{rows}

**Intended use and limitations.** Research on endoscopy images similar to the training images. The model is not a
medical device, and its output is not a diagnosis.
"""

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

PRETRAINED_CARD_TEMPLATE = """---
{metadata}
---

# {name}

A masked autoencoder (`{architecture}`, {size} pixels, mask ratio {mask_ratio:g} %) pre-trained on {images}
unlabelled images of `{data}`, starting from `{base}`, with hf_mae. It is a stock
transformers model. Fine-tune it with
`hf-mae finetune --model_name_or_path {name} --data_dir IMAGES --output_dir RUN`.

**Licence.** {licence}

**Pre-training images.** `pretraining_images.csv` lists every image with its name and perceptual hash. `hf-mae finetune`
warns if images that it evaluates are among them. {excluded}

{training}

```yaml
{recipe}
```
"""


def _licence_text(licence: str | None, licence_source: str, base: str) -> str:
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
    from huggingface_hub import ModelCard

    name = run_name(folder)
    split = list(record.scores)[-1] if record.scores else ""  # shown by class
    benchmark = find_benchmark_or_none(record.data.benchmark)
    licence, licence_source = find_licence(record.base)
    text = FINETUNED_CARD_TEMPLATE.format(
        metadata=_metadata(name, record, licence, architecture),
        name=name,
        data_licence=f" The data, {benchmark.title}: {benchmark.licence}." if benchmark else "",
        citation=f"\n## Citation\n\n{benchmark.citation} ({benchmark.homepage})\n" if benchmark else "",
        contamination=_contamination_text(record),
        figures="\n".join(_figure_links(folder, split)),
        calibration=" ".join(_calibration_sentences(record)),
        architecture=architecture,
        count=len(record.classes),
        base=record.base,
        licence=_licence_text(licence, licence_source, record.base),
        model=name,
        results="\n".join(_results_table(record.scores)) if record.scores else "No split was evaluated.",
        notes="\n".join(
            f"- {part}: {escape_markdown_cell(note)}"
            for part, v in record.scores.items()
            for note in describe_undefined_scores(v)
        ),
        split=split,
        per_class="\n".join(_class_table(record.scores.get(split, {}))),
        data=record.data.data_dir,
        sizes=", ".join(f"{part} {count}" for part, count in record.images.items()),
        training=_training_text(record),
        selection=describe_selection(record.selection),
        recipe=recipe.strip(),
    )
    write_text(folder / "README.md", str(ModelCard(text)))


def _metadata(name: str, record: RunRecord, licence: str | None, architecture: str) -> str:
    """Returns the metadata of the card, as YAML."""
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
        license=licence,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=[tag for tag in TAGS if tag != MAE_TAG or architecture in MAE_CLASSIFIER_CLASSES],
        base_model=parse_hub_id(record.base),
        datasets=[data] if (data := parse_hub_id(record.data.data_dir)) else None,
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    ).to_yaml()


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


def _results_table(scores: dict[str, Scores]) -> list[str]:
    """Returns the headline scores in per cent, one row per split."""
    names = available_metric_names(next(iter(scores.values())))
    head = "| split | images | " + " | ".join(METRICS[m].title for m in names) + " |"
    return [head, "|---" * (2 + len(names)) + "|"] + [
        f"| {part} | {values['num_images']} | "
        + " | ".join(f"{display_scale(m) * values[m]:.2f}" if values.get(m) is not None else "" for m in names)
        + " |"
        for part, values in scores.items()
    ]


def _class_table(scores: Scores) -> list[str]:
    """Returns the precision, recall and F1 in per cent, one row per class."""
    lines = ["| class | precision | recall | F1 | images |", "|---|---|---|---|---|"]
    for label, values in scores.get("per_class", {}).items():
        cells = " | ".join(f"{100 * values[name]:.1f}" for name in ("precision", "recall", "f1"))
        lines.append(f"| {escape_markdown_cell(label)} | {cells} | {values['support']} |")
    return lines


def _figure_links(folder: Path, split: str) -> list[str]:
    files = {title: f"{FIGURES_DIR}/{file.format(split=split)}" for title, file in CARD_FIGURES.items()}
    return [f"![{title}]({file})" for title, file in files.items() if (folder / file).is_file()]


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
    return ENSEMBLE_CARD_TEMPLATE.format(
        name=folder.resolve().name,
        path=folder,
        count=len(members),
        folders=tuple(member.folder for member in members),
        classes=", ".join(map(escape_markdown_cell, classes)),
        rows="\n".join(f"| `{member.folder}` | `{escape_markdown_cell(member.source)}` |" for member in members),
    )


def write_pretraining_card(folder: Path, record: RunRecord, model: Any, recipe: str) -> None:
    """Writes the model card `README.md` of a pre-trained model.

    Args:
        folder: the output folder of the run.
        record: the record of the run.
        model: the model.
        recipe: YAML of the recipe of the run.
    """
    from huggingface_hub import ModelCard, ModelCardData

    licence, licence_source = find_licence(record.base)
    excluded = record.excluded
    text = PRETRAINED_CARD_TEMPLATE.format(
        metadata=ModelCardData(license=licence, library_name="transformers", tags=TAGS).to_yaml(),
        name=run_name(folder),
        architecture=type(model).__name__,
        size=model.config.image_size,
        mask_ratio=100 * model.config.mask_ratio,
        images=record.images["train"],
        data=record.data.data_dir,
        base=record.base,
        licence=_licence_text(licence, licence_source, record.base),
        excluded=f"{excluded} images were excluded (`--exclude`)." if excluded else "No image was excluded.",
        training=_training_text(record),
        recipe=recipe.strip(),
    )
    write_text(folder / "README.md", str(ModelCard(text)))
