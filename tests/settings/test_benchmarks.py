"""Benchmark files: a user's own benchmark, and messages about invalid files."""

import pytest
import yaml
from support.cli_process import run_cli
from support.messages import raises, shows
from support.skeletons import make_linked_tree

from hf_mae.cli.main import main
from hf_mae.errors import CommandLineError
from hf_mae.settings.benchmarks import BENCHMARKS, find_benchmark
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.parse import parse_settings

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
    assert "Mine: train 4, test 4 (as published: official)" in done.stderr
    assert "| M |  |  |  | 50.50" in done.stdout.replace("**", "") or "50.5 ± 1.0" in done.stdout
    printed = run_cli("benchmarks", path).stdout
    assert "Mine" in printed and "images are in class folders below te/ and tr/" in " ".join(printed.split())


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"classes": "a"}, "`$.classes`"),
        ({"ordered": "yes"}, "`$.ordered`"),
        ({"folds": -1}, "`$.folds`"),
        ({"split_folders": {"tr": "training"}}, "`$.split_folders[...]`"),
        ({"protocols": {"official": {"trian": 3}}}, "`$.protocols[...]`"),
        ({"protocols": {}}, "`$.protocols`"),
        ({"clases": []}, "unknown field `clases`"),
        ({"published_results": [{"method": "M"}]}, "missing required field `protocol` - at `$.published_results[0]`"),
        (
            {"published_results": [SETTINGS["published_results"][0] | {"scores": {"macro_f1": "high"}}]},
            "`$.published_results[0].scores[...]`",
        ),
        ({"key": "path"}, "`$.key`"),
        ({"split_files": [{"name": "x", "url": "u", "sha256": "1"}]}, "`$.split_files[0].sha256`"),
        ({"split_files": [{"name": "x", "url": "u", "sha256": "0" * 64, "split": 3}]}, "`$.split_files[0].split`"),
        ({"split_table": {"lable": "x"}}, "unknown field `lable` - at `$.split_table`"),
    ],
)
def test_values_of_the_wrong_type_are_rejected(change, reason, tmp_path):
    path = write_benchmark(tmp_path, change)
    with raises(SettingsMessage.BENCHMARK_INVALID, path=path) as caught:
        find_benchmark(str(path))
    assert reason in caught.value.attributes["reason"]


@pytest.mark.parametrize(
    "change, message, attributes",
    [
        ({"classes": ["a", "a"]}, SettingsMessage.BENCHMARK_DUPLICATE_CLASSES, {}),
        (
            {"protocols": {"other": {"train": 3}}},
            SettingsMessage.BENCHMARK_UNKNOWN_PROTOCOL,
            {"method": "M", "protocol": "official"},
        ),
        ({"folds": 2, "protocols": {"official": [{}, {}, {}]}}, SettingsMessage.BENCHMARK_FOLD_COUNTS, {"count": 3}),
        ({"positive": ["c"]}, SettingsMessage.BENCHMARK_UNKNOWN_CLASS, {"name": "c"}),
        ({"group_pattern": "("}, SettingsMessage.BENCHMARK_INVALID_GROUP_PATTERN, {"pattern": "("}),
        ({"group_pattern": "p"}, SettingsMessage.BENCHMARK_INVALID_GROUP_PATTERN, {"pattern": "p"}),
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
    for text in ("title: a", ""):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        with raises(SettingsMessage.BENCHMARK_INVALID, path=path):
            find_benchmark(str(path))
    assert main(["benchmarks", str(tmp_path / "absent.yaml")]) == 2
    assert shows(capsys.readouterr().err, SettingsMessage.YAML_UNREADABLE, path=tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "argv",
    [
        ["benchmarks", "limuc"],
        ["report", "--benchmark", "limuc"],
        ["prepare", "x", "--benchmark", "limuc"],
        ["audit", "x", "--output_dir", "y", "--benchmark", "limuc"],
        *(
            [name, "x", "x", "--output_dir", "y", "--benchmark", "limuc"]
            for name in ("finetune", "evaluate", "crossval")
        ),
    ],
    ids=lambda argv: argv[0],
)
def test_an_unknown_benchmark_is_a_wrong_command_line(argv, capsys):
    """No file is read before; `x` does not exist."""
    assert main(argv) == 2
    suggestion = " (did you mean limuc-4?)"
    assert shows(capsys.readouterr().err, SettingsMessage.UNKNOWN_BENCHMARK, name="limuc", suggestion=suggestion)


@pytest.mark.parametrize(
    "benchmark, options, message",
    [
        ("hyperkvasir-16", {"fold": 3}, SettingsMessage.BENCHMARK_UNKNOWN_FOLD),
        ("limuc-4", {"fold": 11}, SettingsMessage.BENCHMARK_UNKNOWN_FOLD),
        ("gastrohun-23", {"agreement": "double"}, SettingsMessage.BENCHMARK_UNKNOWN_AGREEMENT),
        ("hyperkvasir-16", {"agreement": "triple"}, SettingsMessage.BENCHMARK_WITHOUT_AGREEMENTS),
        ("hyperkvasir-16", {"val_fraction": 0.1}, SettingsMessage.VAL_FRACTION_WITH_OFFICIAL_SPLIT),
        ("limuc-4", {"group_pattern": "(.)"}, SettingsMessage.GROUP_PATTERN_WITH_BENCHMARK),
        ("gastrohun-23", {"group_pattern": "(.)"}, SettingsMessage.GROUP_PATTERN_WITH_BENCHMARK),
        ("hyperkvasir-16", {"group_column": "patient"}, SettingsMessage.GROUP_COLUMN_WITH_BENCHMARK),
        ("hyperkvasir-16", {"split_from": "none"}, SettingsMessage.MANIFEST_WITH_BENCHMARK),
        (None, {"fold": 2}, SettingsMessage.BENCHMARK_OPTIONS_WITHOUT_BENCHMARK),
        (None, {"split_file": ["x.csv"]}, SettingsMessage.BENCHMARK_OPTIONS_WITHOUT_BENCHMARK),
    ],
)
def test_options_that_do_not_fit_the_benchmark_are_rejected(benchmark, options, message):
    with raises(message, CommandLineError):
        parse_settings("prepare", data_dir="x", **({"benchmark": benchmark} if benchmark else {}), **options)


def test_the_catalogue_is_consistent():
    sizes = {name: len(entry.classes) for name, entry in BENCHMARKS.items()}
    assert all(name.split("-by-video")[0].endswith(f"-{size}") for name, size in sizes.items() if name != "kvasir-v2")
    assert len(sizes) == 10 and sizes["kvasir-v2"] == 8
    for entry in BENCHMARKS.values():
        assert entry.guarantees and entry.limitations and entry.images
        assert len(set(entry.classes)) == len(entry.classes) and entry.citation and entry.licence and entry.homepage
        assert set(entry.folders) <= set(entry.classes)
