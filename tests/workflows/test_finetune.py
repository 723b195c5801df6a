"""`finetune` end to end: outputs, best model, resuming, stop signals, and invalid options."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.cli_process import run_cli
from support.distributed_runs import launch_environment
from support.messages import raises, shows
from support.paths import ROOT
from transformers import AutoModelForImageClassification, pipeline

from hf_mae import build_classifier, finetune
from hf_mae.cli.main import main
from hf_mae.cli.messages import CliMessage
from hf_mae.conversion.messages import ConversionMessage
from hf_mae.evaluation.messages import EvaluationMessage
from hf_mae.files.messages import FileMessage
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.record_io import read_record
from hf_mae.settings.commands import COMMANDS
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.parse import read_values
from hf_mae.training.messages import TrainingMessage

QUICK = ["--per_device_train_batch_size", "20", "--warmup_epochs", "1", "--learning_rate", "3e-3"]
QUICK += ["--disable_tqdm", "true"]


def flags(tiny_pth, toy, out, *more):
    data = ["--model_name_or_path", str(tiny_pth), "--data_dir", str(toy / "labelled"), "--output_dir", str(out)]
    return [*data, *QUICK, *map(str, more)]


@pytest.fixture(scope="module")
def run(tiny_pth, toy, tmp_path_factory):
    """A completed run of 24 epochs."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(["finetune", *flags(tiny_pth, toy, out, "--num_train_epochs", 24, "--class_weights", "balanced")]) == 0
    return out


FOUR_EPOCHS = ["--num_train_epochs", 4, "--dataloader_num_workers", 1, "--class_weights", "balanced"]


@pytest.fixture(scope="module")
def four_epochs(tiny_pth, toy, tmp_path_factory):
    """An uninterrupted run of four epochs of three updates."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    assert main(["finetune", *flags(tiny_pth, toy, out, *FOUR_EPOCHS)]) == 0
    return out


def test_the_output_folder_contains_the_files_of_the_contract(run):
    expected = {
        "model.safetensors",
        "config.json",
        "preprocessor_config.json",
        "README.md",
        "all_results.json",
        "predictions_validation.csv",
        "predictions_test.csv",
        "predictions_validation.parquet",
        "predictions_test.parquet",
        "recipe.yaml",
        "figures/confusion_matrix_validation.png",
        "figures/confusion_matrix_test.pdf",
        "figures/learning_curves.png",
    }
    assert expected <= {path.relative_to(run).as_posix() for path in run.rglob("*")}
    config = json.loads((run / "config.json").read_text())
    assert config["id2label"] == {"0": "blob", "1": "folds", "2": "ring"}
    assert config["architectures"] == ["BeitForImageClassification"] and "auto_map" not in config
    results = json.loads((run / "all_results.json").read_text())
    assert results["images"] == {"train": 60, "validation": 18, "test": 18}
    for split in ("validation", "test"):
        rows = list(csv.DictReader(open(run / f"predictions_{split}.csv")))
        correct = sum(row["label"] == row["prediction"] for row in rows)
        assert len(rows) == 18 and results["scores"][split]["accuracy"] == pytest.approx(correct / 18)


def test_the_best_epoch_is_saved_and_reported(run):
    """The stock Trainer loads only the head of the best checkpoint, because ViT and BEiT have other names on disk."""
    state = json.loads((run / "trainer_state.json").read_text())
    results = json.loads((run / "all_results.json").read_text())
    scores = {log["step"]: log["eval_macro_f1"] for log in state["log_history"] if "eval_macro_f1" in log}
    best = max(scores.values())
    assert len(scores) == 24 and state["best_metric"] == pytest.approx(best)
    assert results["scores"]["validation"]["macro_f1"] == pytest.approx(best)
    best_folder = state["best_model_checkpoint"]
    saved, best_weights = (load_file(os.path.join(folder, "model.safetensors")) for folder in (run, best_folder))
    assert all(torch.equal(saved[name], best_weights[name]) for name in best_weights)


def test_accuracy_is_better_than_chance(run):
    results = json.loads((run / "all_results.json").read_text())
    assert results["scores"]["test"]["accuracy"] > 0.5


def test_pipeline_reproduces_the_predictions_of_the_run(run, toy):
    classifier = pipeline("image-classification", model=str(run), device="cpu", top_k=None)
    for split in ("validation", "test"):
        for row in csv.DictReader(open(run / f"predictions_{split}.csv")):
            answer = classifier(str(toy / "labelled" / row["file_name"]))
            assert answer[0]["label"] == row["prediction"]
            for entry in answer:
                assert entry["score"] == pytest.approx(float(row[f"score:{entry['label']}"]), abs=2e-6)


def test_stock_classes_load_all_weights(run):
    model, info = AutoModelForImageClassification.from_pretrained(run, output_loading_info=True)
    assert not any(info.values())


def test_the_card_is_valid_and_contains_the_scores(run):
    from huggingface_hub import ModelCard

    card = ModelCard.load(run / "README.md")
    results = json.loads((run / "all_results.json").read_text())
    values = {(e.dataset_split, e.metric_name): e.metric_value for e in card.data.eval_results}
    assert values["test", "macro F1"] == pytest.approx(results["scores"]["test"]["macro_f1"], abs=1e-6)
    assert card.data.pipeline_tag == "image-classification" and "not a diagnosis" in card.text


def test_the_recipe_of_a_run_reproduces_it(four_epochs, tmp_path):
    """recipe.yaml gives bit-equal weights."""
    assert (
        main(["finetune", "--recipe", str(four_epochs / "recipe.yaml"), "--output_dir", str(tmp_path / "again")]) == 0
    )
    first, again = load_file(four_epochs / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_recipe_is_rejected_for_changed_data(four_epochs, toy, tmp_path):
    """The data of the recipe, not those of a flag."""
    recipe = yaml.safe_load((four_epochs / "recipe.yaml").read_text())
    shutil.copytree(toy / "labelled", tmp_path / "images")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"data_dir": str(tmp_path / "images")}))
    read_values("finetune", str(tmp_path / "recipe.yaml"), {})
    (first, *_) = sorted((tmp_path / "images" / "train").glob("*/*"))
    first.unlink()
    with raises(RunMessage.DATA_DIFFER_FROM_RECIPE):
        finetune(recipe=str(tmp_path / "recipe.yaml"), output_dir=str(tmp_path / "run"))
    for flags, is_used in (({"learning_rate": 1.0}, True), ({"data_dir": "other"}, False), ({"seed": 9}, False)):
        assert ("data_fingerprint" in read_values("finetune", str(tmp_path / "recipe.yaml"), flags)) == is_used


@pytest.mark.parametrize("save", ["epoch", "mid-epoch"])
def test_resume_is_bit_exact(tiny_pth, toy, tmp_path, save):
    """A resumed run has the weights of an uninterrupted one, with augmentation, mixup, drop path and accumulation."""
    every = ["--save_strategy", "epoch"] if save == "epoch" else ["--save_strategy", "steps", "--save_steps", "4"]
    every += ["--sampling", "square_root"] if save == "mid-epoch" else []
    common = [
        *("--num_train_epochs", 4, "--transforms", "imagenet", "--mixup", 0.8, "--cutmix", 1.0, "--drop_path", 0.3),
        *("--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 2, "--pooling", "cls"),
        *("--load_best_model_at_end", "false", "--eval_strategy", "no", "--save_total_limit", 10, *every),
    ]
    assert main(["finetune", *flags(tiny_pth, toy, tmp_path / "resumed", *common)]) == 0
    uninterrupted = load_file(tmp_path / "resumed" / "model.safetensors")
    checkpoints = sorted((tmp_path / "resumed").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    middle = checkpoints[1]
    for later in checkpoints[2:]:
        subprocess.run(["rm", "-r", str(later)], check=True)
    (tmp_path / "resumed" / "model.safetensors").unlink()
    assert (
        main(["finetune", *flags(tiny_pth, toy, tmp_path / "resumed", *common, "--resume_from_checkpoint", "last")])
        == 0
    )
    resumed, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "resumed", middle))
    assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)
    assert not all(torch.equal(before[name], resumed[name]) for name in uninterrupted)


def test_a_killed_run_resumes(tiny_pth, toy, tmp_path):
    """After SIGKILL, the run resumes; an incomplete checkpoint is skipped with a warning."""
    common = flags(tiny_pth, toy, tmp_path / "run", "--num_train_epochs", 12, "--save_total_limit", 20)
    uninterrupted = flags(tiny_pth, toy, tmp_path / "uninterrupted", "--num_train_epochs", 12, "--save_total_limit", 20)
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_mae", "finetune", *common],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=launch_environment(),
    )
    deadline = time.time() + 120
    while not (tmp_path / "run" / "checkpoint-6" / "trainer_state.json").exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    incomplete = tmp_path / "run" / "checkpoint-999"
    incomplete.mkdir()
    (incomplete / "model.safetensors").write_bytes(b"half")
    done = run_cli("finetune", *common, status=1)
    assert shows(done.stderr, RunMessage.OUTPUT_DIR_CONTAINS_A_RUN, path=tmp_path / "run")
    done = run_cli("finetune", *common, "--resume_from_checkpoint", "last")
    assert shows(done.stderr, TrainingMessage.CHECKPOINT_INCOMPLETE, path=incomplete)
    assert "Resuming from" in done.stderr
    run_cli("finetune", *uninterrupted)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "uninterrupted"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "event, step, checkpoint", [("step_begin", 3, 4), ("step_begin", 5, 6), ("prediction_step", 6, 7)]
)
def test_a_stop_does_not_change_the_evaluations(
    four_epochs, tiny_pth, toy, tmp_path, monkeypatch, event, step, checkpoint
):
    """A signal to the process and its workers within an epoch of three updates, at its end, and during its evaluation
    does not change the evaluations and the best epoch."""
    from transformers import DefaultFlowCallback

    original = getattr(DefaultFlowCallback, f"on_{event}")
    with monkeypatch.context() as patched:

        def send_signal(self, args, state, control, **kwargs):
            if state.global_step == step:
                pids = [*(child.pid for child in multiprocessing.active_children()), os.getpid()]
                subprocess.run(["kill", "-TERM", *map(str, pids)], check=True)  # from another process
            return original(self, args, state, control, **kwargs)

        patched.setattr(DefaultFlowCallback, f"on_{event}", send_signal)
        assert main(["finetune", *flags(tiny_pth, toy, tmp_path / "resumed", *FOUR_EPOCHS)]) == 75
    assert (tmp_path / "resumed" / f"checkpoint-{checkpoint}" / "trainer_state.json").is_file()
    again = [*flags(tiny_pth, toy, tmp_path / "resumed", *FOUR_EPOCHS), "--resume_from_checkpoint", "last"]
    assert main(["finetune", *again]) == 0
    folders = (four_epochs, tmp_path / "resumed")
    uninterrupted, resumed = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)
    histories = [json.loads((folder / "trainer_state.json").read_text()) for folder in folders]
    evaluations = [
        [(log["step"], log["eval_loss"]) for log in history["log_history"] if "eval_loss" in log]
        for history in histories
    ]
    assert evaluations[0] == evaluations[1] and [step for step, _ in evaluations[0]] == [3, 6, 9, 12]
    assert histories[0]["best_global_step"] == histories[1]["best_global_step"]


def test_a_frozen_backbone_trains_the_head_only(tiny_pth, toy, tmp_path):
    out = tmp_path / "probe"
    assert main(["finetune", *flags(tiny_pth, toy, out, "--num_train_epochs", 2, "--freeze_backbone")]) == 0
    trained = AutoModelForImageClassification.from_pretrained(out).state_dict()
    start = build_classifier(tiny_pth, num_labels=3).state_dict()
    for name, tensor in trained.items():
        assert torch.equal(tensor, start[name]) != name.startswith("classifier."), name


def test_early_stopping_ends_the_training(tiny_pth, toy, tmp_path):
    more = ["--num_train_epochs", 30, "--early_stopping_patience", 2, "--learning_rate", 0]
    assert main(["finetune", *flags(tiny_pth, toy, tmp_path / "run", *more)]) == 0
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert results["train"]["updates"] == 3 * 3  # the first epoch is the best, then two without a better one


@pytest.mark.parametrize(
    "more", [["--bf16"], ["--gradient_checkpointing"], ["--mean_std", "auto"], ["--on_bad_image", "skip"]]
)
def test_a_run_with_other_options_completes(tiny_pth, toy, tmp_path, more):
    assert main(["finetune", *flags(tiny_pth, toy, tmp_path / "run", "--num_train_epochs", 1, *more)]) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_gradient_checkpointing_does_not_change_the_result(tiny_pth, toy, tmp_path):
    for name, more in (("plain", []), ("checkpointed", ["--gradient_checkpointing"])):
        assert main(["finetune", *flags(tiny_pth, toy, tmp_path / name, "--num_train_epochs", 1, *more)]) == 0
    plain, other = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "checkpointed"))
    assert max((plain[name] - other[name]).abs().max() for name in plain) < 1e-6


def test_without_validation_the_last_epoch_is_kept(tiny_pth, toy, tmp_path):
    argv = flags(tiny_pth, toy, tmp_path / "run", "--num_train_epochs", 1)
    argv[argv.index("--data_dir") + 1] = str(toy / "labelled" / "train")
    assert main(["finetune", *argv]) == 0
    assert not list((tmp_path / "run").glob("predictions_*"))
    assert main(["finetune", *argv, "--output_dir", str(tmp_path / "validated"), "--val_fraction", "0.2"]) == 0
    assert json.loads((tmp_path / "validated" / "all_results.json").read_text())["images"] == {
        "train": 48,
        "validation": 12,
    }


def test_a_non_finite_loss_stops_the_training_and_names_the_images(tiny_pth, toy, tmp_path, capsys, monkeypatch):
    from hf_mae.data.images.torch_datasets import TrainDataset

    original = TrainDataset.__getitem__

    def get_item_with_nan(self, index):
        item = original(self, index)
        if index == 7:
            item["pixel_values"][0, 0, 0] = float("nan")
        return item

    monkeypatch.setattr(TrainDataset, "__getitem__", get_item_with_nan)
    more = ["--num_train_epochs", 2, "--transforms", "imagenet"]
    assert main(["finetune", *flags(tiny_pth, toy, tmp_path / "run", *more)]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert shows(message, TrainingMessage.LOSS_NOT_FINITE, loss="nan") and "train/blob/blob_007.jpg" in message
    assert message.count(".jpg") == 20 and not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "change, message, attributes, status",
    [
        (["--model_name_or_path", "/absent.pth"], SettingsMessage.PATH_NOT_FOUND, {"path": "/absent.pth"}, 1),
        (["--data_dir", "/absent"], SettingsMessage.PATH_NOT_FOUND, {"path": "/absent"}, 1),
        (["--layer_deacy", "0.5"], CliMessage.UNRECOGNIZED_FLAGS, {}, 2),
        (["--layer_decay", "2"], SettingsMessage.OUT_OF_BOUNDS, {"name": "layer_decay"}, 2),
        (["--num_train_epochs", "many"], SettingsMessage.INVALID_NUMBER, {"name": "num_train_epochs"}, 2),
        (["--transforms", "imagenette"], SettingsMessage.INVALID_CHOICE, {"name": "transforms"}, 2),
        (
            ["--mixup", "0.8", "--per_device_train_batch_size", "5"],
            SettingsMessage.ODD_BATCH_FOR_MIXUP,
            {"batch_size": 5},
            2,
        ),
        (["--class_weights", "1", "2"], TrainingMessage.CLASS_WEIGHTS_DO_NOT_MATCH, {"found": 2, "expected": 3}, 1),
        (["--class_weights", "blanced"], SettingsMessage.INVALID_CLASS_WEIGHTS, {}, 2),
        (["--recipe", "quickstrat"], SettingsMessage.UNKNOWN_RECIPE, {"name": "quickstrat"}, 2),
        (["--resume_from_checkpoint", "/absent"], RunMessage.CHECKPOINT_UNUSABLE, {}, 1),
        (["--image_size", "33"], ConversionMessage.IMAGE_SIZE_NOT_DIVISIBLE, {"image_size": 33}, 1),
        (["--pooling", "cls", "--num_attention_heads", "7"], ConversionMessage.HEADS_CONTRADICT, {"value": 7}, 1),
        (["--num_train_epochs", "0"], SettingsMessage.OUT_OF_BOUNDS, {"name": "num_train_epochs"}, 2),
        (["--fp16", "--use_cpu"], SettingsMessage.FP16_ON_CPU, {}, 2),
        (["--report_to", "swanlab"], SettingsMessage.TRACKER_NOT_INSTALLED, {"tracker": "swanlab"}, 2),
    ],
)
def test_invalid_options_are_rejected(tiny_pth, toy, tmp_path, capsys, change, message, attributes, status):
    for command in ("plan", "finetune"):
        assert main([command, *flags(tiny_pth, toy, tmp_path / "run", *change)]) == status
        error = capsys.readouterr().err
        assert shows(error, message, **attributes) and "Traceback" not in error
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_an_output_dir_that_cannot_be_created_is_rejected(tiny_pth, toy, capsys):
    assert main(["finetune", *flags(tiny_pth, toy, "/proc/nowhere")]) == 1
    assert shows(capsys.readouterr().err, FileMessage.CANNOT_WRITE, path="/proc/nowhere")


def test_missing_arguments_are_named(capsys):
    assert main(["finetune", "--data_dir", "x"]) == 2
    assert shows(capsys.readouterr().err, SettingsMessage.MISSING_ARGUMENTS, command="finetune")


def test_python_and_command_line_give_equal_runs(tiny_pth, toy, tmp_path):
    run_cli(
        "finetune", *flags(tiny_pth, toy, tmp_path / "shell", "--num_train_epochs", 1, "--class_weights", "balanced")
    )
    record = finetune(
        model_name_or_path=str(tiny_pth),
        data_dir=str(toy / "labelled"),
        output_dir=str(tmp_path / "notebook"),
        per_device_train_batch_size=20,
        warmup_epochs=1,
        learning_rate=3e-3,
        disable_tqdm=True,
        num_train_epochs=1,
        class_weights="balanced",
    )
    shell, notebook = (load_file(tmp_path / name / "model.safetensors") for name in ("shell", "notebook"))
    assert all(torch.equal(shell[name], notebook[name]) for name in shell)
    other = read_record(tmp_path / "shell")
    assert record == read_record(tmp_path / "notebook") and record.scores == other.scores
    assert record.settings | {"output_dir": ""} == other.settings | {"output_dir": ""}
    assert record.data.fingerprint == other.data.fingerprint and record.classes == ["blob", "folds", "ring"]
    files = [
        sorted(path.name for path in (tmp_path / name).iterdir() if path.is_file()) for name in ("shell", "notebook")
    ]
    assert files[0] == files[1]


def test_a_run_resumes_with_the_same_images_only(tiny_pth, toy, tmp_path):
    images, out = tmp_path / "images", tmp_path / "run"
    shutil.copytree(toy / "labelled", images)
    argv = flags(tiny_pth, tmp_path, out, "--num_train_epochs", 2, "--resume_from_checkpoint", "last")
    argv[argv.index("--data_dir") + 1] = str(images)
    run_cli("finetune", *argv)
    moved = next((images / "train" / "blob").iterdir())
    moved.rename(tmp_path / moved.name)
    done = run_cli("finetune", *argv, status=1)
    assert shows(done.stderr, RunMessage.IMAGES_CHANGED, path=out)
    done = run_cli("finetune", *argv, "--selection_fraction", 0.2, status=1)
    changes = ["selection_fraction from 0.0 to 0.2"]
    assert shows(done.stderr, RunMessage.DATA_OPTIONS_CHANGED, path=out, changes=changes)
    (tmp_path / moved.name).rename(moved)
    run_cli("finetune", *argv)
    assert not (out / "run_started.json").exists() and read_record(out).images["train"] > 0


@pytest.mark.launch
def test_accelerate_launch_runs_the_script(tiny_pth, toy, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"),
            *("--config_file", str(ROOT / "accelerate_configs" / "cpu.yaml"), str(ROOT / "scripts" / "finetune.py")),
            *flags(tiny_pth, toy, tmp_path / "run", "--num_train_epochs", 1),
        ],
        capture_output=True,
        text=True,
        env=launch_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "macro F1" in done.stdout and (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.launch
def test_two_processes_give_the_weights_of_one(tiny_pth, toy, tmp_path):
    """DDP over gloo, without augmentation: updates of 2 x 10 images equal 20; each test image is counted once."""
    common = ["--num_train_epochs", 2, "--drop_path", 0, "--smoothing", 0, "--class_weights", "balanced"]
    script = """
import sys
from torchvision import transforms
from hf_mae.data.images import transforms as ours
def without_randomness(family, size, mean, std, **_):
    steps = [transforms.ToTensor(), transforms.Normalize(list(mean), list(std))]
    return ours.TrainingTransform("plain", ours.SquareResize(size), transforms.Compose(steps))
import hf_mae.training.finetuning_data
hf_mae.training.finetuning_data.training_transform = without_randomness
from hf_mae.cli.main import console_main
console_main(["finetune", *sys.argv[1:]])
"""
    (tmp_path / "script.py").write_text(script)
    for name, processes, batch in (("one", 1, 20), ("two", 2, 10)):
        argv = flags(tiny_pth, toy, tmp_path / name, *common, "--use_cpu", "true")
        argv[argv.index("--per_device_train_batch_size") + 1] = str(batch)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)),
                *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(tmp_path / "script.py"), *argv),
            ],
            capture_output=True,
            text=True,
            env=launch_environment(),
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert max((one[name] - two[name]).abs().max() for name in one) < 1e-5
    rows = [list(csv.DictReader(open(tmp_path / name / "predictions_test.csv"))) for name in ("one", "two")]
    assert [row["file_name"] for row in rows[0]] == [row["file_name"] for row in rows[1]]
    for ours, theirs in zip(*rows):
        assert ours["label"] == theirs["label"]
        assert float(ours["score"]) == pytest.approx(float(theirs["score"]), abs=1e-5)


def test_the_command_evaluates_every_epoch_by_default():
    assert COMMANDS["finetune"].defaults["metric_for_best_model"] == "macro_f1"


def test_the_epoch_is_selected_by_the_ppv_at_a_recall_that_evaluate_and_report_repeat(tiny_pth, toy, tmp_path, capsys):
    out, options = tmp_path / "run", ["--positive", "ring", "--ppv_at_recall", "0.9", "--prevalence", "1:100"]
    selection = ["--metric_for_best_model", "ppv_at_recall", "--num_train_epochs", 2]
    assert main(["finetune", *flags(tiny_pth, toy, out, *selection, *options)]) == 0
    assert "PPV of ring at a recall of 90 %" in capsys.readouterr().out
    state, record = json.loads((out / "trainer_state.json").read_text()), read_record(out)
    logged = [log["eval_ppv_at_recall"] for log in state["log_history"] if "eval_ppv_at_recall" in log]
    assert len(logged) == 2 and state["best_metric"] == max(logged)
    scores = record.scores["validation"]
    assert scores["ppv_at_recall"] == pytest.approx(max(logged)) and record.settings["prevalence"] == 1 / 101
    assert main(["evaluate", str(out), str(toy / "labelled"), *options]) == 0
    assert f"a prevalence of 0.99 %: {100 * scores['ppv_at_recall']:.1f} [" in capsys.readouterr().out
    assert main(["report", str(out), *options, "--split", "validation", "--output_dir", str(tmp_path / "report")]) == 0
    (table,) = json.loads((tmp_path / "report" / "report.json").read_text())["tables"]
    (row,) = [*table["rows"], *table["not_comparable"]]
    (result,) = row["diagnostic_accuracy"]["one_vs_rest"]
    (recorded,) = scores["ppv"]
    reported = result["ppv_at_recall"]["images"]
    for name in ("estimate", "challenge"):
        numbers = [value for value in recorded[name].values() if isinstance(value, float)]
        assert [
            reported[name][key] for key, value in recorded[name].items() if isinstance(value, float)
        ] == pytest.approx(numbers)


@pytest.mark.parametrize(
    "options, code",
    [
        (["--metric_for_best_model", "ppv_at_recall"], SettingsMessage.PPV_METRIC_NEEDS_OPTIONS),
        (
            ["--metric_for_best_model", "ppv_at_recall", "--ppv_at_recall", "0.9"],
            SettingsMessage.PPV_METRIC_NEEDS_OPTIONS,
        ),
        (["--positive", "ring"], SettingsMessage.POSITIVE_WITHOUT_RECALL),
        (["--ppv_at_recall", "90"], SettingsMessage.OUT_OF_BOUNDS),
        (["--ppv_at_recall", "0.9", "--prevalence", "100:0"], SettingsMessage.INVALID_PREVALENCE),
        (["--ppv_at_recall", "0.9", "--positive", "rings"], EvaluationMessage.UNKNOWN_POSITIVE_CLASS),
    ],
)
def test_options_of_the_ppv_that_do_not_fit_are_rejected_before_training(
    options, code, tiny_pth, toy, tmp_path, capsys
):
    assert main(["finetune", *flags(tiny_pth, toy, tmp_path / "run", *options)]) != 0
    assert shows(capsys.readouterr().err, code) and not (tmp_path / "run" / "trainer_state.json").exists()
