"""Networks of transformers and timm: building, saving, loading, layer-wise learning rates and preprocessing."""

import json
import math
import pickle
import re
import shutil

import numpy as np
import pytest
import timm
import torch
import transformers
from packaging.version import Version
from PIL import Image
from support.messages import raises
from timm.optim import param_groups_layer_decay
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    CLIPConfig,
    ConvNextConfig,
    Dinov2Config,
    EfficientNetConfig,
    ResNetConfig,
    SiglipConfig,
    Swinv2Config,
)

from hf_mae import build_classifier, load_image_folder
from hf_mae.compat import timm as compat
from hf_mae.compat.messages import CompatMessage
from hf_mae.compat.timm import MIN_TIMM_VERSION
from hf_mae.conversion.messages import ConversionError, ConversionMessage
from hf_mae.conversion.safety import is_timm
from hf_mae.data.images.processors import (
    get_processor_settings,
    rescale_and_normalize,
    resize_and_crop,
    to_timm_processor,
    to_transformers_processor,
)
from hf_mae.data.images.torch_datasets import EvalDataset
from hf_mae.data.images.transforms import image_processor
from hf_mae.errors import UsageError
from hf_mae.inference.uncertainty import capture_features
from hf_mae.models.ensemble import Ensemble
from hf_mae.models.introspection import find_blocks, find_head, get_layer_ids, input_size
from hf_mae.models.loading import load_classifier
from hf_mae.models.messages import ModelMessage
from hf_mae.models.stochastic_depth import get_drop_path_rate
from hf_mae.reporting.conversion_summary import format_conversion
from hf_mae.training.layer_decay import parameter_groups

NAMES = ["adenoma", "mucosa", "polyp"]
LABELS = dict(enumerate(NAMES))
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
TWO_TOWERS = {"vision_config": TOWER | {"image_size": 64, "patch_size": 16}, "text_config": TOWER | {"vocab_size": 32}}
# Networks of transformers: configuration, number of blocks, and layer ids of some parameters.
STOCK = {
    "convnext": (
        ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], image_size=64),
        5,
        {
            "convnext.embeddings.patch_embeddings.weight": 0,
            "convnext.encoder.stages.1.downsampling_layer.1.weight": 2,
            "convnext.encoder.stages.2.layers.1.pwconv1.weight": 4,
            "convnext.layernorm.weight": 6,
        },
    ),
    "swinv2": (
        Swinv2Config(image_size=64, patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4),
        3,
        {"swinv2.encoder.layers.0.downsample.reduction.weight": 2, "swinv2.layernorm.weight": 4},
    ),
    "efficientnet": (
        EfficientNetConfig(width_coefficient=0.1, depth_coefficient=0.3, image_size=64, hidden_dim=128),
        8,
        {"efficientnet.encoder.top_conv.weight": 9},
    ),
    "dinov2": (
        Dinov2Config(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=70, patch_size=14),
        3,
        {"dinov2.embeddings.cls_token": 0, "dinov2.encoder.layer.2.mlp.fc1.weight": 3},
    ),
    "clip": (
        CLIPConfig(**TWO_TOWERS),
        3,
        {"vision_model.pre_layrnorm.weight": 0, "vision_model.post_layernorm.bias": 4},
    ),
    "siglip": (SiglipConfig(**TWO_TOWERS), 3, {"vision_model.embeddings.position_embedding.weight": 0}),
    "resnet": (
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2]),
        3,
        {"resnet.encoder.stages.1.layers.0.layer.2.convolution.weight": 2, "classifier.1.weight": 4},
    ),
}
SMALL = {
    "Pvt": {"hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "num_attention_heads": [1, 2, 2, 4], "image_size": 64},
    "Cvt": {"embed_dim": [8, 8, 16], "depth": [1, 2, 3], "num_heads": [1, 2, 4]},
    "Levit": {
        "image_size": 64,
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [2] * 3,
        "depths": [1] * 3,
        "key_dim": [4] * 3,
    },
}
requires_timm = pytest.mark.skipif(
    Version(timm.__version__) < Version(MIN_TIMM_VERSION), reason=f"needs timm {MIN_TIMM_VERSION}"
)
TIMM = ("test_vit", "test_convnext", "test_efficientnet", "test_resnet")


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A function kind -> folder of a transformers classifier with two classes and random weights."""
    root = tmp_path_factory.mktemp("stock")

    def folder(kind: str):
        if not (root / kind).exists():
            torch.manual_seed(0)
            AutoModelForImageClassification.from_config(STOCK[kind][0]).save_pretrained(root / kind)
        return root / kind

    return folder


@pytest.mark.parametrize("kind", STOCK)
def test_a_classifier_of_transformers_is_built_saved_and_loaded(stock, kind, tmp_path):
    size = 64 if kind == "resnet" else None
    model = build_classifier(stock(kind), id2label=LABELS, image_size=size, drop_path=0.1)
    _, blocks, expected = STOCK[kind]
    layers, last = get_layer_ids(model)
    assert len(find_blocks(model)) == blocks == last - 1
    assert {name: layers[name] for name in expected} == expected
    head, linear = find_head(model)
    assert layers[f"{head}.bias"] == last and linear.out_features == 3
    groups = parameter_groups(model, 1.0, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(layers) == len(list(model.parameters()))
    assert {group["lr"] for group in groups} == {0.5 ** (last - layer) for layer in {*layers.values()}}
    assert all(group["weight_decay"] == 0 for group in groups for p in group["params"] if p.ndim == 1)
    assert model.training and model.conversion_report.initialized[0]["target"] == head
    if kind in ("convnext", "swinv2", "dinov2"):
        assert get_drop_path_rate(model) == pytest.approx(0.1)
    assert_saved_and_loaded(model, tmp_path)


@requires_timm
@pytest.mark.parametrize("name", TIMM)
def test_a_model_of_timm_has_the_layer_ids_of_timm_and_is_saved_and_loaded(name, tmp_path):
    torch.manual_seed(0)
    model = build_classifier(f"timm/{name}", id2label=LABELS, image_size=64, drop_path=0.1, random_weights=True)
    timm_groups = (
        param_groups_layer_decay(model.timm_model, 0.05, model.timm_model.no_weight_decay(), layer_decay=0.75)
        if hasattr(model.timm_model, "no_weight_decay")
        else param_groups_layer_decay(model.timm_model, 0.05)
    )
    expected = {id(p): (group["lr_scale"], group["weight_decay"]) for group in timm_groups for p in group["params"]}
    groups = parameter_groups(model, 2.0, weight_decay=0.05, layer_decay=0.75)
    actual = {id(p): (group["lr"] / 2, group["weight_decay"]) for group in groups for p in group["params"]}
    assert actual.keys() == expected.keys() and all(actual[p] == pytest.approx(expected[p]) for p in actual)
    assert_saved_and_loaded(model, tmp_path)


def assert_saved_and_loaded(model, folder):
    """Logits, classes and pixels do not change if a model is saved, and loaded by hf_mae and by transformers."""
    size = input_size(model)
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    processor = image_processor("endoscopy", size)
    if is_timm(model.config):
        processor = to_timm_processor(processor, model.config)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    loaded, loaded_processor = load_classifier(str(folder))
    with torch.no_grad(), capture_features(loaded) as get_features:
        logits = loaded(pixel_values=pixels).logits
        features = get_features()
        assert torch.equal(logits, model(pixel_values=pixels).logits)
    assert [depth.shape for depth in features] == [(2, depth.shape[1]) for depth in features] and len(features) == 3
    assert features[2].shape[1] == find_head(model)[1].in_features
    assert loaded.config.id2label == LABELS and input_size(loaded) == size
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    stock_processor = AutoImageProcessor.from_pretrained(folder)
    expected = stock_processor(image, return_tensors="pt")["pixel_values"][0]
    for own in (processor, loaded_processor):
        torch.testing.assert_close(
            rescale_and_normalize(own, np.array(resize_and_crop(own, image))), expected, rtol=0, atol=0
        )


def test_layer_ids_of_an_mae_vit_are_those_of_the_original_code(tiny_pth):
    """util/lr_decay.py: tokens, positions and patches are layer 0, block i is layer i + 1, the rest is the head's."""
    for pooling in ("mean", "cls"):
        layers, last = get_layer_ids(build_classifier(tiny_pth, pooling=pooling, num_labels=3))
        assert last == 4
        for name, layer in layers.items():
            block = re.search(r"layers\.(\d+)\.", name)
            assert layer == (0 if ".embeddings." in name else int(block[1]) + 1 if block else last), name


@pytest.mark.parametrize(
    "name", ["Cvt", "Hiera", "Levit", "MobileViT", "PoolFormer", "Pvt", "PvtV2", "Segformer", "Siglip", "Swin"]
)
def test_layer_ids_never_fall_in_the_order_of_execution(name):
    config = getattr(transformers, f"{name}Config")(id2label=LABELS)
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    layers, last = get_layer_ids(model)
    order = []
    for module_name, module in model.named_modules():
        own = [f"{module_name}.{parameter}" for parameter, _ in module.named_parameters(recurse=False)]
        if own and not list(module.children()):
            module.register_forward_pre_hook(lambda *_, own=own: order.extend(layers[parameter] for parameter in own))
    size = input_size(model)
    model(pixel_values=torch.zeros(1, 3, size, size, device="meta"))
    assert layers.keys() == dict(model.named_parameters()).keys()
    assert order == sorted(order) and order[0] == 0 and order[-1] == last


@pytest.mark.parametrize(
    ("kind", "heads"),
    [
        ("DeiTForImageClassificationWithTeacher", ["cls_classifier", "distillation_classifier"]),
        ("LevitForImageClassificationWithTeacher", ["classifier.linear", "classifier_distill.linear"]),
        ("SwiftFormerForImageClassification", ["head", "dist_head"]),
    ],
)
def test_networks_with_two_heads_are_rejected(kind, heads):
    config = getattr(transformers, f"{kind.partition('ForImage')[0]}Config")(id2label=LABELS)
    with torch.device("meta"):
        model = getattr(transformers, kind)(config)
    with raises(ModelMessage.SEVERAL_HEADS, model=kind, names=heads):
        find_head(model)


def test_a_head_with_as_many_inputs_as_classes_is_the_only_head():
    config = transformers.Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_labels=16)
    assert find_head(transformers.Dinov2ForImageClassification(config))[0] == "classifier"
    config = transformers.ViTMSNConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_labels=8)
    assert find_head(transformers.ViTMSNForImageClassification(config))[0] == "classifier"


@pytest.mark.parametrize(("name", "rate"), [("Pvt", 0.1), ("Cvt", [0.0, 0.0, 0.1]), ("Levit", 0)])
def test_number_of_classes_and_drop_path_of_unusual_configurations(name, rate, tmp_path):
    """PVT has a field for the number of classes, CvT one drop path rate per stage, and LeViT an integer one."""
    config = getattr(transformers, f"{name}Config")(**SMALL[name], num_labels=5)
    getattr(transformers, f"{name}ForImageClassification")(config).save_pretrained(tmp_path / "first")
    model = build_classifier(tmp_path / "first", id2label=LABELS, image_size=64, drop_path=0.1)
    assert find_head(model)[1].out_features == model.config.num_labels == 3 and model.config.drop_path_rate == rate
    model.save_pretrained(tmp_path / "second")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "second")
    assert find_head(loaded)[1].out_features == 3 and loaded.config.id2label == LABELS


def test_a_head_is_loaded_for_the_same_classes_and_new_for_others(stock, tmp_path):
    first = build_classifier(stock("convnext"), id2label=LABELS)
    first.save_pretrained(tmp_path / "first")
    same = build_classifier(tmp_path / "first", id2label=LABELS)
    assert torch.equal(same.classifier.weight, first.classifier.weight) and not same.conversion_report.initialized
    other = build_classifier(tmp_path / "first", id2label={0: "a", 1: "b", 2: "c"})
    assert not torch.equal(other.classifier.weight, first.classifier.weight) and not other.classifier.bias.any()
    assert "has other classes (adenoma, mucosa, polyp)" in format_conversion(other.conversion_report)
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    config["id2label"] = dict(reversed(config["id2label"].items()))  # the ids decide, not the order in the file
    (tmp_path / "first" / "config.json").write_text(json.dumps(config))
    assert not build_classifier(tmp_path / "first", id2label=LABELS).conversion_report.initialized
    fewer = build_classifier(tmp_path / "first", num_labels=2)
    assert fewer.config.num_labels == 2 and "no head of 2 classes" in format_conversion(fewer.conversion_report)
    for model in (same, other, fewer):
        assert torch.equal(model.convnext.layernorm.weight, first.convnext.layernorm.weight)


@requires_timm
def test_a_model_of_timm_does_not_save_the_classes_of_its_source(tmp_path):
    first = build_classifier("timm/test_convnext3", id2label=LABELS, random_weights=True)
    first.save_pretrained(tmp_path / "first")
    for names in (["x", "y", "z"], ["x", "y"]):
        build_classifier(tmp_path / "first", id2label=dict(enumerate(names))).save_pretrained(tmp_path / "other")
        saved = AutoModelForImageClassification.from_pretrained(tmp_path / "other").config
        assert saved.id2label == dict(enumerate(names)) and saved.num_labels == len(names)


def test_a_network_without_blocks_is_rejected():
    with raises(ModelMessage.NO_BLOCKS, model="Linear"):
        find_blocks(torch.nn.Linear(2, 2))


def test_a_data_set_can_be_pickled_with_its_processor(toy):
    split = load_image_folder(str(toy / "labelled"))["validation"]
    images = EvalDataset(split, image_processor("endoscopy", 32), cache=False)
    copy = pickle.loads(pickle.dumps(images))
    assert torch.equal(copy[0]["pixel_values"], images[0]["pixel_values"])


def test_an_encoder_without_a_head_gets_a_new_one(stock, tmp_path):
    full = AutoModelForImageClassification.from_pretrained(stock("dinov2"))
    full.dinov2.save_pretrained(tmp_path)
    model = build_classifier(tmp_path, id2label=LABELS)
    assert torch.equal(model.dinov2.embeddings.cls_token, full.dinov2.embeddings.cls_token)
    assert "no head of 3 classes" in format_conversion(model.conversion_report)


@requires_timm
def test_image_size_is_changed_if_the_network_supports_it(stock, tmp_path):
    assert input_size(build_classifier(stock("dinov2"), id2label=LABELS, image_size=42)) == 42
    with raises(ModelMessage.INPUT_SIZE_UNSUPPORTED, size=96):
        build_classifier(stock("clip"), id2label=LABELS, image_size=96)
    with raises(ModelMessage.INPUT_SIZE_UNSUPPORTED, size=70):
        build_classifier("timm/test_vit", id2label=LABELS, image_size=70, random_weights=True)
    model = build_classifier("timm/test_vit", id2label=LABELS, image_size=96, random_weights=True)
    assert model.timm_model.pos_embed.shape[1] == 36 + 1 and model.config.model_args["img_size"] == 96
    assert_saved_and_loaded(model, tmp_path)


def test_options_of_mae_vits_are_rejected(stock):
    with raises(ModelMessage.POOLING_NEEDS_MAE):
        build_classifier(stock("convnext"), id2label=LABELS, pooling="cls")
    with raises(ModelMessage.ATTENTION_HEADS_NEED_MAE):
        build_classifier(stock("convnext"), id2label=LABELS, num_attention_heads=4)


def test_missing_and_invalid_weights_are_rejected(stock, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(stock("convnext"))
    state = model.state_dict()
    model.save_pretrained(tmp_path / "few", state_dict={n: t for n, t in state.items() if "stages.2" not in n})
    with raises(ModelMessage.WEIGHTS_MISSING, model="ConvNextForImageClassification") as caught:
        build_classifier(tmp_path / "few", id2label=LABELS)
    assert all("stages.2" in name for name in caught.value.attributes["names"])
    model.convnext.layernorm.weight.data[0] = math.nan
    model.save_pretrained(tmp_path / "nan")
    with raises(ConversionMessage.NOT_FINITE, ConversionError):
        build_classifier(tmp_path / "nan", id2label=LABELS)


@requires_timm
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_args": {"checkpoint_path": "/tmp/weights.pth"}}, ConversionMessage.TIMM_MODEL_ARG_INVALID),
        ({"model_args": {"depths": [1, 60_000]}}, ConversionMessage.MODEL_TOO_LARGE),
        ({"model_args": "depth"}, ConversionMessage.CANNOT_LOAD_CONFIG),
        ({"architecture": "local-dir:/tmp/model"}, ConversionMessage.TIMM_ARCHITECTURE_INVALID),
        ({"architecture": None}, ConversionMessage.CANNOT_LOAD_CONFIG),
        ({"pretrained_cfg": {"input_size": [3, 10**6, 10**6]}}, ConversionMessage.VALUE_OUT_OF_RANGE),
        ({"pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 1e-6}}, ConversionMessage.VALUE_OUT_OF_RANGE),
    ],
)
def test_unsafe_configurations_of_timm_are_rejected(tmp_path, change, code):
    model = build_classifier("timm/test_convnext", id2label=LABELS, random_weights=True)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    for load in (lambda: load_classifier(str(tmp_path)), lambda: build_classifier(tmp_path, id2label=LABELS)):
        with pytest.raises((ConversionError, UsageError)) as caught:
            load()
        assert caught.value.code is code


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        ("convnext", {"hidden_sizes": [8, 16, 24, 60_000]}, ConversionMessage.MODEL_TOO_LARGE),
        ("convnext", {"depths": [1, 1, 1, 10**9]}, ConversionMessage.VALUE_OUT_OF_RANGE),
        ("efficientnet", {"depth_coefficient": 1e9}, ConversionMessage.VALUE_OUT_OF_RANGE),
        ("clip", {"vision_config": TOWER | {"num_hidden_layers": 10**6}}, ConversionMessage.MODEL_TOO_LARGE),
    ],
)
def test_configurations_of_huge_models_are_rejected_before_allocation(stock, tmp_path, kind, change, code):
    shutil.copytree(stock(kind), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with raises(code, ConversionError):
        build_classifier(tmp_path / "model", id2label=LABELS)


@requires_timm
@pytest.mark.parametrize("family", ["endoscopy", "imagenet"])
@pytest.mark.parametrize("size", [64, 192, 224, 336])
def test_timm_preprocessing_equals_that_of_the_transform_family(family, size):
    model = build_classifier("timm/test_convnext", id2label=LABELS, random_weights=True)
    processor = image_processor(family, size)
    timm_processor = to_timm_processor(processor, model.config)
    converted = get_processor_settings(to_transformers_processor(timm_processor))
    fields = ("size", "crop_size", "do_center_crop", "resample", "image_mean", "image_std")
    expected = processor.to_dict()
    assert {name: converted.get(name) for name in fields if expected.get(name)} == {
        name: expected[name] for name in fields if expected.get(name)
    }
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).resize((900, 700))
    if size == 192:
        return  # half of the margin of 27 pixels is not an integer, so the crops differ by one pixel
    one, two = (np.asarray(resize_and_crop(p, image)).astype(int) for p in (processor, timm_processor))
    assert np.abs(one - two).max() <= 1  # Pillow and torchvision round differently


@requires_timm
def test_different_networks_form_an_ensemble(tiny_pth):
    models = [
        build_classifier(tiny_pth, id2label=LABELS).eval(),
        build_classifier("timm/test_convnext", id2label=LABELS, image_size=64, random_weights=True).eval(),
    ]
    size = input_size(models[0])
    processors = [image_processor("endoscopy", size), None]
    processors[1] = to_timm_processor(image_processor("endoscopy", size, (0.5,) * 3, (0.5,) * 3), models[1].config)
    pixels = torch.randn(2, 3, size, size)
    ensemble = Ensemble(models, processors).eval()
    assert input_size(ensemble) == size
    mean, std = (torch.tensor(processors[0].to_dict()[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    with torch.no_grad():
        scores = [models[0](pixel_values=pixels).logits.softmax(-1)]
        scores.append(models[1](pixel_values=(pixels * std + mean - 0.5) / 0.5).logits.softmax(-1))
        torch.testing.assert_close(ensemble(pixels).logits.softmax(-1), torch.stack(scores).mean(0))


@requires_timm
@pytest.mark.parametrize("classes", [1000, 0])
@pytest.mark.parametrize("name", ["test_convnext3", "test_vit"])
def test_a_folder_in_timm_layout_is_loaded(tmp_path, name, classes):
    """Keys lack the prefix of the wrapper, and the configuration repeats the number of classes. Encoders such as those
    of DINOv3, CLIP and SigLIP have no head."""
    torch.manual_seed(0)
    timm_model = timm.create_model(name, num_classes=classes).eval()
    timm.models.save_for_hf(timm_model, tmp_path, safe_serialization=True)
    model = build_classifier(tmp_path, id2label=LABELS).eval()
    assert "the source has no head of 3 classes" in format_conversion(model.conversion_report)
    size = timm_model.pretrained_cfg["input_size"][-1]
    pixels = torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected = timm_model.forward_features(pixels)
        assert torch.equal(model.timm_model.forward_features(pixels), expected) and input_size(model) == size
        if classes:
            logits = load_classifier(str(tmp_path))[0](pixels).logits
            torch.testing.assert_close(logits, timm_model(pixels))  # mapped weights may have another alignment
        else:
            with raises(ModelMessage.HEAD_MISSING):
                load_classifier(str(tmp_path))
    assert input_size(build_classifier(tmp_path, id2label=LABELS, image_size=96)) == 96


def test_unknown_timm_models_are_rejected(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with raises(ConversionMessage.CANNOT_LOAD_CONFIG, ConversionError, source="timm/no_such_network"):
        build_classifier("timm/no_such_network", id2label=LABELS, random_weights=True)
    assert timm.is_model("test_vit")


def test_older_versions_of_timm_are_rejected(monkeypatch):
    monkeypatch.setattr(compat, "version", lambda package: "1.0.26")
    with raises(CompatMessage.TIMM_TOO_OLD):
        build_classifier("timm/test_convnext3", id2label=LABELS, random_weights=True)


@requires_timm
def test_buffers_that_timm_does_not_save_are_restored(tmp_path):
    torch.manual_seed(0)
    model = build_classifier("timm/swinv2_tiny_window8_256", id2label=LABELS, image_size=64, random_weights=True)
    assert_saved_and_loaded(model, tmp_path)
