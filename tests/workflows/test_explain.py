"""Saliency maps in both pooling modes against captum, and the files of `hf-mae explain`."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from support.cli_process import run_cli
from support.messages import shows
from transformers import AutoImageProcessor, AutoModelForImageClassification

from hf_mae.cli.main import main
from hf_mae.inference.saliency import grad_cam
from hf_mae.reporting.explanations import explain_batch
from hf_mae.settings.messages import SettingsMessage
from hf_mae.workflows.explain import confident_mistakes
from hf_mae.workflows.messages import WorkflowMessage


@pytest.fixture(params=["mean", "cls"])
def classifier(request, finetuned):
    return AutoModelForImageClassification.from_pretrained(finetuned(request.param)).eval()


def open_rings(toy, count=2):
    paths = sorted((toy / "labelled" / "test" / "ring").glob("*.jpg"))[:count]
    return paths, [Image.open(path).convert("RGB") for path in paths]


def load_rings(finetuned, toy):
    paths, images = open_rings(toy)
    return AutoImageProcessor.from_pretrained(finetuned())(images, return_tensors="pt")["pixel_values"]


class TokensToMap(torch.nn.Module):
    """Tokens (batch, 17, width) as a feature map (batch, width, 4, 4) and the class token."""

    def forward(self, tokens):
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4)), tokens[:, :1]


class MapToTokens(torch.nn.Module):
    def forward(self, inputs):
        patches, class_token = inputs
        return torch.cat([class_token, patches.flatten(2).transpose(1, 2)], dim=1)


def test_grad_cam_equals_captum(classifier, finetuned, toy):
    from captum.attr import LayerGradCam

    pixel_values, targets = load_rings(finetuned, toy), torch.tensor([0, 2])
    maps = grad_cam(classifier, pixel_values, targets)
    block, layer = classifier.base_model.layers[-1], TokensToMap()
    block.layernorm_before = torch.nn.Sequential(block.layernorm_before, layer, MapToTokens())
    cam = LayerGradCam(lambda values: classifier(pixel_values=values).logits, layer)
    expected = cam.attribute(pixel_values, targets, relu_attributions=True)[0][:, 0].detach()
    low, high = expected.amin((1, 2), keepdim=True), expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(maps, (expected - low) / (high - low).clamp_min(1e-12), atol=1e-5, rtol=0)
    assert maps.max() == 1


def test_grad_cam_depends_on_the_target_class(classifier, finetuned, toy):
    pixel_values = load_rings(finetuned, toy)
    maps = [grad_cam(classifier, pixel_values, torch.full((2,), target)) for target in range(3)]
    assert not torch.allclose(maps[0], maps[1], atol=0.05) or not torch.allclose(maps[1], maps[2], atol=0.05)
    processor = AutoImageProcessor.from_pretrained(finetuned())
    (one, _) = explain_batch(classifier, processor, pixel_values, ["a", "b"], target="blob")
    assert one.target == "blob" and one.prediction in ("blob", "folds", "ring") and one.grad_cam.size == (32, 32)


def test_confident_mistakes_are_sorted_by_score_per_true_class():
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.1, 0.9], [0.7, 0.3], [0.3, 0.7]])
    labels = np.array([0, 0, 0, 0, 1, 1])
    assert confident_mistakes(scores, labels, 2) == {0: [3, 2], 1: [4]}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_explain_writes_overlays_and_a_contact_sheet_of_mistakes(finetuned, toy, tmp_path, pooling):
    (tmp_path / "broken.jpg").write_text("none")
    # All labels are wrong, so every image is a mistake.
    wrong = tmp_path / "wrong"
    for label, other in (("blob", "ring"), ("ring", "folds"), ("folds", "blob")):
        (wrong / "validation").mkdir(parents=True, exist_ok=True)
        (wrong / "validation" / label).symlink_to(toy / "labelled" / "test" / other)
    run, out = finetuned(pooling), tmp_path / "out"
    paths, _ = open_rings(toy)
    done = run_cli("explain", run, *paths, tmp_path / "broken.jpg", "--output_dir", out, status=1)
    assert "Explained 2 images" in done.stdout and "broken.jpg" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        *("0001_ring_000_grad_cam.png", "0002_ring_001_grad_cam.png", "images_1.png"),
    ]
    done = run_cli("explain", run, "--data_dir", wrong, "--mistakes_per_class", 2, "--output_dir", out)
    assert "mistakes of 3 classes)" in done.stdout
    sheet = Image.open(out / "mistakes_validation.png")
    assert sheet.width > 400 and sheet.height > 400
    assert np.asarray(sheet.convert("L")).std() > 20


@pytest.mark.run
def test_explain_reads_archives_and_several_batches(finetuned, toy, tmp_path, capsys):
    """More images than a batch, from a tar file and from files, and a missing file."""
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(toy / "labelled" / "test", "test")
    count = len(list((toy / "labelled" / "test").rglob("*.jpg")))
    paths, _ = open_rings(toy, 1)
    argv = ["explain", str(finetuned()), str(tmp_path / "all.tar"), str(paths[0]), str(tmp_path / "none.jpg")]
    assert main([*argv, "--output_dir", str(tmp_path / "out"), "--batch_size", str(count // 2), "--quiet"]) == 1
    printed = capsys.readouterr()
    assert f"Explained {count + 1} images" in printed.out
    assert f"hf-mae explain: {tmp_path}/none.jpg: no such file" in printed.err
    assert len(list((tmp_path / "out").glob("*_grad_cam.png"))) == count + 1


def test_invalid_options_are_rejected(finetuned, toy, tmp_path):
    paths, _ = open_rings(toy, 1)
    for argv, message, status in (
        (["--output_dir", tmp_path], SettingsMessage.EXPLAIN_WITHOUT_IMAGES, 2),
        ([*paths, "--target", "polyp", "--output_dir", tmp_path], WorkflowMessage.UNKNOWN_TARGET, 1),
        ([*paths], SettingsMessage.MISSING_ARGUMENTS, 2),
    ):
        done = run_cli("explain", finetuned(), *argv, status=status)
        assert shows(done.stderr, message) and len(done.stderr.strip().splitlines()) == 1
