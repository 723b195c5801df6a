"""Settings that `--auto` chooses."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from support.cli_process import run_cli
from support.messages import raises, shows

from hf_mae import FinetuningArguments
from hf_mae.errors import CommandLineError
from hf_mae.reporting.plan_summary import AUTO_REASON_TEXTS, describe_auto_reason
from hf_mae.runs.output_dir import add_default_output_dir
from hf_mae.settings.arguments import linear_scaled_lr
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.parse import parse_settings
from hf_mae.training.auto_settings import AutoReason
from hf_mae.workflows import autoconfig
from hf_mae.workflows.messages import WorkflowMessage


def make_splits(*counts, validation=True):
    labels = np.repeat(np.arange(len(counts)), counts).tolist()
    return {"train": {"labels": labels}} | ({"validation": {"labels": labels}} if validation else {})


def choose(splits, hidden_size=768, metric_for_best_model="macro_f1", active_rebalancing=()):
    args = SimpleNamespace(metric_for_best_model=metric_for_best_model, active_rebalancing=active_rebalancing)
    return {setting.name: setting.value for setting in autoconfig.choose_settings(splits, hidden_size, 224, args)}


def test_settings_depend_on_data_and_model(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    few, many = choose(make_splits(100, 90)), choose(make_splits(60_000, 50_000))
    assert few["num_train_epochs"] == 100 and many["num_train_epochs"] == 15 and few["bf16"] is False
    assert few["per_device_train_batch_size"] == 8 and "effective_batch_size" not in few
    assert many["per_device_train_batch_size"] == 16 and many["effective_batch_size"] == 64
    assert few["class_weights"] == ["none"]
    assert choose(make_splits(100, 90), 1024)["drop_path"] == 0.2
    assert autoconfig.choose_split_settings(make_splits(5, 5)) == []
    assert autoconfig.choose_split_settings(make_splits(5, 5, validation=False))[0].value == 0.2


@pytest.mark.parametrize("images, updates", [(300, 38), (304, 38), (8, 1), (100_000, 1563)])
def test_the_reason_of_the_batch_size_has_the_updates_of_the_plan(images, updates, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = SimpleNamespace(metric_for_best_model="macro_f1", active_rebalancing=())
    chosen = autoconfig.choose_settings(make_splits(images), 768, 224, args)
    (setting,) = (setting for setting in chosen if setting.reason is AutoReason.UPDATES_PER_EPOCH)
    assert setting.values == {"images": images, "updates": updates}
    assert f"an epoch of {images} images then has {updates} update" in describe_auto_reason(setting)
    assert set(AUTO_REASON_TEXTS) == set(AutoReason)


def test_warm_up_follows_the_requested_epochs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = SimpleNamespace(metric_for_best_model="macro_f1", active_rebalancing=())
    chosen = autoconfig.choose_settings(make_splits(300), 768, 224, args, {"num_train_epochs": 4.0})
    assert {setting.name: setting.value for setting in chosen}["warmup_epochs"] == 0.4


def test_learning_rate_scales_with_the_square_root_of_the_batch(monkeypatch):
    """1e-3 at 256 images, for chosen and explicit batch sizes, and any number of micro-batches."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = SimpleNamespace(metric_for_best_model="macro_f1", active_rebalancing=())

    def rate(images, micro_batches=1, **explicit):
        """Absolute rate after the linear rule of training."""
        chosen = autoconfig.choose_settings(make_splits(images), 768, 224, args, explicit, micro_batches)
        settings = {setting.name: setting.value for setting in chosen} | explicit
        batch_size = settings.get("effective_batch_size", settings["per_device_train_batch_size"] * micro_batches)
        return linear_scaled_lr(settings["base_learning_rate"], batch_size)

    assert rate(954) == pytest.approx(1e-3 / 4) and rate(100_000) == pytest.approx(1e-3 / 2)
    assert rate(954, effective_batch_size=256) == pytest.approx(1e-3)
    assert rate(954, per_device_train_batch_size=64) == pytest.approx(1e-3 / 2)
    assert rate(100_000, per_device_train_batch_size=4) == pytest.approx(1e-3 / 2)  # 16 steps per update of 64
    assert rate(954, micro_batches=4) == pytest.approx(1e-3 / 2)  # 4 x 16 images
    assert rate(100_000, micro_batches=4) == pytest.approx(1e-3 / 2)  # 64 images in total


def test_rebalancing_depends_on_imbalance_and_metric(tmp_path):
    imbalanced, balanced = make_splits(1000, 100), make_splits(1000, 101)
    settings = choose(imbalanced)
    assert settings["sampling"] == "square_root" and not {"class_weights", "smoothing"} & settings.keys()
    for metric in ("macro_recall", "eval_balanced_accuracy"):
        settings = choose(imbalanced, metric_for_best_model=metric)
        assert settings["class_weights"] == ["balanced"] and "sampling" not in settings
        assert choose(balanced, metric_for_best_model=metric)["class_weights"] == ["none"]
    args = FinetuningArguments(output_dir=str(tmp_path), use_cpu=True, logit_adjustment=1.0)
    assert args.active_rebalancing == ["--logit_adjustment 1"]
    settings = choose(imbalanced, active_rebalancing=args.active_rebalancing)
    assert not {"class_weights", "sampling"} & settings.keys()


def test_settings_depend_on_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=24e9))
    large = choose(make_splits(4000, 4000), 1024)
    assert large["bf16"] is True and large["per_device_train_batch_size"] < 64 == large["effective_batch_size"]
    assert large["dataloader_num_workers"] >= 1
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert choose(make_splits(40, 40))["fp16"] is True and choose(make_splits(40, 40), 1280)["fp16"] is False


def test_auto_needs_checkpoint_and_data_only(tiny_pth, toy, tmp_path):
    done = run_cli(*("finetune", tiny_pth, toy / "labelled" / "train", "--auto", "--num_train_epochs", 2), cwd=tmp_path)
    run = tmp_path / "runs" / "train"
    text = (run / "auto.yaml").read_text()
    values = yaml.safe_load(text)
    assert values["val_fraction"] == 0.2 and "num_train_epochs" not in values, "explicit settings are not chosen"
    assert all(" # " in line for line in text.splitlines()[1:])
    assert shows(done.stderr, WorkflowMessage.AUTO_SETTING, name="val_fraction", value=0.2)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (
        recipe["val_fraction"] == 0.2 and recipe["per_device_train_batch_size"] == values["per_device_train_batch_size"]
    )
    assert "auto" not in recipe and (run / "model.safetensors").is_file()
    again = run_cli(
        "finetune", "--recipe", run / "auto.yaml", tiny_pth, toy / "labelled" / "train", "--dry_run", cwd=tmp_path
    )
    assert f"batch size  {values['per_device_train_batch_size']} images" in again.stdout


def test_default_output_dir_is_the_first_unused_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = {"model_name_or_path": "m", "data_dir": "some/polyps"}
    settings = parse_settings("finetune", **flags)
    assert add_default_output_dir(settings).training.folder == Path("runs/polyps")
    (tmp_path / "runs" / "polyps").mkdir(parents=True)
    added = add_default_output_dir(settings)
    assert added.training.folder == Path("runs/polyps-2") and added.overrides["output_dir"] == "runs/polyps-2"
    explicit = parse_settings("finetune", output_dir="x", **flags)
    assert add_default_output_dir(explicit) is explicit
    launched = dataclasses.replace(settings, training=SimpleNamespace(world_size=2))
    with raises(SettingsMessage.OUTPUT_DIR_REQUIRED, CommandLineError):
        add_default_output_dir(launched)
