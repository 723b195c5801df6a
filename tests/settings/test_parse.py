"""Parsing of recipes, flags and Python arguments into dataclasses."""

import numpy as np
import pytest
import torch
import yaml
from support.messages import raises

from hf_mae import FinetuningArguments
from hf_mae.cli.parser import Parser
from hf_mae.errors import CommandLineError
from hf_mae.settings.commands import COMMANDS, command_options
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.options import Option
from hf_mae.settings.parse import build_settings, parse_options, parse_settings, read_values
from hf_mae.settings.recipes import RECIPES_DIR, list_recipes, render_recipe

FINETUNE = {"model_name_or_path": "a.pth", "data_dir": "images"}


def finetune_settings(tmp_path, **flags):
    return parse_settings("finetune", output_dir=str(tmp_path), **FINETUNE | flags)


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_set_the_fields_of_the_dataclasses(name, tmp_path):
    command = "pretrain" if "pretrain" in name else "finetune"
    flags = {"data_dir": "images"} if command == "pretrain" else FINETUNE
    settings = parse_settings(command, recipe=name, output_dir=str(tmp_path), **flags)
    for key, value in yaml.safe_load((RECIPES_DIR / f"{name}.yaml").read_text()).items():
        parts = (settings.model, settings.data, settings.training)
        parsed = getattr(next(part for part in parts if hasattr(part, key)), key)
        expected = value if isinstance(value, list) or not isinstance(parsed, list) else [value]
        assert parsed == type(parsed)(expected), key


def test_flags_override_the_recipe(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("layer_decay: 0.5\nlearning_rate: 1e-3\nclass_weights: balanced\nmean_std: [0, 0, 0, 1, 1, 1]\n")
    settings = finetune_settings(tmp_path, recipe=str(recipe), layer_decay=0.6)
    data, args = settings.data, settings.training
    assert (args.layer_decay, args.learning_rate, args.class_weights) == (0.6, 1e-3, "balanced")
    assert data.mean_std == ["0", "0", "0", "1", "1", "1"] and args.save_total_limit == 2
    assert settings.overrides["layer_decay"] == 0.6 and "save_total_limit" not in settings.overrides


def test_the_recipe_of_a_run_reproduces_its_settings(tmp_path):
    first = finetune_settings(
        tmp_path, layer_decay=0.6, class_weights=["1", "2"], bf16=True, resume_from_checkpoint="last"
    )
    assert "resume_from_checkpoint" not in first.overrides
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(render_recipe(first.overrides, {"versions": "x"}))
    again = parse_settings("finetune", recipe=str(recipe))
    assert again.overrides == first.overrides and (again.model, again.data) == (first.model, first.data)


def test_values_may_be_numpy_arrays_and_nothing_for_options_without_a_value(tmp_path):
    weights = np.array([0.1, 2.5])
    for value in (weights, list(weights), tuple(weights.tolist()), torch.tensor(weights)):
        settings = finetune_settings(tmp_path, class_weights=value, seed=np.int64(3), val_fraction=np.float64(0.25))
        assert settings.training.class_weights == [0.1, 2.5] and settings.training.seed == 3
        assert settings.overrides["class_weights"] == ["0.1", "2.5"] and settings.data.val_fraction == 0.25
    assert FinetuningArguments(str(tmp_path), use_cpu=True, class_weights=weights).class_weights == [0.1, 2.5]
    settings = finetune_settings(tmp_path, class_weights=None, benchmark=None, resume_from_checkpoint=None)
    assert settings.training.class_weights == "none"


@pytest.mark.parametrize(
    "text, message, attributes",
    [
        ("layer_deacy: 0.5", SettingsMessage.UNKNOWN_FLAG, {"suggestion": " (did you mean layer_decay?)"}),
        ("transforms: imagenette", SettingsMessage.INVALID_CHOICE, {"name": "transforms", "value": "imagenette"}),
        ("num_train_epochs: null", SettingsMessage.INVALID_NUMBER, {"name": "num_train_epochs", "value": None}),
        ("seed:", SettingsMessage.INVALID_INTEGER, {"name": "seed", "value": None}),
        ("transforms: null", SettingsMessage.INVALID_TEXT, {"name": "transforms", "value": None}),
        ("bf16: null", SettingsMessage.INVALID_BOOLEAN, {"name": "bf16", "value": None}),
        ("num_train_epochs: many", SettingsMessage.INVALID_NUMBER, {"name": "num_train_epochs", "value": "many"}),
        ("seed: 1.5", SettingsMessage.INVALID_INTEGER, {"name": "seed", "value": 1.5}),
        ("- a\n- b", SettingsMessage.YAML_NOT_A_MAPPING, {}),
        ("a: [", SettingsMessage.YAML_INVALID, {}),
        ("seed: 1\nmixup: 0\nseed: 2", SettingsMessage.YAML_REPEATS_NAMES, {"names": ["seed"]}),
        ("seed: 1\n'seed': 1", SettingsMessage.YAML_REPEATS_NAMES, {"names": ["seed"]}),
        ("a: &x [1]\nb: *x", SettingsMessage.YAML_WITH_ALIASES, {}),
    ],
)
def test_invalid_recipes_are_rejected(tmp_path, text, message, attributes):
    (tmp_path / "bad.yaml").write_text(text)
    with raises(message, CommandLineError, **attributes):
        parse_settings("finetune", recipe=str(tmp_path / "bad.yaml"))


def test_python_arguments_are_checked_like_flags(tmp_path):
    with raises(SettingsMessage.UNKNOWN_FLAG, name="layer_deacy", suggestion=" (did you mean layer_decay?)"):
        finetune_settings(tmp_path, layer_deacy=0.5)
    with raises(SettingsMessage.OUT_OF_BOUNDS, CommandLineError, value=-1):
        finetune_settings(tmp_path, seed=-1)
    with raises(SettingsMessage.REJECTED_BY_TRANSFORMERS, CommandLineError):
        finetune_settings(tmp_path, eval_strategy="no")


@pytest.mark.parametrize("name", COMMANDS)
def test_bounds_are_enforced_and_defaults_are_within_them(name):
    options = command_options(name)
    for option in (item for item in options.values() if item.bounds):
        option.read(option.default, "a test")
        offsets = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
        for comparison, bound in option.bounds.items():
            with raises(SettingsMessage.OUT_OF_BOUNDS, CommandLineError, name=option.name):
                option.read(bound + offsets[comparison], "a test")


@pytest.mark.parametrize(
    "command, name, value",
    [
        ("evaluate", "batch_size", 0),
        ("evaluate", "dataloader_num_workers", -1),
        ("probe", "batch_size", -2),
        ("explain", "mistakes_per_class", 0),
        ("convert", "num_labels", 0),
        ("prepare", "image_size", 0),
        ("prepare", "random_erasing", 2),
        ("shard", "preprocessing_num_workers", -1),
        ("finetune", "per_device_train_batch_size", 0),
        ("finetune", "gradient_accumulation_steps", 0),
        ("finetune", "weight_decay", -1),
        ("finetune", "adam_beta2", 1),
        ("pretrain", "dataloader_num_workers", -1),
        ("pretrain", "cache_shortest_edge", -1),
        ("crossval", "train_fractions", [0.5, 1.5]),
    ],
)
def test_invalid_numbers_are_rejected_before_the_run(command, name, value):
    with raises(SettingsMessage.OUT_OF_BOUNDS, CommandLineError, name=name):
        read_values(command, None, {name: value})


@pytest.mark.parametrize("name", ["output_dir", "model_name_or_path", "manifest", "teacher"])
def test_urls_are_rejected_for_local_paths(name):
    with raises(SettingsMessage.URL_NOT_SUPPORTED, CommandLineError, name=name, value="s3://a/b"):
        read_values("finetune", None, FINETUNE | {"output_dir": "out"} | {name: "s3://a/b"})


def test_replaced_values_are_validated_but_not_parsed_again(tmp_path, monkeypatch):
    settings = finetune_settings(tmp_path, effective_batch_size=256, mixup=0.8)
    monkeypatch.setattr("hf_mae.settings.parse.read_values", None)
    changed = settings.replace(val_fraction=0.2, per_device_train_batch_size=16)
    assert changed.data.val_fraction == 0.2 and changed.training.gradient_accumulation_steps == 16
    assert changed.values == {**settings.values, "val_fraction": 0.2, "per_device_train_batch_size": 16}
    assert changed.overrides["val_fraction"] == 0.2 and "val_fraction" not in settings.overrides
    assert settings.data.val_fraction == 0 and settings.training.gradient_accumulation_steps == 4
    with raises(SettingsMessage.BATCH_NOT_A_MULTIPLE, CommandLineError):
        settings.replace(per_device_train_batch_size=100)
    with raises(SettingsMessage.ODD_BATCH_FOR_MIXUP, CommandLineError, batch_size=1):
        settings.replace(per_device_train_batch_size=1)


def test_each_value_is_parsed_once(monkeypatch):
    names, read = [], Option.read

    def count_and_read(option, value, location=""):
        names.append(option.name)
        return read(option, value, location)

    monkeypatch.setattr(Option, "read", count_and_read)
    args = Parser("finetune").parse(["a_model", "a_dataset", "--val_fraction", "0.2", "--seed", "3"])
    build_settings(args.options).replace(output_dir="runs/x")
    given = ["data_dir", "model_name_or_path", "seed", "val_fraction"]
    assert sorted(name for name in names if name in given) == given


@pytest.mark.parametrize(
    "command, flags, message",
    [
        ("evaluate", {"fit_uncertainty": True}, SettingsMessage.FIT_UNCERTAINTY_WITHOUT_OUTPUT),
        ("explain", {"output_dir": "out"}, SettingsMessage.EXPLAIN_WITHOUT_IMAGES),
        ("audit", {"output_dir": "out"}, SettingsMessage.AUDIT_DATA_MISSING),
        ("cache", {"action": "remove"}, SettingsMessage.NAME_REQUIRED),
        ("report", {}, SettingsMessage.REPORT_WITHOUT_RUNS),
        ("shard", {"data_dir": "x"}, SettingsMessage.SHARD_OUTPUT_MISSING),
        ("pretrain", {"model_name_or_path": "m", "patch_size": 8}, SettingsMessage.SIZE_WITH_CHECKPOINT),
        ("prepare", {"agreement": "triple"}, SettingsMessage.BENCHMARK_OPTIONS_WITHOUT_BENCHMARK),
        ("evaluate", {"benchmark": "limuc", "manifest": "x.csv"}, SettingsMessage.MANIFEST_WITH_BENCHMARK),
        ("finetune", {"benchmark": "limuc", "class_order": ["a", "b"]}, SettingsMessage.CLASS_ORDER_WITH_BENCHMARK),
        ("finetune", {"cache_limit": "large"}, SettingsMessage.INVALID_SIZE),
        ("crossval", {"folds": "many"}, SettingsMessage.INVALID_FOLDS),
    ],
)
def test_contradictions_are_found_before_torch_is_imported(command, flags, message):
    required = {name: "x" for name in COMMANDS[command].required}
    with raises(message, CommandLineError):
        parse_options(command, None, required | flags)


@pytest.mark.parametrize("command", ["crossval", "search"])
def test_several_models_cannot_be_pushed(command, tmp_path):
    with raises(SettingsMessage.SEVERAL_MODELS_CANNOT_BE_PUSHED, command=command):
        parse_settings(command, output_dir=str(tmp_path), push_to_hub=True, **FINETUNE)


@pytest.mark.parametrize("value", ["1:100", "1 : 100", "1/101", " 0.5:50", 1 / 101, str(1 / 101), f"{100 / 101!r} %"])
@pytest.mark.parametrize("command", ["report", "evaluate", "finetune"])
def test_a_prevalence_has_the_same_spellings_in_all_commands(command, value):
    """1:100 is one positive image for 100 negative ones."""
    assert command_options(command)["prevalence"].read(value) == pytest.approx(1 / 101, rel=1e-12)


@pytest.mark.parametrize(
    "value", ["0", "1", "100%", "1:0", "0:1", "1/0", "-1%", "nan", "1/inf", "1:2:3", "", "%", True, 110]
)
def test_a_value_that_is_not_a_prevalence_is_rejected(value):
    with raises(SettingsMessage.INVALID_PREVALENCE, name="prevalence"):
        command_options("report")["prevalence"].read(value)
