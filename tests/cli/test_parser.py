"""The parser of all commands: flags, booleans, positional arguments, unknown flags, help."""

import dataclasses

import pytest
from support.messages import raises
from transformers import TrainingArguments

from hf_mae import FinetuningArguments, PretrainingArguments
from hf_mae.cli.flag_aliases import ALIASES_BY_FLAG
from hf_mae.cli.messages import CliMessage
from hf_mae.cli.parser import HELP_WIDTH, Parser
from hf_mae.errors import CommandLineError
from hf_mae.settings.commands import COMMANDS, command_options
from hf_mae.settings.messages import SettingsMessage

FINETUNE = ["--model_name_or_path", "owner/model", "--data_dir", "owner/data", "--output_dir", "out"]


def flags(command: str, *argv: str) -> dict:
    return Parser(command).parse([*argv]).options.values


@pytest.mark.parametrize(
    "argv, value",
    [
        (["--tta"], True),
        (["--tta", "true"], True),
        (["--tta=yes"], True),
        (["--tta", "false"], False),
        (["--no_tta"], False),
        (["--no-tta"], False),
        ([], None),
    ],
)
def test_booleans_have_several_spellings(argv, value):
    parsed = flags("predict", *argv, "a.jpg", "--model_name_or_path", "owner/model")
    assert parsed.get("tta") is value and parsed["images"] == ["a.jpg"]


def test_positionals_may_follow_flags_and_values_of_booleans():
    parsed = flags(
        "predict", "a.jpg", "--top_k", "1", "b.jpg", "--bf16", "false", "c.jpg", "--model-name-or-path", "o/m"
    )
    assert parsed["images"] == ["a.jpg", "b.jpg", "c.jpg"] and parsed["bf16"] is False and parsed["top_k"] == 1
    parsed = flags("explain", "--output_dir", "out", "runs/first", "--target=polyp", "a.jpg", "b.jpg")
    assert parsed["model_name_or_path"] == "runs/first" and parsed["images"] == ["a.jpg", "b.jpg"]
    parsed = flags("explain", "a.jpg", "--model_name_or_path", "runs/first", "--output_dir", "out")
    assert parsed["images"] == ["a.jpg"]
    parsed = flags("convert", "--verify", "owner/mae", "--num-labels", "3", "folder")
    assert (parsed["model_name_or_path"], parsed["output_dir"], parsed["num_labels"], parsed["verify"]) == (
        "owner/mae",
        "folder",
        3,
        True,
    )


def test_dashes_and_equal_signs_are_accepted():
    one = flags("finetune", *FINETUNE, "--layer-decay", "0.6", "--class_weights", "1", "2.5")
    two = flags("finetune", *[word.replace("_", "-") if word[:2] == "--" else word for word in FINETUNE],
                "--layer_decay=0.6", "--class-weights", "1", "2.5")  # fmt: skip
    assert one == two and one["layer_decay"] == 0.6 and one["class_weights"] == ["1", "2.5"]


def test_negative_numbers_are_values():
    assert flags("finetune", *FINETUNE, "--max_steps", "-1")["max_steps"] == -1


def test_all_unknown_flags_are_reported_with_suggestions():
    with raises(CliMessage.UNRECOGNIZED_FLAGS, CommandLineError) as caught:
        flags("finetune", *FINETUNE, "--lr", "1e-3", "--epochs", "3", "--batch-size=8", "--laier_decay", "1", "--xyzzy")
    assert caught.value.attributes["flags"] == [
        "--lr (here it is --learning_rate or --base_learning_rate)",
        "--epochs (here it is --num_train_epochs)",
        "--batch-size (here it is --per_device_train_batch_size)",
        "--laier_decay (did you mean --layer_decay?)",
        "--xyzzy",
    ]
    assert caught.value.status == 2


def test_suggested_flags_exist():
    known = {name for command in COMMANDS for name in command_options(command)}
    assert set(ALIASES_BY_FLAG) <= known, set(ALIASES_BY_FLAG) - known
    names = {name for names in ALIASES_BY_FLAG.values() for name in names.split()}
    assert names & set(command_options("finetune")) == {"output_dir"}  # suggested for --output


@pytest.mark.parametrize(
    "command, argv, message, attributes",
    [
        (
            "finetune",
            ["--data_dir", "x"],
            SettingsMessage.MISSING_ARGUMENTS,
            {"names": ["CHECKPOINT (--model_name_or_path)"]},
        ),
        ("finetune", [*FINETUNE, "--pooling", "max"], SettingsMessage.INVALID_CHOICE, {"name": "pooling"}),
        ("finetune", [*FINETUNE, "--num_train_epochs", "many"], SettingsMessage.INVALID_NUMBER, {"value": "many"}),
        ("finetune", [*FINETUNE, "--seed", "0.5"], SettingsMessage.INVALID_INTEGER, {"value": "0.5"}),
        ("finetune", [*FINETUNE, "--bf16=perhaps"], SettingsMessage.INVALID_BOOLEAN, {"value": "perhaps"}),
        ("finetune", [*FINETUNE, "--layer_decay"], CliMessage.INVALID_USAGE, {"program": "hf-mae finetune"}),
        (
            "finetune",
            [*FINETUNE, "stray"],
            SettingsMessage.UNRECOGNIZED_ARGUMENTS,
            {"values": "stray", "usage": "hf-mae finetune CHECKPOINT DATA [flags]"},
        ),
        (
            "convert",
            ["a", "b", "c"],
            SettingsMessage.UNRECOGNIZED_ARGUMENTS,
            {"values": "c", "usage": "hf-mae convert CHECKPOINT OUTPUT_DIR [flags]"},
        ),
        ("convert", ["owner/mae"], SettingsMessage.MISSING_ARGUMENTS, {"names": ["OUTPUT_DIR (--output_dir)"]}),
        (
            "predict",
            ["--model_name_or_path", "o/m"],
            SettingsMessage.MISSING_ARGUMENTS,
            {"names": ["IMAGES (--images)"]},
        ),
        (
            "finetune",
            ["--no_layer_decay"],
            CliMessage.UNRECOGNIZED_FLAGS,
            {"flags": ["--no_layer_decay (did you mean --layer_decay?)"]},
        ),
    ],
)
def test_invalid_command_lines_are_rejected_with_status_2(command, argv, message, attributes):
    with raises(message, CommandLineError, **attributes) as caught:
        Parser(command).parse(argv)
    assert caught.value.status == 2 and "\n" not in str(caught.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_common_flags_and_help_all_lists_every_flag(command, capsys):
    text, complete_text = Parser(command).help_text(), Parser(command).help_text(show_all=True)
    options, positionals = command_options(command), COMMANDS[command].positionals
    assert 1 <= sum(item.show_in_help for item in options.values()) <= 22
    for name, item in options.items():
        if name in positionals:
            assert f"  {item.placeholder}" in text
        else:
            assert f"--{name}" in complete_text
            assert not item.show_in_help or f"--{name} " in text.replace("\n", " ")
    assert all(len(line) <= HELP_WIDTH for line in text.splitlines())
    with pytest.raises(SystemExit):
        Parser(command).parse(["--help"])
    assert capsys.readouterr().out.rstrip("\n") == text


def test_help_shows_defaults():
    text = Parser("finetune").help_text()
    assert "(default: 0.75)" in text and "Random seed. (default: 0)" in text
    assert "Use --help_all" in text and "--warmup_steps" not in text


@pytest.mark.parametrize("command, cls", [("finetune", FinetuningArguments), ("pretrain", PretrainingArguments)])
def test_fields_of_training_arguments_are_flags_with_their_defaults(command, cls):
    options = command_options(command)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    assert set(fields) <= set(options)
    for field in dataclasses.fields(TrainingArguments):
        has_literal = isinstance(field.default, (int, float, str, bool))
        if field.init and field.name not in COMMANDS[command].defaults and has_literal:
            if options[field.name].default is not None:  # the default is not a literal in the source of transformers
                assert options[field.name].default == fields[field.name].default, field.name
