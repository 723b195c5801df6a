"""Saved models are stock: they load without hf_mae and without warnings, in several versions of transformers, and give
the same scores."""

import csv
import functools
import json
import os
import subprocess
import sys
import sysconfig

import pytest

from hf_mae.conversion import convert_checkpoint

pytestmark = pytest.mark.launch

PROGRAM = """
import importlib.util, json, sys, warnings
assert not importlib.util.find_spec("hf_mae")
if sys.argv.pop(1) == "installed":
    warnings.simplefilter("error", UserWarning)
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
results = {}
for run, images in json.loads(sys.argv[1]).items():
    model, info = AutoModelForImageClassification.from_pretrained(run, output_loading_info=True)
    assert not any(info.values()), info
    assert not type(model).__module__.startswith("transformers_modules")
    AutoImageProcessor.from_pretrained(run)
    classify = pipeline("image-classification", model=run, device="cpu", top_k=None)
    results[run] = [{row["label"]: row["score"] for row in rows} for rows in classify(images)]
print(json.dumps(results))
"""


# Requirements of earlier versions of transformers; torch and the others are those of this environment.
OLDER = {
    "4.57.6": ("tokenizers==0.22.1", "huggingface_hub==0.36.0"),
    "4.44.2": ("tokenizers==0.19.1", "huggingface_hub==0.25.2", "safetensors==0.4.5", "numpy==1.26.4"),
}
VERSIONS = ("installed", *OLDER)
TOLERANCES = {"installed": 2e-6, "4.57.6": 2e-3, "4.44.2": 2e-3}  # 4.x resizes with PIL, 5 with torchvision


@pytest.fixture(scope="module")
def runs(finetuned, tmp_path_factory):
    """A run per pooling mode, and one with the image processor of the original code (shorter side, centre crop)."""
    cropped = tmp_path_factory.mktemp("cropped") / "model"
    convert_checkpoint(finetuned("mean"), cropped, processor="mae")
    return {"mean": finetuned("mean"), "cls": finetuned("cls"), "cropped": cropped}


@pytest.fixture(scope="module")
def classified(runs, toy, tmp_path_factory):
    """A function version -> run -> scores of the test images by class.

    They are computed by `pipeline()` in a new environment with this version of transformers, without hf_mae; torch is
    used from this environment.
    """

    @functools.cache
    def classify(version: str):
        folder = tmp_path_factory.mktemp("stock")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        site_packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (site_packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
        if version in OLDER:
            requirements = [f"transformers=={version}", *OLDER[version]]
            command = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                site_packages,
                *requirements,
            ]
            subprocess.run(command, check=True)
        with open(runs["mean"] / "predictions_test.csv") as file:
            images = [str(toy / "labelled" / row["file_name"]) for row in csv.DictReader(file)]
        images_by_run = {str(run): images for run in runs.values()}
        done = subprocess.run(
            [folder / "bin" / "python", "-c", PROGRAM, version, json.dumps(images_by_run)],
            capture_output=True,
            text=True,
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        assert done.returncode == 0, done.stderr
        assert "newly initialized" not in done.stderr and "not used" not in done.stderr
        assert "MISSING" not in done.stderr and "UNEXPECTED" not in done.stderr, done.stderr
        results = json.loads(done.stdout)
        return {name: results[str(run)] for name, run in runs.items()}

    return classify


@pytest.mark.parametrize("version", VERSIONS)
def test_models_load_without_hf_mae_and_give_the_scores_of_the_run(classified, runs, version):
    for pooling in ("mean", "cls"):
        with open(runs[pooling] / "predictions_test.csv") as file:
            rows = list(csv.DictReader(file))
        for scores, row in zip(classified(version)[pooling], rows, strict=True):
            for label, score in scores.items():
                assert float(row[f"score:{label}"]) == pytest.approx(score, abs=TOLERANCES[version])


@pytest.mark.parametrize("version", OLDER)
def test_earlier_versions_crop_identically(classified, version):
    for one, two in zip(classified("installed")["cropped"], classified(version)["cropped"], strict=True):
        assert one == {label: pytest.approx(score, abs=TOLERANCES[version]) for label, score in two.items()}
