"""Folders of transformers keep their names, image processor and all else through every conversion; and class names."""

import json
import os

import pytest
import torch
from PIL import Image
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
from hf_mae.conversion.labels import read_labels

pytestmark = pytest.mark.run  # half a minute of models


def stock(kind, folder, **config):
    """A stock classifier with random weights, names in no order of the alphabet, and a processor of its own."""
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
    """Folder -> folder, and folder -> .pth -> folder: names, processor and everything else go along."""
    source = stock(kind, tmp_path / "source", **config)
    report = convert_checkpoint(source, tmp_path / "copy", verify=True)
    assert report.verification["against"] == f"{source} in transformers"
    export_checkpoint(source, tmp_path / "middle.pth")
    convert_checkpoint(tmp_path / "middle.pth", tmp_path / "back", verify=True)
    images = [Image.open(path) for path in sorted((shared_data / "polyp_crops").rglob("*.jpg"))[:2]]
    images.append(Image.effect_noise((70, 40), 80).convert("RGB"))
    # BEiT has no key bias: what export adds for it is zero.
    answers = [
        pipeline("image-classification", model=str(tmp_path / name), device="cpu")(images, top_k=12)
        for name in ("source", "copy", "back")
    ]
    for other in answers[1:]:
        for mine, theirs in zip(answers[0], other):
            assert [entry["label"] for entry in mine] == [entry["label"] for entry in theirs]
            for one, two in zip(mine, theirs):
                assert one["score"] == pytest.approx(two["score"], abs=1e-6)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "back")
    assert [model.config.id2label[i] for i in (0, 1, 2, 10, 11)] == [f"class {11 - i}" for i in (0, 1, 2, 10, 11)]
    assert model.config.problem_type == config.get("problem_type")


def test_another_image_size_scales_the_sources_processor(tmp_path):
    source = stock("vit", tmp_path / "source")
    report = convert_checkpoint(source, tmp_path / "out", image_size=48)
    settings_ = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert settings_["size"] == {"height": 48, "width": 48} and settings_["image_mean"] == [0.55, 0.36, 0.28]
    assert "its image processor was scaled to 48 pixels" in report.notes


@pytest.mark.parametrize(
    "content, message",
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"  <!DOCTYPE html>", "is a web page"),
        (b"", "is empty"),
        (None, "no weights"),
        (b"\x20\0\0\0\0\0\0\0{}", "cannot be loaded as ViTForImageClassification"),
    ],
)
def test_files_that_are_no_weights_are_called_what_they_are(tmp_path, content, message):
    path = stock("vit", tmp_path / "source") / "model.safetensors"
    path.write_bytes(content) if content is not None else os.remove(path)
    with pytest.raises(ConversionError, match=message):
        convert_checkpoint(path.parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_size": 64}, "position_embeddings is .* in its weights, and its config.json asks for"),
        ({"id2label": {str(i): f"c{i}" for i in range(7)}}, "classifier"),
    ],
)
def test_weights_and_configuration_that_contradict_each_other(tmp_path, change, message):
    source = stock("vit", tmp_path / "source")
    config = json.loads((source / "config.json").read_text()) | change
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConversionError, match=f"contradicts itself: .*{message}"):
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
def test_class_names_as_people_keep_them(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_labels(tmp_path / name) == ["mucosa", "polyp", "ulcère"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", "ulcère\npolyp\n".encode("latin-1"), "is not in UTF-8"),
        ("a.txt", b"polyp\npolyp\n", "'polyp' stands there twice"),
        ("a.json", b'{"polyp": 0, "mucosa": 2}', "does not number its 2 classes from 0 without gaps"),
        ("a.json", b"[1, 2]", "no list of class names"),
        ("a.json", b"{", "is no JSON"),
    ],
)
def test_class_names_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        read_labels(tmp_path / name)
