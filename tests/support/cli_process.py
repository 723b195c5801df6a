"""Runs `hf-mae` in processes that are forked from a server which has only imported its packages, for speed.

There is one server per environment, because packages read environment variables when they are imported.
"""

import atexit
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.paths import ROOT
from support.stub_figures import is_using_stub_figures, use_stub_figures

IMPORTS = [
    "support.cli_process",
    "torch",
    "datasets",
    "transformers.trainer",
    "sklearn.metrics",
    "hf_mae.workflows.finetune",
    "hf_mae.workflows.evaluate",
]
LATE_PREFIXES = ("MLFLOW_", "TRACKIO_")  # variables that no preloaded package reads
FORK_CONTEXT = multiprocessing.get_context("forkserver")
FORK_CONTEXT.set_forkserver_preload(IMPORTS)


def run_in_fork(argv: list[str] | str, cwd: str, folder: str, stub_figures: bool, env: dict[str, str]) -> None:
    """Runs `hf-mae` or a Python program in this process, with stdout and stderr in files, and exits.

    Args:
        argv: arguments of `hf-mae`, or the source of a Python program.
        cwd: working directory.
        folder: folder of the files `stdout` and `stderr`.
        stub_figures: whether figures are empty.
        env: additional environment variables.
    """
    os.environ |= env
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    import torch

    from hf_mae.cli.main import main

    torch.set_num_threads(1)
    use_stub_figures(stub_figures)
    if isinstance(argv, str):
        exec(argv, {"__name__": "__main__"})
        sys.exit()
    sys.argv = ["hf-mae", *argv]
    sys.exit(main(argv))


class PreloadedProcess:
    """A server with its own environment: it has imported the packages and forks a process for each command."""

    running: "PreloadedProcess | None" = None  # one is enough: tests with the same environment run consecutively

    def __init__(self, env: dict[str, str]):
        self.env = env
        command = [sys.executable, "-c", "from support.cli_process import serve; serve()"]
        settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")} | env
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes, env=os.environ | settings, cwd=ROOT.parent, text=True)

    @classmethod
    def get(cls, env: dict[str, str]) -> "PreloadedProcess":
        if cls.running is None or cls.running.env != env:
            cls.stop()
            cls.running = cls(env)
        return cls.running

    @classmethod
    def stop(cls) -> None:
        if cls.running is not None:
            cls.running.process.communicate()
            cls.running = None

    def run(self, command: tuple) -> int:
        """Calls `run_in_fork(*command)` and returns the exit status."""
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


atexit.register(PreloadedProcess.stop)


def serve() -> None:
    """Main loop of a `PreloadedProcess`: reads a command per line from stdin, writes exit statuses to stdout."""
    import importlib

    for name in IMPORTS:
        importlib.import_module(name)
    responses = os.fdopen(os.dup(1), "w")
    os.environ.pop("PYTHONPATH", None)  # only for the server
    for line in sys.stdin:
        child = multiprocessing.get_context("fork").Process(target=run_in_fork, args=json.loads(line))
        child.start()
        child.join()
        print(child.exitcode, file=responses, flush=True)


def can_preload(env: dict[str, str]) -> bool:
    """Whether packages read these variables, or they change which packages are imported."""
    return all(name.startswith(("HF_", *LATE_PREFIXES)) or name == "PYTHONPATH" for name in env)


def run_cli(
    *argv: str, status: int = 0, env: dict | None = None, cwd: Path | None = None, unique_env: bool = False
) -> subprocess.CompletedProcess:
    """Runs `hf-mae` and checks the exit status; a traceback or a message from DeepSpeed fails the test.

    Args:
        argv: arguments.
        status: expected exit status.
        env: additional environment variables.
        cwd: working directory.
        unique_env: no other command uses this environment.
    """
    argv, cwd = [str(word) for word in argv], cwd or ROOT.parent
    if env and (unique_env or not can_preload(env)):
        command, environment = [sys.executable, "-m", "hf_mae", *argv], os.environ | {"OMP_NUM_THREADS": "1"} | env
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    else:
        done = _run_forked(argv, cwd, env or {})
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "real_accelerator" not in done.stdout + done.stderr, "DeepSpeed was imported"
    return done


def run_python(code: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Runs a Python program in a forked process."""
    return _run_forked(code, cwd, env or {})


def _run_forked(argv: list[str] | str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    """Calls `run_in_fork` in a fork of the server with this environment."""
    with tempfile.TemporaryDirectory() as folder:
        late = {name: value for name, value in env.items() if name == "HF_TOKEN" or name.startswith(LATE_PREFIXES)}
        import_env = {name: value for name, value in env.items() if name not in late}
        command = (argv, str(cwd), folder, is_using_stub_figures(), late)
        if import_env:
            code = PreloadedProcess.get(import_env).run(command)
        else:
            process = FORK_CONTEXT.Process(target=run_in_fork, args=command)
            process.start()
            process.join()
            code = process.exitcode
        output = [Path(folder, name).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(argv, code, *output)
