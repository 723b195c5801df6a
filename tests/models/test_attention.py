"""Attention for training on a CPU: equal to transformers' in float32 and to timm's in bfloat16, bit for bit."""

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


def run_step(model, implementation: str) -> list[torch.Tensor]:
    """The loss or logits of a step, and all gradients."""
    model.zero_grad()
    torch.manual_seed(0)
    pixel_values = torch.randn(3, 3, 32, 32)
    with use_attn_implementation(model, implementation):
        torch.manual_seed(1)
        output = model(pixel_values=pixel_values)
        result = output.loss if "loss" in output else output.logits
        result.square().sum().backward()
    return [result.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("heads", [2, 4])  # heads of 64 channels, whose scale is a power of two, and of 32
@pytest.mark.parametrize("name", MODELS)
def test_float32_equals_eager_attention_of_transformers(name, heads):
    torch.manual_seed(0)
    model = MODELS[name](heads).eval()
    assert register_plain_attention(model) == PLAIN_ATTENTION
    before, after = run_step(model, "eager"), run_step(model, PLAIN_ATTENTION)
    assert len(before) == len(after) > 30
    assert all(torch.equal(one, other) for one, other in zip(before, after))


def test_bfloat16_equals_attention_of_timm_under_autocast():
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
    timm_input, own_input = (tokens.clone().requires_grad_() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(timm_input)
        heads = own_input.to(torch.bfloat16).view(2, 17, 2, 64).transpose(1, 2)
        output, weights = plain_attention(layer, heads, heads, heads)
    assert weights.dtype == torch.bfloat16
    assert torch.equal(output.reshape(2, 17, 128), expected)
    expected.float().square().sum().backward()
    output.float().square().sum().backward()
    torch.testing.assert_close(own_input.grad, timm_input.grad, atol=0.05, rtol=0.01)


def test_dropout_is_active_in_training_only():
    heads = torch.randn(1, 2, 5, 64)
    layer = torch.nn.Identity().train()
    torch.manual_seed(0)
    _, weights = plain_attention(layer, heads, heads, heads, dropout=0.5)
    assert (weights == 0).any()
    _, weights = plain_attention(layer.eval(), heads, heads, heads, dropout=0.5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 5))


def test_unsupported_models_use_their_own_eager_attention():
    model = Dinov2ForImageClassification(
        Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    )
    assert register_plain_attention(model) == "eager"
