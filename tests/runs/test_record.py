"""Run records: typed fields, writing and reading, hand-written files, and invalid files."""

import dataclasses
import inspect
import json

import pytest
from support.messages import raises
from support.records import ENVIRONMENT

from hf_mae.data.cohort import Cohort, SplitDescription
from hf_mae.data.exclusion_log import Exclusion, ExclusionReason, Relabelling
from hf_mae.evaluation.calibration import Calibration
from hf_mae.evaluation.conformal import Coverage
from hf_mae.evaluation.metrics import available_metric_names, classification_scores, headline_metric_names
from hf_mae.models.network import ModelFacts, Network
from hf_mae.reporting import notebook  # noqa: F401 (records as HTML)
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.record import (
    ALL_RESULTS,
    CROSSVAL,
    PROBE,
    RUN_STARTED,
    SCHEMA_VERSION,
    CrossvalResult,
    CrossvalRun,
    CrossvalSummary,
    DataSource,
    RunRecord,
    Selection,
    SelectionRule,
)
from hf_mae.runs.record_io import find_run_record, read_record, record_to_dict, write_record, write_started_record
from hf_mae.runs.training_facts import Augmentation, Objective, Optimizer, Schedule, TrainedPart, Training
from hf_mae.settings.data import DataSourceArguments
from hf_mae.settings.licences import LicenceFact, LicenceOrigin, LicenceRole
from hf_mae.settings.metrics import METRICS, Metric

SCORES = classification_scores([0, 1, 1], [0, 1, 0], ["blob", "ring"])
COMMON = {
    "base": "mae.pth",
    "data": DataSource("images", val_fraction=0.2, seed=3, fingerprint="abc"),
    "environment": ENVIRONMENT,
    "settings": {"layer_decay": 0.5},
    "classes": ["blob", "ring"],
}
POINT = {name: {"mean": 0.5, "std": 0.0, "values": [0.5]} for name in headline_metric_names(False)}
METRIC_VALUES = dict.fromkeys(headline_metric_names(False), 0.5)
RECORDS = {
    "finetune": RunRecord(
        kind="finetune",
        images={"train": 9, "validation": 3},
        scores={"validation": SCORES, "test": SCORES},
        selection=Selection(SelectionRule.BEST_EPOCH, "validation", "macro_f1", "checkpoint-3", 1.0, 0.99),
        train=Training(
            *(1.5, 12, 1e-3, 4, {"train_loss": 0.25}),
            trained_part=TrainedPart.HEAD,
            optimizer=Optimizer("AdamW", 1e-3, 0.05, 0.75, [0.9, 0.999], None, 0.0),
            schedule=Schedule("cosine_with_min_lr", 5.0, 1e-6),
            objective=Objective(
                "focal", {"focal_gamma": 2.0}, 0.1, {"blob": 0.5, "ring": 1.5}, True, 0.0, "square_root"
            ),
            augmentation=Augmentation("imagenet", "rand-m9", 0.25, 0.8, 0.0, 1.0, 0.1, 0.0),
        ),
        calibration=Calibration(1.5, 0.2, 0.7, 0.1, 0.6, {"blob": 1.2, "ring": 2.0}, "validation", 3),
        uncertainty=Coverage(0.9, "test", "validation", 3, 1.0, 1.5),
        seen_in_pretraining={"test": 1},
        ordered=True,
        study=Cohort(
            total=12,
            excluded=[
                Exclusion(ExclusionReason.BEYOND_TRAIN_FRACTION, 2, 0.5, ["a.png"]),
                Exclusion(ExclusionReason.LISTED_IN_FILE, 1, "pairs.csv"),
            ],
            splits={"train": SplitDescription(9, 3, {"blob": 4, "ring": 5})},
            columns={"sex": {"train": {"female": 9}}},
            relabelled=Relabelling("corrections.csv", 1),
        ),
        **COMMON,
    ),
    "pretrain": RunRecord(
        kind="pretrain",
        images={"train": 9},
        train=Training(2.0, 5, 1e-3, 4),
        excluded=3,
        licences=[LicenceFact(LicenceRole.BASE, "mae.pth", "mit", LicenceOrigin.CHECKPOINT)],
        **COMMON,
    ),
    "evaluate": RunRecord(
        kind="evaluate",
        images={"test": 3},
        scores={"test": SCORES},
        averaged_views=True,
        network=Network("convnext", 5),
        model=ModelFacts("TimmWrapperForImageClassification", 32, None, False, True),
        members=["runs/a", "runs/b"],
        precision="bf16",
        unmapped_images={"polyp": 3},
        **COMMON,
    ),
    "probe": RunRecord(
        kind="probe",
        images={"test": 3},
        probe={"cls": {"knn": {"accuracy": 0.5, "neighbours": 2}}},
        probe_splits={"test": "test"},
        **COMMON,
    ),
    "crossval": RunRecord(
        kind="crossval",
        images={},
        crossval=CrossvalSummary(
            folds="2",
            runs=[
                CrossvalResult(CrossvalRun(1.0, 0, fold, False), f"seed-0_fold-{fold}", METRIC_VALUES, "validation")
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
    assert again.study == record.study and again.calibration == record.calibration and again.probe == record.probe
    written = json.loads((tmp_path / "run" / expected).read_text())
    assert record_to_dict(again) == record_to_dict(record) and written["schema_version"] == SCHEMA_VERSION
    assert written == json.loads(json.dumps(record_to_dict(record)))
    for split, scores in written["scores"].items():
        missing = {name for name, value in scores.items() if value is None}
        ordinal = {*headline_metric_names(True)} - {*headline_metric_names(False)} if record.ordered else set()
        assert missing == ordinal and not missing & set(record.scores[split]), "a missing metric is null"


def test_every_field_of_the_record_is_documented_and_tested(tmp_path):
    documented = inspect.getdoc(RunRecord).split("Args:")[1]
    for field in dataclasses.fields(RunRecord):
        assert f"\n    {field.name}: " in documented, field.name
        assert any(getattr(record, field.name) not in (None, {}, [], 0, False) for record in RECORDS.values())


def test_trainer_metrics_have_the_names_of_the_trainer():
    metrics = RECORDS["finetune"].trainer_metrics()
    assert metrics["eval_macro_f1"] == SCORES["macro_f1"] and metrics["test_accuracy"] == SCORES["accuracy"]
    assert metrics["train_loss"] == 0.25 and not any(name.startswith("validation_") for name in metrics)


def test_the_data_source_is_built_from_settings():
    settings = DataSourceArguments(data_dir="images", benchmark="kvasir-v2", selection_fraction=0.1)
    source = DataSource.from_settings(settings, seed=7, fingerprint="x")
    assert (source.data_dir, source.name, source.selection_fraction, source.seed) == ("images", "kvasir-v2", 0.1, 7)


@pytest.mark.parametrize(
    "text, message, attributes",
    [
        ("{", RunMessage.RECORD_DAMAGED, {}),
        ("", RunMessage.RECORD_DAMAGED, {}),
        ("[" * 100_000, RunMessage.RECORD_DAMAGED, {}),
        ("[1]", RunMessage.RECORD_INVALID, {}),
        ('{"eval_accuracy": 0.9, "epoch": 3.0}', RunMessage.RECORD_WITHOUT_VERSION, {}),
        (
            '{"schema_version": 2, "kind": "finetune"}',
            RunMessage.RECORD_OF_OTHER_VERSION,
            {"version": 2, "supported": 1},
        ),
        ('{"schema_version": "new"}', RunMessage.RECORD_OF_OTHER_VERSION, {"version": "new"}),
    ],
)
def test_a_file_that_is_not_a_record_is_rejected(tmp_path, text, message, attributes):
    (tmp_path / ALL_RESULTS).write_text(text)
    with raises(message, path=tmp_path / ALL_RESULTS, **attributes) as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)
    assert find_run_record(tmp_path) is None


def delete(values, *path):
    """Deletes a value of nested objects."""
    for name in path[:-1]:
        values = values[name]
    del values[path[-1]]


@pytest.mark.parametrize("path", [("kind",), ("base",), ("data",), ("data", "data_dir"), ("environment", "hardware")])
def test_a_record_without_a_required_field_is_rejected(path, tmp_path):
    values = record_to_dict(RECORDS["finetune"])
    delete(values, *path)
    (tmp_path / ALL_RESULTS).write_text(json.dumps(values))
    with raises(RunMessage.RECORD_INVALID, path=tmp_path / ALL_RESULTS) as caught:
        read_record(tmp_path)
    assert path[-1] in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "distil"},
        {"images": {"train": "many"}},
        {"images": {"train": True}},
        {"data": []},
        {"classes": "blob"},
        {"scores": {"test": 0.5}},
        {"selection": {"rule": "the best one"}},
        {"ordered": "yes"},
        {"train": {"seconds": None}},
    ],
)
def test_a_record_with_a_field_of_another_type_is_rejected(changes, tmp_path):
    values = record_to_dict(RECORDS["finetune"])
    (tmp_path / ALL_RESULTS).write_text(json.dumps(values | {"unknown": 1}))
    assert read_record(tmp_path).kind == "finetune"
    (tmp_path / ALL_RESULTS).write_text(json.dumps(values | changes))
    with raises(RunMessage.RECORD_INVALID, path=tmp_path / ALL_RESULTS):
        read_record(tmp_path)


def test_a_record_without_a_metric_that_was_added_later_is_read(tmp_path, monkeypatch):
    write_record(RECORDS["finetune"], tmp_path)
    monkeypatch.setitem(METRICS, "g_mean", Metric("g_mean", "G-mean", lambda m: m.recall.prod(-1)))
    record = read_record(tmp_path)
    assert "g_mean" in headline_metric_names(False) and "g_mean" not in available_metric_names(record.scores["test"])
    assert record_to_dict(record)["scores"]["test"]["g_mean"] is None and "<th>G-mean</th>" in record._repr_html_()


def test_a_folder_without_a_record_is_rejected(tmp_path):
    with raises(RunMessage.RECORD_MISSING, path=tmp_path, file=ALL_RESULTS):
        read_record(tmp_path)


def test_a_started_run_has_a_record(tmp_path):
    started = dataclasses.replace(RECORDS["finetune"], scores={}, selection=None, train=None, calibration=None)
    write_started_record(started, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RUN_STARTED] and find_run_record(tmp_path) == started
    write_record(RECORDS["finetune"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ALL_RESULTS]
    assert find_run_record(tmp_path).train == RECORDS["finetune"].train
