"""Standalone program: `windows.py FOLDER CHECKPOINT IMAGES`, without POSIX modules and signals.

It imports the package, locks a folder, and converts, evaluates and predicts. The libraries come first, unchanged.
"""

import importlib
import multiprocessing
import multiprocessing.context
import os
import pkgutil
import signal
import sys
from pathlib import Path

import hf_mae

POSIX_MODULES = ("fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "syslog", "posix")
POSIX_SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGQUIT", "SIGPIPE", "SIGCONT")
POSIX_NAMES = {
    signal: (*POSIX_SIGNALS, "sigwaitinfo", "sigwait", "pthread_sigmask", "pthread_kill", "SIG_BLOCK", "SIG_SETMASK"),
    os: ("fork", "getuid", "geteuid", "getpgid", "killpg", "setsid", "pread", "O_NOFOLLOW", "sched_getaffinity"),
    multiprocessing.context: ("ForkContext", "ForkProcess"),
}
SIGNAL_MASK = {name: getattr(signal, name) for name in ("pthread_sigmask", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK")}


def list_modules() -> list[str]:
    """Every module of the package except programs."""
    found = [item.name for item in pkgutil.walk_packages(hf_mae.__path__, "hf_mae.")]
    return [name for name in found if not name.endswith(("__main__", "onnx_example"))]


def import_all() -> list[str]:
    names = list_modules()
    for name in names:
        importlib.import_module(name)
    return names


def remove_posix_names() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "hf_mae"]:
        del sys.modules[name]
    for name in POSIX_MODULES:
        sys.modules[name] = None
    for owner, names in POSIX_NAMES.items():
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)


def main(folder: Path, checkpoint: str, images: str) -> None:
    import_all()
    remove_posix_names()
    names = import_all()
    from hf_mae.cli.main import main as command
    from hf_mae.errors import UsageError
    from hf_mae.files.atomic import write_text
    from hf_mae.files.locks import exclusive_lock

    with exclusive_lock(folder):
        try:
            with exclusive_lock(folder):
                pass
        except UsageError as error:
            print(error.code)
        write_text(folder / "text.txt", "text")
    print((folder / "text.txt").read_text(), [path.name for path in folder.iterdir()])
    assert names and command(["recipes"]) == 0
    (folder / "classes.txt").write_text("\n".join(sorted(path.name for path in Path(images, "test").iterdir())))
    model, output = str(folder / "model"), str(folder / "rows.csv")
    assert command(["convert", checkpoint, model, "--to", "classifier", "--labels", str(folder / "classes.txt")]) == 0
    for name, function in SIGNAL_MASK.items():  # of the standard library's spawn on Linux
        setattr(signal, name, function)
    multiprocessing.set_start_method("spawn", force=True)
    assert command(["evaluate", model, images, "--split", "test", "--output_dir", str(folder / "scores")]) == 0
    assert command(["predict", model, str(Path(images, "test")), "--output", output]) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
