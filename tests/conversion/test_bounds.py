"""What a file may make us spend is looked at before it is spent, and nothing of a folder is ever run."""

import json
import zipfile

import pytest
import torch
from support.models import TINY, TINY_DECODER, tiny_pretrainer
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_mae.conversion import ConversionError, convert_checkpoint, convert_to_model, export_model, safety
from hf_mae.errors import UsageError
from hf_mae.models.loading import load_classifier
from hf_mae.settings.parse import read_values


@pytest.fixture(scope="module")
def state():
    return export_model(tiny_pretrainer(), "pretraining")


def rewritten(source, target, pickle=None, compress=False):
    """A `.pth` with another pickle, or compressed inside."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for entry in before.infolist():
            content = before.read(entry)
            if pickle is not None and entry.filename.endswith("data.pkl"):
                content = pickle
            kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            after.writestr(entry.filename, content, compress_type=kind)
    return target


def test_a_file_that_is_compressed_inside(state, tmp_path):
    torch.save(state | {"zeros": torch.zeros(10_000_000)}, tmp_path / "x.pth")
    bomb = rewritten(tmp_path / "x.pth", tmp_path / "bomb.pth", compress=True)
    with pytest.raises(ConversionError, match=r"is compressed inside \(it would take 0.0 GB\)"):
        convert_to_model(bomb)


@pytest.mark.parametrize(
    "begin, step, levels",
    [
        (b"K\x00", lambda level: bytes([0x71, level, 0x68, level, 0x86]), 25),  # x = (x, x)
        (b"K\x00", lambda level: bytes([0x71, level, *[0x68, level] * 9, 0x87]), 60),  # triples, and more beside them
        (b"]", lambda level: bytes([0x71, level]) + b"]" + bytes([0x68, level, 0x61, 0x68, level, 0x61]), 40),  # lists
    ],
)
def test_values_that_unfold_without_end(tmp_path, begin, step, levels):
    torch.save({"model": {}}, tmp_path / "x.pth")
    value = begin + b"".join(step(level) for level in range(levels))
    pickle = b"\x80\x02}X\x05\x00\x00\x00model}X\x01\x00\x00\x00a" + value + b"ss."
    with pytest.raises(ConversionError, match="repeats values within values, beyond 20,000,000 if written out"):
        convert_to_model(rewritten(tmp_path / "x.pth", tmp_path / "bomb.pth", pickle))


def test_what_a_checkpoint_holds_is_far_below_that_bound(state, tmp_path, monkeypatch):
    """A state dict and its optimizer's."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(tensor) for tensor in state.values()])
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.save({"model": state, "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "x.pth")
    monkeypatch.setattr(safety, "MAX_PICKLE_VALUES", 20_000)
    convert_to_model(tmp_path / "x.pth", **TINY, **TINY_DECODER)


def test_a_tensor_that_is_larger_than_its_bytes(state, tmp_path):
    wide = torch.zeros(1).expand(48 * 1000, 48 * 1000)
    torch.save(state | {"blocks.0.mlp.fc1.weight": wide}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=r"fc1.weight is of shape \(48000, 48000\), more than the 4 bytes"):
        convert_to_model(tmp_path / "x.pth", **TINY, **TINY_DECODER)


def test_a_block_of_a_number_beyond_all(state, tmp_path):
    torch.save(state | {"blocks.99999999.norm1.weight": torch.ones(48)}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="has a block 99999999 of blocks, and lacks others"):
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
        ("config.json", {"num_hidden_layers": 1_000_000}, "num_hidden_layers = 1000000, and at most 1,000"),
        ("config.json", {"hidden_size": 10**9}, "hidden_size = 1000000000"),
        ("config.json", {"image_size": -8}, "image_size = -8|cannot be had"),
        ("config.json", {"auto_map": {"AutoConfig": "mine.Mine"}}, "asks for Python code of its own"),
        ("config.json", {"attn_implementation": "someone/kernel"}, "asks for kernels from elsewhere"),
        ("config.json", {"_attn_implementation": "someone/kernel"}, "asks for kernels from elsewhere"),
        ("config.json", {"id2label": {"0": ["a"], "1": "b", "2": "c"}}, "which are no class names|field 'id2label'"),
        ("config.json", {"layer_norm_eps": "small"}, "layer_norm_eps"),
        ("preprocessor_config.json", {"image_mean": ["a", "b", "c"]}, "cannot be read|makes no image"),
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "is of quantised weights"),
        ("config.json", [1], "holds a list"),
        ("config.json", "[" * 100_000, "is no JSON"),
        ("preprocessor_config.json", {"size": {"height": 60000, "width": 60000}}, "images of at most 16,384 pixels"),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "mine.Mine"}}, "code of its own"),
        ("preprocessor_config.json", [1, 2], "holds a list"),
        (
            "model.safetensors.index.json",
            {"weight_map": {"a": "../../b.safetensors"}},
            "weights that are not beside it",
        ),
    ],
)
def test_folders_that_ask_for_too_much(folder, tmp_path, file, change, message):
    path, code = folder / file, folder / "mine.py"
    code.write_text(f"open({str(folder / 'it_ran')!r}, 'w')\n")
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(
        change if isinstance(change, str) else json.dumps(before | change if isinstance(change, dict) else change)
    )
    with pytest.raises(ConversionError, match=message):
        convert_checkpoint(folder, tmp_path / "out")
    with pytest.raises(UsageError, match=message):
        load_classifier(str(folder))
    assert not (folder / "it_ran").exists() and not (tmp_path / "out").exists()


def test_recipes_that_unfold_or_do_not_end(tmp_path):
    recipe = tmp_path / "r.yaml"
    paths = {"model_name_or_path": "x", "data_dir": "y", "output_dir": "z"}
    for text, message in (
        ("mean_std: &a [x, x]\nreport_to: *a\n", "repeats values by reference"),
        ("num_train_epochs: .inf\n", "gives num_train_epochs the value inf.*a finite number"),
        ("learning_rate: .nan\n", "a finite number"),
        ("mean_std: " + "[" * 5000, "is no YAML"),
    ):
        recipe.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_values("finetune", str(recipe), paths)
