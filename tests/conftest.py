"""What the tests share: the reference's golden values, a toy data set, and a tiny checkpoint in the reference's layout.

The caches of Hugging Face libraries go to a temporary folder, and nothing asks the Hub.
"""

import atexit
import os
import shutil
import tempfile

os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf_mae_tests_")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse  # noqa: E402
import functools  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from cli_process import IMPORTS, forked_cli  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

transformers_logging.disable_progress_bar()
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(IMPORTS)
TINY = {"num_attention_heads": 3}  # of the golden checkpoints, which are of no known width
TINY_DECODER = {"decoder_num_attention_heads": 4}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow files first, so that no worker is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def _shared(folder: str) -> Path:
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"{path} is absent: these tests need the reference's data, which is not part of the project")
    return path


@pytest.fixture(scope="session")
def golden() -> Path:
    return _shared("golden")


@pytest.fixture(scope="session")
def golden_json(golden) -> dict:
    return json.loads((golden / "golden.json").read_text())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return _shared("data")


@pytest.fixture(scope="session")
def hyperkvasir(shared_data, tmp_path_factory) -> Path:
    from skeletons import make_hyperkvasir

    return make_hyperkvasir(tmp_path_factory.mktemp("hyper-kvasir"), shared_data / "splits")


@pytest.fixture(scope="session")
def gastrovision(shared_data, tmp_path_factory) -> Path:
    from skeletons import make_gastrovision

    return make_gastrovision(tmp_path_factory.mktemp("archive") / "GastroVision", shared_data / "splits")


def load_script(name: str):
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """Three classes of drawings: labelled/{train,validation,test} and unlabelled/, 64 pixels."""
    folder = tmp_path_factory.mktemp("toy")
    load_script("make_toy_data").make(folder, images=20)
    return folder


def tiny_pretrainer(seed: int = 0):
    from hf_mae.models import build_pretrainer

    torch.manual_seed(seed)
    return build_pretrainer(
        image_size=32,
        patch_size=8,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=192,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=128,
        norm_pix_loss=True,
    )


@pytest.fixture(scope="session")
def tiny_pth(tmp_path_factory) -> Path:
    """A tiny MAE in the reference's own layout: {model, optimizer, epoch, scaler, args}."""
    from hf_mae.conversion import export_model

    path = tmp_path_factory.mktemp("tiny") / "checkpoint-399.pth"
    args = argparse.Namespace(
        model="mae_tiny", num_attention_heads=3, decoder_num_attention_heads=4, mask_ratio=0.75, norm_pix_loss=True
    )
    state = export_model(tiny_pretrainer(), "pretraining")
    torch.save({"model": state, "optimizer": {}, "epoch": 399, "scaler": {"scale": 1.0}, "args": args}, path)
    return path


@pytest.fixture(scope="session")
def finetuned(tiny_pth, toy, tmp_path_factory):
    """pooling -> a run that has learned the toy set."""
    from hf_mae.cli import main

    @functools.cache
    def run(pooling: str = "mean") -> Path:
        out = tmp_path_factory.mktemp("finetuned") / pooling
        argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", out]
        argv += ["--pooling", pooling, "--learning_rate", 3e-3, "--num_train_epochs", 10, "--warmup_epochs", 1]
        assert main(["finetune", *map(str, argv), "--per_device_train_batch_size", "20"]) == 0
        return out

    return run


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Chromium's driver, installed where it is missing."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        install("chromium", "chromium-driver")
    return Path(shutil.which("chromedriver"))


def install(*packages: str) -> None:
    """Debian's packages, or a skipped test."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"{', '.join(packages)} can only be installed by root on Debian")
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", *packages]):
        command[1:1] = ["-o", "DPkg::Lock::Timeout=300"]  # two test processes may install at once
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})


def run_cli(
    *argv: str, status: int = 0, env: dict | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """Runs `hf-mae ARGV` as a user would, and expects this exit status and never a traceback.

    The process is forked from one that has imported the packages already, unless it needs an environment of its own.
    """
    argv, cwd = [str(word) for word in argv], cwd or ROOT.parent
    if env:
        command, environment = [sys.executable, "-m", "hf_mae", *argv], os.environ | {"OMP_NUM_THREADS": "1"} | env
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    else:
        with tempfile.TemporaryDirectory() as folder:
            process = FORKS.Process(target=forked_cli, args=(argv, str(cwd), folder))
            process.start()
            process.join()
            printed = [Path(folder, name).read_text() for name in ("stdout", "stderr")]
        done = subprocess.CompletedProcess(argv, process.exitcode, *printed)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def free_port() -> int:
    """A port that nobody listens on. (Two DeepSpeed jobs of one port number would share their memory, and die.)"""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class TensorItems(torch.utils.data.Dataset):
    """A data set of tensors, as `MaeFinetuner` takes them."""

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        item = {name: column[index] for name, column in self.columns.items()}
        if "labels" in item and torch.as_tensor(item["labels"]).ndim == 0:
            item["labels"] = int(item["labels"])
        return item
