"""Layouts of checkpoints, the metadata that files contain, and unsupported checkpoints.

The baseline of every comparison is timm's ViT, or the stock model that was saved.
"""

import argparse
import collections
import json
import pathlib
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.messages import raises
from support.models import TINY, TINY_DECODER, tiny_pretrainer
from support.paths import ROOT
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import (
    AutoModelForImageClassification,
)

from hf_mae.conversion import ConversionError, convert_checkpoint, convert_to_model, export_model
from hf_mae.conversion.facts import BaselineModel, FactCode, fact
from hf_mae.conversion.layouts import LAYOUTS, supported_layouts
from hf_mae.conversion.layouts.mae import MAE
from hf_mae.conversion.messages import ConversionMessage
from hf_mae.conversion.nesting import find_vit_state_dict
from hf_mae.settings.commands import find_command

pytestmark = pytest.mark.run  # half a minute of models
CLASSES = 5


@pytest.fixture(scope="module")
def full_state():
    """Encoder and decoder under their original names."""
    return export_model(tiny_pretrainer(), "pretraining")


@pytest.fixture(scope="module")
def state(full_state):
    """A classifier with class-token pooling."""
    generator = torch.Generator().manual_seed(3)
    encoder = {name: t for name, t in full_state.items() if not name.startswith(("decoder", "mask_token"))}
    return encoder | {
        "head.weight": torch.randn(CLASSES, 48, generator=generator),
        "head.bias": torch.randn(CLASSES, generator=generator),
    }


@pytest.fixture(scope="module")
def mean_state(state):
    """A classifier with mean pooling."""
    return {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: t for name, t in state.items()}


def pixels(size=(32, 32), channels=3):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))


def timm_logits(state, images=None, **options):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": CLASSES}
    model = VisionTransformer(**(sizes | options)).eval()
    model.load_state_dict(state)
    with torch.no_grad():
        return model(pixels() if images is None else images)


def convert_and_predict(source, images=None, **options):
    model, report = convert_to_model(source, **(TINY | options))
    with torch.no_grad():
        return model.eval()(pixel_values=pixels() if images is None else images).logits, report


def save(content, path):
    torch.save(content, path)
    return path


def assert_reads(content, path, expected, **options):
    logits, report = convert_and_predict(save(content, path), **options)
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
def test_weights_are_found_in_nested_dicts(state, tmp_path, wrap):
    assert_reads(wrap(state), tmp_path / "x.pth", timm_logits(state))


WRAPPERS = st.lists(st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module"]), max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=WRAPPERS,
    within=st.lists(st.sampled_from(["_checkpoint_wrapped_module", "_fsdp_wrapped_module"]), max_size=2),
    prefix=st.lists(st.sampled_from(["vit", "net", "encoder", "backbone", "my_model", "model"]), max_size=2),
    keys=st.lists(st.sampled_from(["model", "state_dict", "module", "ckpt"]), max_size=3),
)
def test_any_combination_of_wrappers_and_prefixes_is_removed(state, before, within, prefix, keys):
    names = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts[2:2] = within
        names[".".join([*before, *prefix, *parts])] = tensor
    nested = names
    for key in keys:
        nested = {key: nested, "epoch": 1}
    vit = find_vit_state_dict(nested, "x.pth")
    assert vit.state.keys() == state.keys() and all(vit.state[name] is state[name] for name in state)


def mmpretrain_name(name: str) -> str:
    """The key of MMPretrain for an original key; independent of the table in the code."""
    parts = name.split(".")
    if parts[0] == "head":
        return f"head.layers.head.{parts[1]}"
    if parts[0] == "blocks":
        number, rest, kind = parts[1], ".".join(parts[2:-1]), parts[-1]
        names = {"norm1": "ln1", "norm2": "ln2", "attn.qkv": "attn.qkv", "attn.proj": "attn.proj"}
        names |= {"mlp.fc1": "ffn.layers.0.0", "mlp.fc2": "ffn.layers.1"}
        return f"backbone.layers.{number}.{names[rest]}.{kind}"
    names = {"norm": "ln1", "fc_norm": "ln2", "patch_embed": "patch_embed.projection"}
    return f"backbone.{names.get(parts[0], parts[0])}" + (f".{parts[-1]}" if len(parts) > 1 else "")


@pytest.mark.parametrize("kind", ["cls", "mean"])
def test_mmpretrain_keys_are_renamed(state, mean_state, tmp_path, kind):
    expected_state, options = (state, {}) if kind == "cls" else (mean_state, {"global_pool": "avg"})
    content = {"meta": {"epoch": 1}, "state_dict": {mmpretrain_name(name): t for name, t in expected_state.items()}}
    report = assert_reads(content, tmp_path / "x.pth", timm_logits(expected_state, **options))
    assert report.source["layout"] == "mmpretrain" and fact(FactCode.KEYS_RENAMED, layout="mmpretrain") in report.notes


def test_the_teacher_is_preferred_to_the_student(state, tmp_path):
    encoder = {name: t for name, t in state.items() if not name.startswith("head")}
    sides = {
        side: {f"module.backbone.{name}": t * scale for name, t in encoder.items()} | {"module.head.mlp.0.weight": t0}
        for side, scale, t0 in (("student", 0.5, torch.zeros(4, 48)), ("teacher", 1.0, torch.zeros(4, 48)))
    }
    for weights, scale in ((None, 1.0), ("ema", 1.0), ("plain", 0.5)):
        model, report = convert_to_model(save(sides, tmp_path / "dino.pth"), weights=weights, **TINY)
        assert torch.equal(model.embeddings.cls_token, encoder["cls_token"] * scale)
        assert any(note.code.value.startswith("other_") for note in report.notes)


def test_plain_weights_are_preferred_to_averaged_weights(state, tmp_path):
    averaged = {name: t * 0.9 for name, t in state.items()}
    source = save({"model": state, "model_ema": averaged, "epoch": 3}, tmp_path / "x.pth")
    logits, report = convert_and_predict(source)
    torch.testing.assert_close(logits, timm_logits(state), atol=1e-5, rtol=1e-5)
    other = fact(FactCode.OTHER_AVERAGED_WEIGHTS, location="model_ema")
    assert other in report.notes and {"source": "model_ema", "reason": other} in report.unused
    torch.testing.assert_close(
        convert_and_predict(source, weights="ema")[0], timm_logits(averaged), atol=1e-5, rtol=1e-5
    )
    with raises(ConversionMessage.NO_AVERAGED_WEIGHTS, ConversionError):
        convert_to_model(save({"model": state}, tmp_path / "y.pth"), weights="ema", **TINY)


def test_two_models_in_one_file_are_ambiguous(state, tmp_path):
    both = {f"{side}.{name}": t for side in ("left", "right") for name, t in state.items()}
    with raises(ConversionMessage.SEVERAL_VITS, ConversionError, count=2, locations=["left.", "right."]):
        convert_to_model(save(both, tmp_path / "x.pth"), **TINY)


def test_shards_are_read_through_their_index(state, tmp_path):
    names = sorted(state)
    parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, keys in parts.items():
        save_file({name: state[name] for name in keys}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, keys in parts.items() for name in keys}}))
    torch.testing.assert_close(convert_and_predict(index)[0], timm_logits(state), atol=1e-5, rtol=1e-5)
    index.write_text(json.dumps({"weight_map": {names[0]: "../elsewhere.safetensors"}}))
    with raises(ConversionMessage.SHARD_MISSING, ConversionError, file="elsewhere.safetensors"):
        convert_to_model(index, **TINY)


def test_pickles_with_paths_scalars_and_subclasses_of_dict_are_read(state, tmp_path):
    args = argparse.Namespace(
        output_dir=pathlib.Path("runs/first"),
        losses=collections.defaultdict(list, {"train": [1.0]}),
        best=np.float32(0.5),
        curve=np.arange(3.0),
        num_heads=np.int64(3),
    )
    source = save({"model": collections.OrderedDict(state), "args": args}, tmp_path / "x.pth")
    torch.testing.assert_close(
        convert_and_predict(source, num_attention_heads=None)[0], timm_logits(state), atol=1e-5, rtol=1e-5
    )


def toy_key(name):
    return f"ema.{name.replace('patch_embed.proj', 'stem').replace('blocks', 'stages')}"


def test_a_layout_is_added_as_contributing_says(state, tmp_path):
    page = (ROOT / "CONTRIBUTING.md").read_text()
    section = page.split("### Add a checkpoint layout")[1].split("###")[0]
    try:
        exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], {"LAYOUTS": LAYOUTS, "MAE": MAE})
        content = {"model": {toy_key(name): tensor for name, tensor in state.items()}}
        report = assert_reads(content, tmp_path / "x.pth", timm_logits(state), verify=True)
        assert report.source["layout"] == "toy"
        assert "; toy ViT." in find_command("convert").describe()
    finally:
        LAYOUTS.pop("toy", None)


def test_the_table_of_layouts_in_the_docs_is_that_of_the_code():
    page = (ROOT / "docs" / "converting.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| `\w+` \| .* \| `\w+`", line)]
    expected = [
        [f"`{layout.name}`", layout.title, ", ".join(f"`{target.class_name}`" for target in layout.targets)]
        for layout in supported_layouts()
    ]
    assert rows == expected


def test_keys_of_two_layouts_are_rejected(state, tmp_path, monkeypatch):
    monkeypatch.setitem(LAYOUTS, "twin", replace(MAE, name="twin"))
    with raises(ConversionMessage.LAYOUT_AMBIGUOUS, ConversionError, layouts=["mae", "twin"], keys=list(state)[:4]):
        convert_to_model(save({"model": state}, tmp_path / "x.pth"), **TINY)


def test_the_weights_file_of_a_stock_model_is_rejected_without_its_folder(state, tmp_path):
    convert_checkpoint(save(state, tmp_path / "x.pth"), tmp_path / "out", **TINY)
    with raises(ConversionMessage.UNSUPPORTED_LAYOUT, ConversionError, layout=LAYOUTS["transformers-file"].title):
        convert_to_model(tmp_path / "out" / "model.safetensors")


EXTRA_PARAMETERS = {
    "ls1.gamma": (8,),
    "gamma_2": (8,),
    "attn.q_norm.weight": (8,),
    "attn.q_bias": (8,),
    "attn.relative_position_bias_table": (8, 3),
    "attn.temperature": (1,),
    "mlp.w12.weight": (8, 8),
    "norm3.weight": (8,),
}


@pytest.mark.parametrize("name", EXTRA_PARAMETERS)
@pytest.mark.parametrize("block", [0, 1])
def test_a_parameter_that_no_stock_class_has_is_rejected_by_name(full_state, tmp_path, name, block):
    """In the encoder always, and in the decoder if it is converted."""
    extra = torch.ones(EXTRA_PARAMETERS[name])
    source = save(full_state | {f"decoder_blocks.{block}.{name}": extra}, tmp_path / "decoder.pth")
    for options in ({"to": "backbone"}, {"num_labels": 3}):
        report = convert_to_model(source, verify=True, **TINY, **options)[1]
        assert f"decoder_blocks.{block}.{name}" in [entry["source"] for entry in report.unused]
    with raises(ConversionMessage.DECODER_UNSUPPORTED, ConversionError, names=[f"decoder_blocks.{block}.{name}"]):
        convert_to_model(source, to="pretraining", **TINY, **TINY_DECODER)
    source = save(full_state | {f"blocks.{block}.{name}": extra}, tmp_path / "encoder.pth")
    for options in ({"to": "backbone"}, {"num_labels": 3}, {"to": "pretraining"}):
        with pytest.raises(ConversionError) as caught:
            convert_to_model(source, **TINY, **options)
        assert caught.value.attributes["keys"] == [f"blocks.{block}.{name}"]


@pytest.mark.parametrize("name", ["reg_token", "register_tokens", "dist_token", "norm_pre.weight"])
def test_an_additional_token_or_norm_of_the_encoder_is_rejected_by_name(full_state, tmp_path, name):
    with pytest.raises(ConversionError) as caught:
        convert_to_model(save(full_state | {name: torch.ones(1, 1, 48)}, tmp_path / "x.pth"), to="backbone", **TINY)
    assert caught.value.attributes["keys"] == [name]


# Metadata


@pytest.mark.parametrize("heads", [3, "3", [3], 3.0, np.int64(3), "vit_tiny"])
def test_the_number_of_heads_is_read_in_all_formats(state, tmp_path, heads):
    args = {"model": "vit_tiny_patch8"} if heads == "vit_tiny" else {"num_heads": heads}
    source = save({"model": state, "args": argparse.Namespace(**args)}, tmp_path / "x.pth")
    torch.testing.assert_close(
        convert_and_predict(source, num_attention_heads=None)[0], timm_logits(state), atol=1e-5, rtol=1e-5
    )
    with raises(ConversionMessage.HEADS_CONTRADICT, ConversionError, value=6, recorded=3):
        convert_to_model(source, num_attention_heads=6)


@pytest.mark.parametrize(
    "args, message, attributes",
    [
        ({"num_heads": "three"}, ConversionMessage.ARGS_VALUE_INVALID, {"name": "num_heads", "value": "three"}),
        ({"num_heads": [3, 3]}, ConversionMessage.ARGS_VALUE_INVALID, {"name": "num_heads"}),
        ({"num_heads": -3}, ConversionMessage.ARGS_VALUE_INVALID, {"name": "num_heads"}),
        ({"num_heads": float("nan")}, ConversionMessage.ARGS_VALUE_INVALID, {"name": "num_heads"}),
        ({"mask_ratio": [0.5, 0.75]}, ConversionMessage.ARGS_VALUE_INVALID, {"name": "mask_ratio"}),
        ({"norm_pix_loss": "perhaps"}, ConversionMessage.ARGS_VALUE_INVALID, {"expected": "true or false"}),
        (
            {"act_layer": "tanh"},
            ConversionMessage.ARGS_VALUE_INVALID,
            {"expected": "one of gelu, quick_gelu, relu, silu, swish"},
        ),
        ({"global_pool": "map"}, ConversionMessage.POOLING_UNSUPPORTED, {"pooling": "map"}),
        ({"global_pool": True}, ConversionMessage.POOLING_UNSUPPORTED, {"pooling": "mean"}),
    ],
)
def test_invalid_args_are_rejected(state, tmp_path, args, message, attributes):
    source = save({"model": state, "args": argparse.Namespace(**args)}, tmp_path / "x.pth")
    with raises(message, ConversionError, **attributes):
        convert_to_model(source, num_attention_heads=None if "num_heads" in args else 3)


def test_epsilon_and_activation_are_read_from_the_args(state, tmp_path):
    expected = timm_logits(state, act_layer="relu", norm_layer=partial(nn.LayerNorm, eps=1e-3))
    content = {"model": state, "args": {"hidden_act": "relu", "layer_norm_eps": "1e-3"}}
    report = assert_reads(content, tmp_path / "x.pth", expected, verify=True)
    assert report.verification.against is BaselineModel.TIMM


def test_assumed_values_are_recorded(full_state, tmp_path):
    source = save({"model": full_state}, tmp_path / "x.pth")
    report = convert_checkpoint(source, tmp_path / "out", to="pretraining", **TINY, **TINY_DECODER)
    assert report.assumed == {"norm_pix_loss": False}
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["assumed"] == report.assumed
    # The value stays unknown after the conversion.
    _, again = convert_to_model(tmp_path / "out", to="pretraining")
    assert again.assumed == {"norm_pix_loss": False}
    _, with_flag = convert_to_model(source, to="pretraining", norm_pix_loss=True, **TINY, **TINY_DECODER)
    assert with_flag.assumed == {}
    save({"model": full_state, "args": {"norm_pix_loss": "False"}}, source)
    with raises(ConversionMessage.NORM_PIX_LOSS_CONTRADICTS, ConversionError, value="true", recorded="false"):
        convert_to_model(source, to="pretraining", norm_pix_loss=True, **TINY, **TINY_DECODER)


# Position embeddings


def test_position_embeddings_without_a_row_for_the_class_token_are_read(state, tmp_path):
    state = state | {"pos_embed": state["pos_embed"][:, 1:].clone()}
    assert_reads({"model": state}, tmp_path / "x.pth", timm_logits(state, no_embed_class=True))


@pytest.mark.parametrize("size", [(16, 64), (24, 32)])
def test_models_for_images_that_are_not_square_are_converted(state, tmp_path, size):
    rows = size[0] // 8 * (size[1] // 8)
    generator = torch.Generator().manual_seed(0)
    state = state | {"pos_embed": 0.1 * torch.randn(1, 1 + rows, 48, generator=generator)}
    expected = timm_logits(state, pixels(size), img_size=size)
    source = save({"model": state, "args": {"input_size": list(size)}}, tmp_path / "x.pth")
    convert_checkpoint(source, tmp_path / "out", verify=True, **TINY)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(model(pixel_values=pixels(size)).logits, expected, atol=1e-5, rtol=1e-5)
    if rows != 16:
        with raises(ConversionMessage.POSITIONS_NOT_SQUARE, ConversionError):
            convert_to_model(save({"model": state}, tmp_path / "y.pth"), **TINY)


# Heads


def test_the_head_of_a_linear_probe_is_folded(state, tmp_path):
    generator = torch.Generator().manual_seed(2)
    head = nn.Sequential(nn.BatchNorm1d(48, affine=False, eps=1e-6), nn.Linear(48, CLASSES))
    head[0].running_mean.normal_(generator=generator), head[0].running_var.uniform_(0.5, 1.5, generator=generator)
    probe = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    encoder = {name: t for name, t in state.items() if not name.startswith("head")}
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=0).eval()
    model.load_state_dict(encoder)
    with torch.no_grad():
        expected = head.eval()(model(pixels()))
    report = assert_reads({"model": encoder | probe}, tmp_path / "x.pth", expected)
    assert fact(FactCode.LINEAR_PROBE_FOLDED) in report.notes


@pytest.mark.parametrize(
    "more, args, message",
    [
        ({}, {"model": "RETFound_mae", "global_pool": True}, ConversionMessage.RETFOUND_MEAN_POOLING),
        (
            {"norm.weight": torch.ones(48), "norm.bias": torch.zeros(48)},
            {},
            ConversionMessage.NORM_BEFORE_AND_AFTER_POOLING,
        ),
        ({}, {"global_pool": False}, ConversionMessage.POOLING_CONTRADICTS_NORM),
        ({"attn_pool.latent": torch.zeros(1, 1, 48)}, {}, ConversionMessage.HEAD_UNSUPPORTED),
    ],
)
def test_a_head_with_an_unsupported_input_is_rejected(mean_state, tmp_path, more, args, message):
    source = save({"model": mean_state | more, "args": args}, tmp_path / "x.pth")
    with raises(message, ConversionError):
        convert_to_model(source, **TINY)
    model, _ = convert_to_model(source, num_labels=CLASSES + 1, **TINY)  # with a new head
    assert model.config.num_labels == CLASSES + 1


def test_parameters_of_a_loss_are_ignored(state, tmp_path):
    assert_reads(state | {"criterion.weight": torch.ones(CLASSES)}, tmp_path / "x.pth", timm_logits(state))


def test_an_unsupported_decoder_does_not_prevent_the_conversion_of_the_encoder(full_state, tmp_path):
    state = {name: t for name, t in full_state.items() if "decoder_blocks.0.attn" not in name}
    source = save(state | {"decoder_blocks.0.cross_attn.q.weight": torch.zeros(32, 32)}, tmp_path / "x.pth")
    assert convert_to_model(source, to="backbone", **TINY)[1].target["class"] == "ViTModel"
    with raises(ConversionMessage.DECODER_UNSUPPORTED, ConversionError):
        convert_to_model(source, to="pretraining", **TINY, **TINY_DECODER)


# Tensors


@pytest.mark.parametrize(
    "damage, message, attributes",
    [
        (
            lambda t: t.index_put((torch.tensor([0]),), torch.tensor(float("nan"))),
            ConversionMessage.NOT_FINITE,
            {"count": 1},
        ),
        (
            lambda t: t.index_put((torch.tensor([1]),), torch.tensor(float("-inf"))),
            ConversionMessage.NOT_FINITE,
            {"count": 1},
        ),
        (lambda t: t.to(torch.complex64), ConversionMessage.TENSOR_TYPE_UNSUPPORTED, {"tensor_type": "complex"}),
        (lambda t: t.to_sparse(), ConversionMessage.TENSOR_TYPE_UNSUPPORTED, {"tensor_type": "sparse"}),
        (lambda t: t.to(torch.int64), ConversionMessage.TENSOR_TYPE_UNSUPPORTED, {"tensor_type": "int64"}),
    ],
)
def test_tensors_that_are_not_weights_are_named(state, tmp_path, damage, message, attributes):
    name = "blocks.1.mlp.fc2.bias"
    source = save(state | {name: damage(state[name])}, tmp_path / "x.pth")
    with raises(message, ConversionError, name=name, **attributes):
        convert_to_model(source, **TINY)


def test_large_finite_weights_are_accepted(state, tmp_path):
    """Their sum overflows."""
    state = state | {"head.bias": torch.full((CLASSES,), 3e38)}
    assert convert_to_model(save(state, tmp_path / "x.pth"), **TINY)[1].unused == []


def test_tied_weights_are_cloned(state, tmp_path):
    state = state | {"blocks.1.mlp.fc1.weight": state["blocks.0.mlp.fc1.weight"]}
    convert_checkpoint(save(state, tmp_path / "x.pth"), tmp_path / "out", **TINY)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(model(pixel_values=pixels()).logits, timm_logits(state), atol=1e-5, rtol=1e-5)
