"""Shared fixtures: golden values of the original code, a toy data set, and a tiny checkpoint.

The caches of Hugging Face libraries are in a temporary folder, and no test contacts the Hub.
"""

import atexit
import os
import shutil
import signal
import tempfile

os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf_mae_tests_")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A shell that starts the tests in the background makes them ignore SIGINT. Restore the default of a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)

import argparse  # noqa: E402
import functools  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402
from support.models import tiny_pretrainer  # noqa: E402
from support.paths import install_debian_packages, load_script, shared_folder  # noqa: E402
from support.skeletons import make_gastrovision, make_hyperkvasir  # noqa: E402
from support.stub_figures import draw_real_figures, use_stub_figures  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

settings.load_profile("ci")  # the same examples in each run; `pytest --hypothesis-profile default` draws new ones
transformers_logging.disable_progress_bar()
torch.set_num_threads(1)

# Tests with none of these markers are `unit`.
NOT_UNIT = ("launch", "browser", "slurm", "gpu", "slow", "run")
# Marker that a fixture adds to its tests.
MARKER_BY_FIXTURE = {
    "golden": "golden",
    "golden_json": "golden",
    "chromium": "browser",
    "browser": "browser",
    "wheel": "launch",
    "tiny_pth": "run",
    "finetuned": "run",
    "hyperkvasir": "run",
    "gastrovision": "run",
}


@pytest.fixture(autouse=True, scope="module")
def stub_figures_unless_inspected(request):
    """Figures are empty files, except in `test_figures.py` and in tests that use the fixture `real_figures`."""
    use_stub_figures(request.path.name != "test_figures.py")
    yield
    use_stub_figures(False)


@pytest.fixture
def real_figures():
    """Draws real figures in this test."""
    with draw_real_figures():
        yield


@pytest.fixture(autouse=True)
def restore_logging():
    """Restores the log level and progress bars after a command that ran in the test process."""
    ours = logging.getLogger("hf_mae")
    level, bars = ours.level, os.environ.get("TQDM_DISABLE")
    yield
    ours.setLevel(level)
    if bars is None:
        os.environ.pop("TQDM_DISABLE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Adds markers from fixtures, marks quick tests as `unit`, and runs long files first to balance the workers."""
    for item in items:
        for fixture, name in MARKER_BY_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(name)
        if "run_cli" in item.function.__code__.co_names:
            item.add_marker("run")
        if not any(item.get_closest_marker(name) for name in NOT_UNIT):
            item.add_marker("unit")
    weights: dict[Path, int] = {}
    for item in items:
        heavy = 1000 if item.get_closest_marker("slow") else not item.get_closest_marker("unit")
        weights[item.path] = weights.get(item.path, 0) + heavy
    items.sort(key=lambda item: -weights[item.path])


@pytest.fixture(scope="session")
def golden() -> Path:
    return shared_folder("golden")


@pytest.fixture(scope="session")
def golden_json(golden) -> dict:
    return json.loads((golden / "golden.json").read_text())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return shared_folder("data")


@pytest.fixture(scope="session")
def hyperkvasir(shared_data, tmp_path_factory) -> Path:
    return make_hyperkvasir(tmp_path_factory.mktemp("hyper-kvasir"), shared_data / "splits")


@pytest.fixture(scope="session")
def gastrovision(shared_data, tmp_path_factory) -> Path:
    return make_gastrovision(tmp_path_factory.mktemp("archive") / "GastroVision", shared_data / "splits")


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """Three classes of drawings: labelled/{train,validation,test} and unlabelled/, 64 pixels."""
    folder = tmp_path_factory.mktemp("toy")
    load_script("make_toy_data").make_toy_data(folder, images=20)
    return folder


@pytest.fixture(scope="session")
def uninterrupted(tiny_pth, toy, tmp_path_factory) -> Path:
    """Output of an uninterrupted two-process run; trained once for all test processes."""
    from filelock import FileLock
    from support.distributed_runs import build_launch_command, finetune_flags, run_command

    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    out = root / "uninterrupted" / "run"
    with FileLock(root / "uninterrupted.lock"):
        if not (out / "all_results.json").is_file():
            run_command(build_launch_command("ddp", 2, *finetune_flags(tiny_pth, toy), "--output_dir", out))
    return out


@pytest.fixture(scope="session")
def tiny_pth(tmp_path_factory) -> Path:
    """A tiny MAE in the layout of facebookresearch/mae: {model, optimizer, epoch, scaler, args}."""
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
    """Function: pooling -> output folder of a run trained on the toy set."""
    from hf_mae.cli.main import main

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
    """Path of ChromeDriver; installs Chromium if it is missing."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        install_debian_packages("chromium", "chromium-driver")
    return Path(shutil.which("chromedriver"))
