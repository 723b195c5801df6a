"""Sentences about a run, from the facts in its record: each fact has one sentence, for all documents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..data.exclusion_log import Exclusion, ExclusionReason
from ..errors import abbreviate_list, pluralize
from ..evaluation.calibration import Calibration
from ..runs.completed_run import Note, NoteCode
from ..runs.record import Environment, Hardware, Selection, SelectionRule, run_name
from ..runs.training_facts import Augmentation, Objective, Training
from ..settings.losses import LOSSES
from ..settings.metrics import metric_title

NOTE_TEXTS = {
    NoteCode.SELECTED_ON_EVAL_SPLIT: "The epoch was selected on the evaluated images, so the scores are optimistic.",
    NoteCode.SELECTION_UNKNOWN: "The selection of the epoch is unknown.",
    NoteCode.OTHER_IMAGES_THAN_PUBLISHED: "The images are not those of the published split.",
    NoteCode.ONE_FOLD: "Fold {fold} only.",
    NoteCode.RANDOM_FOLDS: "{folds} random folds.",
    NoteCode.CENTRES_LEFT_OUT: "Each of {centres} values of {column} was left out in turn; their mean.",
    NoteCode.MEAN_OF_FOLDS: "Mean of {runs} runs ({folds} folds, {seeds}).",
    NoteCode.MEAN_OF_OFFICIAL_SPLITS: "Mean of {runs} runs of the {folds} official splits, on one test split.",
    NoteCode.MEAN_OF_MODELS: "Mean of the scores of {models} models.",
    NoteCode.MEAN_OF_VIEWS: "Mean of the scores of {views} rotated and mirrored views (test-time augmentation).",
    NoteCode.FRACTION_OF_LABELS: "Trained on {fraction} % of the labels.",
    NoteCode.SEEN_IN_PRETRAINING: "{count} of the {images} images were in the pre-training data.",
    NoteCode.TRAINED_ON_OTHER_FOLD: "The model was trained on fold {fold}, which contains the evaluated images.",
    NoteCode.EXTERNAL_CLASSES: (
        "External: classes mapped with {class_map}; excluded images of other classes: {unmapped_images}."
    ),
    NoteCode.CLASSES_WITHOUT_IMAGES: (
        "The {score} counts {classes} as 0, because no image is in the denominator; its interval is for the other "
        "classes."
    ),
    NoteCode.NO_OTHER_SPLIT: "predictions of a split other than the evaluated one are missing",
    NoteCode.NO_SPLIT_OF_FOLDS: (
        "these folds have training and evaluated images only (--selection_fraction 0.1 holds out more)"
    ),
    NoteCode.NO_PREDICTIONS_OF_SPLIT: "{path} has no predictions of a split other than {split}",
    NoteCode.AVERAGED_VIEWS: "the scores use test-time augmentation, but those of the selection split do not",
    NoteCode.OTHER_CLASSES: "{path} has other classes",
}
SCHEDULE_TITLES = {
    "cosine_with_min_lr": "a cosine decay",
    "cosine_warmup_with_min_lr": "a cosine decay",
    "cosine": "a cosine decay",
    "cosine_with_restarts": "a cosine decay with restarts",
    "linear": "a linear decay",
    "polynomial": "a polynomial decay",
    "inverse_sqrt": "an inverse square-root decay",
    "reduce_lr_on_plateau": "reductions on plateaus",
}
NOTE_FORMATS = {
    "score": metric_title,
    "classes": abbreviate_list,
    "seeds": lambda count: pluralize(count, "seed"),
    "fraction": lambda fraction: f"{100 * fraction:g}",
    "unmapped_images": lambda counts: ", ".join(f"{count} of {name}" for name, count in counts.items()) or "none",
}


EXCLUSION_TEXTS = {
    ExclusionReason.UNREADABLE: "unreadable",
    ExclusionReason.IN_ANOTHER_SPLIT: "the same image in another split",
    ExclusionReason.REMOVED_BY_CORRECTIONS: "removed by {detail}",
    ExclusionReason.LISTED_IN_FILE: "excluded by {detail}",
    ExclusionReason.BEYOND_TRAIN_FRACTION: "training images beyond train_fraction {detail:g}",
    ExclusionReason.TWO_LABELS: "two labels",
    ExclusionReason.NOT_IN_BENCHMARK: "in the archive but not in the benchmark",
    ExclusionReason.CLASS_NOT_IN_MODEL: "class {detail}, which the model does not have",
    ExclusionReason.UNUSED_SPLIT: "in the {detail} split, which was not used",
}


def describe_exclusions(steps: Sequence[Exclusion]) -> str:
    """Lists numbers and reasons of excluded images; empty: none."""
    return "; ".join(f"{pluralize(step.images, 'image')}: {describe_exclusion(step)}" for step in steps)


def describe_exclusion(step: Exclusion) -> str:
    """Describes why images were excluded."""
    return EXCLUSION_TEXTS[step.reason].format(detail=step.detail)


def describe_note(note: Note) -> str:
    """Returns the sentence of a note; a reason is a clause."""
    values = {name: NOTE_FORMATS.get(name, str)(value) for name, value in note.values.items()}
    return NOTE_TEXTS[note.code].format(**values)


def describe_selection(selection: Selection | None) -> str:
    """Describes how the weights were selected; empty: unknown."""
    if selection is None:
        return ""
    sentences = [_describe_rule(selection)]
    if selection.ema_decay is not None:
        sentences.append(f"They are an exponential moving average (--ema_decay {selection.ema_decay:g}).")
    if selection.teacher:
        weight = f"(weight {selection.teacher_weight:g})"
        sentences.append(f"The model was distilled from {run_name(selection.teacher)} {weight}.")
    if selection.search_trials:
        trials = f"{selection.search_trials} trials on the selection split (hf-mae search)"
        sentences.append(f"Its hyper-parameters are the best of {trials}.")
    return " ".join(sentences)


def _describe_rule(selection: Selection) -> str:
    if selection.rule is SelectionRule.LAST_EPOCH:
        return "The weights are those at the end of the training."
    epoch = "" if selection.epoch is None else f" (epoch {selection.epoch:.4g})"
    return (
        f"The weights are those of the epoch with the best {metric_title(selection.metric)} on the "
        f"{selection.selection_split} split{epoch}, so the scores on this split are optimistic."
    )


def describe_selections(selections: Sequence[Selection]) -> str:
    """Describes how the weights of one or several models were selected; of several, without the epoch of each."""
    if len(selections) == 1:
        return describe_selection(selections[0])
    texts = [describe_selection(replace(selection, epoch=None)) for selection in selections]
    return " ".join(dict.fromkeys(texts)).replace("The weights are", "The weights of each model are")


def describe_schedule(train: Training) -> str:
    """Describes the learning-rate schedule of a training."""
    schedule = train.schedule
    assert schedule is not None, "the caller checks this"
    warmup = f"rose in {schedule.warmup_updates:.4g} updates (warm-up) and then " if schedule.warmup_updates else ""
    if schedule.name.startswith("constant"):
        return f"The learning rate {warmup}was constant."
    title = SCHEDULE_TITLES.get(schedule.name, f"the schedule {schedule.name} of transformers")
    return f"The learning rate {warmup}followed {title} to {schedule.final_learning_rate:.3g}."


def describe_augmentation(augmentation: Augmentation) -> str:
    """Lists the random changes of training images."""
    if augmentation.transforms == "endoscopy":
        return "horizontal and vertical flips, and rotations by up to 90 degrees"
    steps = ["random crops", "horizontal flips"]
    steps += [f"RandAugment ({augmentation.auto_augment})"] if augmentation.auto_augment else []
    erasing = augmentation.random_erasing
    steps += [f"random erasing (probability {erasing:g})"] if erasing else []
    return ", ".join(steps)


def describe_loss(objective: Objective, cite: Callable[[str], str]) -> str:
    """Describes the loss with its hyper-parameters; `cite` formats the key of its reference."""
    loss = LOSSES[objective.loss]
    return loss.methods.format(cite=cite(loss.citation.key) if loss.citation else "", **objective.parameters)


def describe_hardware(hardware: Hardware) -> str:
    """Describes the GPUs, or the CPU cores if there are none."""
    if hardware.gpus:
        return f"{hardware.gpus} x {hardware.gpu_name}"
    return f"{hardware.cpu_cores} CPU cores ({hardware.machine})"


def describe_versions(environment: Environment) -> str:
    """Lists the packages with their versions."""
    return ", ".join(f"{name} {version}" for name, version in environment.versions.items())


def describe_calibration_gain(calibration: Calibration, split: str) -> str:
    """Describes the temperature, and the calibration error of a split before and after scaling."""
    return (
        f"{describe_temperature(calibration)} on {split}: expected calibration error {calibration.ece_before:.4f} "
        f"before, {calibration.ece_after:.4f} after"
    )


def describe_temperature(calibration: Calibration) -> str:
    """Describes a temperature, or the range of temperatures per class."""
    if not (by_class := calibration.class_temperatures):
        return f"temperature {calibration.temperature:.3f}"
    low, high = (extreme(by_class, key=by_class.__getitem__) for extreme in (min, max))
    return f"temperatures per class from {by_class[low]:.3f} ({low}) to {by_class[high]:.3f} ({high})"


def describe_ppv_at_recall(result: Mapping[str, Any]) -> str:
    """Describes the values of `evaluation.ppv_at_recall.PpvAtRecall`, and of `classes`, in per cent."""
    estimate, challenge = result["estimate"], result["challenge"]
    ends = estimate["interval"]
    interval = f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else ""
    return (
        f"PPV of {' or '.join(result['classes'])} at a recall of {100 * result['recall']:g} % (reached: "
        f"{100 * result['reached']:.1f} %) and a prevalence of {100 * result['prevalence']:.2g} %: "
        f"{100 * estimate['value']:.1f}{interval} %; as in the RARE challenge: {100 * challenge['median']:.1f} "
        f"[{100 * challenge['low']:.1f}, {100 * challenge['high']:.1f}] %. The threshold was chosen on these images."
    )


def describe_undefined_scores(scores: Mapping[str, Any]) -> list[str]:
    """Returns notes on zero denominators, on classes that macro averages leave out, and on undefined metrics."""
    zero = scores["zero_division"]
    texts = {
        "precision": "never predicted, so their precision counts as 0",
        "recall": "predicted but absent from this split, so their recall counts as 0",
        "absent": "neither in this split nor predicted, so macro averages exclude them",
    }
    notes = [f"{', '.join(zero[key])}: {text}." for key, text in texts.items() if zero[key]]
    if undefined := scores.get("undefined_ranking"):
        notes.append(
            f"ROC AUC and average precision are undefined: no image, or every image, is {', '.join(undefined)}."
        )
    names = list(scores.get("per_class", {}))
    if scores.get("average_precision") is not None and len(names) == 2:
        notes.append(
            f"Average precision is the mean over {names[0]} and {names[1]}, because no class is declared positive."
        )
    return notes
