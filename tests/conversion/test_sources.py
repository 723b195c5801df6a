"""What a checkpoint is, is read from it: layouts that people have, what files say of themselves, and what is refused.

The other side of every comparison is timm's own ViT, or the stock model that a folder was saved from.
"""

import argparse
import collections
import json
import pathlib
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.models import TINY, TINY_DECODER, tiny_pretrainer
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import (
    AutoModelForImageClassification,
)

from hf_mae.conversion import ConversionError, convert_checkpoint, convert_to_model, export_model
from hf_mae.conversion.layouts import find_vit_state_dict

pytestmark = pytest.mark.run  # half a minute of models
CLASSES = 5


@pytest.fixture(scope="module")
def whole():
    """Encoder and decoder, by the reference's names."""
    return export_model(tiny_pretrainer(), "pretraining")


@pytest.fixture(scope="module")
def state(whole):
    """A classifier of the class token."""
    draw = torch.Generator().manual_seed(3)
    encoder = {name: t for name, t in whole.items() if not name.startswith(("decoder", "mask_token"))}
    return encoder | {
        "head.weight": torch.randn(CLASSES, 48, generator=draw),
        "head.bias": torch.randn(CLASSES, generator=draw),
    }


@pytest.fixture(scope="module")
def mean_state(state):
    """A classifier of the mean."""
    return {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: t for name, t in state.items()}


def pixels(size=(32, 32), channels=3):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))


def timm_logits(state, images=None, **options):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": CLASSES}
    model = VisionTransformer(**(sizes | options)).eval()
    model.load_state_dict(state)
    with torch.no_grad():
        return model(pixels() if images is None else images)


def logits_of(source, images=None, **options):
    model, report = convert_to_model(source, **(TINY | options))
    with torch.no_grad():
        return model.eval()(pixel_values=pixels() if images is None else images).logits, report


def saved(content, path):
    torch.save(content, path)
    return path


def assert_reads(content, path, expected, **options):
    logits, report = logits_of(saved(content, path), **options)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    return report


# Layouts


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"module": state, "dp_world_size": 2},
        lambda state: {"model_state": state, "epoch": 3},
        lambda state: {"state_dict_ema": state, "epoch": 3},
        lambda state: {"network": {"weights": state}},
        lambda state: {"state_dict": {f"model.{name}": t for name, t in state.items()}, "hyper_parameters": {}},
        lambda state: {"model": {f"_orig_mod.module.vit.{name}": t for name, t in state.items()}},
    ],
)
def test_weights_are_found_wherever_they_lie(state, tmp_path, wrap):
    assert_reads(wrap(state), tmp_path / "x.pth", timm_logits(state))


WRAPPERS = st.lists(st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module"]), max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=WRAPPERS,
    within=st.lists(st.sampled_from(["_checkpoint_wrapped_module", "_fsdp_wrapped_module"]), max_size=2),
    prefix=st.lists(st.sampled_from(["vit", "net", "encoder", "backbone", "my_model", "model"]), max_size=2),
    keys=st.lists(st.sampled_from(["model", "state_dict", "module", "ckpt"]), max_size=3),
)
def test_any_nest_of_wrappers_and_prefixes(state, before, within, prefix, keys):
    names = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts[2:2] = within
        names[".".join([*before, *prefix, *parts])] = tensor
    nested = names
    for key in keys:
        nested = {key: nested, "epoch": 1}
    found = find_vit_state_dict(nested, "x.pth")
    assert found.state.keys() == state.keys() and all(found.state[name] is state[name] for name in state)


def mmpretrain_name(name: str) -> str:
    """The other way round than the product's table, and written apart from it."""
    parts = name.split(".")
    if parts[0] == "head":
        return f"head.layers.head.{parts[1]}"
    if parts[0] == "blocks":
        number, rest, kind = parts[1], ".".join(parts[2:-1]), parts[-1]
        there = {"norm1": "ln1", "norm2": "ln2", "attn.qkv": "attn.qkv", "attn.proj": "attn.proj"}
        there |= {"mlp.fc1": "ffn.layers.0.0", "mlp.fc2": "ffn.layers.1"}
        return f"backbone.layers.{number}.{there[rest]}.{kind}"
    there = {"norm": "ln1", "fc_norm": "ln2", "patch_embed": "patch_embed.projection"}
    return f"backbone.{there.get(parts[0], parts[0])}" + (f".{parts[-1]}" if len(parts) > 1 else "")


@pytest.mark.parametrize("kind", ["cls", "mean"])
def test_mmpretrain(state, mean_state, tmp_path, kind):
    mine, options = (state, {}) if kind == "cls" else (mean_state, {"global_pool": "avg"})
    content = {"meta": {"epoch": 1}, "state_dict": {mmpretrain_name(name): t for name, t in mine.items()}}
    report = assert_reads(content, tmp_path / "x.pth", timm_logits(mine, **options))
    assert "the names are MMPretrain's" in report.notes


def test_of_teacher_and_student_the_teacher_is_taken(state, tmp_path):
    encoder = {name: t for name, t in state.items() if not name.startswith("head")}
    sides = {
        side: {f"module.backbone.{name}": t * scale for name, t in encoder.items()} | {"module.head.mlp.0.weight": t0}
        for side, scale, t0 in (("student", 0.5, torch.zeros(4, 48)), ("teacher", 1.0, torch.zeros(4, 48)))
    }
    for weights, scale in ((None, 1.0), ("ema", 1.0), ("plain", 0.5)):
        model, report = convert_to_model(saved(sides, tmp_path / "dino.pth"), weights=weights, **TINY)
        assert torch.equal(model.embeddings.cls_token, encoder["cls_token"] * scale)
        assert any("holds" in note and "weights too" in note for note in report.notes)


def test_averaged_weights_beside_the_plain_ones(state, tmp_path):
    averaged = {name: t * 0.9 for name, t in state.items()}
    source = saved({"model": state, "model_ema": averaged, "epoch": 3}, tmp_path / "x.pth")
    logits, report = logits_of(source)
    torch.testing.assert_close(logits, timm_logits(state), atol=1e-5, rtol=1e-5)
    assert any("--weights ema takes them" in note for note in report.notes)
    assert [entry["reason"] for entry in report.unused if entry["source"] == "model_ema"][0].startswith("averaged")
    torch.testing.assert_close(logits_of(source, weights="ema")[0], timm_logits(averaged), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConversionError, match="holds no averaged weights"):
        convert_to_model(saved({"model": state}, tmp_path / "y.pth"), weights="ema", **TINY)


def test_two_models_in_one_file_are_not_guessed(state, tmp_path):
    both = {f"{side}.{name}": t for side in ("left", "right") for name, t in state.items()}
    with pytest.raises(ConversionError, match=r"holds 2 ViTs \(left\., right\.\)"):
        convert_to_model(saved(both, tmp_path / "x.pth"), **TINY)


def test_shards_by_their_index(state, tmp_path):
    names = sorted(state)
    parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, chosen in parts.items():
        save_file({name: state[name] for name in chosen}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, chosen in parts.items() for name in chosen}}))
    torch.testing.assert_close(logits_of(index)[0], timm_logits(state), atol=1e-5, rtol=1e-5)
    index.write_text(json.dumps({"weight_map": {names[0]: "../elsewhere.safetensors"}}))
    with pytest.raises(ConversionError, match="no such file beside it"):
        convert_to_model(index, **TINY)


def test_pickles_with_paths_scalars_and_dicts_of_other_kinds(state, tmp_path):
    args = argparse.Namespace(
        output_dir=pathlib.Path("runs/first"),
        losses=collections.defaultdict(list, {"train": [1.0]}),
        best=np.float32(0.5),
        curve=np.arange(3.0),
        num_heads=np.int64(3),
    )
    source = saved({"model": collections.OrderedDict(state), "args": args}, tmp_path / "x.pth")
    torch.testing.assert_close(logits_of(source, num_attention_heads=None)[0], timm_logits(state), atol=1e-5, rtol=1e-5)


# What files say of themselves


@pytest.mark.parametrize("heads", [3, "3", [3], 3.0, np.int64(3), "vit_tiny"])
def test_heads_as_files_have_them(state, tmp_path, heads):
    args = {"model": "vit_tiny_patch8"} if heads == "vit_tiny" else {"num_heads": heads}
    source = saved({"model": state, "args": argparse.Namespace(**args)}, tmp_path / "x.pth")
    torch.testing.assert_close(logits_of(source, num_attention_heads=None)[0], timm_logits(state), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConversionError, match="--num_attention_heads 6 contradicts the checkpoint, which says 3"):
        convert_to_model(source, num_attention_heads=6)


@pytest.mark.parametrize(
    "args, message",
    [
        ({"num_heads": "three"}, r"num_heads = 'three'.*cannot be read as a number of attention heads"),
        ({"num_heads": [3, 3]}, "cannot be read as a number of attention heads"),
        ({"num_heads": -3}, "cannot be read as a number of attention heads"),
        ({"num_heads": float("nan")}, "cannot be read as a number of attention heads"),
        ({"mask_ratio": [0.5, 0.75]}, "mask_ratio.*cannot be read as a share between 0 and 1"),
        ({"norm_pix_loss": "perhaps"}, "norm_pix_loss.*cannot be read as true or false"),
        ({"act_layer": "tanh"}, "act_layer.*cannot be read as one of gelu, quick_gelu, relu, silu"),
        ({"global_pool": "map"}, "was fine-tuned with pooling 'map'"),
        ({"global_pool": True}, "fine-tuned with pooling 'mean' and has no fc_norm"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(state, tmp_path, args, message):
    source = saved({"model": state, "args": argparse.Namespace(**args)}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=message):
        convert_to_model(source, num_attention_heads=None if "num_heads" in args else 3)


def test_epsilon_and_activation_of_the_args(state, tmp_path):
    expected = timm_logits(state, act_layer="relu", norm_layer=partial(nn.LayerNorm, eps=1e-3))
    content = {"model": state, "args": {"hidden_act": "relu", "layer_norm_eps": "1e-3"}}
    report = assert_reads(content, tmp_path / "x.pth", expected, verify=True)
    assert report.verification["against"] == "timm's VisionTransformer"


def test_what_nothing_tells_is_said(whole, tmp_path):
    source = saved({"model": whole}, tmp_path / "x.pth")
    report = convert_checkpoint(source, tmp_path / "out", to="pretraining", **TINY, **TINY_DECODER)
    assert report.assumed == {"norm_pix_loss": False}
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["assumed"] == report.assumed
    # It stays unknown: a converted folder is not taken for one that says it.
    _, again = convert_to_model(tmp_path / "out", to="pretraining")
    assert again.assumed == {"norm_pix_loss": False}
    _, told = convert_to_model(source, to="pretraining", norm_pix_loss=True, **TINY, **TINY_DECODER)
    assert told.assumed == {}
    saved({"model": whole, "args": {"norm_pix_loss": "False"}}, source)
    with pytest.raises(ConversionError, match="--norm_pix_loss true contradicts .* which says false"):
        convert_to_model(source, to="pretraining", norm_pix_loss=True, **TINY, **TINY_DECODER)


# Images of other shapes


def test_positions_without_a_row_for_the_class_token(state, tmp_path):
    mine = state | {"pos_embed": state["pos_embed"][:, 1:].clone()}
    assert_reads({"model": mine}, tmp_path / "x.pth", timm_logits(mine, no_embed_class=True))


@pytest.mark.parametrize("size", [(16, 64), (24, 32)])
def test_images_that_are_not_square(state, tmp_path, size):
    rows = size[0] // 8 * (size[1] // 8)
    draw = torch.Generator().manual_seed(0)
    mine = state | {"pos_embed": 0.1 * torch.randn(1, 1 + rows, 48, generator=draw)}
    expected = timm_logits(mine, pixels(size), img_size=size)
    source = saved({"model": mine, "args": {"input_size": list(size)}}, tmp_path / "x.pth")
    convert_checkpoint(source, tmp_path / "out", verify=True, **TINY)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(model(pixel_values=pixels(size)).logits, expected, atol=1e-5, rtol=1e-5)
    if rows != 16:
        with pytest.raises(ConversionError, match="which is no square of patches"):
            convert_to_model(saved({"model": mine}, tmp_path / "y.pth"), **TINY)


# Heads


def test_the_head_of_a_linear_probe_is_folded(state, tmp_path):
    draw = torch.Generator().manual_seed(2)
    head = nn.Sequential(nn.BatchNorm1d(48, affine=False, eps=1e-6), nn.Linear(48, CLASSES))
    head[0].running_mean.normal_(generator=draw), head[0].running_var.uniform_(0.5, 1.5, generator=draw)
    probe = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    encoder = {name: t for name, t in state.items() if not name.startswith("head")}
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=0).eval()
    model.load_state_dict(encoder)
    with torch.no_grad():
        expected = head.eval()(model(pixels()))
    report = assert_reads({"model": encoder | probe}, tmp_path / "x.pth", expected)
    assert any("linear probe" in note for note in report.notes)


@pytest.mark.parametrize(
    "more, args, message",
    [
        ({}, {"model": "RETFound_mae", "global_pool": True}, "applies its last norm twice"),
        ({"norm.weight": torch.ones(48), "norm.bias": torch.zeros(48)}, {}, "norms before its pooling and after it"),
        ({}, {"global_pool": False}, "contradicts itself"),
        ({"attn_pool.latent": torch.zeros(1, 1, 48)}, {}, "its head was trained on something else"),
    ],
)
def test_a_head_of_another_function_is_not_kept(mean_state, tmp_path, more, args, message):
    source = saved({"model": mean_state | more, "args": args}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=message):
        convert_to_model(source, **TINY)
    model, _ = convert_to_model(source, num_labels=CLASSES + 1, **TINY)  # whose head is a fresh one
    assert model.config.num_labels == CLASSES + 1


def test_losses_beside_the_model_are_no_part_of_it(state, tmp_path):
    assert_reads(state | {"criterion.weight": torch.ones(CLASSES)}, tmp_path / "x.pth", timm_logits(state))


def test_a_decoder_of_another_kind_is_not_needed_for_the_encoder(whole, tmp_path):
    strange = {name: t for name, t in whole.items() if "decoder_blocks.0.attn" not in name}
    source = saved(strange | {"decoder_blocks.0.cross_attn.q.weight": torch.zeros(32, 32)}, tmp_path / "x.pth")
    assert convert_to_model(source, to="backbone", **TINY)[1].target["class"] == "ViTModel"
    with pytest.raises(ConversionError, match="a decoder of another kind.*--to backbone takes its encoder"):
        convert_to_model(source, to="pretraining", **TINY, **TINY_DECODER)


# Tensors


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t.index_put((torch.tensor([0]),), torch.tensor(float("nan"))), "1 numbers that are not finite"),
        (lambda t: t.index_put((torch.tensor([1]),), torch.tensor(float("-inf"))), "not finite"),
        (lambda t: t.to(torch.complex64), "is complex"),
        (lambda t: t.to_sparse(), "is sparse"),
    ],
)
def test_tensors_that_are_no_weights_are_named(state, tmp_path, spoil, message):
    source = saved(state | {"blocks.1.mlp.fc2.bias": spoil(state["blocks.1.mlp.fc2.bias"])}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=rf"blocks.1.mlp.fc2.bias (holds|is).*|{message}") as caught:
        convert_to_model(source, **TINY)
    assert "blocks.1.mlp.fc2.bias" in str(caught.value) and message.split(" ")[-1] in str(caught.value)


def test_large_but_finite_weights_are_no_fault(state, tmp_path):
    """Their sum overflows."""
    mine = state | {"head.bias": torch.full((CLASSES,), 3e38)}
    assert convert_to_model(saved(mine, tmp_path / "x.pth"), **TINY)[1].left_out == []


def test_tied_weights_become_two(state, tmp_path):
    mine = dict(state)
    mine["blocks.1.mlp.fc1.weight"] = mine["blocks.0.mlp.fc1.weight"]
    convert_checkpoint(saved(mine, tmp_path / "x.pth"), tmp_path / "out", **TINY)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(model(pixel_values=pixels()).logits, timm_logits(mine), atol=1e-5, rtol=1e-5)
