"""Reconstructions: equal to the original code, exact for visible patches, and reproducible."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.cli_process import run_cli
from support.messages import shows
from support.models import TINY, TINY_DECODER, tiny_pretrainer

from hf_mae.cli.main import main
from hf_mae.files.messages import FileMessage
from hf_mae.inference.reconstruction import reconstruct_patches, sample_mask_noise
from hf_mae.models.building import build_pretrainer
from hf_mae.reporting.reconstructions import make_reconstruction_sheet
from hf_mae.settings.messages import SettingsMessage
from hf_mae.workflows.messages import WorkflowMessage


def test_reconstructions_equal_the_golden_predictions(golden):
    forward = load_file(golden / "pretrain_forward.safetensors")
    model = build_pretrainer(
        golden / "checkpoint-399.pth", mask_ratio=0.75, norm_pix_loss=False, **TINY, **TINY_DECODER
    )
    model.eval()
    images = reconstruct_patches(model, forward["pixel_values"], forward["noise"])
    expected = model.unpatchify(forward["pred"])
    torch.testing.assert_close(images["reconstruction"], expected, atol=1e-5, rtol=0)
    mask = model.unpatchify(forward["mask"][..., None].expand_as(forward["pred"]).float())
    visible = (mask == 0).expand_as(expected)
    assert torch.equal(images["pasted"][visible], forward["pixel_values"][visible])
    assert images["mask"].mean() == pytest.approx(0.75) and not model.training


def test_normalized_patches_are_denormalized():
    """A model that predicts the normalized target reconstructs the image."""
    model = tiny_pretrainer()
    assert model.config.norm_pix_loss
    pixel_values = torch.randn(2, 3, 32, 32)
    patches = model.patchify(pixel_values)
    target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
    forward = model.forward

    def predict_target(**kwargs):
        output = forward(**kwargs)
        output.logits = target
        return output

    model.forward = predict_target
    images = reconstruct_patches(model, pixel_values, sample_mask_noise(2, 16, seed=0))
    torch.testing.assert_close(images["reconstruction"], pixel_values, atol=1e-5, rtol=1e-5)


def test_masked_patches_are_grey_on_the_sheet():
    pixel_values = torch.zeros(2, 3, 32, 32)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, :16] = 1
    images = {"mask": mask, "reconstruction": torch.ones(2, 3, 32, 32), "pasted": mask.expand(2, 3, 32, 32)}
    sheet = np.asarray(make_reconstruction_sheet(pixel_values, images, [0.2] * 3, [0.5] * 3))
    assert sheet.shape == (2 * 36 + 18, 4 * 36 + 4, 3)
    row = (
        sheet[18 + 8, [4 + column * 36 + 16 for column in range(4)], 0],
        sheet[18 + 24, [4 + c * 36 + 16 for c in range(4)], 0],
    )
    assert row[0].tolist() == [51, 128, 178, 178] and row[1].tolist() == [51, 51, 178, 51]


def test_reconstruct_command(tiny_pth, toy, tmp_path, capsys):
    argv = ["reconstruct", "--model", str(tiny_pth), str(toy / "unlabelled" / "frame_0000.jpg"), "--mask_ratio", "0.5"]
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert main([*argv, "--seed", seed, "--output", str(tmp_path / f"{name}.png")]) == 0
    assert "Reconstructed 1 image, 50 % of the patches masked" in capsys.readouterr().out
    sheets = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc"]
    assert np.array_equal(sheets[0], sheets[1]) and not np.array_equal(sheets[0], sheets[2])
    assert main([*argv, "--output", str(tmp_path / "a.png")]) == 1
    assert shows(capsys.readouterr().err, FileMessage.FILE_EXISTS, path=tmp_path / "a.png")
    assert main([*argv, "--mask_ratio", "1.5"]) == 2
    assert shows(capsys.readouterr().err, SettingsMessage.OUT_OF_BOUNDS)
    (tmp_path / "bad.jpg").write_text("no image")
    argv = ["reconstruct", "--model", str(tiny_pth), str(tmp_path / "bad.jpg"), "--output", str(tmp_path / "d.png")]
    assert main(argv) == 1 and not (tmp_path / "d.png").exists()
    assert shows(capsys.readouterr().err, WorkflowMessage.IMAGE_UNREADABLE, path=tmp_path / "bad.jpg")


def test_reconstruction_sheets_do_not_change_pretraining(toy, tmp_path):
    """They are drawn every N updates and at the end; the weights equal those of a run without them."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    sizes |= {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4}
    argv = [word for name, value in sizes.items() for word in (f"--{name}", value)]
    argv += ["--data_dir", toy / "unlabelled", "--per_device_train_batch_size", 20, "--learning_rate", 1e-3]
    argv += ["--max_steps", 5, "--disable_tqdm", "true", "--report_to", "tensorboard"]
    for name, steps in (("with", 2), ("without", 0)):
        run_cli("pretrain", *argv, "--output_dir", tmp_path / name, "--reconstruction_steps", steps)
    sheets = sorted(path.name for path in (tmp_path / "with" / "reconstructions").iterdir())
    assert sheets == ["step-0000002.png", "step-0000004.png", "step-0000005.png"]
    assert not (tmp_path / "without" / "reconstructions").exists()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("with", "without"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (tmp_path / "with").rglob("events.out.tfevents*")
    accumulator = EventAccumulator(str(events.parent), size_guidance={"images": 0})
    accumulator.Reload()
    assert [event.step for event in accumulator.Images("reconstructions")] == [2, 4, 5]
    assert json.loads((tmp_path / "with" / "all_results.json").read_text())["images"]["train"] > 0
