"""Commands on a full disk: one error message, no damaged files, and success once space is available.

Set `FRACTIONS=20` in the environment to test this number of disk sizes per command instead of one.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.messages import shows

from hf_mae.cli.main import main
from hf_mae.cli.messages import CliMessage
from hf_mae.data.images.messages import ImageMessage

pytestmark = [pytest.mark.slow, pytest.mark.run]
AMPLE = 256_000  # kilobytes
DISK_FULL_MESSAGES = (CliMessage.DISK_FULL, ImageMessage.DISK_BECAME_FULL, ImageMessage.DISK_TOO_SMALL)
TRAINING = ["--per_device_train_batch_size", "20", "--disable_tqdm", "true", "--report_to", "none"]
# OUT is a folder or file on the disk; CACHE marks a command that only writes to the cache. Flags after the bar are
# added when the command is repeated.
COMMANDS = {
    "convert": "convert {pth} OUT --to backbone",
    "export": "export {pth} OUT.pth",
    "finetune": "finetune --model_name_or_path {pth} --data_dir {data} --output_dir OUT --num_train_epochs 2 "
    "--save_strategy steps --save_steps 2 --eval_strategy no --load_best_model_at_end false "
    "| --resume_from_checkpoint last",
    "pretrain": "pretrain --model_name_or_path {pth} --data_dir {frames} --output_dir OUT --num_train_epochs 2 "
    "--reconstruction_steps 1 --save_strategy epoch | --resume_from_checkpoint last",
    "crossval": "crossval --model_name_or_path {pth} --data_dir {data} --output_dir OUT --folds 2 --num_train_epochs 1",
    "evaluate": "evaluate --model_name_or_path {run} --data_dir {data} --output_dir OUT",
    "predict": "predict --model_name_or_path {run} {data} --output OUT.csv | --resume",
    "probe": "probe --model_name_or_path {pth} --data_dir {data} --output_dir OUT",
    "audit": "audit --data_dir {data} --output_dir OUT",
    "explain": "explain --model_name_or_path {run} --data_dir {data} --output_dir OUT",
    "reconstruct": "reconstruct {frames} --model {pth} --output OUT.png --norm_pix_loss true",
    "report": "report {run} --output_dir OUT",
    "export-onnx": "export-onnx {run} OUT",
    "shard": "shard {data} OUT --shard_size 20KB",
    "prepare": "prepare --data_dir {data} CACHE",
}


@contextmanager
def disk(folder: Path, kilobytes: int):
    """Mounts a disk of this size at `folder`."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def used_kilobytes(folder: Path) -> int:
    stats = os.statvfs(folder)
    return (stats.f_blocks - stats.f_bfree) * stats.f_frsize // 1024


def fractions() -> list[float]:
    count = int(os.environ.get("FRACTIONS", 1))
    return [(index + 0.5) / count for index in range(count)] if count > 1 else [0.6]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_recover_from_a_full_disk(command, finetuned, tiny_pth, toy, tmp_path, capsys, monkeypatch):
    root = tmp_path / "disk"
    names = {"pth": tiny_pth, "run": finetuned(), "data": toy / "labelled", "frames": toy / "unlabelled"}
    line, _, repeat_flags = COMMANDS[command].format(**names).partition(" | ")
    argv = [word.replace("OUT", str(root / "out")) for word in line.split() if word != "CACHE"]
    argv += TRAINING if command in ("finetune", "pretrain", "crossval") else []
    if "CACHE" in line:
        monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: root / "cache")
    with disk(root, AMPLE):
        before = used_kilobytes(root)
        assert main(argv) == 0
        expected, needed = list_output(root), used_kilobytes(root) - before
    assert needed > 0, "the command writes nothing to the disk"
    failures = 0
    for fraction in fractions():
        capsys.readouterr()
        with disk(root, max(int(fraction * needed), 12)):
            (root / "mine").write_text("before")
            status = main(argv)
            error = capsys.readouterr().err
            assert (root / "mine").read_text() == "before"
            if status == 0:  # the space was sufficient
                assert list_output(root) == expected
                continue
            failures += 1
            assert status == 1 and "Traceback" not in error, (fraction, error)
            assert any(shows(error, message) for message in DISK_FULL_MESSAGES), (fraction, error)
            assert not [path for path in root.rglob("*.partial") if "predict" not in command], fraction
            subprocess.run(["mount", "-o", f"remount,size={AMPLE}k", str(root)], check=True)
            assert main([*argv, *repeat_flags.split()]) == 0, (fraction, capsys.readouterr().err)
            assert list_output(root) >= expected, fraction
        shutil.rmtree(root)
    assert failures, "the disk was never full"


def list_output(folder: Path) -> set[str]:
    """Names of the files, except those that depend on the run."""
    ignored = ("checkpoint-", "cache/", ".lock", "runs/")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "mine"}
    return {name for name in names if not any(part in name for part in ignored)}
