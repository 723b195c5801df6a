"""Reconstructions: exact where the patches are visible, in the units of the image, the same for the same seed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.cli_process import run_cli
from support.models import TINY, TINY_DECODER, tiny_pretrainer

from hf_mae import build_pretrainer
from hf_mae.cli.main import main
from hf_mae.models.reconstruction import reconstruct_patches as reconstruct
from hf_mae.models.reconstruction import sample_mask_noise
from hf_mae.reporting.reconstructions import make_reconstruction_sheet


def test_the_golden_predictions_are_what_is_shown(golden):
    given = load_file(golden / "pretrain_forward.safetensors")
    model = build_pretrainer(
        golden / "checkpoint-399.pth", mask_ratio=0.75, norm_pix_loss=False, **TINY, **TINY_DECODER
    )
    model.eval()
    pictures = reconstruct(model, given["pixel_values"], given["noise"])
    expected = model.unpatchify(given["pred"])
    torch.testing.assert_close(pictures["reconstruction"], expected, atol=1e-5, rtol=0)
    mask = model.unpatchify(given["mask"][..., None].expand_as(given["pred"]).float())
    visible = (mask == 0).expand_as(expected)
    assert torch.equal(pictures["pasted"][visible], given["pixel_values"][visible])
    assert pictures["mask"].mean() == pytest.approx(0.75) and not model.training


def test_normalised_patches_get_their_own_mean_and_variance_again():
    """A model that predicts the normalised target itself gives the image back."""
    model = tiny_pretrainer()
    assert model.config.norm_pix_loss
    pixel_values = torch.randn(2, 3, 32, 32)
    patches = model.patchify(pixel_values)
    target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
    forward = model.forward

    def perfect(**kwargs):
        output = forward(**kwargs)
        output.logits = target
        return output

    model.forward = perfect
    pictures = reconstruct(model, pixel_values, sample_mask_noise(2, 16, seed=0))
    torch.testing.assert_close(pictures["reconstruction"], pixel_values, atol=1e-5, rtol=1e-5)


def test_the_sheet_shows_grey_where_patches_are_hidden():
    pixel_values = torch.zeros(2, 3, 32, 32)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, :16] = 1
    pictures = {"mask": mask, "reconstruction": torch.ones(2, 3, 32, 32), "pasted": mask.expand(2, 3, 32, 32)}
    page = np.asarray(make_reconstruction_sheet(pixel_values, pictures, [0.2] * 3, [0.5] * 3))
    assert page.shape == (2 * 36 + 18, 4 * 36 + 4, 3)
    row = (
        page[18 + 8, [4 + column * 36 + 16 for column in range(4)], 0],
        page[18 + 24, [4 + c * 36 + 16 for c in range(4)], 0],
    )
    assert row[0].tolist() == [51, 128, 178, 178] and row[1].tolist() == [51, 51, 178, 51]


def test_the_verb(tiny_pth, toy, tmp_path, capsys):
    argv = ["reconstruct", "--model", str(tiny_pth), str(toy / "unlabelled" / "frame_0000.jpg"), "--mask_ratio", "0.5"]
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert main([*argv, "--seed", seed, "--output", str(tmp_path / f"{name}.png")]) == 0
    assert "1 image, 50 % of their patches hidden" in capsys.readouterr().out
    pages = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc"]
    assert np.array_equal(pages[0], pages[1]) and not np.array_equal(pages[0], pages[2])
    assert main([*argv, "--output", str(tmp_path / "a.png")]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*argv, "--mask_ratio", "1.5"]) == 2 and "between 0 and 1" in capsys.readouterr().err
    (tmp_path / "bad.jpg").write_text("no image")
    assert (
        main(["reconstruct", "--model", str(tiny_pth), str(tmp_path / "bad.jpg"), "--output", str(tmp_path / "d.png")])
        == 1
    )
    assert "bad.jpg cannot be read" in capsys.readouterr().err and not (tmp_path / "d.png").exists()


def test_sheets_while_pretraining_change_nothing(toy, tmp_path):
    """Every so many updates, and at the end; the weights are those of a run without them."""
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
    assert json.loads((tmp_path / "with" / "all_results.json").read_text())["images"] > 0
