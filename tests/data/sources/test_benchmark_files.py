"""Benchmark files: a user's own benchmark, and messages about invalid files."""

import pytest
import yaml
from support.cli_process import run_cli
from support.messages import raises, shows
from support.skeletons import make_linked_tree

from hf_mae.cli.main import main
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.benchmarks import find_benchmark

SETTINGS = {
    "title": "Mine",
    "classes": ["a", "b"],
    "homepage": "here",
    "split_folders": {"tr": "train", "te": "test"},
    "group_pattern": "^(p[0-9]+)_",
    "protocols": {"official": {"train": 4, "test": 4}},
    "published_results": [
        {"method": "M", "protocol": "official", "ranked": True, "scores": {"macro_f1": "50.5±1.0"}, "source": "S"}
    ],
}


def test_a_benchmark_file_can_be_used_for_training(tmp_path, tiny_pth):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    names = [f"{part}/{label}/p{number}_{number}.jpg" for part in ("tr", "te") for label in "ab" for number in range(2)]
    root = make_linked_tree(tmp_path / "images", names)
    done = run_cli(
        *("finetune", "--benchmark", path, "--data_dir", root, "--output_dir", tmp_path / "run"),
        *("--model_name_or_path", tiny_pth, "--max_steps", 1, "--image_size", 16),
    )
    assert "Mine: train 4, test 4 (as published)" in done.stderr
    assert "| M |  |  |  | 50.50" in done.stdout.replace("**", "") or "50.5 ± 1.0" in done.stdout
    printed = run_cli("benchmarks", path).stdout
    assert "Mine" in printed and "images are in class folders below te/ and tr/" in " ".join(printed.split())


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("classes", "a", "a list"),
        ("ordered", "yes", "true or false"),
        ("folds", -1, "an integer of at least 0"),
        ("split_folders", {"tr": "training"}, "one of train, validation, test, or the number of a half (1 or 2)"),
        ("protocols", {"official": {"trian": 3}}, "numbers of images per split (train, validation, test, or all)"),
        ("title", None, "text"),
    ],
)
def test_values_of_the_wrong_type_are_rejected(name, value, expected, tmp_path):
    path = write_benchmark(tmp_path, {name: value})
    with raises(DataMessage.BENCHMARK_INVALID_VALUE, location=path, name=name, value=value, expected=expected):
        find_benchmark(str(path))


@pytest.mark.parametrize(
    "change, message, attributes",
    [
        (
            {"clases": []},
            DataMessage.BENCHMARK_UNKNOWN_SETTING,
            {"name": "clases", "suggestion": " (did you mean classes?)"},
        ),
        ({"classes": ["a", "a"]}, DataMessage.BENCHMARK_DUPLICATE_CLASSES, {}),
        (
            {"protocols": {"other": {"train": 3}}},
            DataMessage.BENCHMARK_UNKNOWN_PROTOCOL,
            {"method": "M", "protocol": "official"},
        ),
        ({"published_results": [{"method": "M"}]}, DataMessage.BENCHMARK_MISSING_SETTING, {"name": "protocol"}),
        (
            {"published_results": [SETTINGS["published_results"][0] | {"scores": {"macro_f1": "high"}}]},
            DataMessage.BENCHMARK_INVALID_VALUE,
            {"name": "scores", "expected": "percentages such as 86.20±0.20, not high"},
        ),
        ({"positive": ["c"]}, DataMessage.BENCHMARK_UNKNOWN_CLASS, {"name": "c"}),
        ({"key": "path"}, DataMessage.BENCHMARK_INVALID_CHOICE, {"name": "key", "value": "path"}),
        ({"group_pattern": "("}, DataMessage.BENCHMARK_INVALID_GROUP_PATTERN, {}),
        ({"group_pattern": "p"}, DataMessage.BENCHMARK_PATTERN_WITHOUT_GROUP, {"pattern": "p"}),
        (
            {"split_files": [{"name": "x", "url": "u", "sha256": "1"}]},
            DataMessage.BENCHMARK_INVALID_SHA256,
            {"name": "x"},
        ),
        ({"split_table": {"lable": "x"}}, DataMessage.BENCHMARK_UNKNOWN_SETTING, {"name": "lable"}),
    ],
)
def test_inconsistent_files_are_rejected(change, message, attributes, tmp_path):
    with raises(message, **attributes):
        find_benchmark(str(write_benchmark(tmp_path, change)))


def write_benchmark(folder, change):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | change))
    return path


def test_files_that_are_not_benchmarks_are_rejected(tmp_path, capsys):
    for text, message in (
        ("- a", DataMessage.BENCHMARK_NOT_A_MAPPING),
        ("a: [", DataMessage.BENCHMARK_NOT_YAML),
    ):
        path = tmp_path / f"{len(text)}.yaml"
        path.write_text(text)
        with raises(message):
            find_benchmark(str(path))
    assert main(["benchmarks", str(tmp_path / "absent.yaml")]) == 1
    assert shows(capsys.readouterr().err, DataMessage.BENCHMARK_UNREADABLE, path=tmp_path / "absent.yaml")
    assert main(["benchmarks", "limuc"]) == 1
    printed = capsys.readouterr().err
    assert shows(printed, DataMessage.UNKNOWN_BENCHMARK, name="limuc", suggestion=" (did you mean limuc-4?)")
