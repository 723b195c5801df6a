"""The model card of a run: what it is, how well it does, and three lines that use it."""

from pathlib import Path
from typing import Any

from .checkpoints import RANDOM_WEIGHTS, licence_of
from .data.benchmarks import Benchmark
from .metrics import HEADLINE, TITLES, zero_division_notes

TEXT = """---
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
its output is no diagnosis.

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

CALIBRATION = (
    "Dividing the logits by the temperature {temperature:.3f} (fitted on the {fitted_on} split, in `temperature.json`) "
    "takes the expected calibration error there from {ece_before:.3f} to {ece_after:.3f}."
)

# What the card shows, where the run has drawn it.
PICTURES = {
    "Confusion matrix": "confusion_matrix_{split}.png",
    "F1 by class": "per_class_f1_{split}.png",
    "Calibration": "reliability_{split}.png",
    "Learning curves": "learning_curves.png",
}


PRETRAINING_TEXT = """---
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


def _licence_text(licence: str | None, known_from: str, base: str) -> str:
    if base == RANDOM_WEIGHTS:
        return "Started from random weights: yours to choose."
    if licence is None:
        return (
            f"That of the checkpoint it started from, `{base}`, which is not known here ({known_from}). The public "
            "ImageNet MAE weights, and what was made from them, are CC BY-NC 4.0 (non-commercial)."
        )
    only = " Non-commercial use only." if "-nc" in licence else ""
    return f"`{licence}`, inherited from the checkpoint it started from, `{base}` (by {known_from}).{only}"


def write_model_card(
    folder: Path,
    *,
    base: str,
    data: str,
    model,
    scores: dict[str, dict[str, Any]],
    sizes: dict[str, int],
    recipe: str,
    training: str,
    selection: str,
    calibration: dict[str, Any] | None = None,
    seen: dict[str, int] | None = None,
    benchmark: Benchmark | None = None,
) -> None:
    """Writes `README.md` with a `model-index` that the Hub parses.

    Args:
        scores: by split, of `metrics.classification_scores`; the last split is the one that the card details.
        sizes: images by split.
        training: sentence on hardware, time and versions.
        selection: sentence on how the reported weights were chosen.
        calibration: of `temperature.fit_and_write`.
        seen: evaluated images that the base was pre-trained on, by split.
        benchmark: whose licence and citation go into the card.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    name = folder.resolve().name
    split, detailed = list(scores.items())[-1] if scores else ("", {})
    evaluations = [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name=Path(data).name or data,
            dataset_split=part,
            metric_type={"accuracy": "accuracy", "mcc": "matthews_correlation"}.get(metric, metric),
            metric_name=TITLES[metric],
            metric_value=round(values[metric], 6),
        )
        for part, values in scores.items()
        for metric in HEADLINE
    ]
    licence, known_from = licence_of(base)
    metadata = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["vision", "masked-autoencoder", "endoscopy", "hf_mae"],
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )
    rows = ["| split | images | " + " | ".join(TITLES[m] for m in HEADLINE) + " |", "|---" * (2 + len(HEADLINE)) + "|"]
    rows += [
        f"| {part} | {values['num_images']} | " + " | ".join(f"{100 * values[m]:.2f}" for m in HEADLINE) + " |"
        for part, values in scores.items()
    ]
    classes = ["| class | precision | recall | F1 | images |", "|---|---|---|---|---|"]
    classes += [
        f"| {label} | {100 * v['precision']:.1f} | {100 * v['recall']:.1f} | {100 * v['f1']:.1f} | {v['support']} |"
        for label, v in detailed.get("per_class", {}).items()
    ]
    pictures = {title: file.format(split=split) for title, file in PICTURES.items()}
    shown = [f"![{title}]({file})" for title, file in pictures.items() if (folder / file).is_file()]
    warned = "".join(f" {count} of the {part} images were in the pre-training." for part, count in (seen or {}).items())
    text = TEXT.format(
        metadata=metadata.to_yaml(),
        name=name,
        data_licence=f" The data, {benchmark.title}: {benchmark.licence}." if benchmark else "",
        citation=f"\n## Citation\n\n{benchmark.citation} ({benchmark.homepage})\n" if benchmark else "",
        seen=warned,
        pictures="\n".join(shown),
        calibration=CALIBRATION.format(**calibration) if calibration else "",
        architecture=type(model).__name__,
        count=model.config.num_labels,
        base=base,
        licence=_licence_text(licence, known_from, base),
        model=name,
        results="\n".join(rows) if scores else "No split was evaluated.",
        notes="\n".join(f"- {part}: {note}" for part, v in scores.items() for note in zero_division_notes(v)),
        split=split,
        per_class="\n".join(classes),
        data=data,
        sizes=", ".join(f"{part} {count}" for part, count in sizes.items()),
        training=training,
        selection=selection,
        recipe=recipe.strip(),
    )
    ModelCard(text).save(folder / "README.md")


def write_pretraining_card(
    folder: Path, *, base: str, data: str, model, images: int, excluded: int, recipe: str, training: str
) -> None:
    """Writes the `README.md` of a pre-trained model.

    Args:
        base: what it started from.
        images, excluded: how many it was trained on, and how many `--exclude` left out.
        recipe, training: as for `write_model_card`.
    """
    from huggingface_hub import ModelCard, ModelCardData

    name = folder.resolve().name
    licence, known_from = licence_of(base)
    metadata = ModelCardData(
        license=licence, library_name="transformers", tags=["vision", "masked-autoencoder", "endoscopy", "hf_mae"]
    )
    text = PRETRAINING_TEXT.format(
        metadata=metadata.to_yaml(),
        name=name,
        architecture=type(model).__name__,
        size=model.config.image_size,
        hidden=100 * model.config.mask_ratio,
        images=images,
        data=data,
        base=base,
        licence=_licence_text(licence, known_from, base),
        excluded=f"{excluded} images were left out (`--exclude`)." if excluded else "No image was left out on purpose.",
        training=training,
        recipe=recipe.strip(),
    )
    ModelCard(text).save(folder / "README.md")
