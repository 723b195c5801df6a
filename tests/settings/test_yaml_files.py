"""Recipes and benchmarks are read by one function, whose limits hold before values are built."""

import os
import time

import pytest
from support.messages import raises

from hf_mae.errors import CommandLineError
from hf_mae.settings.benchmarks import find_benchmark
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.parse import read_values

FILES = (
    ("- a\n- b", SettingsMessage.YAML_NOT_A_MAPPING),
    ("a", SettingsMessage.YAML_NOT_A_MAPPING),
    ("a: [", SettingsMessage.YAML_INVALID),
    ("a: 1\n---\nb: 2", SettingsMessage.YAML_INVALID),
    ("a: \x07", SettingsMessage.YAML_INVALID),
    ("a: " + "[" * 50 + "]" * 50, SettingsMessage.YAML_INVALID),
    ("a: " + "[" * 200_000, SettingsMessage.YAML_INVALID),
    ("a: " + "{b: " * 200_000, SettingsMessage.YAML_INVALID),
    ("a: " + "9" * 500_000, SettingsMessage.YAML_INVALID),
    ("a: 0x" + "f" * 500_000, SettingsMessage.YAML_INVALID),
    ("a: 1" + ":59" * 300_000, SettingsMessage.YAML_INVALID),  # a number of base 60
    ("a: &a [x]\nb: *a", SettingsMessage.YAML_WITH_ALIASES),
    ("a: &a [*a]", SettingsMessage.YAML_WITH_ALIASES),
    ("a: &a {b: 1}\nc:\n  <<: *a", SettingsMessage.YAML_WITH_ALIASES),
    ("a: &a [x]\nb: [{c: [*a]}]", SettingsMessage.YAML_WITH_ALIASES),
    ("a: 1\nb: 0\na: 2", SettingsMessage.YAML_REPEATS_NAMES),
    ("x: {a: 1, 'a': 1}", SettingsMessage.YAML_REPEATS_NAMES),
    ("x: [{a: [1], b: {}, a: [2]}]", SettingsMessage.YAML_REPEATS_NAMES),
    ("a: " + "x" * 2_000_000, SettingsMessage.YAML_UNREADABLE),
)


def read_recipe_of_finetune(path):
    read_values("finetune", path, {"model_name_or_path": "x", "data_dir": "y", "output_dir": "z"})


@pytest.mark.parametrize("read", [read_recipe_of_finetune, find_benchmark])
def test_limits(tmp_path, read):
    path = tmp_path / "mine.yaml"
    begin = time.monotonic()
    for text, message in FILES:
        path.write_text(text)
        with raises(message, CommandLineError, path=path):
            read(str(path))
    path.write_bytes(b"a: \xff")
    with raises(SettingsMessage.YAML_INVALID, CommandLineError, path=path):
        read(str(path))
    assert time.monotonic() - begin < 10


def test_a_file_that_is_no_file_is_not_opened(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "fifo.yaml")
    for name in ("folder.yaml", "fifo.yaml", "absent.yaml"):
        with raises(SettingsMessage.YAML_UNREADABLE, CommandLineError, path=tmp_path / name):
            find_benchmark(str(tmp_path / name))


def test_no_object_is_made(tmp_path):
    (tmp_path / "x.yaml").write_text("title: !!python/object/apply:os.getcwd []")
    with raises(SettingsMessage.YAML_INVALID):
        read_recipe_of_finetune(str(tmp_path / "x.yaml"))
    with raises(SettingsMessage.BENCHMARK_INVALID):
        find_benchmark(str(tmp_path / "x.yaml"))


def test_the_names_that_are_repeated_are_listed(tmp_path):
    (tmp_path / "x.yaml").write_text("seed: 1\nmixup: 0\nseed: 2\nmixup: 1")
    with raises(SettingsMessage.YAML_REPEATS_NAMES, names=["seed", "mixup"]):
        read_recipe_of_finetune(str(tmp_path / "x.yaml"))
