"""Paths of the project, and system packages that tests need."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"


def shared_folder(name: str) -> Path:
    """Returns a folder of ../shared, or skips the test if it is absent."""
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"{path} is absent. These tests need data that is not part of the project.")
    return path


def load_script(name: str) -> ModuleType:
    """Imports a file of scripts/ as a module (`fuzz`, `studies/long_tail`)."""
    spec = importlib.util.spec_from_file_location(Path(name).name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def install_debian_packages(*packages: str) -> None:
    """Installs Debian packages, or skips the test if that is not possible."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"{', '.join(packages)} can only be installed by root on Debian")
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", *packages]):
        command[1:1] = ["-o", "DPkg::Lock::Timeout=300"]  # two test processes may install at once
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
