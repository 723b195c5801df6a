"""Conversion of BEiT and data2vec files, and of DINO and iBOT files, whose teacher is a plain ViT."""

import argparse

import pytest
import torch
from safetensors.torch import load_file
from support.messages import raises
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from transformers import AutoImageProcessor, AutoModelForImageClassification

from hf_mae import build_classifier
from hf_mae.compat.transformers import use_attn_implementation
from hf_mae.conversion import convert_checkpoint
from hf_mae.conversion.facts import BaselineModel, FactCode
from hf_mae.conversion.messages import ConversionError, ConversionMessage
from hf_mae.models.attention import register_plain_attention
from hf_mae.models.introspection import get_non_mae_network
from hf_mae.models.network import Network
from hf_mae.models.stochastic_depth import get_drop_path_rate
from hf_mae.reporting.conversion_summary import format_conversion
from hf_mae.training.layer_decay import parameter_groups

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3}


def beit(shared: bool = False, positions: bool = False, scaled: bool = True, classes: int = 3) -> Beit:
    torch.manual_seed(0)
    model = Beit(
        **SIZES,
        depth=3,
        num_classes=classes,
        use_rel_pos_bias=not shared,
        use_shared_rel_pos_bias=shared,
        use_abs_pos_emb=positions,
        init_values=0.5 if scaled else None,
    ).eval()
    for parameter in model.parameters():  # biases, tables and norms too
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_fine_tuned_beit_equals_that_of_timm(tmp_path, shared, positions, scaled):
    timm_model = beit(shared, positions, scaled)
    path = tmp_path / "beit.pth"
    state = timm_model.state_dict() | {"blocks.0.attn.relative_position_index": torch.zeros(17, 17, dtype=torch.long)}
    torch.save({"model": state, "args": argparse.Namespace(imagenet_default_mean_and_std=True)}, path)
    report = convert_checkpoint(path, tmp_path / "out", labels=["a", "b", "c"], verify=True)
    assert report.verification.against is BaselineModel.TIMM and report.verification.max_abs_difference < 1e-5
    assert not report.initialized and [entry["source"] for entry in report.unused if "index" in entry["source"]]
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = timm_model(pixels)
        torch.testing.assert_close(model(pixels).logits, expected, rtol=1e-5, atol=1e-5)
        with use_attn_implementation(
            model, register_plain_attention(model)
        ):  # the implementation for training on a CPU
            torch.testing.assert_close(model(pixels).logits, expected, rtol=1e-5, atol=1e-5)
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "out").image_mean) == [0.485, 0.456, 0.406]


def test_a_pre_trained_beit_can_be_fine_tuned(tmp_path):
    state = beit(shared=True).state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith(("head.", "fc_norm."))}
    state |= {"mask_token": torch.zeros(1, 1, 24), "lm_head.weight": torch.zeros(9, 24), "norm.weight": torch.ones(24)}
    torch.save({"model": state}, tmp_path / "pre.pth")
    model = build_classifier(tmp_path / "pre.pth", id2label={0: "a", 1: "b"}, drop_path=0.2)
    summary = format_conversion(model.conversion_report)
    assert "mean and std 0.5" in summary and "the checkpoint has no head" in summary
    assert "used in pre-training only" in summary
    assert model.config.id2label == {0: "a", 1: "b"} and get_drop_path_rate(model) == pytest.approx(0.2)
    assert get_non_mae_network(model) == Network("BEiT", 3, 24)
    assert torch.equal(model.beit.layers[1].attention.v_proj.bias, state["blocks.1.attn.v_bias"])
    groups = parameter_groups(model, 1.0, layer_decay=0.5)
    assert {group["lr"] for group in groups} == {0.5**power for power in range(5)}
    with raises(ConversionMessage.BEIT_IMAGE_SIZE, ConversionError, image_size=32):
        build_classifier(tmp_path / "pre.pth", num_labels=2, image_size=64)
    heads = [convert_checkpoint(tmp_path / "pre.pth", tmp_path / name, num_labels=2) and name for name in "ab"]
    one, two = (load_file(tmp_path / name / "model.safetensors")["classifier.weight"] for name in heads)
    assert torch.equal(one, two) and 0 < one.abs().max() < 1e-3  # initialized with the same values each time
    with raises(ConversionMessage.BEIT_FLAG, ConversionError, flag="--num_attention_heads"):
        convert_checkpoint(tmp_path / "pre.pth", tmp_path / "out", num_labels=2, num_attention_heads=3)
    for options in ({"to": "backbone"}, {"to": "pretraining"}, {"pooling": "cls"}):
        with raises(ConversionMessage.BEIT_TARGET, ConversionError):
            convert_checkpoint(tmp_path / "pre.pth", tmp_path / "out", num_labels=2, **options)


@pytest.mark.parametrize(
    "change, message, attributes",
    [
        (
            lambda s: s.pop("blocks.1.attn.proj.weight"),
            ConversionMessage.PARAMETERS_MISSING,
            {"names": ["blocks.1.attn.proj.weight"]},
        ),
        (
            lambda s: s.update({"blocks.1.norm3.weight": torch.ones(24)}),
            ConversionMessage.NO_LAYOUT,
            {"keys": ["blocks.1.norm3.weight"]},
        ),
        (lambda s: s["blocks.2.gamma_1"].fill_(torch.nan), ConversionMessage.NOT_FINITE, {"name": "blocks.2.gamma_1"}),
        (
            lambda s: s.update({"blocks.1.mlp.fc1.bias": torch.ones(5)}),
            ConversionMessage.SHAPE_WRONG,
            {"shape": (5,)},
        ),
        (
            lambda s: s.update({"blocks.0.attn.relative_position_bias_table": torch.ones(50, 3)}),
            ConversionMessage.BEIT_SIZES_UNSUPPORTED,
            {},
        ),
        (
            lambda s: s.update({"patch_embed.proj.weight": torch.ones(24, 192)}),
            ConversionMessage.PATCH_EMBEDDING_NOT_A_CONVOLUTION,
            {"shape": (24, 192)},
        ),
    ],
)
def test_damaged_beit_checkpoints_are_rejected(tmp_path, change, message, attributes):
    state = beit().state_dict()
    change(state)
    torch.save(state, tmp_path / "beit.pth")
    with raises(message, ConversionError, **attributes):
        convert_checkpoint(tmp_path / "beit.pth", tmp_path / "out", num_labels=3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["dino", "ibot"])
def test_the_teacher_of_dino_and_ibot_is_converted(tmp_path, method):
    torch.manual_seed(0)
    teacher, student = (VisionTransformer(**SIZES, depth=2, num_classes=0).eval() for _ in range(2))

    def make_state(model, wrapper):
        state = {f"{wrapper}backbone.{name}": tensor for name, tensor in model.state_dict().items()}
        state |= {
            f"{wrapper}head.mlp.0.weight": torch.zeros(8, 24),
            f"{wrapper}head.last_layer.weight_g": torch.ones(4),
        }
        return state | ({f"{wrapper}backbone.masked_embed": torch.zeros(1, 24)} if method == "ibot" else {})

    content = {"student": make_state(student, "module."), "teacher": make_state(teacher, ""), f"{method}_loss": {}}
    torch.save(content | {"epoch": 3}, tmp_path / "checkpoint.pth")
    report = convert_checkpoint(
        tmp_path / "checkpoint.pth", tmp_path / "out", to="backbone", num_attention_heads=3, verify=True
    )
    model = build_classifier(tmp_path / "out", pooling="cls", num_labels=3)
    assert get_non_mae_network(model) == Network("ViT", 2, 24)
    assert any(note.code is FactCode.AVERAGED_WEIGHTS and "teacher" in note.values["location"] for note in report.notes)
    assert report.verification.max_abs_difference < 1e-5
    model = build_classifier(tmp_path / "checkpoint.pth", pooling="cls", num_labels=3, num_attention_heads=3)
    norm = model.state_dict()["vit.layernorm.weight"]
    assert torch.equal(norm, teacher.norm.weight) and str(get_non_mae_network(model)) == "ViT of 2 blocks of 24"
    query = teacher.blocks[1].attn.qkv.weight[:24]
    assert torch.equal(model.vit.layers[1].attention.q_proj.weight, query)
