"""Texts about a study contain the facts of its record, and only those."""

import json
from dataclasses import replace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from support.records import ENVIRONMENT

from hf_mae.data.cohort import describe_cohort
from hf_mae.data.exclusion_log import track_exclusions
from hf_mae.reporting.checklists import build_checklist
from hf_mae.reporting.document import Paragraph
from hf_mae.reporting.study_description import build_study_description
from hf_mae.runs.load_run import load_run
from hf_mae.runs.predictions import write_predictions
from hf_mae.runs.record import DataSource, RunRecord
from hf_mae.runs.record_io import write_record

pytestmark = pytest.mark.unit
CALIBRATION = {"temperature": 1.5, "ece_before": 0.2, "ece_after": 0.1, "nll_before": 1.0, "nll_after": 0.9}


def load_evaluation(folder, **calibration):
    """Writes and loads an evaluation of a model of unknown training, with a temperature."""
    labels, files = np.arange(8) % 2, [f"{index}.png" for index in range(8)]
    features = Features({"labels": ClassLabel(names=["a", "{{ b }}"]), "file_name": Value("string")})
    with track_exclusions() as log:
        splits = {"test": Dataset.from_dict({"labels": labels, "file_name": files}, features)}
    names, scores = features["labels"].names, {"test": {"accuracy": 1.0}}
    record = RunRecord("evaluate", "user/model", DataSource("images"), {"test": 8}, ENVIRONMENT, classes=names)
    write_record(replace(record, scores=scores, study=describe_cohort(log, splits)), folder)
    path = folder / "results_test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"calibration": CALIBRATION | calibration}))
    write_predictions(folder, "test", files, np.eye(2)[labels], labels, names)
    return load_run(folder)


def test_a_given_temperature_is_not_described_as_fitted(tmp_path):
    text = "\n".join(block.text for block in build_study_description(load_evaluation(tmp_path))[0] if has_text(block))
    assert "The logits were divided by a given temperature 1.500." in text and "fitted" not in text
    assert "net benefit" not in text and "its training is not recorded" not in text
    items = build_checklist(load_evaluation(tmp_path), "tripod-ai")
    assert any(item.answer == "One of 2 classes: a, {{ b }}." for item in items), "names are not templates"
    assert any("calibration error 0.2000 before" in (item.answer or "") for item in items)


def test_a_fitted_temperature_is_described_with_its_split(tmp_path):
    blocks, keys = build_study_description(load_evaluation(tmp_path, fitted_on="validation", images=8))
    (text,) = [block.text for block in blocks if has_text(block) and "temperature" in block.text]
    assert "A temperature was fitted on the validation split [@guo2017calibration]." in text
    assert "guo2017calibration" in keys and "islam2021class" not in keys


def has_text(block):
    return isinstance(block, Paragraph)
