"""docs/migrating.md: the commands for each of the four programs run on the checkpoint of the original code."""

import re
import shutil

import pytest
from support.documented_commands import read_commands, run
from support.paths import ROOT

PAGE = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))
PROGRAMS = ("facebookresearch/mae", "SSL-Endoscopy-MAE", "RETFound", "timm")
# The weights of this tiny network do not determine its numbers of attention heads.
HEADS = {
    "finetune": "--num_attention_heads 3",
    "probe": "--num_attention_heads 3",
    "pretrain": "--num_attention_heads 3 --decoder_num_attention_heads 4",
}


def test_every_program_has_a_section():
    assert tuple(SECTIONS) == PROGRAMS


@pytest.mark.run
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_commands_of_a_program_run_on_the_golden_checkpoint(golden, toy, tmp_path, program):
    shutil.copy(golden / "checkpoint-399.pth", tmp_path / "checkpoint.pth")
    shutil.copytree(toy / "labelled", tmp_path / "images")
    shutil.copytree(toy / "unlabelled", tmp_path / "frames")
    commands = read_commands(SECTIONS[program])
    names = {command.split()[1] for _, command in commands if command.startswith("hf-mae ")}
    assert names >= {"finetune", "evaluate", "probe", "pretrain"}
    for language, command in commands:
        command += f" {HEADS.get(command.split()[1], '')}" if "checkpoint.pth" in command else ""
        done = run(language, command, tmp_path)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, command
        if folder := re.search(r"--output_dir (\S+)", command):
            assert any((tmp_path / folder[1]).iterdir()), command
