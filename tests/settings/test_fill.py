"""Recipes, flags and arguments of workflows -> dataclasses."""

import pytest
import yaml

from hf_mae.errors import CommandLineError, UsageError
from hf_mae.settings.commands import COMMANDS, command_options
from hf_mae.settings.parse import check_paths_exist, parse_settings, read_values
from hf_mae.settings.recipes import RECIPES_DIR, recipe_names, render_recipe

FINETUNE = {"model_name_or_path": "a.pth", "data_dir": "images"}


def finetuning(tmp_path, **flags):
    return parse_settings("finetune", output_dir=str(tmp_path), **FINETUNE | flags)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_fills_the_dataclasses(name, tmp_path):
    verb = "pretrain" if "pretrain" in name else "finetune"
    settings = parse_settings(verb, recipe=name, output_dir=str(tmp_path), **FINETUNE)
    for key, value in yaml.safe_load((RECIPES_DIR / f"{name}.yaml").read_text()).items():
        holder = next(part for part in settings.arguments if hasattr(part, key))
        filled = getattr(holder, key)
        expected = value if isinstance(value, list) or not isinstance(filled, list) else [value]
        assert filled == type(filled)(expected), key


def test_flags_win_over_the_recipe(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("layer_decay: 0.5\nlearning_rate: 1e-3\nclass_weights: balanced\nmean_std: [0, 0, 0, 1, 1, 1]\n")
    settings = finetuning(tmp_path, recipe=str(recipe), layer_decay=0.6)
    _, data, args, _ = settings.arguments
    assert (args.layer_decay, args.learning_rate, args.class_weights) == (0.6, 1e-3, "balanced")
    assert data.mean_std == ["0", "0", "0", "1", "1", "1"] and args.save_total_limit == 2
    assert settings.overrides["layer_decay"] == 0.6 and "save_total_limit" not in settings.overrides


def test_the_recipe_of_a_run_repeats_it(tmp_path):
    first = finetuning(tmp_path, layer_decay=0.6, class_weights=["1", "2"], bf16=True, resume_from_checkpoint="last")
    assert "resume_from_checkpoint" not in first.overrides
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(render_recipe(first.overrides, {"versions": "x"}))
    again = parse_settings("finetune", recipe=str(recipe))
    assert again.overrides == first.overrides and again.arguments[:2] == first.arguments[:2]


@pytest.mark.parametrize(
    "text, message",
    [
        ("layer_deacy: 0.5", r"unknown name: layer_deacy \(did you mean layer_decay\?\)"),
        ("transforms: imagenette", "transforms the value 'imagenette'; it takes one of"),
        ("num_train_epochs: many", "num_train_epochs the value 'many', which it cannot take"),
        ("seed: 1.5", "seed the value 1.5, which it cannot take: it takes a whole number"),
        ("- a\n- b", "must hold `name: value` lines"),
        ("a: [", "is no YAML"),
    ],
)
def test_faulty_recipes(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(CommandLineError, match=message):
        parse_settings("finetune", recipe=str(tmp_path / "bad.yaml"))


def test_a_notebook_is_told_as_the_shell_is(tmp_path):
    with pytest.raises(CommandLineError, match=r"finetune takes no layer_deacy \(did you mean layer_decay\?\)"):
        finetuning(tmp_path, layer_deacy=0.5)
    with pytest.raises(CommandLineError, match="seed must lie between 0 and"):
        finetuning(tmp_path, seed=-1)
    with pytest.raises(CommandLineError, match="load_best_model_at_end|strategy"):
        finetuning(tmp_path, eval_strategy="no")


@pytest.mark.parametrize("name", COMMANDS)
def test_numbers_beyond_their_bounds_are_refused_and_every_default_is_within_them(name):
    options = command_options(name)
    for option in (one for one in options.values() if one.bounds):
        option.read(option.default, "a test")
        beyond = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
        for word, bound in option.bounds.items():
            with pytest.raises(CommandLineError, match=f"--{option.name} must .*{bound}"):
                option.read(bound + beyond[word], "a test")


@pytest.mark.parametrize(
    "verb, name, value",
    [
        ("evaluate", "batch_size", 0),
        ("evaluate", "num_workers", -1),
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
def test_numbers_that_would_fail_late_or_do_nothing_are_refused_at_once(verb, name, value):
    with pytest.raises(CommandLineError, match=f"--{name} must (be at least|be above|lie between)"):
        read_values(verb, None, {name: value})


@pytest.mark.parametrize("name", ["output_dir", "model_name_or_path", "manifest", "teacher"])
def test_a_url_where_only_this_machine_will_do(name):
    with pytest.raises(CommandLineError, match=f"--{name} s3://a/b is a URL.*name a place on this machine"):
        read_values("finetune", None, FINETUNE | {"output_dir": "out"} | {name: "s3://a/b"})


def test_data_may_lie_behind_a_url():
    check_paths_exist({"data_dir": "s3://bucket/deep/in/it"})
    with pytest.raises(UsageError, match="deep/in/it does not exist"):
        check_paths_exist({"data_dir": "bucket/deep/in/it"})
