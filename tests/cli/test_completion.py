"""Completion at TAB, as the shells themselves answer it."""

import shutil
import subprocess

import pytest

from hf_mae.cli.main import main
from hf_mae.settings.commands import COMMANDS


@pytest.fixture()
def scripts(tmp_path, capsys):
    """Of each shell."""
    found = {}
    for shell in ("bash", "zsh"):
        assert main(["completion", shell]) == 0
        found[shell] = tmp_path / shell
        found[shell].write_text(capsys.readouterr().out)
    return found


def test_bash_completes_verbs_flags_choices_and_files(scripts, tmp_path):
    (tmp_path / "images").mkdir()
    asks = [
        "hf-mae finet",
        "hf-mae finetune --layer_d",
        "hf-mae finetune --pooling ",
        "hf-mae evaluate ima",
        "hf-mae ",
    ]
    program = f'eval "$(cat {scripts["bash"]})"\ncomplete -p hf-mae\n'
    for ask in asks:
        words = " ".join(f"'{word}'" for word in ask.split(" "))
        program += f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()\n"
        program += '_shtab_hf_mae\necho "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    registered, *answers = done.stdout.splitlines()
    assert registered.endswith("-F _shtab_hf_mae hf-mae"), done.stderr
    assert answers[:2] == ["finetune", "--layer_decay"]
    assert {"cls", "mean"} <= set(answers[2].split())
    assert answers[3] == "images"
    assert set(COMMANDS) <= set(answers[4].split())


def test_zsh_takes_its_script(scripts):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed here")
    program = f'autoload -Uz compinit; compinit -D -u; eval "$(cat {scripts["zsh"]})"; print "${{_comps[hf-mae]}}"'
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "_shtab_hf_mae", done.stderr


def test_another_shell_is_a_wrong_command_line(capsys):
    assert main(["completion", "fish"]) == 2
    assert "it takes one of bash, zsh" in capsys.readouterr().err
