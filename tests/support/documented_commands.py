"""The commands of the documentation: reads them from a page, shortens their training, and runs them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from support.cli_process import run_cli, run_python

# Commands that other tests run, or that are for the installation or for long measurements.
NOT_RUN_HERE = (
    *("scripts/test.sh", "scripts/quickstart.sh", "scripts/build_docs.sh", "scripts/benchmarks/", "scripts/studies/"),
    *("pip install", "hf-mae demo"),
)
# Commands with many epochs, and the flags that shorten them.
ONE_EPOCH, SMALL = "--num_train_epochs 1 --warmup_epochs 0", "--per_device_train_batch_size 4"
SHORTENED = {
    "hf-mae finetune checkpoint.pth images --auto": "--num_train_epochs 2",
    "hf-mae finetune checkpoint.pth images --transforms": f"{ONE_EPOCH} --image_size 32 --bf16 false {SMALL}",
    "hf-mae finetune checkpoint.pth images --recipe retfound": f"{ONE_EPOCH} --image_size 32 --bf16 false {SMALL}",
    "hf-mae pretrain --model_name_or_path checkpoint.pth --data_dir frames --transforms": ONE_EPOCH,
}


def environment() -> dict:
    """The environment of commands that are run by bash."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}


def read_commands(text: str) -> list[tuple[str, str]]:
    """The commands of a page or section: (language, shortened command)."""
    result = []
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", text, flags=re.DOTALL):
        if language == "python":
            result.append((language, block))
            continue
        for command in re.sub(r"\\\n\s*", "", block).splitlines():
            command = command.split(" #")[0].strip()
            command += next((f" {flags}" for start, flags in SHORTENED.items() if command.startswith(start)), "")
            if command and not any(word in command for word in NOT_RUN_HERE):
                result.append((language, command))
    return result


def run(language: str, command: str, folder: Path, env: dict | None = None) -> subprocess.CompletedProcess:
    """Runs a command like a user; `hf-mae` runs in a fork of a process that has imported it."""
    words = shlex.split(command) if language == "bash" else []
    if words[:1] == ["hf-mae"]:
        return run_cli(*words[1:], cwd=folder, env=env)
    if language == "python":
        return run_python(command, folder)
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, env=environment() | (env or {})
    )
