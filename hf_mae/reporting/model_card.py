"""The model card of a run: what it is, how well it does, and three lines that use it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.benchmarks import find_benchmark_or_none
from ..evaluation.calibration import format_temperature
from ..evaluation.confusion import available_metric_names, display_scale
from ..evaluation.metrics import TITLES, zero_division_notes
from ..files.atomic import write_text
from ..models.ensemble import MemberInfo
from ..models.model_zoo import find_licence
from ..runs.record import RunRecord, Scores, run_name
from ..settings.models import RANDOM_WEIGHTS
from ..settings.parse import looks_like_path
from .render import escape_markdown_cell

MAE_TAG = "masked-autoencoder"
MAE_CLASSIFIER_CLASSES = ("ViTForImageClassification", "BeitForImageClassification")  # what its encoders become
TAGS = ["vision", MAE_TAG, "endoscopy", "hf_mae"]

FINETUNED_CARD_TEMPLATE = """---
{metadata}
---

# {name}

{architecture} for image classification into {count} classes, fine-tuned from `{base}` with
[hf_mae](https://pypi.org/project/hf-mae/). It is a stock transformers model: no custom code is needed to load it.

```python
from transformers import pipeline

classifier = pipeline("image-classification", model="{model}")
print(classifier("image.jpg"))
```

**Intended use and limits.** Research on endoscopy images like those it was trained on. It is not a medical device and
its output is no diagnosis. Images are taken as 8-bit RGB: hf_mae scales 16-bit grey levels to 8 bits, `pipeline()` cuts
them off, so convert such images first.

**Licence.** {licence}{data_licence}

## Results

In per cent. {selection}{seen}

{results}

{notes}

### By class ({split})

{per_class}

{pictures}

{calibration}

## Training

Data: `{data}` ({sizes}). {training}

The run can be repeated with `hf-mae finetune --recipe recipe.yaml`:

```yaml
{recipe}
```
{citation}"""

ENSEMBLE_CARD_TEMPLATE = """# {name}

{count} image classifiers as one: its scores are the mean of theirs. Each member is a stock transformers model in a
folder of its own; [hf_mae](https://pypi.org/project/hf-mae/) takes this folder as it takes a model (`hf-mae evaluate`,
`predict`, `demo`, `export-onnx`), and without it, three lines do:

```python
from transformers import pipeline

members = [pipeline("image-classification", model=f"{path}/{{name}}", top_k=None) for name in {folders}]
found = [{{entry["label"]: entry["score"] for entry in member("image.jpg")}} for member in members]
scores = {{label: sum(one[label] for one in found) / len(found) for label in found[0]}}
```

Classes: {classes}.

| member | made of |
|---|---|
{rows}

**Intended use and limits.** Research on endoscopy images like those it was trained on. It is not a medical device and
its output is no diagnosis.
"""

CALIBRATION_SENTENCE = (
    "Dividing the logits by the {words} (fitted on the {fitted_on} split, in `temperature.json`) "
    "takes the expected calibration error there from {ece_before:.3f} to {ece_after:.3f}."
)

PREDICTION_SETS_SENTENCE = (
    "Sets of classes that should hold the true one in {level:.0f} % of the images of each class (`hf-mae predict "
    "--prediction_sets`, fitted on the {fitted_on} split, in `doubt.json`) hold it in {coverage:.1f} % of the {images} images of "
    "the {split} split, with {size:.2f} classes on average."
)

# The Hub's names of metrics; the macro average is in the metric's own name.
METRIC_TYPES = {
    "macro_precision": "precision",
    "macro_recall": "recall",
    "macro_f1": "f1",
    "mcc": "matthews_correlation",
}

# What the card shows, where the run has drawn it.
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

A masked autoencoder (`{architecture}`, {size} pixels, {hidden:g} % of the patches hidden) pre-trained on {images}
unlabelled images of `{data}`, starting from `{base}`, with [hf_mae](https://pypi.org/project/hf-mae/). It is a stock
transformers model, made to be fine-tuned:
`hf-mae finetune --model_name_or_path {name} --data_dir IMAGES --output_dir RUN`.

**Licence.** {licence}

**What it has seen.** `pretraining_images.csv` lists every image by name and perceptual hash, and `hf-mae finetune`
warns where images that it evaluates are among them. {excluded}

{training}

```yaml
{recipe}
```
"""


def _licence_text(licence: str | None, licence_source: str, base: str) -> str:
    if base == RANDOM_WEIGHTS:
        return "Started from random weights: yours to choose."
    if licence is None:
        return (
            f"That of the checkpoint it started from, `{base}`, which is not known here ({licence_source}). The public "
            "ImageNet MAE weights, and what was made from them, are CC BY-NC 4.0 (non-commercial)."
        )
    only = " Non-commercial use only." if "-nc" in licence else ""
    return f"`{licence}`, inherited from the checkpoint it started from, `{base}` (by {licence_source}).{only}"


def write_model_card(folder: Path, record: RunRecord, architecture: str, recipe: str) -> None:
    """Writes `README.md` with a `model-index` that the Hub parses.

    Args:
        folder: the output folder of the run, with its figures.
        architecture: the class of the model.
        recipe: YAML that repeats the run.
    """
    from huggingface_hub import ModelCard

    name = run_name(folder)
    split = list(record.scores)[-1] if record.scores else ""  # the one that the card details
    benchmark = find_benchmark_or_none(record.data.benchmark)
    licence, known_from = find_licence(record.base)
    text = FINETUNED_CARD_TEMPLATE.format(
        metadata=_metadata(name, record, licence, architecture),
        name=name,
        data_licence=f" The data, {benchmark.title}: {benchmark.licence}." if benchmark else "",
        citation=f"\n## Citation\n\n{benchmark.citation} ({benchmark.homepage})\n" if benchmark else "",
        seen=_contamination_text(record),
        pictures="\n".join(_figure_links(folder, split)),
        calibration=" ".join(_calibration_sentences(record)),
        architecture=architecture,
        count=len(record.classes),
        base=record.base,
        licence=_licence_text(licence, known_from, record.base),
        model=name,
        results="\n".join(_results_table(record.scores)) if record.scores else "No split was evaluated.",
        notes="\n".join(
            f"- {part}: {escape_markdown_cell(note)}"
            for part, v in record.scores.items()
            for note in zero_division_notes(v)
        ),
        split=split,
        per_class="\n".join(_class_table(record.scores.get(split, {}))),
        data=record.data.data_dir,
        sizes=", ".join(f"{part} {count}" for part, count in record.images.items()),
        training=_training_text(record),
        selection=record.selection.sentence if record.selection else "",
        recipe=recipe.strip(),
    )
    write_text(folder / "README.md", str(ModelCard(text)))


def _metadata(name: str, record: RunRecord, licence: str | None, architecture: str) -> str:
    """The card's YAML head."""
    from huggingface_hub import EvalResult, ModelCardData

    evaluations = [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name=Path(record.data.data_dir).name or record.data.data_dir,
            dataset_split=part,
            metric_type=METRIC_TYPES.get(metric, metric),
            metric_name=TITLES[metric],
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
    """A name of the Hub (OWNER/NAME); None: it is a path, or of something else."""
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not looks_like_path(name) and not Path(name).exists()
    return name if is_id else None


def _calibration_sentences(record: RunRecord) -> list[str]:
    """Sentences on temperature and sets of classes."""
    found = (
        [CALIBRATION_SENTENCE.format(words=format_temperature(record.calibration), **record.calibration)]
        if record.calibration
        else []
    )
    if record.uncertainty:
        facts = record.uncertainty | {name: 100 * record.uncertainty[name] for name in ("level", "coverage")}
        found.append(PREDICTION_SETS_SENTENCE.format(**facts))
    return found


def _results_table(scores: dict[str, Scores]) -> list[str]:
    """The headline scores in per cent, a row for each split."""
    names = available_metric_names(next(iter(scores.values())))
    head = "| split | images | " + " | ".join(TITLES[m] for m in names) + " |"
    return [head, "|---" * (2 + len(names)) + "|"] + [
        f"| {part} | {values['num_images']} | "
        + " | ".join(f"{display_scale(m) * values[m]:.2f}" for m in names)
        + " |"
        for part, values in scores.items()
    ]


def _class_table(scores: Scores) -> list[str]:
    """Precision, recall and F1 in per cent, a row for each class."""
    return ["| class | precision | recall | F1 | images |", "|---|---|---|---|---|"] + [
        f"| {escape_markdown_cell(label)} | {100 * v['precision']:.1f} | {100 * v['recall']:.1f} | {100 * v['f1']:.1f} | "
        f"{v['support']} |"
        for label, v in scores.get("per_class", {}).items()
    ]


def _figure_links(folder: Path, split: str) -> list[str]:
    files = {title: file.format(split=split) for title, file in CARD_FIGURES.items()}
    return [f"![{title}]({file})" for title, file in files.items() if (folder / file).is_file()]


def _contamination_text(record: RunRecord) -> str:
    seen = record.leakage or {}
    return "".join(
        f" {count} of the {part} images {'was' if count == 1 else 'were'} in the pre-training."
        for part, count in seen.items()
    )


def _training_text(record: RunRecord) -> str:
    """A sentence on hardware, time and versions."""
    training, made = record.training, record.environment
    if training is None:
        return f"{made.hardware}; {made.versions}."
    return f"{training.updates} updates in {training.seconds / 60:.1f} minutes on {made.hardware}; {made.versions}."


def build_ensemble_card(folder: Path, members: Sequence[MemberInfo], classes: list[str]) -> str:
    """The card of an ensemble: what it is, and three lines that use it.

    Args:
        folder: where it will be.
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
    """Writes the `README.md` of a pre-trained model; the arguments are those of `write_model_card`."""
    from huggingface_hub import ModelCard, ModelCardData

    licence, known_from = find_licence(record.base)
    excluded = record.excluded
    text = PRETRAINED_CARD_TEMPLATE.format(
        metadata=ModelCardData(license=licence, library_name="transformers", tags=TAGS).to_yaml(),
        name=run_name(folder),
        architecture=type(model).__name__,
        size=model.config.image_size,
        hidden=100 * model.config.mask_ratio,
        images=record.images["train"],
        data=record.data.data_dir,
        base=record.base,
        licence=_licence_text(licence, known_from, record.base),
        excluded=f"{excluded} images were left out (`--exclude`)." if excluded else "No image was left out on purpose.",
        training=_training_text(record),
        recipe=recipe.strip(),
    )
    write_text(folder / "README.md", str(ModelCard(text)))
