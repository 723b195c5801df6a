"""`python -m build` makes a wheel that works in a clean environment, outside the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.launch


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the files that git tracks, so that nothing is written into the checkout."""
    copy = tmp_path_factory.mktemp("source")
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, files.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, copy], check=True, capture_output=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def venv(wheel, tmp_path_factory) -> Path:
    """A new environment that contains only the wheel and takes the dependencies from the current environment by path.

    Python does not read `.pth` files in a path that a `.pth` file adds, so the editable install of this project is not
    visible.
    """
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
    paths = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    (Path(paths.stdout.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def test_the_wheel_contains_only_code_and_data_files(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for expected in (
        "hf_mae/cli/main.py",
        "hf_mae/data/sources/folder.py",
        "hf_mae/conversion/key_mapping.py",
        "hf_mae/recipes/quickstart.yaml",
        "hf_mae/published/results.csv",
        "hf_mae/accelerate_configs/fsdp2.yaml",
    ):
        assert expected in names
    assert all(name.startswith(("hf_mae/", "hf_mae-")) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_command_works_outside_the_checkout(venv, tiny_pth, tmp_path):
    def run(*argv):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [venv / "bin" / argv[0], *argv[1:]], cwd=tmp_path, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    path = run("python", "-c", "import hf_mae.conversion.key_mapping as module; print(module.__file__)")
    assert path.startswith(str(venv))
    assert "quickstart" in run("hf-mae", "recipes")
    assert "ssl_endoscopy_vit_large" in run("hf-mae", "checkpoints")
    config = run("hf-mae", "configs", "zero3").strip()
    assert config.startswith(str(venv)) and "zero_stage: 3" in Path(config).read_text()
    assert "verified" in run("hf-mae", "convert", tiny_pth, tmp_path / "out", "--verify", "--num_labels", "3")
    assert run("python", "-m", "hf_mae", "--version").startswith("hf_mae 0.")
