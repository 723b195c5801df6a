"""A model is evaluated on the images that its own run held out."""

import dataclasses

import pytest
from support.messages import raises
from support.records import ENVIRONMENT

from hf_mae.runs.messages import RunMessage
from hf_mae.runs.record import CrossvalSummary, DataSource, RunRecord
from hf_mae.runs.record_io import write_record
from hf_mae.runs.split_consistency import align_with_training_split, is_same_data
from hf_mae.settings.evaluation import EvaluationArguments


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def write_run(folder, images, **source):
    """Writes the record of a completed run."""
    record = RunRecord(
        kind="finetune",
        base="mae.pth",
        data=DataSource(str(images), **source),
        images={"train": 10},
        environment=ENVIRONMENT,
        settings={name: value for name, value in source.items() if name != "fingerprint"},
    )
    folder.mkdir(parents=True)
    write_record(record, folder)
    return folder


def align(images, model, split="validation", **explicit):
    options = EvaluationArguments(data_dir=str(images), model_name_or_path=str(model), split=split, **explicit)
    return align_with_training_split(options, explicit, str(model))


def test_the_split_of_the_run_is_used(tmp_path, images, caplog):
    model = write_run(tmp_path / "run", images, val_fraction=0.5, seed=3)
    with caplog.at_level("INFO", logger="hf_mae"):
        options = align(images, model)
    assert (options.val_fraction, options.seed) == (0.5, 3)
    assert "the run that trained the model: seed 3, val_fraction 0.5" in caplog.text
    assert align(images, model, val_fraction=0.5, seed=3) == options
    (model / "checkpoint-8").mkdir()
    assert align(images, model / "checkpoint-8").seed == 3
    assert align(images, tmp_path / "another" / "model").val_fraction == 0.0  # unknown model


@pytest.mark.parametrize(
    "explicit, changes",
    [
        ({"seed": 1}, "seed 3, now 1"),
        ({"val_fraction": 0.2}, "val_fraction 0.5, now 0.2"),
        ({"selection_fraction": 0.1}, "selection_fraction 0.0, now 0.1"),
        ({"group_pattern": "(p.)"}, "group_pattern None, now (p.)"),
    ],
)
def test_another_split_is_rejected(tmp_path, images, explicit, changes):
    model = write_run(tmp_path / "run", images, val_fraction=0.5, seed=3)
    with raises(RunMessage.HOLDOUT_DIFFERS, changes=changes, flags=f"--{next(iter(explicit))}"):
        align(images, model, **explicit)


def test_a_split_of_a_run_without_held_out_images_is_rejected(tmp_path, images):
    model = write_run(tmp_path / "run", images)
    with raises(RunMessage.HOLDOUT_DIFFERS, changes="val_fraction 0.0, now 0.5"):
        align(images, model, val_fraction=0.5)


def test_other_images_are_split_as_requested(tmp_path, images):
    model = write_run(tmp_path / "run", images, val_fraction=0.5, seed=3)
    (tmp_path / "other").mkdir()
    assert align(tmp_path / "other", model, val_fraction=0.2, seed=1).seed == 1
    assert align(images, model, split="test").val_fraction == 0.0  # not a random split


def test_a_random_fold_cannot_be_reproduced(tmp_path, images):
    model = write_run(tmp_path / "cv" / "seed-0_fold-1", images)
    summary = CrossvalSummary("5", [], {}, [], {})
    base = RunRecord(
        "crossval",
        "mae.pth",
        DataSource(str(images)),
        {},
        ENVIRONMENT,
        crossval=summary,
    )
    write_record(base, tmp_path / "cv")
    with raises(RunMessage.RUN_IS_CROSSVAL_FOLD, folds=5):
        align(images, model)
    write_record(dataclasses.replace(base, crossval=dataclasses.replace(summary, folds="official")), tmp_path / "cv")
    assert align(images, model).split == "validation"


@pytest.mark.parametrize(
    "names, is_same",
    [(["1.png", "2.png"], True), (["2.png", "3.png"], True), (["3.png", "4.png"], False), (None, True)],
)
def test_manifests_without_common_images_are_other_data(names, is_same, images, tmp_path):
    """An evaluation of new images below the same folder is external; a manifest that is missing says nothing."""
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("file_name,label\n1.png,a\n2.png,b\n")
    if names:
        second.write_text("file_name,label\n" + "".join(f"{name},a\n" for name in names))
    source = DataSource(str(images), manifest=str(first))
    assert is_same_data(source, DataSource(str(images), manifest=str(second))) == is_same
    assert is_same_data(DataSource(str(images)), DataSource(str(images), manifest=str(second)))
