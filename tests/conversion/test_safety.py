"""Limits on untrusted files are checked before memory is allocated, and custom code is never executed."""

import json
import zipfile
from contextlib import suppress

import pytest
import torch
from support.messages import raises
from support.models import TINY, TINY_DECODER, tiny_pretrainer
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_mae.conversion import ConversionError, convert_checkpoint, convert_to_model, export_model, safety
from hf_mae.conversion.messages import ConversionMessage
from hf_mae.conversion.stock_models import read_config
from hf_mae.errors import UsageError
from hf_mae.models.building import build_classifier, build_pretrainer
from hf_mae.models.loading import load_classifier, read_class_names
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.parse import read_values
from hf_mae.training.resume import check_model_matches_checkpoint


@pytest.fixture(scope="module")
def state():
    return export_model(tiny_pretrainer(), "pretraining")


def rewrite(source, target, pickle=None, compress=False):
    """Writes a `.pth` with another pickle, or compressed inside."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for entry in before.infolist():
            content = before.read(entry)
            if pickle is not None and entry.filename.endswith("data.pkl"):
                content = pickle
            compression = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            after.writestr(entry.filename, content, compress_type=compression)
    return target


def test_a_compressed_checkpoint_is_rejected(state, tmp_path):
    torch.save(state | {"zeros": torch.zeros(10_000_000)}, tmp_path / "x.pth")
    bomb = rewrite(tmp_path / "x.pth", tmp_path / "bomb.pth", compress=True)
    with raises(ConversionMessage.FILE_COMPRESSED, ConversionError, path=bomb):
        convert_to_model(bomb)


@pytest.mark.parametrize(
    "begin, step, levels",
    [
        (b"K\x00", lambda level: bytes([0x71, level, 0x68, level, 0x86]), 25),  # x = (x, x)
        (b"K\x00", lambda level: bytes([0x71, level, *[0x68, level] * 9, 0x87]), 60),  # triples, and more values
        (b"]", lambda level: bytes([0x71, level]) + b"]" + bytes([0x68, level, 0x61, 0x68, level, 0x61]), 40),  # lists
    ],
)
def test_nested_references_are_rejected(tmp_path, begin, step, levels):
    torch.save({"model": {}}, tmp_path / "x.pth")
    value = begin + b"".join(step(level) for level in range(levels))
    pickle = b"\x80\x02}X\x05\x00\x00\x00model}X\x01\x00\x00\x00a" + value + b"ss."
    with raises(ConversionMessage.PICKLE_TOO_LARGE, ConversionError, limit=20_000_000):
        convert_to_model(rewrite(tmp_path / "x.pth", tmp_path / "bomb.pth", pickle))


def test_a_checkpoint_with_an_optimizer_is_far_below_the_pickle_limit(state, tmp_path, monkeypatch):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(tensor) for tensor in state.values()])
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.save({"model": state, "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "x.pth")
    monkeypatch.setattr(safety, "MAX_PICKLE_VALUES", 20_000)
    convert_to_model(tmp_path / "x.pth", **TINY, **TINY_DECODER)


def test_a_tensor_larger_than_its_storage_is_rejected(state, tmp_path):
    wide = torch.zeros(1).expand(48 * 1000, 48 * 1000)
    torch.save(state | {"blocks.0.mlp.fc1.weight": wide}, tmp_path / "x.pth")
    with raises(ConversionMessage.TENSOR_LARGER_THAN_STORAGE, name="blocks.0.mlp.fc1.weight", stored=4):
        convert_to_model(tmp_path / "x.pth", **TINY, **TINY_DECODER)


def test_a_huge_block_number_is_rejected(state, tmp_path):
    torch.save(state | {"blocks.99999999.norm1.weight": torch.ones(48)}, tmp_path / "x.pth")
    with raises(ConversionMessage.BLOCK_NUMBER_TOO_LARGE, number=99_999_999):
        convert_to_model(tmp_path / "x.pth", **TINY, **TINY_DECODER)


@pytest.fixture
def folder(tmp_path):
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 96}
    ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=3)).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "file, change, message",
    [
        ("config.json", {"num_hidden_layers": 1_000_000}, ConversionMessage.MODEL_TOO_LARGE),
        ("config.json", {"text_config": {"a": [{"auto_map": {}}]}}, ConversionMessage.CUSTOM_CODE),
        ("config.json", {"text_config": {"a": [[10**9]]}}, ConversionMessage.VALUE_OUT_OF_RANGE),
        ("config.json", {"hidden_size": 10**9}, ConversionMessage.VALUE_OUT_OF_RANGE),
        ("config.json", {"auto_map": {"AutoConfig": "mine.Mine"}}, ConversionMessage.CUSTOM_CODE),
        ("config.json", {"attn_implementation": "someone/kernel"}, ConversionMessage.CUSTOM_KERNELS),
        ("config.json", {"_attn_implementation": "someone/kernel"}, ConversionMessage.CUSTOM_KERNELS),
        ("config.json", {"quantization_config": {"quant_method": "x"}}, ConversionMessage.QUANTIZED_CONFIG),
        ("config.json", [1], ConversionMessage.JSON_NOT_AN_OBJECT),
        ("config.json", "[" * 100_000, ConversionMessage.JSON_INVALID),
        ("preprocessor_config.json", {"size": {"height": 60000}}, ConversionMessage.VALUE_OUT_OF_RANGE),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "mine.Mine"}}, ConversionMessage.CUSTOM_CODE),
        ("preprocessor_config.json", [1, 2], ConversionMessage.JSON_NOT_AN_OBJECT),
        (
            "model.safetensors.index.json",
            {"weight_map": {"a": "../../b.safetensors"}},
            ConversionMessage.WEIGHT_MAP_OUTSIDE_FOLDER,
        ),
    ],
)
def test_unsafe_folders_are_rejected(folder, tmp_path, file, change, message):
    change_json(folder / file, change)
    code = folder / "mine.py"
    code.write_text(f"open({str(folder / 'executed')!r}, 'w')\n")
    with raises(message, ConversionError):
        convert_checkpoint(folder, tmp_path / "out")
    with raises(message):
        load_classifier(str(folder))
    assert not (folder / "executed").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [{"AutoConfig": "mine.Mine"}, {"AutoModelForImageClassification": "mine.Mine"}])
@pytest.mark.parametrize(
    "read",
    [
        load_classifier,
        read_class_names,
        read_config,
        lambda source: build_classifier(source, num_labels=2),
        lambda source: build_pretrainer(source),
        lambda source: check_model_matches_checkpoint(source, ViTConfig()),
    ],
)
def test_code_in_a_folder_is_not_executed_if_the_user_agrees(folder, monkeypatch, read, names):
    """transformers asks on the terminal, unless every call forbids custom code."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    change_json(folder / "config.json", {"auto_map": names, "model_type": "mine"})
    (folder / "mine.py").write_text(f"open({str(folder / 'executed')!r}, 'w')\n")
    with suppress(UsageError):
        read(str(folder))
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_size": -8}, ConversionMessage.VALUE_OUT_OF_RANGE),
        ({"id2label": {"0": ["a"], "1": "b", "2": "c"}}, ConversionMessage.CONFIG_CLASS_NAMES_INVALID),
        ({"layer_norm_eps": "small"}, ConversionMessage.VALUE_OUT_OF_RANGE),
    ],
)
def test_invalid_config_values_are_rejected(folder, tmp_path, change, message):
    """Some versions of transformers reject them first, because the fields are typed."""
    change_json(folder / "config.json", change)
    for read in (lambda: convert_checkpoint(folder, tmp_path / "out"), lambda: load_classifier(str(folder))):
        with pytest.raises(ConversionError) as caught:
            read()
        assert caught.value.code in (message, ConversionMessage.CANNOT_LOAD_CONFIG)
    assert not (tmp_path / "out").exists()


def test_an_unusable_image_processor_is_rejected(folder, tmp_path):
    change_json(folder / "preprocessor_config.json", {"image_mean": ["a", "b", "c"]})
    with raises(ConversionMessage.CANNOT_LOAD_PROCESSOR, ConversionError):
        convert_checkpoint(folder, tmp_path / "out")
    with pytest.raises(UsageError):
        load_classifier(str(folder))


def change_json(path, change):
    """Updates the object in a JSON file, or replaces the content of the file."""
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(
        change if isinstance(change, str) else json.dumps(content | change if isinstance(change, dict) else change)
    )


def test_recipes_with_infinite_numbers_are_rejected(tmp_path):
    recipe = tmp_path / "r.yaml"
    paths = {"model_name_or_path": "x", "data_dir": "y", "output_dir": "z"}
    for text, message in (
        ("num_train_epochs: .inf\n", SettingsMessage.INVALID_NUMBER),
        ("learning_rate: .nan\n", SettingsMessage.INVALID_NUMBER),
    ):
        recipe.write_text(text)
        with raises(message):
            read_values("finetune", str(recipe), paths)
