"""Export to the format of facebookresearch/mae."""

import pytest
import torch
from support.models import TINY, TINY_DECODER

from hf_mae.conversion import convert_checkpoint, export_checkpoint, read_checkpoint


@pytest.mark.parametrize(
    "name, options",
    [("checkpoint-399", TINY | TINY_DECODER), ("cls_weighted_final", TINY), ("gap_smoothing_final", TINY)],
)
def test_a_round_trip_is_bit_exact_except_for_key_biases(golden, tmp_path, name, options):
    convert_checkpoint(golden / f"{name}.pth", tmp_path / "out", **options)
    export_checkpoint(tmp_path / "out", tmp_path / "back.pth")
    before = read_checkpoint(golden / f"{name}.pth").state
    after = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert list(after) and set(after) == set(before)
    for key, tensor in before.items():
        if key.endswith("qkv.bias") and name.startswith("gap"):
            query, key_bias, value = after[key].chunk(3)
            assert torch.equal(query, tensor[:48]) and torch.equal(value, tensor[96:]) and not key_bias.any()
        else:
            assert torch.equal(after[key], tensor), key


def test_an_exported_file_converts_without_flags_and_contains_only_its_tensors(golden, tmp_path):
    convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "out", **TINY, **TINY_DECODER)
    export_checkpoint(tmp_path / "out", tmp_path / "back.pth")
    report = convert_checkpoint(tmp_path / "back.pth", tmp_path / "again", verify=True)
    assert report.target["num_attention_heads"] == 3
    weights = sum(t.nbytes for t in torch.load(tmp_path / "back.pth", weights_only=True)["model"].values())
    assert (tmp_path / "back.pth").stat().st_size < 1.2 * weights
