"""The command line itself: quick help, mistyped verbs, recipes."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import yaml
from conftest import run_cli

from hf_mae import arguments
from hf_mae.cli import VERBS, main
from hf_mae.errors import UsageError
from hf_mae.finetune import machine_defaults
from hf_mae.recipe import RECIPES, parse, recipe_names

FINETUNE = [arguments.ModelArguments, arguments.DataArguments, arguments.FinetuningArguments]


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in VERBS)
    assert main([]) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    assert "usage: hf-mae" in run_cli(verb, "--help").stdout


def test_help_and_the_package_import_no_torch():
    code = (
        "import sys, hf_mae, hf_mae.cli, hf_mae.conversion; hf_mae.cli.main(['--help']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_a_mistyped_verb_names_the_nearest():
    assert "did you mean finetune?" in run_cli("fintune", status=2).stderr


def test_the_console_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="hf-mae")
    assert command.load() is main


def test_public_names_are_there():
    import hf_mae
    import hf_mae.conversion

    for module in (hf_mae, hf_mae.conversion):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError):
            _ = module.no_such_name


def test_recipes_are_listed_and_shown(capsys):
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for name in recipe_names():
        assert name in listed
        assert main(["recipes", "show", name]) == 0
        shown = capsys.readouterr().out
        assert shown == (RECIPES / f"{name}.yaml").read_text() and f"--recipe {name}" in shown


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_fills_the_dataclasses(name, tmp_path):
    kinds = FINETUNE
    if "pretrain" in name:
        from hf_mae import pretrain

        kinds = [pretrain.PretrainingModelArguments, pretrain.PretrainingDataArguments, arguments.PretrainingArguments]
    filled, _ = parse("x", "", kinds, ["--recipe", name, "--output_dir", str(tmp_path)], machine_defaults())
    for key, value in yaml.safe_load((RECIPES / f"{name}.yaml").read_text()).items():
        holder = next(part for part in filled if hasattr(part, key))
        filled_value = getattr(holder, key)
        expected = value if isinstance(value, list) or not isinstance(filled_value, list) else [value]
        assert filled_value == type(filled_value)(expected), key


def test_flags_win_over_the_recipe_and_dashes_are_accepted(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("layer_decay: 0.5\nlearning_rate: 1e-3\nclass_weights: balanced\nmean_std: [0, 0, 0, 1, 1, 1]\n")
    argv = ["--recipe", str(recipe), "--layer-decay", "0.6", "--output_dir", str(tmp_path)]
    (_, data, args), given = parse("finetune", "", FINETUNE, argv, {"save_total_limit": 2})
    assert (args.layer_decay, args.learning_rate, args.class_weights) == (0.6, 1e-3, "balanced")
    assert data.mean_std == ["0", "0", "0", "1", "1", "1"] and args.save_total_limit == 2
    assert given["layer_decay"] == 0.6 and "save_total_limit" not in given


@pytest.mark.parametrize(
    "text, message",
    [
        ("layer_deacy: 0.5", r"unknown name: layer_deacy \(did you mean layer_decay\?\)"),
        ("transforms: imagenette", "transforms the value 'imagenette'; it takes one of"),
        ("num_train_epochs: many", "num_train_epochs the value 'many', which it cannot take"),
        ("- a\n- b", "must hold `name: value` lines"),
        ("a: [", "is no YAML"),
    ],
)
def test_faulty_recipes(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        parse("finetune", "", FINETUNE, ["--recipe", str(tmp_path / "bad.yaml")])
