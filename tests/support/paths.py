"""Where things lie, and what a test needs of the machine."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
TESTS = ROOT / "tests"
SUPPORT = TESTS / "support"


def shared_folder(name: str) -> Path:
    """A folder of ../shared, or a skipped test."""
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"{path} is absent: these tests need the reference's data, which is not part of the project")
    return path


def load_script(name: str) -> ModuleType:
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def install_debian_packages(*packages: str) -> None:
    """Debian's packages, or a skipped test."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"{', '.join(packages)} can only be installed by root on Debian")
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", *packages]):
        command[1:1] = ["-o", "DPkg::Lock::Timeout=300"]  # two test processes may install at once
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
