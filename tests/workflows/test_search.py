"""Hyper-parameter search: selection split, resuming, and the model with the best values."""

import csv
import json
import sys

import pytest
from support.cli_process import run_cli
from support.messages import raises

from hf_mae import search
from hf_mae.errors import CommandLineError
from hf_mae.models.attention import PLAIN_ATTENTION
from hf_mae.reporting.run_sentences import describe_selection
from hf_mae.settings.messages import SettingsMessage
from hf_mae.training import search as search_module
from hf_mae.training.finetuner import MaeFinetuner
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.trainer import NonFiniteLossError
from hf_mae.workflows.messages import WorkflowMessage

pytestmark = pytest.mark.run


@pytest.fixture
def settings(tiny_pth, toy, tmp_path) -> dict:
    return {
        "model_name_or_path": str(tiny_pth),
        "data_dir": str(toy / "labelled"),
        "output_dir": str(tmp_path / "search"),
        "num_train_epochs": 2,
        "warmup_epochs": 0,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 16,
        "disable_tqdm": True,
        "trials": 3,
    }


def read_trials(folder) -> list[dict[str, str]]:
    with open(folder / "search.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_trial_is_trained_again_and_evaluated_on_other_images(settings, tmp_path, monkeypatch, real_figures):
    evaluated, models = [], []
    evaluation_loop, call_model_init = MaeFinetuner.evaluation_loop, MaeFinetuner.call_model_init

    def record_images(self, loader, *args, **kwargs):
        evaluated.append(sorted(loader.dataset.file_names))
        return evaluation_loop(self, loader, *args, **kwargs)

    def record_model(self, trial=None):
        models.append(call_model_init(self, trial))
        assert models[-1].config._attn_implementation == PLAIN_ATTENTION
        return models[-1]

    monkeypatch.setattr(MaeFinetuner, "evaluation_loop", record_images)
    monkeypatch.setattr(MaeFinetuner, "call_model_init", record_model)
    result = search(**settings)
    out = tmp_path / "search"
    assert [trial.number for trial in result.trials] == [0, 1, 2] and len(models) == 3
    assert result.trials[0].values == {
        "learning_rate": 3e-3,
        "layer_decay": 0.75,
        "drop_path": 0.1,
        "weight_decay": 0.05,
    }
    assert result.best.score == max(trial.score for trial in result.trials) and result.greater_is_better
    rows = read_trials(out)
    assert [float(row["macro_f1"]) for row in rows] == pytest.approx([t.score for t in result.trials], abs=1e-6)
    assert (out / "figures" / "search.png").stat().st_size > 5_000
    assert len(json.loads((out / "search.json").read_text())["trials"]) == 3
    record = result.record
    assert record.images == {"train": 48, "selection": 12, "validation": 18, "test": 18}
    assert record.scores["selection"]["macro_f1"] == pytest.approx(result.best.score, abs=1e-12)  # the same training
    assert {name: record.settings[name] for name in result.best.values} == result.best.values
    trials = evaluated[: -len(evaluated) // 4]  # without the evaluations of the best model
    assert len(set(map(tuple, trials))) == 1 and all(name.startswith("train/") for name in trials[0])
    for text in (describe_selection(record.selection), (out / "best" / "README.md").read_text()):
        assert "best of 3 trials on the selection split" in " ".join(text.split())

    before = (out / "best" / "model.safetensors").stat().st_mtime_ns
    again = search(**settings)  # the search is complete
    assert len(models) == 3 and again.best == result.best
    assert (out / "best" / "model.safetensors").stat().st_mtime_ns == before
    with raises(TrainingMessage.STUDY_SETTINGS_DIFFER, names=["num_train_epochs"]):
        search(**settings | {"num_train_epochs": 3})


def test_a_killed_search_repeats_the_interrupted_trial(settings, tmp_path, monkeypatch):
    calls, objective = [], search_module.HyperparameterSearch._objective

    def kill(self, metrics):
        calls.append(self.study.trials[-1].number)
        if len(calls) == 3:
            raise SystemExit(137)
        return objective(self, metrics)

    monkeypatch.setattr(search_module.HyperparameterSearch, "_objective", kill)
    settings |= {"search": ["learning_rate", "smoothing"], "selection_fraction": 0.3}
    with pytest.raises(SystemExit):
        search(**settings)
    result = search(**settings)
    assert calls == [0, 0, 1, 2, 2, 3, 3] and [trial.number for trial in result.trials] == [0, 2, 3]
    assert all(0 <= trial.values["smoothing"] <= 0.2 for trial in result.trials)
    assert all(3e-4 <= trial.values["learning_rate"] <= 3e-2 for trial in result.trials)


def test_a_trial_that_diverges_is_ignored(settings, monkeypatch):
    objective = search_module.HyperparameterSearch._objective

    def diverge(self, metrics):
        if len(self.study.trials) == 1:
            raise NonFiniteLossError("nan")
        return objective(self, metrics)

    monkeypatch.setattr(search_module.HyperparameterSearch, "_objective", diverge)
    result = search(**settings | {"trials": 2, "num_train_epochs": 1})
    assert [trial.number for trial in result.trials] == [1]


def test_a_search_in_which_all_trials_diverge_is_rejected(settings, monkeypatch):
    def diverge(self, metrics):
        raise NonFiniteLossError("nan")

    monkeypatch.setattr(search_module.HyperparameterSearch, "_objective", diverge)
    with raises(TrainingMessage.NO_FINITE_TRIAL):
        search(**settings | {"trials": 2, "num_train_epochs": 1})


def test_invalid_options_are_rejected(settings, monkeypatch):
    done = run_cli("search", "model", "data", "--output_dir", "out", "--trials", "0", status=2)
    assert "--trials must be >= 1" in done.stderr
    with raises(SettingsMessage.UNKNOWN_SEARCH_SETTING, CommandLineError, unknown=["batch_size"]):
        search(**settings | {"search": ["batch_size"]})
    monkeypatch.setitem(sys.modules, "optuna", None)
    with raises(WorkflowMessage.OPTUNA_MISSING):
        search(**settings)
