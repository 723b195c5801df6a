"""Conversion of transformers folders keeps class names, image processor and configuration; reading of class names."""

import json
import os

import pytest
import torch
from PIL import Image
from support.messages import raises
from transformers import (
    AutoModelForImageClassification,
    BeitConfig,
    BeitForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    pipeline,
)

from hf_mae.conversion import ConversionError, convert_checkpoint, export_checkpoint
from hf_mae.conversion.facts import BaselineModel, FactCode, fact
from hf_mae.conversion.labels import read_labels
from hf_mae.conversion.messages import ConversionMessage
from hf_mae.files.messages import FileMessage

pytestmark = pytest.mark.run  # half a minute of models


def stock(kind, folder, **config):
    """Saves a stock classifier with random weights, unsorted class names, and its own image processor."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    sizes |= {"image_size": 32, "patch_size": 8, "id2label": {i: f"class {11 - i}" for i in range(12)}}
    sizes |= {"label2id": {f"class {11 - i}": i for i in range(12)}}
    torch.manual_seed(3)
    if kind == "vit":
        model = ViTForImageClassification(ViTConfig(**(sizes | config)))
    else:
        beit = {"use_mean_pooling": True, "use_absolute_position_embeddings": True, "layer_scale_init_value": 0.0}
        model = BeitForImageClassification(BeitConfig(**(sizes | beit | config)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    means = {"image_mean": [0.55, 0.36, 0.28], "image_std": [0.31, 0.22, 0.2]}
    ViTImageProcessor(size={"height": 32, "width": 32}, resample=1, **means).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "kind, config",
    [("vit", {"hidden_act": "relu"}), ("vit", {"layer_norm_eps": 1e-2}), ("beit", {"problem_type": "regression"})],
)
def test_a_round_trip_gives_the_same_scores(shared_data, tmp_path, kind, config):
    """Folder -> folder, and folder -> .pth -> folder; names and processor stay the same."""
    source = stock(kind, tmp_path / "source", **config)
    report = convert_checkpoint(source, tmp_path / "copy", verify=True)
    assert report.verification.against is BaselineModel.TRANSFORMERS
    export_checkpoint(source, tmp_path / "middle.pth")
    convert_checkpoint(tmp_path / "middle.pth", tmp_path / "back", verify=True)
    images = [Image.open(path) for path in sorted((shared_data / "polyp_crops").rglob("*.jpg"))[:2]]
    images.append(Image.effect_noise((70, 40), 80).convert("RGB"))
    # BEiT has no key bias; export adds zeros for it.
    results = [
        pipeline("image-classification", model=str(tmp_path / name), device="cpu")(images, top_k=12)
        for name in ("source", "copy", "back")
    ]
    for other in results[1:]:
        for expected, actual in zip(results[0], other):
            assert [entry["label"] for entry in expected] == [entry["label"] for entry in actual]
            for one, two in zip(expected, actual):
                assert one["score"] == pytest.approx(two["score"], abs=1e-6)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "back")
    assert [model.config.id2label[i] for i in (0, 1, 2, 10, 11)] == [f"class {11 - i}" for i in (0, 1, 2, 10, 11)]
    assert model.config.problem_type == config.get("problem_type")


def test_another_image_size_scales_the_processor_of_the_source(tmp_path):
    source = stock("vit", tmp_path / "source")
    report = convert_checkpoint(source, tmp_path / "out", image_size=48)
    config = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert config["size"] == {"height": 48, "width": 48} and config["image_mean"] == [0.55, 0.36, 0.28]
    assert fact(FactCode.PROCESSOR_SCALED, pixels=48) in report.notes


@pytest.mark.parametrize(
    "content, message",
    [
        (b"version https://git-lfs.github.com/spec/v1\n", ConversionMessage.FILE_IS_LFS_POINTER),
        (b"  <!DOCTYPE html>", ConversionMessage.FILE_IS_WEB_PAGE),
        (b"", ConversionMessage.FILE_EMPTY),
        (None, ConversionMessage.WEIGHTS_MISSING),
        (b"\x20\0\0\0\0\0\0\0{}", ConversionMessage.CANNOT_LOAD_MODEL),
    ],
)
def test_folders_with_invalid_weights_files_are_rejected(tmp_path, content, message):
    path = stock("vit", tmp_path / "source") / "model.safetensors"
    path.write_bytes(content) if content is not None else os.remove(path)
    with raises(message, ConversionError):
        convert_checkpoint(path.parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, name",
    [
        ({"image_size": 64}, "vit.embeddings.position_embeddings"),
        ({"id2label": {str(i): f"c{i}" for i in range(7)}}, "classifier.bias"),
    ],
)
def test_weights_that_contradict_the_configuration_are_rejected(tmp_path, change, name):
    source = stock("vit", tmp_path / "source")
    config = json.loads((source / "config.json").read_text()) | change
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    (source / "config.json").write_text(json.dumps(config))
    with raises(ConversionMessage.CONFIG_CONTRADICTS_WEIGHTS, ConversionError, name=name):
        convert_checkpoint(source, tmp_path / "out")


# Class names


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.txt", "mucosa\npolyp\nulcère\n".encode()),
        ("a.txt", "\ufeffmucosa\r\npolyp\r\nulcère\r\n".encode()),
        ("a.txt", "mucosa\npolyp\nulcère\n".encode("utf-16")),
        ("a.json", json.dumps(["mucosa", "polyp", "ulcère"]).encode()),
        ("a.json", json.dumps({"2": "ulcère", "0": "mucosa", "1": "polyp"}).encode()),
        ("a.json", json.dumps({"ulcère": 2, "mucosa": 0, "polyp": 1}).encode()),
        ("a.json", json.dumps({"label2id": {"ulcère": "2", "mucosa": "0", "polyp": "1"}}).encode()),
        ("a.json", json.dumps({"model": 1, "id2label": {"1": "polyp", "0": "mucosa", "2": "ulcère"}}).encode()),
    ],
)
def test_class_names_are_read_in_all_formats(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_labels(tmp_path / name) == ["mucosa", "polyp", "ulcère"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", "ulcère\npolyp\n".encode("latin-1"), FileMessage.NOT_UTF8),
        ("a.txt", b"polyp\npolyp\n", ConversionMessage.LABELS_DUPLICATE),
        ("a.txt", b"polyp\n", ConversionMessage.LABELS_TOO_FEW),
        ("a.json", b'{"polyp": 0, "mucosa": 2}', ConversionMessage.LABELS_NOT_NUMBERED),
        ("a.json", b"[1, 2]", ConversionMessage.LABELS_INVALID),
        ("a.json", b"{", ConversionMessage.JSON_INVALID),
    ],
)
def test_invalid_class_names_are_rejected(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with raises(message, ConversionError):
        read_labels(tmp_path / name)
