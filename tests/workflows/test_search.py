"""Hyper-parameter search: on a split of its own, resumable, and the model that is trained with what it found."""

import csv
import json
import sys

import pytest
from support.cli_process import run_cli

from hf_mae import UsageError, search
from hf_mae.errors import CommandLineError
from hf_mae.models.attention import PLAIN_ATTENTION
from hf_mae.training import search as searching
from hf_mae.training.finetuner import MaeFinetuner
from hf_mae.training.trainer import NonFiniteLossError

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


def rows_of(folder) -> list[dict[str, str]]:
    with open(folder / "search.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_trial_is_trained_again_and_judged_on_what_no_trial_saw(settings, tmp_path, monkeypatch, pictures):
    judged, made = [], []
    own = MaeFinetuner.evaluation_loop
    monkeypatch.setattr(
        MaeFinetuner,
        "evaluation_loop",
        lambda self, loader, *a, **k: (judged.append(sorted(loader.dataset.file_names)), own(self, loader, *a, **k))[1],
    )
    fresh = MaeFinetuner.call_model_init

    def remembered(self, trial=None):
        made.append(fresh(self, trial))
        assert made[-1].config._attn_implementation == PLAIN_ATTENTION
        return made[-1]

    monkeypatch.setattr(MaeFinetuner, "call_model_init", remembered)
    found = search(**settings)
    out = tmp_path / "search"
    assert [trial.number for trial in found.trials] == [0, 1, 2] and len(made) == 3
    assert found.trials[0].values == {
        "learning_rate": 3e-3,
        "layer_decay": 0.75,
        "drop_path": 0.1,
        "weight_decay": 0.05,
    }
    assert found.best.score == max(trial.score for trial in found.trials) and found.greater_is_better
    rows = rows_of(out)
    assert [float(row["macro_f1"]) for row in rows] == pytest.approx([t.score for t in found.trials], abs=1e-6)
    assert (out / "search.png").stat().st_size > 5_000
    assert len(json.loads((out / "search.json").read_text())["trials"]) == 3
    record = found.record
    assert record.images == {"train": 48, "selection": 12, "validation": 18, "test": 18}
    assert record.scores["selection"]["macro_f1"] == pytest.approx(found.best.score, abs=1e-12)  # the same training
    assert {name: record.settings[name] for name in found.best.values} == found.best.values
    trials = judged[: -len(judged) // 4]  # before the best one's own
    assert len(set(map(tuple, trials))) == 1 and all(name.startswith("train/") for name in trials[0])
    for text in (record.selection.sentence, (out / "best" / "README.md").read_text()):
        assert "best of 3 trials on the selection split" in " ".join(text.split())

    before = (out / "best" / "model.safetensors").stat().st_mtime_ns
    again = search(**settings)  # all is done
    assert len(made) == 3 and again.best == found.best
    assert (out / "best" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"begun with other settings \(num_train_epochs\)"):
        search(**settings | {"num_train_epochs": 3})


def test_a_search_that_was_killed_goes_on_with_the_trial_that_it_was_at(settings, tmp_path, monkeypatch):
    calls, objective = [], searching.HyperparameterSearch._objective

    def stopped(self, metrics):
        calls.append(self.study.trials[-1].number)
        if len(calls) == 3:
            raise SystemExit(137)
        return objective(self, metrics)

    monkeypatch.setattr(searching.HyperparameterSearch, "_objective", stopped)
    settings |= {"search": ["learning_rate", "smoothing"], "selection_fraction": 0.3}
    with pytest.raises(SystemExit):
        search(**settings)
    found = search(**settings)
    assert calls == [0, 0, 1, 2, 2, 3, 3] and [trial.number for trial in found.trials] == [0, 2, 3]
    assert all(0 <= trial.values["smoothing"] <= 0.2 for trial in found.trials)
    assert all(3e-4 <= trial.values["learning_rate"] <= 3e-2 for trial in found.trials)


def test_a_trial_that_diverges_is_left_behind(settings, monkeypatch):
    objective = searching.HyperparameterSearch._objective

    def diverges(self, metrics):
        if len(self.study.trials) == 1:
            raise NonFiniteLossError("The loss became nan")
        return objective(self, metrics)

    monkeypatch.setattr(searching.HyperparameterSearch, "_objective", diverges)
    found = search(**settings | {"trials": 2, "num_train_epochs": 1})
    assert [trial.number for trial in found.trials] == [1]


def test_where_all_diverge_it_is_said(settings, monkeypatch):
    def diverges(self, metrics):
        raise NonFiniteLossError("The loss became nan")

    monkeypatch.setattr(searching.HyperparameterSearch, "_objective", diverges)
    with pytest.raises(UsageError, match="no trial came to an end with a finite loss"):
        search(**settings | {"trials": 2, "num_train_epochs": 1})


def test_mistakes_are_told(settings, monkeypatch):
    done = run_cli("search", "model", "data", "--output_dir", "out", "--trials", "0", status=2)
    assert "--trials must be at least 1" in done.stderr
    with pytest.raises(CommandLineError, match="--search knows learning_rate, .*, not batch_size"):
        search(**settings | {"search": ["batch_size"]})
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'hf_mae\[search\]'"):
        search(**settings)
