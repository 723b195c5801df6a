"""Checkpoints of every layout met in the wild become stock models that compute what the reference computes."""

import argparse
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import TINY, TINY_DECODER
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTMAEForPreTraining,
    ViTModel,
)

from hf_mae.conversion import ConversionError, convert_checkpoint, convert_to_model, read_checkpoint
from hf_mae.conversion.architecture import read_architecture, resolve_num_heads
from hf_mae.conversion.convert import resize_position_embeddings
from hf_mae.conversion.metadata import ENCODER_HEADS, CheckpointMetadata
from hf_mae.conversion.verification import verify_against_source

HEADS = TINY | TINY_DECODER


@pytest.fixture(scope="module")
def state(golden):
    return read_checkpoint(golden / "checkpoint-399.pth").state


def encoder_only(state):
    return {name: t for name, t in state.items() if not name.startswith(("decoder", "mask_token"))}


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_pretraining_equals_the_reference(golden, golden_json, tmp_path, norm_pix_loss):
    convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", **HEADS, verify=True)
    ratio = golden_json["mask_ratio"]
    model = ViTMAEForPreTraining.from_pretrained(tmp_path / "out", mask_ratio=ratio, norm_pix_loss=norm_pix_loss)
    given = load_file(golden / "pretrain_forward.safetensors")
    with torch.no_grad():
        out = model.eval()(pixel_values=given["pixel_values"], noise=given["noise"])
        latent = model.vit(pixel_values=given["pixel_values"], noise=given["noise"]).last_hidden_state
    assert torch.equal(out.mask, given["mask"])
    assert torch.equal(out.ids_restore, given["ids_restore"])
    torch.testing.assert_close(out.logits, given["pred"], atol=1e-5, rtol=0)
    torch.testing.assert_close(latent, given["latent"], atol=1e-5, rtol=0)
    assert out.loss.item() == pytest.approx(golden_json["pretrain"][f"loss_normpix_{norm_pix_loss}"], abs=1e-5)


@pytest.mark.parametrize("case, class_name", [("gap_smoothing", "Beit"), ("cls_weighted", "ViT")])
def test_classifier_logits_equal_the_reference(golden, tmp_path, case, class_name):
    report = convert_checkpoint(golden / f"{case}_final.pth", tmp_path / "out", **TINY, verify=True)
    model, info = AutoModelForImageClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model).__name__ == f"{class_name}ForImageClassification" == report.target["class"]
    assert not info["missing_keys"] and not info["unexpected_keys"]
    given = load_file(golden / f"{case}.safetensors")
    with torch.no_grad():
        logits = model.eval()(pixel_values=given["eval_pixel_values"]).logits
    torch.testing.assert_close(logits, given["eval_logits"], atol=1e-5, rtol=0)


def layouts(state):
    """The layouts that public checkpoints come in, by name."""
    full, encoder = dict(state), encoder_only(state)
    args = argparse.Namespace(model="mae_vit", lr=1e-3)
    run = {"optimizer": {"state": {}}, "epoch": 399, "scaler": {"scale": 1.0}, "args": args}
    return {
        "imagenet_encoder_alone": {"model": encoder},
        "imagenet_full": {"model": full},
        "run_of_the_reference": {"model": full} | run,
        "retfound_encoder": {"model": encoder} | run,
        "state_dict": {"state_dict": full},
        "bare": full,
        "module_prefix": {"model": {f"module.{n}": t for n, t in full.items()}},
        "encoder_prefix": {"state_dict": {f"encoder.{n}": t for n, t in encoder.items()}},
        "both_prefixes": {f"module.encoder.{n}": t for n, t in encoder.items()},
        "timm_names": encoder | {"head.weight": torch.randn(7, 48), "head.bias": torch.zeros(7)},
    }


@pytest.mark.parametrize("name", layouts({"x": torch.zeros(1)}))
def test_every_layout_in_the_wild(state, tmp_path, name):
    torch.save(layouts(state)[name], tmp_path / "in.pth")
    report = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out", to="backbone", **TINY, verify=True)
    model = ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=False)
    assert torch.equal(model.layernorm.weight, state["norm.weight"])
    assert torch.equal(model.layers[2].mlp.fc2.weight, state["blocks.2.mlp.fc2.weight"])
    assert not report.initialized


def test_safetensors_and_transformers_folders_read_alike(state, tmp_path):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "in.safetensors")
    convert_checkpoint(tmp_path / "in.safetensors", tmp_path / "mae", to="pretraining", **HEADS)
    # The folder is laid out as facebook/vit-mae-base is: a ViTMAEForPreTraining under its saved (older) names.
    assert any(name.startswith("vit.encoder.layer.0.") for name in load_file(tmp_path / "mae" / "model.safetensors"))
    report = convert_checkpoint(tmp_path / "mae", tmp_path / "out", to="backbone", verify=True)
    assert report.source["layout"] == "transformers ViTMAEForPreTraining"
    model = ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=False)
    assert torch.equal(model.layers[1].attention.q_proj.weight, state["blocks.1.attn.qkv.weight"][:48])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_fresh_head_is_drawn_as_the_reference_does(golden, tmp_path, pooling):
    report = convert_checkpoint(
        golden / "checkpoint-399.pth", tmp_path / "out", num_labels=400, pooling=pooling, **TINY
    )
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    head = model.classifier
    assert 1.9e-5 < head.weight.std() < 2.1e-5 and not head.bias.any()
    new = {entry["target"] for entry in report.initialized}
    assert {"classifier.weight", "classifier.bias"} <= new
    assert ("beit.pooler.layernorm.weight" in new) == (pooling == "mean")
    if pooling == "mean":
        assert (model.beit.pooler.layernorm.weight == 1).all() and not model.beit.pooler.layernorm.bias.any()


def test_every_tensor_is_accounted_for(golden, tmp_path):
    convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", num_labels=3, **TINY, verify=True)
    certificate = json.loads((tmp_path / "out" / "conversion.json").read_text())
    loaded = torch.load(golden / "checkpoint-399.pth", weights_only=False)
    left_out = {entry["source"]: entry["reason"] for entry in certificate["unused"]}
    used = {entry["source"] for entry in certificate["mapping"]}
    assert used | set(left_out) == set(loaded["model"]) | (set(loaded) - {"model"})
    assert not used & set(left_out) and all(left_out.values())
    filled = [name for entry in certificate["mapping"] for name in entry["target"]]
    new = [entry["target"] for entry in certificate["initialized"]]
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert sorted(filled + new) == sorted(name for name, _ in model.named_parameters())
    key_biases = [entry for entry in certificate["mapping"] if entry["source"].endswith("qkv.bias")]
    assert len(key_biases) == 3 and all("key bias" in entry["note"] for entry in key_biases)
    file = golden / "checkpoint-399.pth"
    assert certificate["source"]["size"] == file.stat().st_size
    import hashlib

    assert certificate["source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert certificate["verification"]["max_abs_difference"] < 1e-5
    assert set(certificate["versions"]) == {"torch", "transformers", "safetensors"}


def test_head_of_another_number_of_labels_is_dropped_with_a_note(golden, tmp_path):
    report = convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "a", num_labels=7, **TINY)
    assert any("for 5 labels, not 7" in note for note in report.notes)
    assert {"head.weight", "head.bias"} <= {entry["source"] for entry in report.unused}
    kept = convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "b", num_labels=5, **TINY)
    assert not kept.initialized and not kept.notes


def test_labels_from_a_file(golden, tmp_path):
    (tmp_path / "labels.txt").write_text("cecum\npolyps\npylorus\nz-line\nretroflex\n")
    convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "out", labels=tmp_path / "labels.txt", **TINY)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"]["1"] == "polyps" and config["label2id"]["z-line"] == 3
    (tmp_path / "labels.txt").write_text("cecum\ncecum\n")
    with pytest.raises(ConversionError, match="each once"):
        convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "x", labels=tmp_path / "labels.txt", **TINY)


def test_image_size_resizes_positions_bicubically(golden, state, tmp_path):
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
    assert any("resized" in note for note in report.notes)
    assert torch.equal(resize_position_embeddings(old, 4, (4, 4)), old)
    with pytest.raises(ConversionError, match="multiple of the patch size, 8"):
        convert_to_model(golden / "checkpoint-399.pth", num_labels=3, image_size=30, **TINY)


def test_the_processor_is_the_references_evaluation(golden, tmp_path):
    convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", num_labels=3, image_size=224, **TINY)
    settings = AutoImageProcessor.from_pretrained(tmp_path / "out").to_dict()
    assert dict(settings["size"]) == {"shortest_edge": 256} and settings["resample"] == 3
    assert settings["do_center_crop"] and dict(settings["crop_size"]) == {"height": 224, "width": 224}
    assert list(settings["image_mean"]) == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("width, heads", [(768, 12), (1024, 16), (1280, 16)])
def test_heads_of_the_known_widths(width, heads):
    """What the checkpoint says comes first, then the flag; a size of the reference's is supposed, and said."""
    supposed = {}
    assert resolve_num_heads(width, None, None, ENCODER_HEADS, "num_attention_heads", supposed) == heads
    assert supposed == {"num_attention_heads": heads}
    supposed.clear()
    assert resolve_num_heads(width, None, 8, ENCODER_HEADS, "num_attention_heads", supposed) == 8
    assert resolve_num_heads(width, 4, None, ENCODER_HEADS, "num_attention_heads", supposed) == 4
    with pytest.raises(ConversionError, match="--num_attention_heads 4 contradicts the checkpoint, which says 8"):
        resolve_num_heads(width, 4, 8, ENCODER_HEADS, "num_attention_heads", supposed)
    assert not supposed


def test_guessing_heads_is_an_error(golden, tmp_path):
    with pytest.raises(ConversionError, match="pass --num_attention_heads N"):
        convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", to="backbone")
    with pytest.raises(ConversionError, match="pass --decoder_num_attention_heads N"):
        convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", **TINY)
    with pytest.raises(ConversionError, match="does not divide"):
        convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", num_attention_heads=7, to="backbone")
    assert not list(tmp_path.iterdir())


def test_wrong_number_of_heads_is_what_verify_sees(golden):
    """`--verify` compares with an independent forward pass: a model with other heads does not pass it."""
    model, _ = convert_to_model(golden / "gap_smoothing_final.pth", **TINY)
    checkpoint = read_checkpoint(golden / "gap_smoothing_final.pth")
    other = read_architecture(checkpoint.state, CheckpointMetadata(), num_attention_heads=6)
    with pytest.raises(ConversionError, match="does not hold.*timm's VisionTransformer"):
        verify_against_source(model, checkpoint.state, other, "mean", checkpoint)


def test_pretraining_from_an_encoder_alone_has_a_fresh_decoder(state, tmp_path):
    torch.save({"model": encoder_only(state)}, tmp_path / "in.pth")
    report = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out", to="pretraining", **TINY, verify=True)
    model = ViTMAEForPreTraining.from_pretrained(tmp_path / "out")
    assert model.config.decoder_hidden_size == 512 and model.config.decoder_num_hidden_layers == 8
    assert model.decoder.decoder_pos_embed[:, 1:].abs().sum() > 0
    assert all(entry["target"].startswith("decoder.") for entry in report.initialized) and report.initialized


def test_pooling_must_fit_the_fine_tuned_head(golden, tmp_path):
    with pytest.raises(ConversionError, match="fine-tuned with --pooling mean"):
        convert_checkpoint(golden / "gap_smoothing_final.pth", tmp_path / "out", pooling="cls", **TINY)
    with pytest.raises(ConversionError, match="fine-tuned with --pooling cls"):
        convert_checkpoint(golden / "cls_weighted_final.pth", tmp_path / "out", pooling="mean", **TINY)


def test_half_precision_is_widened_and_said(state, tmp_path):
    torch.save({n: t.half() for n, t in encoder_only(state).items()}, tmp_path / "in.pth")
    model, report = convert_to_model(tmp_path / "in.pth", to="backbone", **TINY)
    assert model.layernorm.weight.dtype == torch.float32 and any("float32" in note for note in report.notes)
