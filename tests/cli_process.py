"""`hf-mae` in a process that is forked from one which has imported its packages, and has done nothing else."""

import os
import sys
from pathlib import Path

IMPORTS = [
    "cli_process",
    "torch",
    "datasets",
    "transformers.trainer",
    "sklearn.metrics",
    "hf_mae.finetune",
    "hf_mae.evaluate",
]


def forked_cli(argv: list[str], cwd: str, folder: str) -> None:
    """Runs it in `cwd`, with `stdout` and `stderr` in files of `folder`."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    sys.argv = ["hf-mae", *argv]
    import torch

    from hf_mae.cli import main

    torch.set_num_threads(1)
    sys.exit(main(argv))
