"""One parser for all verbs: flags, booleans, words anywhere, unknown flags, help."""

import dataclasses

import pytest
from transformers import TrainingArguments

from hf_mae import FinetuningArguments, PretrainingArguments
from hf_mae.cli.flag_aliases import FLAG_ALIASES
from hf_mae.cli.parser import Parser
from hf_mae.errors import CommandLineError, UsageError
from hf_mae.settings.commands import COMMANDS, command_options

FINETUNE = ["--model_name_or_path", "owner/model", "--data_dir", "owner/data", "--output_dir", "out"]


def flags(verb: str, *argv: str) -> dict:
    return Parser(verb).parse([*argv]).flags


@pytest.mark.parametrize(
    "said, value",
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
def test_a_boolean_is_said_in_every_usual_way(said, value):
    given = flags("predict", *said, "a.jpg", "--model_name_or_path", "owner/model")
    assert given.get("tta") is value and given["images"] == ["a.jpg"]


def test_words_may_stand_anywhere_and_a_value_of_a_boolean_is_no_word():
    given = flags(
        "predict", "a.jpg", "--top_k", "1", "b.jpg", "--bf16", "false", "c.jpg", "--model-name-or-path", "o/m"
    )
    assert given["images"] == ["a.jpg", "b.jpg", "c.jpg"] and given["bf16"] is False and given["top_k"] == 1
    given = flags("explain", "--output_dir", "out", "runs/first", "--target=polyp", "a.jpg", "b.jpg")
    assert given["model_name_or_path"] == "runs/first" and given["images"] == ["a.jpg", "b.jpg"]
    given = flags("explain", "a.jpg", "--model_name_or_path", "runs/first", "--output_dir", "out")
    assert given["images"] == ["a.jpg"]
    given = flags("convert", "--verify", "owner/mae", "--num-labels", "3", "folder")
    assert (given["source"], given["destination"], given["num_labels"], given["verify"]) == (
        "owner/mae",
        "folder",
        3,
        True,
    )


def test_dashes_underscores_and_equal_signs_are_the_same():
    one = flags("finetune", *FINETUNE, "--layer-decay", "0.6", "--class_weights", "1", "2.5")
    two = flags("finetune", *[word.replace("_", "-") if word[:2] == "--" else word for word in FINETUNE],
                "--layer_decay=0.6", "--class-weights", "1", "2.5")  # fmt: skip
    assert one == two and one["layer_decay"] == 0.6 and one["class_weights"] == ["1", "2.5"]


def test_negative_numbers_are_values():
    assert flags("finetune", *FINETUNE, "--max_steps", "-1")["max_steps"] == -1


def test_all_unknown_flags_are_named_at_once_with_the_right_name():
    with pytest.raises(CommandLineError) as found:
        flags("finetune", *FINETUNE, "--lr", "1e-3", "--epochs", "3", "--batch-size=8", "--laier_decay", "1", "--xyzzy")
    message = str(found.value)
    assert "--lr (here it is --learning_rate or --base_learning_rate)" in message
    assert "--epochs (here it is --num_train_epochs)" in message
    assert "--batch-size (here it is --per_device_train_batch_size)" in message
    assert "--laier_decay (did you mean --layer_decay?)" in message
    assert "no flag --xyzzy." in message and found.value.status == 2


def test_the_table_of_known_names_leads_to_flags_that_exist():
    every = {name for verb in COMMANDS for name in command_options(verb)}
    for name, meant in FLAG_ALIASES.items():
        assert set(meant) & every, name  # of a name that transformers has changed, one is enough
    assert set(FLAG_ALIASES) & set(command_options("finetune")) == {"output_dir"}  # which other verbs call output


@pytest.mark.parametrize(
    "verb, argv, message",
    [
        ("finetune", ["--data_dir", "x"], "missing: --model_name_or_path (see"),
        ("finetune", [*FINETUNE, "--pooling", "max"], "takes one of auto, mean, cls"),
        (
            "finetune",
            [*FINETUNE, "--num_train_epochs", "many"],
            "'many', which it cannot take: it takes a finite number",
        ),
        ("finetune", [*FINETUNE, "--seed", "0.5"], "it takes a whole number"),
        ("finetune", [*FINETUNE, "--bf16=perhaps"], "it takes true or false"),
        ("finetune", [*FINETUNE, "--layer_decay"], "expected one argument"),
        ("finetune", [*FINETUNE, "stray"], "there is no place for stray: it takes X D"),
        ("convert", ["a", "b", "c"], "there is no place for c: it takes SRC DST"),
        ("convert", ["owner/mae"], "missing: --destination"),
        ("predict", ["--model_name_or_path", "o/m"], "missing: --images"),
        ("finetune", ["--no_layer_decay"], "there is no flag --no_layer_decay"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_with_status_2(verb, argv, message):
    with pytest.raises(CommandLineError, match=message.replace("(", r"\(")) as found:
        Parser(verb).parse(argv)
    assert found.value.status == 2 and "\n" not in str(found.value)


def test_what_is_missing_on_the_disk_is_said_before_anything_is_imported(tmp_path):
    with pytest.raises(UsageError, match="no/such/folder does not exist") as found:
        flags("evaluate", "--model_name_or_path", "owner/model", "--data_dir", str(tmp_path / "no/such/folder"))
    assert found.value.status == 1
    with pytest.raises(UsageError, match=r"checkpoint\.pth does not exist"):
        flags("finetune", "--model_name_or_path", "checkpoint.pth", "--data_dir", str(tmp_path), "--output_dir", "out")


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_shows_what_people_use_with_defaults_and_help_all_the_rest(verb, capsys):
    short, whole = Parser(verb).help_text(), Parser(verb).help_text(show_all=True)
    options = command_options(verb)
    common = [name for name, item in options.items() if item.show_in_help]
    assert 1 <= len(common) <= 22
    for name, item in options.items():
        assert f"--{name}" in whole or name in COMMANDS[verb].positionals
        assert (f"--{name} " in f"{short} " or name in COMMANDS[verb].positionals) or not item.show_in_help
    with pytest.raises(SystemExit):
        Parser(verb).parse(["--help"])
    assert capsys.readouterr().out.rstrip("\n") == short


def test_help_tells_defaults():
    text = Parser("finetune").help_text()
    assert "(default: 0.75)" in text and "Seed of everything that is random. (default: 0)" in text
    assert "--help_all shows" in text and "--warmup_steps" not in text


@pytest.mark.parametrize("verb, kind", [("finetune", FinetuningArguments), ("pretrain", PretrainingArguments)])
def test_every_field_of_training_arguments_is_a_flag_with_its_own_default(verb, kind):
    options = command_options(verb)
    ours = {field.name: field for field in dataclasses.fields(kind) if field.init}
    assert set(ours) <= set(options)
    for field in dataclasses.fields(TrainingArguments):
        if (
            field.init
            and field.name not in COMMANDS[verb].defaults
            and isinstance(field.default, (int, float, str, bool))
        ):
            if options[field.name].default is not None:  # of those that are no literal nothing is known
                assert options[field.name].default == ours[field.name].default, field.name
