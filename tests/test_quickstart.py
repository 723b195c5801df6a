"""scripts/quickstart.sh, which has no prerequisites."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT


@pytest.mark.launch
@pytest.mark.slow
def test_the_quickstart_completes(tmp_path):
    """Uses the environment of the tests instead of a new one."""
    copy = tmp_path / "clone"
    for name in ("scripts", "setup.cfg"):
        source = ROOT / name
        shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
    (copy / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "hf-mae"):
        (copy / ".venv" / "bin" / name).write_text(f'#!/bin/sh\nexec "{Path(sys.executable).parent / name}" "$@"\n')
        (copy / ".venv" / "bin" / name).chmod(0o755)
    stamp = subprocess.run(["cksum"], stdin=open(copy / "setup.cfg"), capture_output=True, text=True, check=True).stdout
    (copy / ".venv" / ".installed").write_text(f"{stamp.strip()} test\n")
    done = subprocess.run(
        ["bash", copy / "scripts" / "quickstart.sh", tmp_path / "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Setting up" not in done.stdout and re.search(r"verified +against", done.stdout)
    predicted = re.findall(r"^(\w+)/\S+ +-> (\w+)", done.stdout, flags=re.MULTILINE)
    assert len(predicted) == 3
    scores = re.search(r"^macro F1 .* ([\d.]+) \[[\d., ]+\]$", done.stdout, flags=re.MULTILINE)
    assert float(scores.group(1)) > 85, "macro F1 on the toy test split"
