"""Hostile, broken and foreign files: one clear sentence, nothing executed, nothing half-written."""

import argparse
import os
import pickle

import numpy as np
import pytest
import torch
from support.cli_process import run_cli
from support.models import TINY

from hf_mae.conversion import ConversionError, convert_checkpoint, export_checkpoint, read_checkpoint


class Evil:
    """Pickles as a call that writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["beside", "inside", "alone"])
def test_a_pickle_that_would_run_code_is_refused(tiny_pth, tmp_path, where):
    loaded = torch.load(tiny_pth, weights_only=False)
    evil = Evil(tmp_path / "owned")
    content = {
        "beside": loaded | {"hook": evil},
        "inside": {"model": loaded["model"] | {"norm.weight": evil}},
        "alone": evil,
    }
    torch.save(content[where], tmp_path / "evil.pth")
    with pytest.raises(ConversionError, match="nothing in it was executed.*posix.system"):
        convert_checkpoint(tmp_path / "evil.pth", tmp_path / "out")
    assert not (tmp_path / "owned").exists() and not (tmp_path / "out").exists()
    # The file does run code for whoever trusts it: the test can fail.
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "owned").exists()


def test_a_plain_pickle_is_refused_too(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(tmp_path / "owned")))
    with pytest.raises(ConversionError):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


def test_numpy_scalars_and_namespaces_are_read(tiny_pth, tmp_path):
    loaded = torch.load(tiny_pth, weights_only=False)
    loaded |= {"max_accuracy": np.float64(83.6), "step": np.int64(7), "loss": np.float32(0.4)}
    loaded["args"] = argparse.Namespace(**vars(loaded["args"]), lr=np.float64(1e-3), ok=np.bool_(True))
    torch.save(loaded, tmp_path / "in.pth")
    assert read_checkpoint(tmp_path / "in.pth").metadata.num_attention_heads == 3


def test_the_format_before_torch_1_6_is_read(tiny_pth, tmp_path):
    loaded = torch.load(tiny_pth, weights_only=False)
    torch.save(loaded, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    state = read_checkpoint(tmp_path / "old.pth").state
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded["model"].items())


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_truncated_files(tiny_pth, tmp_path, keep):
    content = tiny_pth.read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(ConversionError, match="again"):
        convert_checkpoint(tmp_path / "cut.pth", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pth"]


def test_a_truncated_safetensors(tiny_pth, tmp_path):
    from safetensors.torch import save_file

    save_file(dict(read_checkpoint(tiny_pth).state), tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-100])
    with pytest.raises(ConversionError, match="damaged"):
        read_checkpoint(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"<!DOCTYPE html><title>Google Drive - Virus scan warning</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"just some text", "no PyTorch checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        read_checkpoint(tmp_path / "x.pth")


def weight():
    return torch.zeros(4, 4)


@pytest.mark.parametrize(
    "state, message",
    [
        ({"encoder.blocks.0.attn.q_bias": weight(), "encoder.patch_embed.proj.weight": weight()}, "MAE-pytorch"),
        ({"blocks.0.attn.relative_position_bias_table": weight()}, "BEiT or Swin"),
        ({"teacher": {"backbone.cls_token": weight()}, "student": {}}, "no ViT MAE.*under teacher"),
        ({"blocks.0.ls1.gamma": weight(), "patch_embed.proj.weight": weight()}, "layer scale"),
        ({"conv1.weight": weight(), "layer1.0.conv1.weight": weight(), "fc.weight": weight()}, "ResNet"),
        ({"base_model.model.vit.layer.0.query.lora_A.weight": weight()}, "LoRA adapter"),
        ({"register_tokens": weight(), "patch_embed.proj.weight": weight()}, "register tokens"),
        ({"visual.transformer.resblocks.0.ln_1.weight": weight()}, "CLIP"),
        ({"some.other.weight": weight()}, "no ViT MAE"),
        ({"model": {"epoch": 3}}, "holds no tensors"),
        ([1, 2], "holds a list"),
    ],
)
def test_other_architectures_are_refused_by_name(tmp_path, state, message):
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=message):
        convert_checkpoint(tmp_path / "x.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_parameters_inside_the_encoder_are_refused(tiny_pth, tmp_path):
    state = dict(read_checkpoint(tiny_pth).state) | {"blocks.0.attn.temperature": torch.ones(1)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="blocks.0.attn.temperature"):
        read_checkpoint(tmp_path / "x.pth")


def test_missing_and_misshapen_parameters_are_named(tiny_pth, tmp_path):
    state = dict(read_checkpoint(tiny_pth).state)
    torch.save({n: t for n, t in state.items() if n != "blocks.1.norm2.bias"}, tmp_path / "missing.pth")
    with pytest.raises(ConversionError, match="lacks.*blocks.1.norm2.bias"):
        convert_checkpoint(tmp_path / "missing.pth", tmp_path / "out", to="backbone", **TINY)
    torch.save({n: t for n, t in state.items() if not n.startswith("norm.")}, tmp_path / "norm.pth")
    with pytest.raises(ConversionError, match="lacks.*norm.weight, norm.bias"):
        convert_checkpoint(tmp_path / "norm.pth", tmp_path / "out", to="backbone", **TINY)
    torch.save(state | {"blocks.1.norm2.bias": torch.zeros(5)}, tmp_path / "shape.pth")
    with pytest.raises(ConversionError, match=r"\(48,\) and is \(5,\)"):
        convert_checkpoint(tmp_path / "shape.pth", tmp_path / "out", to="backbone", **TINY)
    torch.save(state | {"pos_embed": torch.zeros(1, 15, 48)}, tmp_path / "grid.pth")
    with pytest.raises(ConversionError, match="no square"):
        convert_checkpoint(tmp_path / "grid.pth", tmp_path / "out", to="backbone", **TINY)


def test_weights_that_are_not_finite_do_not_pass_verify(tiny_pth, tmp_path):
    state = dict(read_checkpoint(tiny_pth).state) | {"norm.bias": torch.full((48,), float("nan"))}
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(ConversionError, match="norm.bias holds 48 numbers that are not finite"):
        convert_checkpoint(tmp_path / "nan.pth", tmp_path / "out", to="backbone", **TINY, verify=True)
    assert not (tmp_path / "out").exists()


def test_an_existing_destination_is_kept(tiny_pth, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(ConversionError, match="--overwrite"):
        convert_checkpoint(tiny_pth, out)
    with pytest.raises(ConversionError):  # fails after the destination was accepted: it stays as it was
        convert_checkpoint(tiny_pth, out, overwrite=True, num_attention_heads=5)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (out / "mine.txt").read_text() == "precious"
    convert_checkpoint(tiny_pth, out, overwrite=True)
    assert not (out / "mine.txt").exists() and (out / "model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    export_checkpoint(out, tmp_path / "back.pth")
    with pytest.raises(ConversionError, match="--overwrite"):
        export_checkpoint(out, tmp_path / "back.pth")


def test_the_command_line_says_it_in_one_sentence(tiny_pth, tmp_path):
    done = run_cli("convert", tmp_path / "absent.pth", tmp_path / "out", status=1)
    assert done.stderr.strip() == f"hf-mae convert: {tmp_path / 'absent.pth'} does not exist."
    done = run_cli("convert", tiny_pth, tmp_path / "out", "--verify", "--num-labels", "4")
    assert (
        "verified  against timm's VisionTransformer: largest difference" in done.stdout
        and "new       classifier.weight" in done.stdout
    )
    done = run_cli("export", tmp_path / "out", tmp_path / "back.pth")
    assert (tmp_path / "back.pth").exists()
