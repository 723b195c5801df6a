"""Missing inputs, swapped arguments and outputs that cannot be written are reported before anything is imported."""

import errno
import os
import subprocess
import sys
import time

import pytest
from support.messages import raises, shows

from hf_mae.errors import UsageError
from hf_mae.files.messages import FileMessage
from hf_mae.settings import inputs
from hf_mae.settings.commands import COMMANDS
from hf_mae.settings.inputs import check_inputs, check_outputs
from hf_mae.settings.messages import SettingsMessage


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run, images, a checkpoint file and a table."""
    for path in ("run/config.json", "images/a/1.png", "images/a/2.png", "ck.pth", "table.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


INPUTS = [
    (command.name, name)
    for command in COMMANDS.values()
    for name in command.positionals
    if name in (*inputs.MODEL_OPTIONS, *inputs.DATA_OPTIONS)
]


@pytest.mark.parametrize(("command", "name"), INPUTS)
def test_a_missing_input_of_every_command_is_reported(folder, command, name):
    values = {other: "run" if other in inputs.MODEL_OPTIONS else "images" for other in COMMANDS[command].positionals}
    for missing in ("nowhere", "nowhere/", "./a/b/c", "absent.pth"):
        given = [missing] if name in ("runs", "images") else missing
        with pytest.raises(UsageError) as caught:
            check_inputs(command, values | {name: given})
        assert caught.value.code in (SettingsMessage.PATH_NOT_FOUND, SettingsMessage.NAME_NOT_FOUND)


@pytest.mark.parametrize("name", inputs.FILE_OPTIONS)
def test_files_of_options_must_exist(folder, name):
    check_inputs("finetune", {name: "table.csv"})
    with raises(SettingsMessage.PATH_NOT_FOUND, path="absent.csv"):
        check_inputs("finetune", {name: ["absent.csv"] if name == "split_file" else "absent.csv"})


def test_what_may_exist_elsewhere_is_not_rejected(folder):
    for model in ("ck.pth", "run", "owner/model", "hf-hub:timm/x", "mae_pretrain_vit_base", inputs.RANDOM_WEIGHTS):
        for data in ("images", "owner/dataset", "s3://bucket/deep/in/it", "table.csv"):
            check_inputs("finetune", {"model_name_or_path": model, "data_dir": data})
    for images in (["images", "absent.png"], ["*.png"], ["https://host/a.tar"], ["table.csv/member.png"]):
        check_inputs("predict", {"model_name_or_path": "run", "images": images})
    with raises(SettingsMessage.NAME_NOT_FOUND, suggestion=" (did you mean mae_pretrain_vit_base?)"):
        check_inputs("finetune", {"model_name_or_path": "mae_pretrained_vit_base", "data_dir": "images"})
    with raises(SettingsMessage.PATH_NOT_FOUND):
        check_inputs("report", {"runs": ["owner/model"]})


@pytest.mark.parametrize(
    ("command", "values", "corrected"),
    [
        ("finetune", {"model_name_or_path": "images", "data_dir": "ck.pth"}, "ck.pth images"),
        ("evaluate", {"model_name_or_path": "images", "data_dir": "run", "tta": True}, "run images --tta"),
        ("evaluate", {"model_name_or_path": "owner/data", "data_dir": "ck.pth"}, "ck.pth owner/data"),
        ("predict", {"model_name_or_path": "images", "images": ["a b", "run"]}, "run 'a b' images"),
        ("probe", {"model_name_or_path": "table.csv", "data_dir": "run"}, "run table.csv"),
        ("convert", {"model_name_or_path": "out", "output_dir": "ck.pth"}, "ck.pth out"),
        ("export", {"model_name_or_path": "out.pth", "output": "run"}, "run out.pth"),
        (
            "distill",
            {"teacher": "images", "model_name_or_path": "ck.pth", "data_dir": "run", "output_dir": "o"},
            "run ck.pth images --output_dir o",
        ),
    ],
)
def test_swapped_arguments_are_recognized(folder, command, values, corrected):
    with raises(SettingsMessage.ARGUMENTS_SWAPPED, command=f"hf-mae {command} {corrected}"):
        check_inputs(command, values)


def test_arguments_in_the_right_order_are_not_swapped(folder):
    check_inputs("convert", {"model_name_or_path": "ck.pth", "output_dir": "run"})
    check_inputs("export", {"model_name_or_path": "run", "output": "ck.pth"})
    check_inputs("finetune", {"model_name_or_path": "owner/model", "data_dir": "run"})


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_outputs_that_cannot_be_written_are_reported(folder, monkeypatch, number):
    check_outputs({"output_dir": "new/folder", "output": "table.csv", "features": "new/features.npz"})
    assert sorted(os.listdir(folder)) == ["ck.pth", "images", "run", "table.csv"]
    monkeypatch.setattr(inputs, "find_write_error", lambda folder: os.strerror(number))
    for values in ({"output_dir": "new/folder"}, {"output": "new.csv"}, {"features": "x.npz"}, {"output_dir": "run"}):
        with raises(FileMessage.CANNOT_WRITE, reason=os.strerror(number)):
            check_outputs(values)
    check_outputs({"output": "table.csv"})  # the file itself can be written


def test_the_command_line_reports_missing_inputs_in_a_second(folder):
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "hf_mae", "evaluate", "nowhere", "nowhere"], capture_output=True, text=True
    )
    assert result.returncode == 1 and shows(result.stderr, SettingsMessage.NAME_NOT_FOUND, name="nowhere")
    assert len(result.stderr.splitlines()) == 1 and time.perf_counter() - started < 10
