"""Run records: typed fields, writing and reading, hand-written files, and invalid files."""

import dataclasses
import inspect
import json

import pytest
from support.messages import raises

from hf_mae import read_record
from hf_mae.evaluation.metrics import available_metric_names, classification_scores, headline_metric_names
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.record import (
    ALL_RESULTS,
    CROSSVAL,
    FORMAT,
    PROBE,
    RUN_STARTED,
    CrossvalRun,
    CrossvalSummary,
    DataSource,
    Environment,
    RunRecord,
    Selection,
    Training,
)
from hf_mae.runs.record_io import find_run_record, write_record, write_started_record
from hf_mae.settings.data import DataSourceArguments
from hf_mae.settings.metrics import METRICS, Metric

SCORES = classification_scores([0, 1, 1], [0, 1, 0], ["blob", "ring"])
COMMON = {
    "base": "mae.pth",
    "data": DataSource("images", val_fraction=0.2, seed=3, fingerprint="abc"),
    "environment": Environment("2 CPU cores", "torch 2"),
    "settings": {"layer_decay": 0.5},
    "classes": ["blob", "ring"],
}
POINT = {name: {"mean": 0.5, "std": 0.0, "values": [0.5]} for name in headline_metric_names(False)}
RECORDS = {
    "finetune": RunRecord(
        kind="finetune",
        images={"train": 9, "validation": 3},
        scores={"validation": SCORES, "test": SCORES},
        selection=Selection("Chosen.", "validation", "macro_f1", "checkpoint-3"),
        training=Training(1.5, 12, 1e-3, 4, {"train_loss": 0.25}),
        calibration={"temperature": 1.5, "fitted_on": "validation"},
        uncertainty={
            "level": 0.9,
            "split": "test",
            "fitted_on": "validation",
            "images": 3,
            "coverage": 1.0,
            "size": 1.5,
        },
        leakage={"test": 1},
        ordered=True,
        study={"total": 9, "excluded": [], "splits": {"train": {"images": 9}}, "columns": {}},
        **COMMON,
    ),
    "pretrain": RunRecord(kind="pretrain", images={"train": 9}, training=Training(2.0), excluded=3, **COMMON),
    "evaluate": RunRecord(
        kind="evaluate",
        images={"test": 3},
        scores={"test": SCORES},
        averaged_views=True,
        unmapped_images={"polyp": 3},
        **COMMON,
    ),
    "probe": RunRecord(
        kind="probe",
        images={"test": 3},
        probe={"cls": {"knn": {}}, "mean": {}, "split_by_role": {"test": "test"}},
        **COMMON,
    ),
    "crossval": RunRecord(
        kind="crossval",
        images={},
        crossval=CrossvalSummary(
            folds="2",
            runs=[
                (CrossvalRun(1.0, 0, fold, False), dict.fromkeys(headline_metric_names(False), 0.5), "validation")
                for fold in (1, 2)
            ],
            mean_and_std=POINT,
            label_efficiency=[{"fraction": 1.0, "images": 9.0} | POINT],
            pooled={"seed-0": SCORES},
        ),
        **COMMON,
    ),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_is_read_as_it_was_written(kind, tmp_path):
    record = RECORDS[kind]
    write_started_record(record, tmp_path / "run") if kind in ("finetune", "pretrain") else (tmp_path / "run").mkdir()
    write_record(record, tmp_path / "run")
    files = [path.name for path in (tmp_path / "run").iterdir()]
    expected = {"crossval": CROSSVAL, "probe": PROBE, "evaluate": "results_test.json"}.get(kind, ALL_RESULTS)
    assert files == [expected] == [record.file_name]
    again = read_record(tmp_path / "run", expected)
    if kind == "pretrain":  # has the absolute path, too
        assert json.loads((tmp_path / "run" / expected).read_text())["data_dir"].endswith("/images")
    assert again == record and again.format == FORMAT


def test_every_field_of_the_record_is_documented_and_tested(tmp_path):
    documented = inspect.getdoc(RunRecord).split("Args:")[1]
    for field in dataclasses.fields(RunRecord):
        assert f"\n    {field.name}: " in documented, field.name
        if field.name != "format":
            assert any(getattr(record, field.name) not in (None, {}, [], 0, False) for record in RECORDS.values())


def test_trainer_metrics_have_the_names_of_the_trainer():
    metrics = RECORDS["finetune"].trainer_metrics()
    assert metrics["eval_macro_f1"] == SCORES["macro_f1"] and metrics["test_accuracy"] == SCORES["accuracy"]
    assert metrics["train_loss"] == 0.25 and not any(name.startswith("validation_") for name in metrics)


def test_the_data_source_is_built_from_settings():
    settings = DataSourceArguments(data_dir="images", benchmark="kvasir-v2", selection_fraction=0.1)
    source = DataSource.from_settings(settings, seed=7, fingerprint="x")
    assert (source.data_dir, source.name, source.selection_fraction, source.seed) == ("images", "kvasir-v2", 0.1, 7)


SOURCE = {"data_dir": "images", "benchmark": None, "fold": 1, "train_fraction": 1.0, "select_on": 0.0}


def test_files_without_format_are_read(tmp_path):
    """`select_on` is not a field, and unknown keys are ignored."""
    train = {"train_loss": 0.1, "seconds": 3.0, "updates": 4, "best_checkpoint": "checkpoint-2", "learning_rate": 1e-3}
    values = {"validation": SCORES, "train": train, "base": "mae.pth", "seen_in_pretraining": None, "source": SOURCE}
    values |= {"images": {"train": 9, "validation": 3}, "weights": "Chosen.", "chosen_on": "validation"}
    values |= {"hardware": "here", "versions": "torch 2"}
    (tmp_path / ALL_RESULTS).write_text(json.dumps(values))
    record = read_record(tmp_path)
    assert (record.kind, record.format, record.base, record.data.data_dir) == ("finetune", 1, "mae.pth", "images")
    assert record.selection == Selection("Chosen.", "validation", None, "checkpoint-2")
    assert record.training == Training(3.0, 4, 1e-3, None, {"train_loss": 0.1})
    pretrained = {"train": {"train_loss": 1.0}, "base": "random weights", "data_dir": "/frames", "images": 40}
    (tmp_path / ALL_RESULTS).write_text(json.dumps(pretrained | {"excluded": 2, "seconds": 5.0}))
    record = read_record(tmp_path)
    assert (record.kind, record.images, record.excluded) == ("pretrain", {"train": 40}, 2)
    assert record.data.data_dir == "/frames" and record.training.seconds == 5.0


@pytest.mark.parametrize(
    "text, message, attributes",
    [
        ("{", RunMessage.RECORD_DAMAGED, {}),
        ("", RunMessage.RECORD_DAMAGED, {}),
        ("[" * 100_000, RunMessage.RECORD_DAMAGED, {}),
        ("[1]", RunMessage.RECORD_IS_NOT_AN_OBJECT, {"type": "list"}),
        ('{"eval_accuracy": 0.9, "epoch": 3.0}', RunMessage.RECORD_KEY_MISSING, {"key": "'source'"}),
        ('{"base": "x", "source": {"data_dir": "d"}, "images": {"train": "many"}}', RunMessage.RECORD_INVALID, {}),
        ('{"base": "x", "source": [], "images": {}}', RunMessage.RECORD_INVALID, {}),
        (json.dumps({"format": FORMAT + 1}), RunMessage.RECORD_OF_NEWER_FORMAT, {"format": 3, "supported": 2}),
        ('{"format": "new"}', RunMessage.RECORD_OF_NEWER_FORMAT, {"format": "new"}),
        (
            '{"kind": "distil", "base": "x", "source": {"data_dir": "d"}, "images": {}}',
            RunMessage.RECORD_INVALID,
            {"error": "unknown kind distil"},
        ),
    ],
)
def test_a_file_that_is_not_a_record_is_rejected(tmp_path, text, message, attributes):
    (tmp_path / ALL_RESULTS).write_text(text)
    with raises(message, path=tmp_path / ALL_RESULTS, **attributes) as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)
    assert find_run_record(tmp_path) is None


def test_a_record_without_a_metric_that_was_added_later_is_read(tmp_path, monkeypatch):
    write_record(RECORDS["finetune"], tmp_path)
    monkeypatch.setitem(METRICS, "g_mean", Metric("g_mean", "G-mean", lambda m: m.recall.prod(-1)))
    record = read_record(tmp_path)
    assert "g_mean" in headline_metric_names(False) and "g_mean" not in available_metric_names(record.scores["test"])
    assert record == RECORDS["finetune"] and "<th>G-mean</th>" in record._repr_html_()


def test_a_folder_without_a_record_is_rejected(tmp_path):
    with raises(RunMessage.RECORD_MISSING, path=tmp_path, file=ALL_RESULTS):
        read_record(tmp_path)


def test_a_started_run_has_a_record(tmp_path):
    started = dataclasses.replace(RECORDS["finetune"], scores={}, selection=None, training=None, calibration=None)
    write_started_record(started, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RUN_STARTED] and find_run_record(tmp_path) == started
    write_record(RECORDS["finetune"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ALL_RESULTS]
    assert find_run_record(tmp_path) == RECORDS["finetune"]
