"""A disk that is full at any byte of any verb: one sentence, what stood before still stands, and it goes on when there
is room.

`FRACTIONS=20` in the environment tries so many fillings of each verb, in place of the one of the suite.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from hf_mae.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.run]
AMPLE = 256_000  # kilobytes
TRAINING = ["--per_device_train_batch_size", "20", "--disable_tqdm", "true", "--report_to", "none"]
# OUT stands for a folder or file on the disk, CACHE for a verb that writes into the cache alone. Behind a bar: what the
# same command has more when it is given again.
VERBS = {
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
    """A disk of this size at `folder`."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def used(folder: Path) -> int:
    """Kilobytes."""
    free = os.statvfs(folder)
    return (free.f_blocks - free.f_bfree) * free.f_frsize // 1024


def fractions() -> list[float]:
    count = int(os.environ.get("FRACTIONS", 1))
    return [(place + 0.5) / count for place in range(count)] if count > 1 else [0.6]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_a_full_disk(verb, finetuned, tiny_pth, toy, tmp_path, capsys, monkeypatch):
    place = tmp_path / "disk"
    names = {"pth": tiny_pth, "run": finetuned(), "data": toy / "labelled", "frames": toy / "unlabelled"}
    line, _, again = VERBS[verb].format(**names).partition(" | ")
    argv = [word.replace("OUT", str(place / "out")) for word in line.split() if word != "CACHE"]
    argv += TRAINING if verb in ("finetune", "pretrain", "crossval") else []
    if "CACHE" in line:
        monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: place / "cache")
        monkeypatch.setattr("hf_mae.data.pixel_cache.cache_folder", lambda: place / "cache")
    with disk(place, AMPLE):
        before = used(place)
        assert main(argv) == 0
        whole, needed = written(place), used(place) - before
    assert needed > 0, "it writes nothing there"
    failed = 0
    for fraction in fractions():
        capsys.readouterr()
        with disk(place, max(int(fraction * needed), 12)):
            (place / "mine").write_text("before")
            status = main(argv)
            said = capsys.readouterr().err
            assert (place / "mine").read_text() == "before"
            if status == 0:  # the room was enough in the end
                assert written(place) == whole
                continue
            failed += 1
            assert status == 1 and ("the disk is full" in said or "has room for" in said) and "Traceback" not in said, (
                fraction,
                said,
            )
            assert not [path for path in place.rglob("*.partial") if "predict" not in verb], fraction
            subprocess.run(["mount", "-o", f"remount,size={AMPLE}k", str(place)], check=True)
            assert main([*argv, *again.split()]) == 0, (fraction, capsys.readouterr().err)
            assert written(place) >= whole, fraction
        shutil.rmtree(place)
    assert failed, "it never ran out of room"


def written(folder: Path) -> set[str]:
    """What files there are, but for those whose names are of one run."""
    odd = ("checkpoint-", "cache/", ".lock", "runs/")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "mine"}
    return {name for name in names if not any(part in name for part in odd)}
