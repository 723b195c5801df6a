"""The entry point: help, fast answers, errors, exit statuses."""

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
from support.messages import raises, shows

from hf_mae.cli import output
from hf_mae.cli.main import console_main, main, prepare_streams, usage
from hf_mae.reporting.console import BUILDERS
from hf_mae.settings.commands import COMMANDS, commands_by_task
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.recipes import RECIPES_DIR, list_recipes

HEAVY = ("torch", "transformers", "numpy", "datasets", "sklearn", "evaluate", "matplotlib")
FAST = [
    ["--help"],
    ["--version"],
    *([command, "--help"] for command in COMMANDS),
    ["finetune", "--help_all"],
    ["finetune", "--lr", "1e-3"],
    ["evaluate", "--model_nam", "x"],
    ["finetune", "--recipe", "no-such-recipe"],
    ["evaluate", "--model_name_or_path", "/no/such/model", "--data_dir", "/no/such/folder"],
    ["predict", "--model_name_or_path", "/no/such/model", "image.jpg"],
]


def test_help_lists_every_command_by_task(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed == f"{usage()}\n" and main([]) == 2
    for task, commands in commands_by_task().items():
        assert f"\n{task}:\n" in printed
        assert all(f"\n  {command.name} " in printed for command in commands)
    assert all(len(line) < 80 for line in printed.splitlines())


def test_every_command_has_an_output():
    for command in COMMANDS.values():
        assert command.function_name in BUILDERS | output.PRINTERS


def test_help_and_usage_errors_import_no_heavy_packages():
    """Runs the command lines in one process."""
    code = (
        "import contextlib, io, json, sys, time\n"
        "from hf_mae.cli.main import main\n"
        "results = []\n"
        "for argv in json.loads(sys.argv[1]):\n"
        "    started, out = time.process_time(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):\n"
        "        status = main(list(argv))\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    results.append([argv, status, heavy, time.process_time() - started, out.getvalue()])\n"
        "print(json.dumps(results))\n"
    )
    import json

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, json.dumps(FAST)], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for argv, status, heavy, _, printed in json.loads(done.stdout):
        assert not heavy, (argv, heavy)
        assert printed.strip() and "Traceback" not in printed, argv
        shows_help = {"--help", "--help_all", "--version"} & set(argv)
        assert status == 0 if shows_help else status in (1, 2), (argv, status, printed)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10, "CPU time of all command lines"


def test_importing_the_package_imports_no_heavy_packages():
    code = f"import sys, hf_mae, hf_mae.conversion; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_commands_are_reported_with_a_suggestion():
    stderr = run_cli("fintune", status=2).stderr
    assert shows(stderr, SettingsMessage.UNKNOWN_COMMAND, suggestion=" (did you mean finetune?)")


def test_the_console_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="hf-mae")
    assert command.load() is console_main


def test_public_names_can_be_imported():
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
    output = capsys.readouterr().out
    for name in list_recipes():
        assert name in output
        assert main(["recipes", name]) == 0
        text = capsys.readouterr().out
        assert text == (RECIPES_DIR / f"{name}.yaml").read_text() and f"--recipe {name}" in text


def test_debug_mode_raises_errors(monkeypatch, capsys):
    monkeypatch.setenv("HF_MAE_DEBUG", "1")
    with raises(SettingsMessage.UNKNOWN_RECIPE, name="no-such-recipe"):
        main(["finetune", "--recipe", "no-such-recipe"])
    monkeypatch.delenv("HF_MAE_DEBUG")
    assert main(["finetune", "--recipe", "no-such-recipe"]) == 2
    assert shows(capsys.readouterr().err, SettingsMessage.UNKNOWN_RECIPE, name="no-such-recipe")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_an_interrupted_command_leaves_no_partial_output(number, tiny_pth, tmp_path, monkeypatch, capsys):
    module = importlib.import_module("hf_mae.conversion.convert")

    def interrupt(*args, **kwargs):
        assert [path.name[:5] for path in tmp_path.iterdir()] == [".out."], "the temporary folder"
        os.kill(os.getpid(), number)

    monkeypatch.setattr(module, "convert_to_model", interrupt)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    assert main(["convert", str(tiny_pth), str(tmp_path / "out")]) == (130 if number == signal.SIGINT else 75)
    assert not list(tmp_path.iterdir())
    message = "interrupted" if number == signal.SIGINT else f"interrupted by {number.name}"
    assert capsys.readouterr().err.strip().endswith(f"hf-mae convert: {message}")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["finetune", "--help_all"], ["recipes"], []])
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_leaves_early_gets_no_traceback(arguments, unbuffered):
    """Like `hf-mae --help | head -1`: the pipe is closed before the command writes."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *(["-u"] if unbuffered else []), "-m", "hf_mae", *arguments]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert result.stderr == ""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_characters_that_an_encoding_lacks_are_escaped(monkeypatch, encoding):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding))
    prepare_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.write("polyp \u606f\u8089 \udce9")
        stream.flush()
        text = stream.buffer.getvalue().decode(encoding)
        assert text == ("polyp \u606f\u8089 \\udce9" if encoding == "utf-8" else "polyp \\u606f\\u8089 \\udce9")


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">&-", "> /dev/full", "2>&1 | true"])
def test_closed_and_full_outputs_end_without_a_traceback(streams):
    script = f"{sys.executable} -m hf_mae --help {streams}"
    result = subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, text=True)
    assert (result.returncode == 0) == ("full" not in streams) or "|" in streams
    assert "Traceback" not in result.stderr
    assert ("Cannot write the output" in result.stderr) == ("full" in streams)
