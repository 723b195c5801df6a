"""The command line itself: quick answers, verbs, exit statuses."""

import gc
import importlib
import io
import os
import resource
import signal
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from support.cli_process import run_cli

from hf_mae.cli.main import console_main, main
from hf_mae.settings.commands import COMMANDS
from hf_mae.settings.recipes import RECIPES_DIR, recipe_names

HEAVY = ("torch", "transformers", "numpy", "datasets", "sklearn", "evaluate", "matplotlib")
QUICK = [
    ["--help"],
    ["--version"],
    *([verb, "--help"] for verb in COMMANDS),
    ["finetune", "--help_all"],
    ["finetune", "--lr", "1e-3"],
    ["evaluate", "--model_nam", "x"],
    ["finetune", "--recipe", "no-such-recipe"],
    ["evaluate", "--model_name_or_path", "/no/such/model", "--data_dir", "/no/such/folder"],
    ["predict", "--model_name_or_path", "/no/such/model", "image.jpg"],
]


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in COMMANDS)
    assert main([]) == 2


def test_whatever_needs_no_work_is_answered_without_the_libraries_that_work():
    """Each in the same process, one after the other: none of them may import anything heavy, nor take long."""
    code = (
        "import contextlib, io, json, sys, time\n"
        "from hf_mae.cli.main import main\n"
        "found = []\n"
        "for argv in json.loads(sys.argv[1]):\n"
        "    started, out = time.process_time(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):\n"
        "        status = main(list(argv))\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    found.append([argv, status, heavy, time.process_time() - started, out.getvalue()])\n"
        "print(json.dumps(found))\n"
    )
    import json

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, json.dumps(QUICK)], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for argv, status, heavy, _, printed in json.loads(done.stdout):
        assert not heavy, (argv, heavy)
        assert printed.strip() and "Traceback" not in printed, argv
        helps = {"--help", "--help_all", "--version"} & set(argv)
        assert status == 0 if helps else status in (1, 2), (argv, status, printed)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10, "all of them together"


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, hf_mae, hf_mae.conversion; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mistyped_verb_names_the_nearest():
    assert "did you mean finetune?" in run_cli("fintune", status=2).stderr


def test_the_console_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="hf-mae")
    assert command.load() is console_main


def test_public_names_are_there():
    import hf_mae
    import hf_mae.conversion
    import hf_mae.data

    for module in (hf_mae, hf_mae.conversion, hf_mae.data):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError):
            _ = module.no_such_name


def test_recipes_are_listed_and_shown(capsys):
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for name in recipe_names():
        assert name in listed
        assert main(["recipes", "show", name]) == 0
        shown = capsys.readouterr().out
        assert shown == (RECIPES_DIR / f"{name}.yaml").read_text() and f"--recipe {name}" in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_names_cannot_command_the_terminal(terminal, monkeypatch):
    """And a pipe gets them as they are."""
    out = io.StringIO()
    out.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdout", out)
    module = importlib.import_module("hf_mae.cli.main")
    monkeypatch.setattr(module, "main", lambda argv: print("a\x1b[31m,b", end="\r\n") or 0)
    with pytest.raises(SystemExit):
        console_main([])
    gc.unfreeze()
    gc.enable()
    assert out.getvalue() == ("a\\x1b[31m,b\n" if terminal else "a\x1b[31m,b\r\n")


def test_a_debug_run_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv("HF_MAE_DEBUG", "1")
    with pytest.raises(Exception, match="no recipe"):
        main(["finetune", "--recipe", "no-such-recipe"])
    monkeypatch.delenv("HF_MAE_DEBUG")
    assert main(["finetune", "--recipe", "no-such-recipe"]) == 2
    assert "There is no recipe no-such-recipe" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_verb_that_is_told_to_stop_leaves_nothing(number, tiny_pth, tmp_path, monkeypatch, capsys):
    writing = importlib.import_module("hf_mae.conversion.convert")

    def told(*args, **kwargs):
        assert [path.name[:5] for path in tmp_path.iterdir()] == [".out."], "it is being written"
        os.kill(os.getpid(), number)

    monkeypatch.setattr(writing, "convert_to_model", told)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    assert main(["convert", str(tiny_pth), str(tmp_path / "out")]) == (130 if number == signal.SIGINT else 75)
    assert not list(tmp_path.iterdir())
    said = "interrupted" if number == signal.SIGINT else f"told to stop ({number.name})"
    assert capsys.readouterr().err.strip().endswith(f"hf-mae convert: {said}")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before
