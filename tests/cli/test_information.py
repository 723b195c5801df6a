"""Shell completion, run in the shells."""

import shutil
import subprocess

import pytest
from support.messages import shows

from hf_mae.cli.main import main
from hf_mae.settings.commands import COMMANDS
from hf_mae.settings.messages import SettingsMessage


@pytest.fixture()
def scripts(tmp_path, capsys):
    """The completion script of each shell."""
    paths = {}
    for shell in ("bash", "zsh"):
        assert main(["completion", shell]) == 0
        paths[shell] = tmp_path / shell
        paths[shell].write_text(capsys.readouterr().out)
    return paths


def test_bash_completes_commands_flags_choices_and_files(scripts, tmp_path):
    (tmp_path / "images").mkdir()
    prompts = [
        "hf-mae finet",
        "hf-mae finetune --layer_d",
        "hf-mae finetune --pooling ",
        "hf-mae evaluate ima",
        "hf-mae ",
    ]
    program = f'eval "$(cat {scripts["bash"]})"\ncomplete -p hf-mae\n'
    for prompt in prompts:
        words = " ".join(f"'{word}'" for word in prompt.split(" "))
        program += f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()\n"
        program += '_shtab_hf_mae\necho "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    registered, *answers = done.stdout.splitlines()
    assert registered.endswith("-F _shtab_hf_mae hf-mae"), done.stderr
    assert answers[:2] == ["finetune", "--layer_decay"]
    assert {"cls", "mean"} <= set(answers[2].split())
    assert answers[3] == "images"
    assert set(COMMANDS) <= set(answers[4].split())


def test_zsh_loads_the_script(scripts):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed here")
    program = f'autoload -Uz compinit; compinit -D -u; eval "$(cat {scripts["zsh"]})"; print "${{_comps[hf-mae]}}"'
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "_shtab_hf_mae", done.stderr


def test_other_shells_are_rejected(capsys):
    assert main(["completion", "fish"]) == 2
    assert shows(capsys.readouterr().err, SettingsMessage.INVALID_CHOICE, value="fish", name="shell")
