"""Converted checkpoints of all common layouts compute the same as the original code."""

import argparse
import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.messages import raises
from support.models import TINY, TINY_DECODER
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTMAEForPreTraining,
    ViTModel,
)

from hf_mae.conversion import ConversionError, convert_checkpoint, convert_to_model, read_checkpoint
from hf_mae.conversion.architecture import resolve_num_heads
from hf_mae.conversion.checkpoint import ConversionRequest
from hf_mae.conversion.facts import FactCode, fact
from hf_mae.conversion.layouts.mae import MAE, resize_position_embeddings
from hf_mae.conversion.messages import ConversionMessage
from hf_mae.conversion.metadata import ENCODER_HEADS
from hf_mae.conversion.verification import verify_against_source

HEADS = TINY | TINY_DECODER


@pytest.fixture(scope="module")
def state(golden):
    return read_checkpoint(golden / "checkpoint-399.pth").state


def encoder_only(state):
    return {name: t for name, t in state.items() if not name.startswith(("decoder", "mask_token"))}


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_pretraining_equals_the_original_code(golden, golden_json, tmp_path, norm_pix_loss):
    convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", **HEADS, verify=True)
    ratio = golden_json["mask_ratio"]
    model = ViTMAEForPreTraining.from_pretrained(tmp_path / "out", mask_ratio=ratio, norm_pix_loss=norm_pix_loss)
    golden_tensors = load_file(golden / "pretrain_forward.safetensors")
    with torch.no_grad():
        out = model.eval()(pixel_values=golden_tensors["pixel_values"], noise=golden_tensors["noise"])
        latent = model.vit(pixel_values=golden_tensors["pixel_values"], noise=golden_tensors["noise"]).last_hidden_state
    assert torch.equal(out.mask, golden_tensors["mask"])
    assert torch.equal(out.ids_restore, golden_tensors["ids_restore"])
    torch.testing.assert_close(out.logits, golden_tensors["pred"], atol=1e-5, rtol=0)
    torch.testing.assert_close(latent, golden_tensors["latent"], atol=1e-5, rtol=0)
    assert out.loss.item() == pytest.approx(golden_json["pretrain"][f"loss_normpix_{norm_pix_loss}"], abs=1e-5)


@pytest.mark.parametrize("case, class_name", [("gap_smoothing", "Beit"), ("cls_weighted", "ViT")])
def test_classifier_logits_equal_the_original_code(golden, tmp_path, case, class_name):
    report = convert_checkpoint(golden / f"{case}_final.pth", tmp_path / "out", **TINY, verify=True)
    model, info = AutoModelForImageClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model).__name__ == f"{class_name}ForImageClassification" == report.target["class"]
    assert not info["missing_keys"] and not info["unexpected_keys"]
    golden_tensors = load_file(golden / f"{case}.safetensors")
    with torch.no_grad():
        logits = model.eval()(pixel_values=golden_tensors["eval_pixel_values"]).logits
    torch.testing.assert_close(logits, golden_tensors["eval_logits"], atol=1e-5, rtol=0)


def layouts(state):
    """Layouts of public checkpoints, by name."""
    full, encoder = dict(state), encoder_only(state)
    args = argparse.Namespace(model="mae_vit", lr=1e-3)
    run = {"optimizer": {"state": {}}, "epoch": 399, "scaler": {"scale": 1.0}, "args": args}
    return {
        "imagenet_encoder_alone": {"model": encoder},
        "imagenet_full": {"model": full},
        "run_of_the_original_code": {"model": full} | run,
        "retfound_encoder": {"model": encoder} | run,
        "state_dict": {"state_dict": full},
        "bare": full,
        "module_prefix": {"model": {f"module.{n}": t for n, t in full.items()}},
        "encoder_prefix": {"state_dict": {f"encoder.{n}": t for n, t in encoder.items()}},
        "both_prefixes": {f"module.encoder.{n}": t for n, t in encoder.items()},
        "timm_names": encoder | {"head.weight": torch.randn(7, 48), "head.bias": torch.zeros(7)},
    }


@pytest.mark.parametrize("name", layouts({"x": torch.zeros(1)}))
def test_all_common_layouts_are_converted(state, tmp_path, name):
    torch.save(layouts(state)[name], tmp_path / "in.pth")
    report = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out", to="backbone", **TINY, verify=True)
    model = ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=False)
    assert torch.equal(model.layernorm.weight, state["norm.weight"])
    assert torch.equal(model.layers[2].mlp.fc2.weight, state["blocks.2.mlp.fc2.weight"])
    assert not report.initialized


def test_safetensors_and_transformers_folders_read_alike(state, tmp_path):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "in.safetensors")
    convert_checkpoint(tmp_path / "in.safetensors", tmp_path / "mae", to="pretraining", **HEADS)
    # The folder has the layout of facebook/vit-mae-base: a ViTMAEForPreTraining with its saved (older) keys.
    assert any(name.startswith("vit.encoder.layer.0.") for name in load_file(tmp_path / "mae" / "model.safetensors"))
    report = convert_checkpoint(tmp_path / "mae", tmp_path / "out", to="backbone", verify=True)
    assert report.source["class"] == "ViTMAEForPreTraining"
    model = ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=False)
    assert torch.equal(model.layers[1].attention.q_proj.weight, state["blocks.1.attn.qkv.weight"][:48])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_new_head_is_initialized_like_in_the_original_code(golden, tmp_path, pooling):
    report = convert_checkpoint(
        golden / "checkpoint-399.pth", tmp_path / "out", num_labels=400, pooling=pooling, **TINY
    )
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    head = model.classifier
    assert 1.9e-5 < head.weight.std() < 2.1e-5 and not head.bias.any()
    initialized = {entry["target"] for entry in report.initialized}
    assert {"classifier.weight", "classifier.bias"} <= initialized
    assert ("beit.pooler.layernorm.weight" in initialized) == (pooling == "mean")
    if pooling == "mean":
        assert (model.beit.pooler.layernorm.weight == 1).all() and not model.beit.pooler.layernorm.bias.any()


def test_every_tensor_is_accounted_for(golden, tmp_path):
    convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", num_labels=3, **TINY, verify=True)
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    content = torch.load(golden / "checkpoint-399.pth", weights_only=False)
    unused = {entry["source"]: entry["reason"] for entry in report["unused"]}
    used = {entry["source"] for entry in report["mapping"]}
    assert used | set(unused) == set(content["model"]) | (set(content) - {"model"})
    assert not used & set(unused) and all(unused.values())
    mapped = [name for entry in report["mapping"] for name in entry["target"]]
    initialized = [entry["target"] for entry in report["initialized"]]
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert sorted(mapped + initialized) == sorted(name for name, _ in model.named_parameters())
    key_biases = [entry for entry in report["mapping"] if entry["source"].endswith("qkv.bias")]
    assert len(key_biases) == 3 and all(entry["note"] == "key_bias_omitted" for entry in key_biases)
    file = golden / "checkpoint-399.pth"
    assert report["source"]["size"] == file.stat().st_size

    assert report["source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert report["verification"]["max_abs_difference"] < 1e-5
    assert set(report["versions"]) == {"torch", "transformers", "safetensors"}


def test_a_head_with_another_number_of_labels_is_replaced_with_a_note(golden, tmp_path):
    report = convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "a", num_labels=7, **TINY)
    assert fact(FactCode.HEAD_SIZE_DIFFERS, found=5, requested=7) in report.notes
    assert {"head.weight", "head.bias"} <= {entry["source"] for entry in report.unused}
    report = convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "b", num_labels=5, **TINY)
    assert not report.initialized and not report.notes


def test_labels_from_a_file(golden, tmp_path):
    (tmp_path / "labels.txt").write_text("cecum\npolyps\npylorus\nz-line\nretroflex\n")
    convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "out", labels=tmp_path / "labels.txt", **TINY)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"]["1"] == "polyps" and config["label2id"]["z-line"] == 3
    (tmp_path / "labels.txt").write_text("cecum\ncecum\n")
    with raises(ConversionMessage.LABELS_DUPLICATE, ConversionError, name="cecum"):
        convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "x", labels=tmp_path / "labels.txt", **TINY)


def test_image_size_resizes_position_embeddings_with_bicubic_interpolation(golden, state, tmp_path):
    report = convert_checkpoint(
        golden / "checkpoint-399.pth", tmp_path / "out", num_labels=3, image_size=56, **TINY, verify=True
    )
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert model.config.image_size == 56
    old = state["pos_embed"]
    patches = old[:, 1:].reshape(1, 4, 4, 48).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(patches, size=(7, 7), mode="bicubic", align_corners=False)
    positions = model.beit.embeddings.position_embeddings
    torch.testing.assert_close(positions[:, 1:], expected.permute(0, 2, 3, 1).flatten(1, 2), atol=1e-7, rtol=0)
    assert torch.equal(positions[:, :1], old[:, :1])
    assert fact(FactCode.POSITIONS_RESIZED, old=32, new=56) in report.notes
    assert torch.equal(resize_position_embeddings(old, 4, (4, 4)), old)
    with raises(ConversionMessage.IMAGE_SIZE_NOT_DIVISIBLE, ConversionError, image_size=30, patch_size=8):
        convert_to_model(golden / "checkpoint-399.pth", num_labels=3, image_size=30, **TINY)


def test_the_processor_is_the_evaluation_preprocessing_of_the_original_code(golden, tmp_path):
    convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", num_labels=3, image_size=224, **TINY)
    settings = AutoImageProcessor.from_pretrained(tmp_path / "out").to_dict()
    assert dict(settings["size"]) == {"shortest_edge": 256} and settings["resample"] == 3
    assert settings["do_center_crop"] and dict(settings["crop_size"]) == {"height": 224, "width": 224}
    assert list(settings["image_mean"]) == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("width, heads", [(768, 12), (1024, 16), (1280, 16)])
def test_the_number_of_heads_is_assumed_for_known_widths(width, heads):
    """The checkpoint and the flag have priority; an assumed number is recorded."""
    assumed = {}
    assert resolve_num_heads(width, None, None, ENCODER_HEADS, "num_attention_heads", assumed) == heads
    assert assumed == {"num_attention_heads": heads}
    assumed.clear()
    assert resolve_num_heads(width, None, 8, ENCODER_HEADS, "num_attention_heads", assumed) == 8
    assert resolve_num_heads(width, 4, None, ENCODER_HEADS, "num_attention_heads", assumed) == 4
    with raises(ConversionMessage.HEADS_CONTRADICT, flag="num_attention_heads", value=4, recorded=8):
        resolve_num_heads(width, 4, 8, ENCODER_HEADS, "num_attention_heads", assumed)
    assert not assumed


def test_an_unknown_number_of_heads_is_an_error(golden, tmp_path):
    with raises(ConversionMessage.HEADS_UNKNOWN, ConversionError, flag="num_attention_heads"):
        convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", to="backbone")
    with raises(ConversionMessage.HEADS_UNKNOWN, ConversionError, flag="decoder_num_attention_heads"):
        convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", **TINY)
    with raises(ConversionMessage.HEADS_DO_NOT_DIVIDE_WIDTH, ConversionError, value=7, width=48):
        convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", num_attention_heads=7, to="backbone")
    assert not list(tmp_path.iterdir())


def test_verify_detects_a_wrong_number_of_heads(golden):
    """The baseline of `--verify` is an independent forward pass."""
    model, _ = convert_to_model(golden / "gap_smoothing_final.pth", **TINY)
    checkpoint = read_checkpoint(golden / "gap_smoothing_final.pth")
    checkpoint.metadata.num_attention_heads = None
    other = MAE.plan(checkpoint, ConversionRequest(num_attention_heads=6))
    with raises(ConversionMessage.VERIFICATION_FAILED, ConversionError, baseline="timm"):
        verify_against_source(model, other)


def test_pretraining_from_an_encoder_has_a_new_decoder(state, tmp_path):
    torch.save({"model": encoder_only(state)}, tmp_path / "in.pth")
    report = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out", to="pretraining", **TINY, verify=True)
    model = ViTMAEForPreTraining.from_pretrained(tmp_path / "out")
    assert model.config.decoder_hidden_size == 512 and model.config.decoder_num_hidden_layers == 8
    assert model.decoder.decoder_pos_embed[:, 1:].abs().sum() > 0
    assert all(entry["target"].startswith("decoder.") for entry in report.initialized) and report.initialized


def test_pooling_must_fit_the_fine_tuned_head(golden, tmp_path):
    with raises(ConversionMessage.POOLING_CONTRADICTS_HEAD, ConversionError, pooling="mean"):
        convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "out", pooling="cls", **TINY)
    with raises(ConversionMessage.POOLING_CONTRADICTS_HEAD, ConversionError, pooling="cls"):
        convert_checkpoint(golden / "cls_weighted_final.pth", tmp_path / "out", pooling="mean", **TINY)


def test_half_precision_is_converted_to_float32_with_a_note(state, tmp_path):
    torch.save({n: t.half() for n, t in encoder_only(state).items()}, tmp_path / "in.pth")
    model, report = convert_to_model(tmp_path / "in.pth", to="backbone", **TINY)
    assert (
        model.layernorm.weight.dtype == torch.float32
        and fact(FactCode.CAST_TO_FLOAT32, dtypes=["torch.float16"]) in report.notes
    )
