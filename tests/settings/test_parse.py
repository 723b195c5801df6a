"""Parsing of recipes, flags and Python arguments into dataclasses."""

import pytest
import yaml
from support.messages import raises

from hf_mae.errors import CommandLineError
from hf_mae.settings.commands import COMMANDS, command_options
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.parse import check_paths_exist, parse_settings, read_values
from hf_mae.settings.recipes import RECIPES_DIR, recipe_names, render_recipe

FINETUNE = {"model_name_or_path": "a.pth", "data_dir": "images"}


def finetune_settings(tmp_path, **flags):
    return parse_settings("finetune", output_dir=str(tmp_path), **FINETUNE | flags)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_set_the_fields_of_the_dataclasses(name, tmp_path):
    command = "pretrain" if "pretrain" in name else "finetune"
    settings = parse_settings(command, recipe=name, output_dir=str(tmp_path), **FINETUNE)
    for key, value in yaml.safe_load((RECIPES_DIR / f"{name}.yaml").read_text()).items():
        parsed = getattr(next(arguments for arguments in settings.arguments if hasattr(arguments, key)), key)
        expected = value if isinstance(value, list) or not isinstance(parsed, list) else [value]
        assert parsed == type(parsed)(expected), key


def test_flags_override_the_recipe(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("layer_decay: 0.5\nlearning_rate: 1e-3\nclass_weights: balanced\nmean_std: [0, 0, 0, 1, 1, 1]\n")
    settings = finetune_settings(tmp_path, recipe=str(recipe), layer_decay=0.6)
    _, data, args, _ = settings.arguments
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
    assert again.overrides == first.overrides and again.arguments[:2] == first.arguments[:2]


@pytest.mark.parametrize(
    "text, message, attributes",
    [
        ("layer_deacy: 0.5", SettingsMessage.UNKNOWN_FLAG_IN_RECIPE, {"suggestion": " (did you mean layer_decay?)"}),
        ("transforms: imagenette", SettingsMessage.INVALID_CHOICE, {"name": "transforms", "value": "imagenette"}),
        ("num_train_epochs: many", SettingsMessage.INVALID_NUMBER, {"name": "num_train_epochs", "value": "many"}),
        ("seed: 1.5", SettingsMessage.INVALID_INTEGER, {"name": "seed", "value": 1.5}),
        ("- a\n- b", SettingsMessage.RECIPE_NOT_A_MAPPING, {}),
        ("a: [", SettingsMessage.RECIPE_NOT_YAML, {}),
        ("a: &x [1]\nb: *x", SettingsMessage.RECIPE_WITH_ALIASES, {}),
    ],
)
def test_invalid_recipes_are_rejected(tmp_path, text, message, attributes):
    (tmp_path / "bad.yaml").write_text(text)
    with raises(message, CommandLineError, **attributes):
        parse_settings("finetune", recipe=str(tmp_path / "bad.yaml"))


def test_python_arguments_are_checked_like_flags(tmp_path):
    with raises(SettingsMessage.UNKNOWN_FLAG, name="layer_deacy", suggestion=" (did you mean layer_decay?)"):
        finetune_settings(tmp_path, layer_deacy=0.5)
    with raises(SettingsMessage.SEED_OUT_OF_RANGE, CommandLineError, value=-1):
        finetune_settings(tmp_path, seed=-1)
    with raises(SettingsMessage.BEST_MODEL_WITHOUT_EVALUATION, CommandLineError):
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


def test_only_local_data_must_exist():
    check_paths_exist({"data_dir": "s3://bucket/deep/in/it"})
    with raises(SettingsMessage.PATH_NOT_FOUND, path="bucket/deep/in/it"):
        check_paths_exist({"data_dir": "bucket/deep/in/it"})
