"""BEiT and data2vec files -> BeitForImageClassification; DINO and iBOT files, whose teacher is a plain ViT."""

import argparse

import pytest
import torch
from safetensors.torch import load_file
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from transformers import AutoImageProcessor, AutoModelForImageClassification

from hf_mae import build_classifier
from hf_mae.compat.transformers import use_attn_implementation
from hf_mae.conversion import convert_checkpoint
from hf_mae.conversion.errors import ConversionError
from hf_mae.models.attention import register_plain_attention
from hf_mae.models.introspection import describe_non_mae_model
from hf_mae.models.stochastic_depth import get_drop_path_rate
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
def test_a_fine_tuned_one_computes_what_timms_does(tmp_path, shared, positions, scaled):
    theirs = beit(shared, positions, scaled)
    path = tmp_path / "beit.pth"
    state = theirs.state_dict() | {"blocks.0.attn.relative_position_index": torch.zeros(17, 17, dtype=torch.long)}
    torch.save({"model": state, "args": argparse.Namespace(imagenet_default_mean_and_std=True)}, path)
    report = convert_checkpoint(path, tmp_path / "out", labels=["a", "b", "c"], verify=True)
    assert report.verification["against"] == "timm's Beit" and report.verification["max_abs_difference"] < 1e-5
    assert not report.initialized and [entry["source"] for entry in report.unused if "index" in entry["source"]]
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = theirs(pixels)
        torch.testing.assert_close(model(pixels).logits, expected, rtol=1e-5, atol=1e-5)
        with use_attn_implementation(model, register_plain_attention(model)):  # as it is trained on a CPU
            torch.testing.assert_close(model(pixels).logits, expected, rtol=1e-5, atol=1e-5)
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "out").image_mean) == [0.485, 0.456, 0.406]


def test_a_pre_trained_one_is_fine_tuned(tmp_path):
    state = beit(shared=True).state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith(("head.", "fc_norm."))}
    state |= {"mask_token": torch.zeros(1, 1, 24), "lm_head.weight": torch.zeros(9, 24), "norm.weight": torch.ones(24)}
    torch.save({"model": state}, tmp_path / "pre.pth")
    model = build_classifier(tmp_path / "pre.pth", id2label={0: "a", 1: "b"}, drop_path=0.2)
    said = model.conversion_report.summary()
    assert "mean and std 0.5" in said and "the checkpoint has no head" in said and "of pre-training" in said
    assert model.config.id2label == {0: "a", 1: "b"} and get_drop_path_rate(model) == pytest.approx(0.2)
    assert describe_non_mae_model(model) == "BEiT of 3 blocks of 24"
    assert torch.equal(model.beit.layers[1].attention.v_proj.bias, state["blocks.1.attn.v_bias"])
    groups = parameter_groups(model, 1.0, layer_decay=0.5)
    assert {group["lr"] for group in groups} == {0.5**power for power in range(5)}
    with pytest.raises(ConversionError, match="takes images of 32 pixels"):
        build_classifier(tmp_path / "pre.pth", num_labels=2, image_size=64)
    heads = [convert_checkpoint(tmp_path / "pre.pth", tmp_path / name, num_labels=2) and name for name in "ab"]
    one, two = (load_file(tmp_path / name / "model.safetensors")["classifier.weight"] for name in heads)
    assert torch.equal(one, two) and 0 < one.abs().max() < 1e-3  # drawn anew, the same each time
    with pytest.raises(ConversionError, match="--num_attention_heads is for an MAE"):
        convert_checkpoint(tmp_path / "pre.pth", tmp_path / "out", num_labels=2, num_attention_heads=3)
    for asked in ({"to": "backbone"}, {"to": "pretraining"}, {"pooling": "cls"}):
        with pytest.raises(ConversionError, match=r"a BEiT \(or data2vec\)"):
            convert_checkpoint(tmp_path / "pre.pth", tmp_path / "out", num_labels=2, **asked)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("blocks.1.attn.proj.weight"), r"lacks parameters.*layers\.1\.attention\.o_proj"),
        (lambda s: s.update({"blocks.1.norm3.weight": torch.ones(24)}), r"does not have \(blocks\.1\.norm3\.weight\)"),
        (lambda s: s["blocks.2.gamma_1"].fill_(torch.nan), "not finite"),
        (lambda s: s.update({"blocks.1.mlp.fc1.bias": torch.ones(5)}), "contradicts itself"),
        (lambda s: s.update({"blocks.0.attn.relative_position_bias_table": torch.ones(50, 3)}), "other than square"),
    ],
)
def test_what_is_wrong_with_one_is_told(tmp_path, change, told):
    state = beit().state_dict()
    change(state)
    torch.save(state, tmp_path / "beit.pth")
    with pytest.raises(ConversionError, match=told):
        convert_checkpoint(tmp_path / "beit.pth", tmp_path / "out", num_labels=3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["dino", "ibot"])
def test_dino_and_ibot_hand_on_their_teacher(tmp_path, method):
    torch.manual_seed(0)
    teacher, student = (VisionTransformer(**SIZES, depth=2, num_classes=0).eval() for _ in range(2))

    def parts(model, wrapper):
        state = {f"{wrapper}backbone.{name}": tensor for name, tensor in model.state_dict().items()}
        state |= {
            f"{wrapper}head.mlp.0.weight": torch.zeros(8, 24),
            f"{wrapper}head.last_layer.weight_g": torch.ones(4),
        }
        return state | ({f"{wrapper}backbone.masked_embed": torch.zeros(1, 24)} if method == "ibot" else {})

    loaded = {"student": parts(student, "module."), "teacher": parts(teacher, ""), "epoch": 3, f"{method}_loss": {}}
    torch.save(loaded, tmp_path / "checkpoint.pth")
    report = convert_checkpoint(
        tmp_path / "checkpoint.pth", tmp_path / "out", to="backbone", num_attention_heads=3, verify=True
    )
    assert (
        describe_non_mae_model(build_classifier(tmp_path / "out", pooling="cls", num_labels=3))
        == "ViT of 2 blocks of 24"
    )
    assert "teacher" in report.summary() and report.verification["max_abs_difference"] < 1e-5
    model = build_classifier(tmp_path / "checkpoint.pth", pooling="cls", num_labels=3, num_attention_heads=3)
    found = model.state_dict()["vit.layernorm.weight"]
    assert torch.equal(found, teacher.norm.weight) and describe_non_mae_model(model) == "ViT of 2 blocks of 24"
    query = teacher.blocks[1].attn.qkv.weight[:24]
    assert torch.equal(model.vit.layers[1].attention.q_proj.weight, query)
