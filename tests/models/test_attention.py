"""The attention that a CPU trains with: transformers' own to the bit in float32, the reference's in bfloat16."""

import pytest
import torch
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

from hf_mae.compat.transformers import use_attn_implementation
from hf_mae.models.attention import PLAIN_ATTENTION, plain_attention, register_plain_attention

SIZES = dict(hidden_size=128, num_hidden_layers=2, intermediate_size=64, image_size=32, patch_size=8)
MODELS = {
    "BEiT": lambda heads: BeitForImageClassification(
        BeitConfig(**SIZES, num_attention_heads=heads, use_relative_position_bias=True)
    ),
    "ViT": lambda heads: ViTForImageClassification(ViTConfig(**SIZES, num_attention_heads=heads)),
    "MAE": lambda heads: ViTMAEForPreTraining(
        ViTMAEConfig(**SIZES, num_attention_heads=heads, decoder_hidden_size=64, decoder_num_attention_heads=2)
    ),
}


def gradients(model, kind: str) -> list[torch.Tensor]:
    """The loss or logits of a step, and every gradient."""
    model.zero_grad()
    torch.manual_seed(0)
    pixel_values = torch.randn(3, 3, 32, 32)
    with use_attn_implementation(model, kind):
        torch.manual_seed(1)
        output = model(pixel_values=pixel_values)
        result = output.loss if "loss" in output else output.logits
        result.square().sum().backward()
    return [result.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("heads", [2, 4])  # of 64 channels, whose scale is a power of two, and of 32
@pytest.mark.parametrize("name", MODELS)
def test_in_float32_it_is_the_stock_plain_attention_to_the_bit(name, heads):
    torch.manual_seed(0)
    model = MODELS[name](heads).eval()
    assert register_plain_attention(model) == PLAIN_ATTENTION
    before, after = gradients(model, "eager"), gradients(model, PLAIN_ATTENTION)
    assert len(before) == len(after) > 30
    assert all(torch.equal(one, other) for one, other in zip(before, after))


def test_in_bfloat16_its_values_are_the_references_to_the_bit():
    """timm's plain attention under autocast, given the same queries, keys and values."""
    from timm.layers import Attention

    layer = Attention(128, num_heads=2, qkv_bias=False)
    layer.fused_attn = False
    with torch.no_grad():
        layer.qkv.weight.copy_(torch.eye(384)[:, :128] + torch.eye(384)[:, :128].roll(128, 0))
        layer.qkv.weight += torch.eye(384)[:, :128].roll(256, 0)
        layer.proj.weight.copy_(torch.eye(128))
        layer.proj.bias.zero_()
    torch.manual_seed(0)
    tokens = torch.randn(2, 17, 128).bfloat16().float()
    theirs, ours = (tokens.clone().requires_grad_() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(theirs)
        parts = ours.to(torch.bfloat16).view(2, 17, 2, 64).transpose(1, 2)
        found, probabilities = plain_attention(layer, parts, parts, parts)
    assert probabilities.dtype == torch.bfloat16
    assert torch.equal(found.reshape(2, 17, 128), expected)
    expected.float().square().sum().backward()
    found.float().square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=0.05, rtol=0.01)


def test_dropout_is_that_of_training():
    parts = torch.randn(1, 2, 5, 64)
    layer = torch.nn.Identity().train()
    torch.manual_seed(0)
    _, dropped = plain_attention(layer, parts, parts, parts, dropout=0.5)
    assert (dropped == 0).any()
    _, kept = plain_attention(layer.eval(), parts, parts, parts, dropout=0.5)
    torch.testing.assert_close(kept.sum(-1), torch.ones(1, 2, 5))


def test_another_model_has_its_own_plain_attention():
    model = Dinov2ForImageClassification(
        Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    )
    assert register_plain_attention(model) == "eager"
