"""Unsafe, damaged and unsupported files: an error message, nothing executed, no partial output."""

import argparse
import os
import pickle

import numpy as np
import pytest
import torch
from support.cli_process import run_cli
from support.messages import raises
from support.models import TINY

from hf_mae.conversion import ConversionError, convert_checkpoint, export_checkpoint, read_checkpoint
from hf_mae.conversion.messages import ConversionMessage
from hf_mae.files.messages import FileMessage
from hf_mae.settings.messages import SettingsMessage


class Malicious:
    """An object whose pickle runs a command that creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("position", ["extra entry", "parameter", "complete file"])
def test_a_pickle_that_runs_code_is_rejected(tiny_pth, tmp_path, position):
    checkpoint = torch.load(tiny_pth, weights_only=False)
    malicious = Malicious(tmp_path / "executed")
    content = {
        "extra entry": checkpoint | {"hook": malicious},
        "parameter": {"model": checkpoint["model"] | {"norm.weight": malicious}},
        "complete file": malicious,
    }
    torch.save(content[position], tmp_path / "malicious.pth")
    with raises(ConversionMessage.PICKLE_FORBIDDEN_NAME, ConversionError, name="posix.system"):
        convert_checkpoint(tmp_path / "malicious.pth", tmp_path / "out")
    assert not (tmp_path / "executed").exists() and not (tmp_path / "out").exists()
    torch.load(tmp_path / "malicious.pth", weights_only=False)  # the file does run code if it is trusted
    assert (tmp_path / "executed").exists()


def test_a_plain_pickle_that_runs_code_is_rejected(tmp_path):
    (tmp_path / "malicious.pth").write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    with pytest.raises(ConversionError):
        read_checkpoint(tmp_path / "malicious.pth")
    assert not (tmp_path / "executed").exists()


def test_numpy_scalars_and_namespaces_are_read(tiny_pth, tmp_path):
    checkpoint = torch.load(tiny_pth, weights_only=False)
    checkpoint |= {"max_accuracy": np.float64(83.6), "step": np.int64(7), "loss": np.float32(0.4)}
    checkpoint["args"] = argparse.Namespace(**vars(checkpoint["args"]), lr=np.float64(1e-3), ok=np.bool_(True))
    torch.save(checkpoint, tmp_path / "in.pth")
    assert read_checkpoint(tmp_path / "in.pth").metadata.num_attention_heads == 3


def test_the_format_before_torch_1_6_is_read(tiny_pth, tmp_path):
    checkpoint = torch.load(tiny_pth, weights_only=False)
    torch.save(checkpoint, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    state = read_checkpoint(tmp_path / "old.pth").state
    assert all(torch.equal(tensor, state[name]) for name, tensor in checkpoint["model"].items())


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_truncated_files_are_rejected(tiny_pth, tmp_path, keep):
    content = tiny_pth.read_bytes()
    path = tmp_path / "truncated.pth"
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    message = ConversionMessage.FILE_DAMAGED if keep else ConversionMessage.FILE_EMPTY
    with raises(message, ConversionError, path=path):
        convert_checkpoint(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_a_truncated_safetensors_file_is_rejected(tiny_pth, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "truncated.safetensors"
    save_file(dict(read_checkpoint(tiny_pth).state), path)
    path.write_bytes(path.read_bytes()[:-100])
    with raises(ConversionMessage.FILE_DAMAGED, ConversionError, path=path):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"<!DOCTYPE html><title>Google Drive - Virus scan warning</title>", ConversionMessage.FILE_IS_WEB_PAGE),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", ConversionMessage.FILE_IS_LFS_POINTER),
        (b"just some text", ConversionMessage.FILE_DAMAGED),
    ],
)
def test_files_that_are_not_checkpoints_are_rejected(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with raises(message, ConversionError):
        read_checkpoint(tmp_path / "x.pth")


def weight():
    return torch.zeros(4, 4)


@pytest.mark.parametrize(
    "state, message, attributes",
    [
        (
            {"encoder.blocks.0.attn.q_bias": weight(), "encoder.patch_embed.proj.weight": weight()},
            ConversionMessage.UNSUPPORTED_LAYOUT,
            {"layout": "an MAE-pytorch or BEiT model (separate q_bias and v_bias)"},
        ),
        (
            {"blocks.0.attn.relative_position_bias_table": weight()},
            ConversionMessage.UNSUPPORTED_LAYOUT,
            {"layout": "a BEiT or Swin model (relative position biases)"},
        ),
        (
            {"teacher": {"backbone.cls_token": weight()}, "student": {}},
            ConversionMessage.NO_LAYOUT,
            {"location": " under teacher"},
        ),
        (
            {"blocks.0.ls1.gamma": weight(), "patch_embed.proj.weight": weight()},
            ConversionMessage.UNSUPPORTED_LAYOUT,
            {"keys": ["blocks.0.ls1.gamma"]},
        ),
        (
            {"conv1.weight": weight(), "layer1.0.conv1.weight": weight(), "fc.weight": weight()},
            ConversionMessage.UNSUPPORTED_LAYOUT,
            {"layout": "a ResNet"},
        ),
        (
            {"base_model.model.vit.layer.0.query.lora_A.weight": weight()},
            ConversionMessage.UNSUPPORTED_LAYOUT,
            {"layout": "a LoRA adapter"},
        ),
        (
            {"register_tokens": weight(), "patch_embed.proj.weight": weight()},
            ConversionMessage.UNSUPPORTED_LAYOUT,
            {"keys": ["register_tokens"]},
        ),
        (
            {"visual.transformer.resblocks.0.ln_1.weight": weight()},
            ConversionMessage.UNSUPPORTED_LAYOUT,
            {"layout": "a CLIP model"},
        ),
        ({"some.other.weight": weight()}, ConversionMessage.NO_LAYOUT, {"keys": ["some.other.weight"]}),
        ({"model": {"epoch": 3}}, ConversionMessage.NO_TENSORS, {}),
        ([1, 2], ConversionMessage.NOT_A_STATE_DICT, {"type": "list"}),
    ],
)
def test_other_architectures_are_named(tmp_path, state, message, attributes):
    torch.save(state, tmp_path / "x.pth")
    with raises(message, ConversionError, **attributes):
        convert_checkpoint(tmp_path / "x.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_parameters_of_the_encoder_are_rejected(tiny_pth, tmp_path):
    state = dict(read_checkpoint(tiny_pth).state) | {"blocks.0.attn.temperature": torch.ones(1)}
    torch.save(state, tmp_path / "x.pth")
    with raises(ConversionMessage.NO_LAYOUT, keys=["blocks.0.attn.temperature"]):
        read_checkpoint(tmp_path / "x.pth")


def test_missing_and_misshapen_parameters_are_named(tiny_pth, tmp_path):
    state = dict(read_checkpoint(tiny_pth).state)
    torch.save({n: t for n, t in state.items() if n != "blocks.1.norm2.bias"}, tmp_path / "missing.pth")
    with raises(ConversionMessage.PARAMETERS_MISSING, names=["blocks.1.norm2.bias"]):
        convert_checkpoint(tmp_path / "missing.pth", tmp_path / "out", to="backbone", **TINY)
    torch.save({n: t for n, t in state.items() if not n.startswith("norm.")}, tmp_path / "norm.pth")
    with raises(ConversionMessage.PARAMETERS_MISSING, names=["norm.weight", "norm.bias"]):
        convert_checkpoint(tmp_path / "norm.pth", tmp_path / "out", to="backbone", **TINY)
    torch.save(state | {"blocks.1.norm2.bias": torch.zeros(5)}, tmp_path / "shape.pth")
    with raises(ConversionMessage.SHAPE_WRONG, shape=(5,), expected=(48,)):
        convert_checkpoint(tmp_path / "shape.pth", tmp_path / "out", to="backbone", **TINY)
    torch.save(state | {"pos_embed": torch.zeros(1, 15, 48)}, tmp_path / "grid.pth")
    with raises(ConversionMessage.POSITIONS_NOT_SQUARE, rows=15):
        convert_checkpoint(tmp_path / "grid.pth", tmp_path / "out", to="backbone", **TINY)


def test_non_finite_weights_are_rejected(tiny_pth, tmp_path):
    state = dict(read_checkpoint(tiny_pth).state) | {"norm.bias": torch.full((48,), float("nan"))}
    torch.save(state, tmp_path / "nan.pth")
    with raises(ConversionMessage.NOT_FINITE, name="norm.bias", count=48):
        convert_checkpoint(tmp_path / "nan.pth", tmp_path / "out", to="backbone", **TINY, verify=True)
    assert not (tmp_path / "out").exists()


def test_an_existing_destination_is_kept(tiny_pth, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with raises(FileMessage.FOLDER_NOT_EMPTY, ConversionError, path=out):
        convert_checkpoint(tiny_pth, out)
    with pytest.raises(ConversionError):  # a failure after the check of the destination
        convert_checkpoint(tiny_pth, out, overwrite=True, num_attention_heads=5)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (out / "mine.txt").read_text() == "precious"
    convert_checkpoint(tiny_pth, out, overwrite=True)
    assert not (out / "mine.txt").exists() and (out / "model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    export_checkpoint(out, tmp_path / "back.pth")
    with raises(FileMessage.FILE_EXISTS, ConversionError, path=tmp_path / "back.pth"):
        export_checkpoint(out, tmp_path / "back.pth")


def test_the_commands_print_errors_and_the_report(tiny_pth, tmp_path):
    path = tmp_path / "absent.pth"
    done = run_cli("convert", path, tmp_path / "out", status=1)
    assert done.stderr.strip() == f"hf-mae convert: {SettingsMessage.PATH_NOT_FOUND.render(path=path)}"
    done = run_cli("convert", tiny_pth, tmp_path / "out", "--verify", "--num-labels", "4")
    assert "against timm: largest difference" in done.stdout
    assert "initialized  classifier.weight" in done.stdout
    done = run_cli("export", tmp_path / "out", tmp_path / "back.pth")
    assert (tmp_path / "back.pth").exists()
