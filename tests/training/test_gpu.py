"""Tests that need a CUDA GPU; skipped without one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.distributed_runs import free_port
from support.paths import ROOT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="requires a CUDA GPU"),
]


def launch(golden, config: str, precision: str, out) -> dict:
    """Runs `engine_program.py` (ten updates) on one GPU under an accelerate config of the project."""
    options = {
        "checkpoint": str(golden / "gap_smoothing_initial.pth"),
        "data": str(golden / "gap_smoothing.safetensors"),
        "pooling": "mean",
        "out": str(out),
        "per_device_train_batch_size": 8,
        "use_cpu": False,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_suffix(".json")
    path.write_text(json.dumps([options]))
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", str(ROOT / "accelerate_configs" / f"{config}.yaml"), "--num_processes", "1"),
        *("--mixed_precision", precision, "--main_process_port", str(free_port())),
        *(str(ROOT / "tests" / "support" / "engine_program.py"), str(path)),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads((out / "facts.json").read_text())


@pytest.mark.parametrize("config", ["single_gpu", "fsdp2", "zero2", "zero3"])
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_every_engine_and_precision(golden, tmp_path, config, precision):
    """The logits agree with float32 within the precision; fp16 uses the gradient scaler."""
    if config.startswith("zero"):
        pytest.importorskip("deepspeed")
    assert launch(golden, "single_gpu", "no", tmp_path / "plain")["updates"] == 10
    facts = launch(golden, config, precision, tmp_path / "run")
    assert facts["updates"] == 10
    ours, plain = (np.load(tmp_path / name / "logits.npy") for name in ("run", "plain"))
    tolerance = {"no": 1e-4, "bf16": 5e-2, "fp16": 5e-2}[precision]
    np.testing.assert_allclose(ours, plain, atol=tolerance)


def test_tf32_is_a_flag(golden, tmp_path):
    from hf_mae import FinetuningArguments

    FinetuningArguments(output_dir=tmp_path, tf32=True, report_to="none")
    assert torch.backends.cuda.matmul.allow_tf32
