"""What comes out is stock: it loads in an environment without hf_mae, without a word, and gives the same scores."""

import csv
import json
import os
import subprocess
import sys
import sysconfig

import pytest

pytestmark = pytest.mark.launch

PROGRAM = """
import importlib.util, json, sys, warnings
assert importlib.util.find_spec("hf_mae") is None
warnings.simplefilter("error", UserWarning)
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
run, *images = sys.argv[1:]
model, told = AutoModelForImageClassification.from_pretrained(run, output_loading_info=True)
assert not any(told.values()), told
assert not type(model).__module__.startswith("transformers_modules")
AutoImageProcessor.from_pretrained(run)
classify = pipeline("image-classification", model=run, device="cpu", top_k=None)
print(json.dumps([{row["label"]: row["score"] for row in found} for found in classify(images)]))
"""


@pytest.fixture(scope="module")
def stock_python(tmp_path_factory):
    """A new environment that has torch and transformers (lent by path, not downloaded again), and no hf_mae."""
    folder = tmp_path_factory.mktemp("stock")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    own = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (own / "lent.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_it_loads_without_hf_mae_and_scores_as_in_training(stock_python, finetuned, toy, pooling):
    run = finetuned(pooling)
    with open(run / "predictions_test.csv") as file:
        rows = list(csv.DictReader(file))
    images = [toy / "labelled" / row["file_name"] for row in rows]
    done = subprocess.run(
        [stock_python, "-c", PROGRAM, run, *images],
        capture_output=True,
        text=True,
        cwd=run,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    assert "newly initialized" not in done.stderr and "not used" not in done.stderr
    assert "MISSING" not in done.stderr and "UNEXPECTED" not in done.stderr, done.stderr
    for scores, row in zip(json.loads(done.stdout), rows):
        for label, score in scores.items():
            assert float(row[f"score:{label}"]) == pytest.approx(score, abs=2e-6)
