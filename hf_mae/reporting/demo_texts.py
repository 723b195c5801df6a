"""Sentences of the demo page, in Markdown."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import pluralize
from ..evaluation.metrics import summary_metric_names
from ..runs.completed_run import CompletedRun
from ..settings.metrics import METRICS
from .run_sentences import describe_note
from .text_templates import load_templates, render_text

RATES = ("sensitivity", "specificity")  # on the page


def describe_model(run: CompletedRun, licence: str | None, metadata: Any, escape: Callable[[str], str]) -> list[str]:
    """Describes architecture, training data, scores, notes and calibration of a model.

    Args:
        metadata: has `temperature` and `class_temperatures`.
        escape: escapes names for Markdown.
    """
    scores = run.scores()
    facts = {
        "run": run,
        "record": run.trained[0] if run.trained else None,
        "metadata": metadata,
        "licence": licence,
        "scores": {METRICS[name].title: scores[name] for name in summary_metric_names()},
        "escape": escape,
        "pluralize": pluralize,
    }
    templates = load_templates("demo")
    first = [render_text(templates[name], facts) for name in ("model", "images", "selection", "licence", "scores")]
    notes = [escape(describe_note(note)) for note in run.notes]
    return [text for text in [*first, *notes, render_text(templates["calibration"], facts)] if text]


def describe_classes(run: CompletedRun, escape: Callable[[str], str]) -> dict[str, str]:
    """Describes precision, recall and the most frequent confusion of each class."""
    matrix = np.asarray(sum(fold.confusion_matrices().mean(0) for fold in run.folds))
    errors = matrix * (1 - np.eye(len(run.class_names)))
    descriptions = {}
    for index, name in enumerate(run.class_names):
        facts = {
            "split": run.split,
            "correct": matrix[index, index],
            "predicted": matrix[:, index].sum(),
            "actual": matrix[index].sum(),
            "confusion": run.class_names[errors[:, index].argmax()] if errors[:, index].any() else None,
        }
        descriptions[name] = escape(render_text(load_templates("demo")["class"], facts))
    return descriptions


def describe_operating_point(run: CompletedRun, rule: Any, threshold: float, rates: Mapping[str, Any]) -> str:
    """Describes a threshold, and its performance on the reported split."""
    shown = {name: rates[name] for name in RATES if name in rates}
    facts = {"run": run, "rule": rule, "threshold": threshold, "rates": shown}
    return render_text(load_templates("demo")["operating_point"], facts)
