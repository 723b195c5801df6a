"""Completed runs of tiny trainings, whose records are written by the functions of the commands."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_mae import FinetuningArguments, MaeFinetuner
from hf_mae.data.cohort import describe_cohort, describe_folds
from hf_mae.data.exclusion_log import ExclusionReason, record_excluded, record_total, track_exclusions
from hf_mae.data.labelled_data import LabelledData
from hf_mae.data.splits import make_stratified_folds
from hf_mae.evaluation.metrics import headline_metric_names
from hf_mae.models.introspection import get_model_facts
from hf_mae.models.stochastic_depth import set_drop_path
from hf_mae.runs.finetuning_record import add_training, start_record
from hf_mae.runs.predictions import write_predictions
from hf_mae.runs.record import CrossvalResult, CrossvalRun, CrossvalSummary, DataSource, RunRecord
from hf_mae.runs.record_io import write_record
from hf_mae.settings.data import DataArguments
from support.models import TensorItems
from support.records import ENVIRONMENT

CLASSES = ["mucosa", "polyp"]
IMAGES = 12  # of a training
SCORES = dict.fromkeys(headline_metric_names(False), 0.5)


def build_model(drop_path=0.0):
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"image_size": 8, "patch_size": 4, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
    model = ViTForImageClassification(ViTConfig(**sizes, intermediate_size=16, **names))
    set_drop_path(model, drop_path)
    return model


def build_trainer(folder, drop_path=0.0, ordered=False, exponent=None, **settings):
    """A trainer of a tiny model that classifies 12 random images."""
    torch.manual_seed(0)
    data = TensorItems(pixel_values=torch.rand(IMAGES, 3, 8, 8), labels=torch.arange(IMAGES) % 2)
    data.sampling = None if exponent is None else SimpleNamespace(exponent=exponent)
    data.labels = [0, 1] * (IMAGES // 2)
    defaults = {"num_train_epochs": 1, "per_device_train_batch_size": IMAGES, "learning_rate": 1e-3}
    defaults |= {"warmup_epochs": 0, "report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    args = FinetuningArguments(output_dir=str(folder), **defaults | settings)
    return MaeFinetuner(model=build_model(drop_path), args=args, train_dataset=data, eval_dataset=data, ordered=ordered)


def make_splits(groups=False, **sizes):
    """Splits with labels, file names and, on request, patients of two images."""
    splits = DatasetDict()
    for split, size in sizes.items():
        columns = {
            "labels": [index % 2 for index in range(size)],
            "file_name": [f"{split}/{index}.png" for index in range(size)],
        }
        features = {"labels": ClassLabel(names=CLASSES), "file_name": Value("string")}
        if groups:
            columns["group"] = [f"{split} {index // 2}" for index in range(size)]
            features["group"] = Value("string")
        splits[split] = Dataset.from_dict(columns, Features(features))
    return splits


def write_scores(folder, record, split, images, earlier_scores=None):
    """Writes random predictions of a split, and the record with their split."""
    folder.mkdir(parents=True, exist_ok=True)
    labels, files = np.array(images["labels"]), list(images["file_name"])
    logits = np.random.default_rng(len(labels)).normal(size=(len(labels), len(record.classes)))
    groups = images["group"][:] if "group" in images.column_names else None
    write_predictions(folder, split, files, logits, labels, record.classes, groups)
    record = replace(record, scores=(earlier_scores or {}) | {split: {}})
    write_record(record, folder)
    return record


def write_finetuning(folder, splits=None, excluded=(), checkpoints=(), options=None, best="validation", **settings):
    """Trains, and writes record and predictions of a run.

    Args:
        excluded: (reason, number, detail) of images that were found and are not in the splits.
        checkpoints: to resume from, one after the other.
        best: split that selects the epoch.
    """
    splits, options = (
        splits or make_splits(train=IMAGES, validation=8, test=10),
        options or DataArguments(data_dir="images"),
    )
    with track_exclusions() as log:
        record_total(sum(map(len, splits.values())) + sum(step[1] for step in excluded))
        for reason, count, detail in excluded:
            record_excluded(reason, count, detail=detail)
    trainer = build_trainer(folder, **settings)
    output = trainer.train()
    for checkpoint in checkpoints:
        trainer = build_trainer(folder, **settings)
        output = trainer.train(resume_from_checkpoint=str(folder / checkpoint))
    model = SimpleNamespace(base="mae.pth", random_weights=True, model_name_or_path=None)
    run = SimpleNamespace(training=trainer.args, model=model, data=options, overrides={})
    data = LabelledData(splits, log, options)
    vars(data)["fingerprint"] = "abc"  # the files do not exist
    record = start_record(data, run, trainer.model)
    record = replace(record, ordered=trainer.ordered, environment=ENVIRONMENT)
    record = add_training(record, trainer, output, options, best)
    for split in ("validation", "test"):
        if split in splits:
            record = write_scores(folder, record, split, splits[split], record.scores)
    return folder


def write_evaluation(folder, model, data_dir, size=11, excluded=(), unused=0, split="test", **facts):
    """Writes record and predictions of an evaluation of a model, as `evaluate` does."""
    images = make_splits(**{split: size})[split]
    with track_exclusions() as log:
        record_total(size + unused + sum(step[1] for step in excluded))
        record_excluded(ExclusionReason.UNUSED_SPLIT, unused, detail="train")
        for reason, count, detail in excluded:
            record_excluded(reason, count, detail=detail)
    data = DataSource(str(data_dir), class_map=facts.pop("class_map", None))
    record = RunRecord(
        *("evaluate", str(model), data, {split: len(images)}, ENVIRONMENT),
        classes=CLASSES,
        study=describe_cohort(log, {split: images}),
        model=get_model_facts(build_model()),
        **facts,
    )
    write_scores(folder, record, split, images)
    return folder


def write_crossval(folder, num_folds=3, seeds=(0,), groups=False, **settings):
    """Trains and writes the runs of a cross-validation, and its record."""
    splits = make_splits(groups, train=12, validation=6, test=8)
    with track_exclusions() as log:
        record_total(sum(map(len, splits.values())))
        folds = make_stratified_folds(splits, num_folds)
    runs = [CrossvalRun(1.0, seed, fold, False) for seed in seeds for fold in range(1, num_folds + 1)]
    for run in runs:
        write_finetuning(folder / run.folder, folds[run.fold - 1], seed=run.seed, **settings)
    results = [CrossvalResult(run, run.folder, SCORES, "validation") for run in runs]
    cohort = describe_folds(log, folds)
    record = RunRecord(
        *("crossval", "mae.pth", DataSource("images"), {"cross-validation": 18}, ENVIRONMENT),
        classes=CLASSES,
        study=cohort,
        crossval=CrossvalSummary(str(num_folds), results, {}, [], {}),
    )
    write_record(record, folder)
    return folder
