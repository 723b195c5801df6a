"""Output folders: resuming with another model, removing an old run, and warnings."""

from types import SimpleNamespace

import pytest
from support.cli_process import run_cli
from support.messages import logged, shows

from hf_mae.runs.output_dir import remove_old_run
from hf_mae.training.finetuner import warn_about_fp16
from hf_mae.training.messages import TrainingMessage


@pytest.fixture(scope="module")
def interrupted(tiny_pth, toy, tmp_path_factory):
    """A run with a checkpoint to resume from."""
    out = tmp_path_factory.mktemp("runs") / "run"
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", out]
    run_cli("finetune", *argv, "--num_train_epochs", 1, "--warmup_epochs", 0)
    return argv, out


def test_resuming_with_other_classes_is_rejected(interrupted, toy, tmp_path):
    argv, out = interrupted
    other = [str(toy / "labelled" / "train") if value == toy / "labelled" else value for value in argv]
    two = tmp_path / "two"
    for name in ("blob", "ring"):
        (two / name).parent.mkdir(exist_ok=True)
        (two / name).symlink_to(toy / "labelled" / "train" / name)
    other[other.index("--data_dir") + 1] = two
    done = run_cli("finetune", *other, "--val_fraction", 0.2, "--resume_from_checkpoint", "last", status=1)
    classes = {"saved": ["blob", "folds", "ring"], "found": ["blob", "ring"]}
    assert shows(done.stderr, TrainingMessage.CHECKPOINT_CLASSES_DIFFER, **classes)


@pytest.mark.parametrize(
    "more, attributes",
    [
        (["--image_size", "64"], {"name": "image_size", "saved": 32, "found": 64}),
        (["--pooling", "cls"], {"name": "model_type", "saved": "beit", "found": "vit"}),
    ],
)
def test_resuming_another_model_is_rejected(interrupted, more, attributes):
    argv, _ = interrupted
    done = run_cli("finetune", *argv, *more, "--resume_from_checkpoint", "last", status=1)
    assert shows(done.stderr, TrainingMessage.CHECKPOINT_MODEL_DIFFERS, **attributes)


def test_fp16_with_a_huge_model_gives_a_warning(caplog):
    warn_about_fp16(True, 1024)
    warn_about_fp16(False, 1280)
    assert not caplog.records
    warn_about_fp16(True, 1280)
    assert logged(caplog.records, TrainingMessage.FP16_WITH_VIT_HUGE)


def test_overwriting_removes_the_files_of_the_old_run_only(tmp_path):
    run_files = ("all_results.json", "predictions_test.csv", "model.safetensors", "temperature.json", "report.md")
    for name in (*run_files, "my_notes.txt", "photo.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "roc_test.png").write_text("x")
    (tmp_path / "checkpoint-8").mkdir()
    (tmp_path / "checkpoint-8" / "trainer_state.json").write_text("{}")
    remove_old_run(SimpleNamespace(folder=tmp_path, overwrite_output_dir=False, process_index=0))
    assert (tmp_path / "report.md").exists()
    remove_old_run(SimpleNamespace(folder=tmp_path, overwrite_output_dir=True, process_index=0))
    assert not (tmp_path / "figures" / "roc_test.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["my_notes.txt", "photo.png"]
    assert not (tmp_path / "checkpoint-8").exists()
