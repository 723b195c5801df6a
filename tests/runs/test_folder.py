"""What the training verbs share: refusing to go on with another model, and warnings."""

import pytest
from support.cli_process import run_cli

from hf_mae.workflows.finetune import warn_about_fp16


@pytest.fixture(scope="module")
def interrupted(tiny_pth, toy, tmp_path_factory):
    """A run with a checkpoint to resume from."""
    out = tmp_path_factory.mktemp("runs") / "run"
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", out]
    run_cli("finetune", *argv, "--num_train_epochs", 1, "--warmup_epochs", 0)
    return argv, out


def test_resuming_with_other_classes(interrupted, toy, tmp_path):
    argv, out = interrupted
    other = [str(toy / "labelled" / "train") if value == toy / "labelled" else value for value in argv]
    two = tmp_path / "two"
    for name in ("blob", "ring"):
        (two / name).parent.mkdir(exist_ok=True)
        (two / name).symlink_to(toy / "labelled" / "train" / name)
    other[other.index("--data_dir") + 1] = two
    done = run_cli("finetune", *other, "--val_fraction", 0.2, "--resume_from_checkpoint", "last", status=1)
    assert "knows the classes blob, folds, ring, the data has blob, ring: a run goes on with" in done.stderr


@pytest.mark.parametrize(
    "more, message",
    [
        (["--image_size", "64"], "has image_size 32, this run has 64: a run goes on as it began"),
        (["--pooling", "cls"], "has model_type beit, this run has vit"),
    ],
)
def test_resuming_another_model(interrupted, more, message):
    argv, _ = interrupted
    done = run_cli("finetune", *argv, *more, "--resume_from_checkpoint", "last", status=1)
    assert message in done.stderr


def test_fp16_with_a_huge_model_is_warned_of(caplog):
    warn_about_fp16(True, 1024)
    warn_about_fp16(False, 1280)
    assert not caplog.records
    warn_about_fp16(True, 1280)
    assert "fp16 is known to give NaN with a ViT-H: use --bf16" in caplog.text
