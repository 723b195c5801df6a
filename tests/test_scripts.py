"""Scripts that are rarely run still find what they import, and save no password."""

import importlib.util
import pickle
import sys
from pathlib import Path

import pytest
from support.paths import load_script

from hf_mae.files.redaction import CREDENTIALS, restore_credentials

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("*.py")), ids=lambda path: str(path.relative_to(SCRIPTS)))
def test_every_script_can_be_imported(path, monkeypatch):
    monkeypatch.syspath_prepend(str(path.parent))  # scripts may import their neighbours
    specification = importlib.util.spec_from_file_location(path.stem, path)
    specification.loader.exec_module(importlib.util.module_from_spec(specification))


def test_a_submitted_job_is_saved_without_passwords(monkeypatch, tmp_path, capsys):
    """submitit writes the job to a file; the password is in the environment, which SLURM passes on."""
    import submitit

    monkeypatch.setenv(CREDENTIALS, "")
    script, address = load_script("submit_finetune"), "https://u:Zq7secret@h/x.tar"
    monkeypatch.setitem(sys.modules, "submit_finetune", script)  # pickle looks for the class there
    saved = []

    def submit(executor, job):
        saved.append(pickle.dumps(job))
        raise RuntimeError

    monkeypatch.setattr(submitit.AutoExecutor, "submit", submit)
    options = ["--job_dir", str(tmp_path), "--cluster", "local", "--ngpus", "0"]
    for flags in (["--data_dir", address], [f"--data_dir={address}"]):
        with pytest.raises(RuntimeError):
            script.main([*options, *flags])
        assert b"Zq7secret" not in saved[-1] and restore_credentials("https://REDACTED@h/x.tar") == address
    assert script.main([*options, "--hub_token", "hf_x"]) == 1 and len(saved) == 2
    assert "set HF_TOKEN" in capsys.readouterr().err
