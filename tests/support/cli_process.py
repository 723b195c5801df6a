"""`hf-mae` as a user runs it: in a process that is forked from one which has imported its packages, and has done
nothing else, or, with an environment of its own, in a new one."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.paths import ROOT

IMPORTS = [
    "support.cli_process",
    "torch",
    "datasets",
    "transformers.trainer",
    "sklearn.metrics",
    "hf_mae.workflows.finetune",
    "hf_mae.workflows.evaluate",
]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(IMPORTS)


def forked_cli(argv: list[str], cwd: str, folder: str) -> None:
    """Runs it in `cwd`, with `stdout` and `stderr` in files of `folder`."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    sys.argv = ["hf-mae", *argv]
    import torch

    from hf_mae.cli.main import main

    torch.set_num_threads(1)
    sys.exit(main(argv))


def run_cli(
    *argv: str, status: int = 0, env: dict | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """Runs `hf-mae ARGV` as a user would, and expects this exit status, never a traceback, and no word of DeepSpeed."""
    argv, cwd = [str(word) for word in argv], cwd or ROOT.parent
    if env:
        command, environment = [sys.executable, "-m", "hf_mae", *argv], os.environ | {"OMP_NUM_THREADS": "1"} | env
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    else:
        with tempfile.TemporaryDirectory() as folder:
            process = FORKS.Process(target=forked_cli, args=(argv, str(cwd), folder))
            process.start()
            process.join()
            printed = [Path(folder, name).read_text() for name in ("stdout", "stderr")]
        done = subprocess.CompletedProcess(argv, process.exitcode, *printed)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "real_accelerator" not in done.stdout + done.stderr, "DeepSpeed looks for a device, and is not asked for"
    return done
