"""A model is judged on what its own run held out, and an output folder holds one run at a time."""

import dataclasses
from types import SimpleNamespace

import pytest

from hf_mae.errors import UsageError
from hf_mae.runs.output_dir import remove_old_run
from hf_mae.runs.record import CrossvalSummary, DataSource, Environment, RunRecord
from hf_mae.runs.record_io import write_record
from hf_mae.runs.split_consistency import align_with_training_split
from hf_mae.settings.evaluation import EvaluationArguments
from hf_mae.training.resume import check_training_length, require_optimizer_state


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def run_on(folder, images, **source):
    """A finished run."""
    record = RunRecord(
        kind="finetune",
        base="mae.pth",
        data=DataSource(str(images), **source),
        images={"train": 10},
        environment=Environment("a CPU", "torch"),
        settings={name: value for name, value in source.items() if name != "fingerprint"},
    )
    folder.mkdir(parents=True)
    write_record(record, folder)
    return folder


def asked(images, model, split="validation", **given):
    options = EvaluationArguments(data_dir=str(images), model_name_or_path=str(model), split=split, **given)
    return align_with_training_split(options, given, str(model))


def test_the_runs_own_share_is_used(tmp_path, images, caplog):
    model = run_on(tmp_path / "run", images, val_fraction=0.5, seed=3)
    with caplog.at_level("INFO", logger="hf_mae"):
        options = asked(images, model)
    assert (options.val_fraction, options.seed) == (0.5, 3)
    assert "As the run that trained it: seed 3, val_fraction 0.5" in caplog.text
    assert asked(images, model, val_fraction=0.5, seed=3) == options
    (model / "checkpoint-8").mkdir()
    assert asked(images, model / "checkpoint-8").seed == 3
    assert asked(images, tmp_path / "another" / "model").val_fraction == 0.0  # of which nothing is known


@pytest.mark.parametrize(
    "given, message",
    [
        ({"seed": 1}, "seed 3 then, 1 now.*Leave --seed out"),
        ({"val_fraction": 0.2}, "val_fraction 0.5 then, 0.2 now"),
        ({"selection_fraction": 0.1}, "select_on 0.0 then, 0.1 now"),
        ({"group_pattern": "(p.)"}, "group_pattern None then"),
    ],
)
def test_another_share_is_refused(tmp_path, images, given, message):
    model = run_on(tmp_path / "run", images, val_fraction=0.5, seed=3)
    with pytest.raises(UsageError, match=message):
        asked(images, model, **given)


def test_a_share_of_a_run_that_held_none_out_is_refused(tmp_path, images):
    model = run_on(tmp_path / "run", images)
    with pytest.raises(UsageError, match="val_fraction 0.0 then, 0.5 now"):
        asked(images, model, val_fraction=0.5)


def test_other_images_are_split_as_one_asks(tmp_path, images):
    model = run_on(tmp_path / "run", images, val_fraction=0.5, seed=3)
    (tmp_path / "other").mkdir()
    assert asked(tmp_path / "other", model, val_fraction=0.2, seed=1).seed == 1
    assert asked(images, model, split="test").val_fraction == 0.0  # which is nobody's share


def test_a_fold_that_was_drawn_cannot_be_drawn_again(tmp_path, images):
    model = run_on(tmp_path / "cv" / "seed-0_fold-1", images)
    summary = CrossvalSummary("5", [], {}, [], {})
    base = RunRecord(
        "crossval", "mae.pth", DataSource(str(images)), {}, Environment("a CPU", "torch"), crossval=summary
    )
    write_record(base, tmp_path / "cv")
    with pytest.raises(UsageError, match="a run of a cross-validation of 5 folds"):
        asked(images, model)
    write_record(dataclasses.replace(base, crossval=dataclasses.replace(summary, folds="official")), tmp_path / "cv")
    assert asked(images, model).split == "validation"


def test_a_run_that_begins_anew_leaves_nothing_of_the_old_one(tmp_path):
    old = (
        "all_results.json",
        "predictions_test.csv",
        "model.safetensors",
        "temperature.json",
        "roc_test.png",
        "report.md",
    )
    for name in (*old, "my_notes.txt", "photo.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / "checkpoint-8").mkdir()
    (tmp_path / "checkpoint-8" / "trainer_state.json").write_text("{}")
    remove_old_run(SimpleNamespace(folder=tmp_path, overwrite_output_dir=False, process_index=0))
    assert (tmp_path / "report.md").exists()  # nobody said that it may go
    remove_old_run(SimpleNamespace(folder=tmp_path, overwrite_output_dir=True, process_index=0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my_notes.txt", "photo.png"]


def test_a_checkpoint_without_its_optimizer_is_not_gone_on_from(tmp_path):
    with pytest.raises(UsageError, match="saved without its optimizer"):
        require_optimizer_state(tmp_path)
    for name in ("optimizer.pt", "optimizer.bin", "global_step5", "pytorch_model_fsdp_0", "optimizer_0"):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_text("x")
        require_optimizer_state(folder)


@pytest.mark.parametrize(
    "state, epochs, max_steps, message",
    [
        ('{"epoch": 2.0, "num_train_epochs": 2, "global_step": 8}', 1.0, -1, r"of 2 epochs \(2 are done\), more than"),
        ('{"epoch": 1.0, "num_train_epochs": 5, "global_step": 8}', 3.0, -1, "of a run of 5 epochs"),
        ('{"epoch": 1.0, "num_train_epochs": 5, "global_step": 8}', 50.0, 4, "made 8 updates, more than --max_steps 4"),
    ],
)
def test_a_run_does_not_go_on_to_an_earlier_end(tmp_path, caplog, state, epochs, max_steps, message):
    (tmp_path / "trainer_state.json").write_text(state)
    with pytest.raises(UsageError, match=message):
        check_training_length(tmp_path, epochs, max_steps)
    check_training_length(tmp_path, 9.0, -1)
    assert "ends after 9 now" in caplog.text
