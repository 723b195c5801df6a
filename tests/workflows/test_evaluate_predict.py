"""`hf-mae evaluate` and `hf-mae predict` against `pipeline()`, with readable and unreadable images."""

import csv
import json
import shutil

import pytest
from PIL import Image
from support.cli_process import run_cli
from support.messages import raises, shows
from transformers import pipeline

from hf_mae import configs, finetune, predict, recipes
from hf_mae.cli.main import main
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.predict_inputs import find_input_paths
from hf_mae.models.messages import ModelMessage
from hf_mae.settings.commands import assign_positionals
from hf_mae.settings.messages import SettingsMessage


@pytest.fixture(scope="module", params=["mean", "cls"])
def model(request, tiny_pth, toy, tmp_path_factory):
    """A fine-tuned model per pooling mode, trained for four epochs."""
    out = tmp_path_factory.mktemp("model") / request.param
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", out]
    argv += ["--learning_rate", 3e-3, "--pooling", request.param, "--num_train_epochs", 4, "--warmup_epochs", 1]
    argv += ["--per_device_train_batch_size", 20]
    assert main(["finetune", *map(str, argv)]) == 0
    return out


def test_evaluate_gives_the_scores_of_pipeline(model, toy, tmp_path, capsys):
    argv = ["--model_name_or_path", model, "--data_dir", toy / "labelled", "--split", "test"]
    argv += ["--output_dir", tmp_path / "out"]
    assert main(["evaluate", *map(str, argv), "--batch_size", "7"]) == 0
    assert "macro F1" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results_test.json").read_text())
    trained = json.loads((model / "all_results.json").read_text())
    assert results["scores"]["test"]["accuracy"] == trained["scores"]["test"]["accuracy"]
    classifier = pipeline("image-classification", model=str(model), device="cpu", top_k=None)
    rows = list(csv.DictReader(open(tmp_path / "out" / "predictions_test.csv")))
    assert len(rows) == 18
    for row in rows:
        for entry in classifier(str(toy / "labelled" / row["file_name"])):
            assert entry["score"] == pytest.approx(float(row[f"score:{entry['label']}"]), abs=2e-6)


@pytest.fixture
def odd_files(tmp_path):
    """Images in all colour modes, with another size and an EXIF rotation, and three unreadable files."""
    folder = tmp_path / "odd"
    folder.mkdir()
    noise = Image.effect_noise((90, 50), 60)
    for mode, suffix in (("L", "png"), ("RGB", "jpg"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("LA", "png")):
        noise.convert("RGB").convert(mode).save(folder / f"{mode}.{suffix}")
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.convert("RGB").save(folder / "exif.jpg", exif=exif)
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    content = (folder / "RGB.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    return folder


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_predict_keeps_the_order_and_reports_unreadable_files(model, odd_files, tmp_path, suffix):
    absent = str(tmp_path / "absent.png")
    output = tmp_path / "deep" / f"out.{suffix}"
    done = run_cli(
        *("predict", "--model_name_or_path", model, absent, odd_files / "RGB.jpg", odd_files, "--output", output),
        *("--top_k", 2, "--batch_size", 3),
        status=1,
    )
    paths = [absent, str(odd_files / "RGB.jpg"), *sorted(str(path) for path in odd_files.iterdir())]
    if suffix == "jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        top = {row["file_name"]: [(p["label"], p["score"]) for p in row.get("predictions", [])] for row in rows}
    else:
        rows = list(csv.DictReader(open(output)))
        top = {
            row["file_name"]: [(row[f"label_{k}"], float(row[f"score_{k}"])) for k in (1, 2) if row[f"label_{k}"]]
            for row in rows
        }
    assert [row["file_name"] for row in rows] == paths
    bad = {path for path in paths if path.endswith(("absent.png", "text.jpg", "empty.png", "truncated.jpg"))}
    assert {row["file_name"] for row in rows if row.get("error")} == bad
    assert (
        f"Predicted {len(paths) - 4} of {len(paths)} images" in done.stderr
        and "absent.png: no such file" in done.stderr
    )
    classifier = pipeline("image-classification", model=str(model), device="cpu", top_k=2)
    for path in set(paths) - bad:
        expected = classifier(path)
        assert [label for label, _ in top[path]] == [entry["label"] for entry in expected]
        assert [score for _, score in top[path]] == pytest.approx([entry["score"] for entry in expected], abs=2e-6)


@pytest.mark.parametrize("output", [None, "rows.csv", "rows.jsonl"])
def test_predict_returns_rows_and_a_data_frame(model, odd_files, tmp_path, output):
    result = predict(model, odd_files, top_k=2, output=output and str(tmp_path / output))
    table = result.to_pandas()
    assert list(table.columns[:5]) == ["file_name", "label_1", "score_1", "label_2", "score_2"]
    assert list(table["file_name"]) == sorted(str(path) for path in odd_files.iterdir())
    readable = table[table["error"] == ""]
    assert len(table) - len(readable) == len(result.errors) == 3 and readable["score_1"].between(0.3, 1).all()
    assert len(result) == (0 if output else len(table))
    if not output:
        assert [row["file_name"] for row in result] == list(table["file_name"])
        assert [row["predictions"][0]["score"] for row in result if "error" not in row] == list(readable["score_1"])
        assert "score_2" in result._repr_html_()


def test_commands_take_the_arguments_of_the_command_line():
    assert list(configs("ddp")) == ["ddp"] and list(recipes(name="quickstart")) == ["quickstart"]
    assert assign_positionals("predict", ["run", "a.png", "b.png"], {})["images"] == ["a.png", "b.png"]
    assert assign_positionals("predict", ["run", ["a.png"]], {}) == {"model_name_or_path": "run", "images": ["a.png"]}
    assert assign_positionals("finetune", ["images"], {"model_name_or_path": "x"}) == {"data_dir": "images"}
    with raises(SettingsMessage.UNRECOGNIZED_ARGUMENTS, values="third"):
        finetune("first", "second", "third")


def test_predict_writes_csv_to_the_standard_output(model, toy):
    done = run_cli("predict", "--model-name-or-path", model, f"{toy}/labelled/test/*/*_000.jpg", "--top-k", 1)
    rows = list(csv.reader(done.stdout.splitlines()))
    assert rows[0] == ["file_name", "label_1", "score_1", "error"] and len(rows) == 4


def test_inputs_are_globs_folders_and_files(toy, tmp_path):
    folder = toy / "labelled" / "test" / "ring"
    assert find_input_paths([str(folder)]) == sorted(str(path) for path in folder.iterdir())
    assert find_input_paths([f"{folder}/*_00[01].jpg", "x.jpg"]) == [
        f"{folder}/ring_000.jpg",
        f"{folder}/ring_001.jpg",
        "x.jpg",
    ]


@pytest.mark.parametrize(
    "argv, message, status",
    [
        (["predict", "x.jpg", "--model_name_or_path", "/absent/model"], SettingsMessage.PATH_NOT_FOUND, 1),
        (["predict", "x.jpg", "--model_name_or_path", "absent"], SettingsMessage.NAME_NOT_FOUND, 1),
        (["predict", "/nothing/*.jpg", "--model_name_or_path", "owner/m"], DataMessage.GLOB_MATCHES_NOTHING, 1),
        (["predict", "x.jpg", "--model_name_or_path", "m", "--output", "x.txt"], SettingsMessage.OUTPUT_NOT_A_TABLE, 2),
        (["predict", "x.jpg", "--model_name_or_path", "m", "--top_k", "0"], SettingsMessage.OUT_OF_BOUNDS, 2),
        (["evaluate", "--model_name_or_path", "m"], SettingsMessage.MISSING_ARGUMENTS, 2),
        (["evaluate", "--model_name_or_path", "/absent/model", "--data_dir", "d"], SettingsMessage.PATH_NOT_FOUND, 1),
    ],
)
def test_invalid_arguments_are_rejected(capsys, argv, message, status):
    assert main(argv) == status
    assert shows(capsys.readouterr().err, message)


def test_models_without_a_classifier_are_rejected(tiny_pth, toy, tmp_path, capsys):
    assert main(["evaluate", "--model_name_or_path", str(tiny_pth), "--data_dir", str(toy / "labelled")]) == 1
    assert shows(capsys.readouterr().err, ModelMessage.IS_A_FILE, path=tiny_pth)
    assert main(["convert", str(tiny_pth), str(tmp_path / "bb"), "--to", "backbone"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--model_name_or_path", str(tmp_path / "bb"), "--data_dir", str(toy / "labelled")]) == 1
    assert shows(capsys.readouterr().err, ModelMessage.HEAD_WEIGHTS_MISSING)


def test_unknown_splits_and_classes_are_rejected(model, toy, tmp_path, capsys):
    argv = ["evaluate", "--model_name_or_path", str(model), "--data_dir"]
    assert main([*argv, str(toy / "labelled"), "--split", "holdout"]) == 1
    splits = ["train", "validation", "test"]
    assert shows(capsys.readouterr().err, DataMessage.SPLIT_NOT_FOUND, split="holdout", splits=splits)
    other = tmp_path / "other" / "cecum"
    other.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(other / "1.png")
    assert main([*argv, str(tmp_path / "other"), "--split", "train"]) == 1
    assert shows(capsys.readouterr().err, DataMessage.CLASSES_NOT_IN_CHECKPOINT)


def test_a_processor_with_another_image_size_is_rejected(model, toy, tmp_path, capsys):
    changed = tmp_path / "changed"
    shutil.copytree(model, changed, ignore=shutil.ignore_patterns("checkpoint-*"))
    settings = json.loads((changed / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 64, "width": 64}
    (changed / "preprocessor_config.json").write_text(json.dumps(settings))
    assert main(["evaluate", "--model_name_or_path", str(changed), "--data_dir", str(toy / "labelled")]) == 1
    stderr = capsys.readouterr().err
    assert shows(stderr, ModelMessage.PROCESSOR_SIZE_DIFFERS, size=32, width=64, height=64)


def test_evaluate_without_output_dir_writes_no_file(model, toy, tmp_path):
    argv = ["evaluate", "--model_name_or_path", model, "--data_dir", toy / "labelled", "--split", "test", "--bf16"]
    run_cli(*argv, cwd=tmp_path)
    assert not list(tmp_path.iterdir())
