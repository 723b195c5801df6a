"""ONNX export: the same logits for any batch size, and inference with onnxruntime, numpy and Pillow only."""

import json
import runpy
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from support.cli_process import run_cli
from support.frame_files import write_frames
from support.messages import shows
from support.paths import ROOT
from transformers import AutoModelForImageClassification, ViTImageProcessor, pipeline

from hf_mae.conversion import mae_image_processor
from hf_mae.data.images.image_io import read_rgb
from hf_mae.settings.messages import SettingsMessage
from hf_mae.sharing.image_reader import write_image_reader

EXAMPLE = ROOT / "hf_mae" / "sharing" / "onnx_example.py"


@pytest.fixture(scope="module", params=["mean", "cls"])
def exported(request, finetuned, toy, tmp_path_factory):
    run, out = finetuned(request.param), tmp_path_factory.mktemp("onnx") / request.param
    done = run_cli("export-onnx", run, out, "--int8", "--data_dir", toy / "labelled")
    return run, out, done.stdout


def test_logits_are_the_same_for_any_batch_size(exported):
    run, out, _ = exported
    model = AutoModelForImageClassification.from_pretrained(run).eval()
    session = onnxruntime.InferenceSession(out / "onnx" / "model.onnx")
    for batch in (1, 3, 8):
        pixel_values = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            expected = model(pixel_values=pixel_values).logits.numpy()
        (logits,) = session.run(None, {"pixel_values": pixel_values.numpy()})
        assert logits.shape == (batch, 3) and np.abs(logits - expected).max() < 1e-4


def test_results_of_the_check_are_saved(exported):
    run, out, printed = exported
    results = json.loads((out / "check.json").read_text())
    accuracy = json.loads((run / "all_results.json").read_text())["scores"]["validation"]["accuracy"]
    assert results["images"] == 18 and results["pytorch"]["accuracy"] == accuracy
    assert results["float32"]["accuracy"] == accuracy and results["float32"]["largest_difference"] < 1e-4
    assert results["int8"]["agreement"] > 0.8 and results["int8"]["largest_difference"] > 1e-4
    assert (out / "onnx/model_quantized.onnx").stat().st_size < 0.6 * (out / "onnx/model.onnx").stat().st_size
    assert "onnx/model_quantized.onnx" in printed and f"{100 * accuracy:.2f}" in printed


@pytest.mark.parametrize("size", [(64, 64), (345, 123)])
def test_the_example_needs_no_torch_and_agrees_with_pipeline(exported, tmp_path, size):
    run, out, _ = exported
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    coarse.resize(size, Image.Resampling.BICUBIC).save(tmp_path / "x.png")
    code = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import runpy; "
    code += "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    for model in ([], ["onnx/model_quantized.onnx"]):
        argv = [sys.executable, "-c", code, out / "example.py", *model, tmp_path / "x.png"]
        done = subprocess.run(list(map(str, argv)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        words = done.stdout.split()
        best = pipeline("image-classification", model=str(run), device="cpu")(str(tmp_path / "x.png"))[0]
        assert words[1] == best["label"] and float(words[2]) == pytest.approx(best["score"], abs=0.02)
    lines = [line for line in (out / "example.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 36


def test_invalid_options_are_rejected(finetuned, tmp_path):
    done = run_cli("export-onnx", finetuned(), tmp_path / "x", "--int8", status=2)
    assert shows(done.stderr, SettingsMessage.INT8_NEEDS_DATA) and not (tmp_path / "x").exists()
    run_cli("export-onnx", finetuned(), tmp_path / "x")
    done = run_cli("export-onnx", finetuned(), tmp_path / "x", status=1)
    assert "overwrite" in done.stderr


@pytest.mark.parametrize("kind", ["squashed", "cropped"])
@pytest.mark.parametrize(
    "size, mode", [((345, 123), "RGB"), ((37, 64), "RGB"), ((61, 200), "I;16"), ((50, 40), "rotated")]
)
def test_the_example_preprocesses_like_the_pipeline(tmp_path, monkeypatch, kind, size, mode):
    """Both kinds of processors, odd sizes, 16 bits, and EXIF rotation."""
    if kind == "cropped":
        processor = mae_image_processor(32)
    else:
        processor = ViTImageProcessor(size={"height": 32, "width": 32}, resample=2, do_convert_rgb=True)
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"id2label": {"0": "a"}}')
    shutil.copy(EXAMPLE, tmp_path / "example.py")
    write_image_reader(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path: None)
    monkeypatch.setattr(sys, "argv", ["example.py", "model.onnx"])
    example = runpy.run_path(str(tmp_path / "example.py"))
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    image, path = Image.fromarray(pixels), tmp_path / "x.png"
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 16)
    exif = Image.Exif()
    exif[0x0112] = 6 if mode == "rotated" else 1
    image.save(path, exif=exif)
    expected = processor(read_rgb(path), return_tensors="np")["pixel_values"]
    with example["open_frames"](str(path)) as frames:
        np.testing.assert_allclose(example["load_pixels"](frames), expected, atol=2e-2)


def test_the_example_classifies_every_frame(tmp_path, monkeypatch, capsys):
    mae_image_processor(32).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"id2label": {"0": "dark", "1": "bright"}}')
    shutil.copy(EXAMPLE, tmp_path / "example.py")
    write_image_reader(tmp_path)
    levels = [0, 200, 30]
    write_frames(tmp_path / "x.tif", np.stack([np.full((40, 40, 3), level, np.uint8) for level in levels]))

    class Model:
        def run(self, _, inputs):
            return [np.array([[0.0, 50.0 * inputs["pixel_values"].mean()]])]

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path: Model())
    monkeypatch.setattr(sys, "argv", ["example.py", "model.onnx", str(tmp_path / "x.tif")])
    runpy.run_path(str(tmp_path / "example.py"))
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    names = ["dark" if level < 100 else "bright" for level in levels]
    assert rows == [[f"{tmp_path / 'x.tif'}#frame={index}", name] for index, name in enumerate(names)]


def install_transformers_js(folder):
    """Installs npm's @huggingface/transformers in a folder; skips the test if that is not possible."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node or npm is not installed")
    argv = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "@huggingface/transformers"]
    if subprocess.run(argv, cwd=folder, capture_output=True).returncode:
        pytest.skip("@huggingface/transformers cannot be installed")


SCRIPT = """
import { pipeline, env } from "@huggingface/transformers";
env.localModelPath = process.argv[2] + "/";
env.allowRemoteModels = false;
const results = {};
for (const dtype of ["fp32", "q8"]) {
  const classify = await pipeline("image-classification", process.argv[3], { dtype });
  results[dtype] = [];
  for (const image of process.argv.slice(4)) results[dtype].push(await classify(image, { top_k: 3 }));
}
console.log(JSON.stringify(results));
"""


@pytest.mark.launch
def test_the_folder_of_the_run_works_with_transformers_js(finetuned, toy, tmp_path):
    """Most predictions are equal; transformers.js resizes differently."""
    run = tmp_path / "models" / "run"
    shutil.copytree(finetuned("mean"), run, ignore=shutil.ignore_patterns("checkpoint-*"))
    done = run_cli("export-onnx", run, "--int8", "--data_dir", toy / "labelled")
    assert "onnx/model.onnx" in done.stdout and (run / "onnx" / "check.json").is_file()
    assert sorted(path.name for path in (run / "onnx").iterdir()) == [
        "check.json",
        "model.onnx",
        "model_quantized.onnx",
    ]
    install_transformers_js(tmp_path)
    (tmp_path / "classify.mjs").write_text(SCRIPT)
    images = sorted((toy / "labelled" / "test").glob("*/*.jpg"))
    argv = ["node", "classify.mjs", run.parent, run.name, *images]
    done = subprocess.run(list(map(str, argv)), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    javascript = json.loads(done.stdout.splitlines()[-1])
    python = pipeline("image-classification", model=str(run), device="cpu")([str(path) for path in images])
    same = [one[0]["label"] == other[0]["label"] for one, other in zip(javascript["fp32"], python)]
    assert np.mean(same) > 0.8 and len(javascript["q8"]) == len(images)
    scores = [[{e["label"]: e["score"] for e in one} for one in side] for side in (javascript["fp32"], python)]
    difference = max(abs(one[name] - other[name]) for one, other in zip(*scores) for name in one)
    assert difference < 0.3
