"""`predict_logits` gives the logits of the model, in the order of the images."""

import pytest
import torch
from support.models import TensorItems

from hf_mae import build_classifier
from hf_mae.compat.accelerate import create_inference_accelerator
from hf_mae.inference.forward import predict_logits


@pytest.fixture(scope="module")
def model(tiny_pth):
    torch.manual_seed(0)
    model = build_classifier(str(tiny_pth), num_labels=3, num_attention_heads=3).eval()
    torch.nn.init.normal_(model.classifier.weight)
    return model


@pytest.fixture(scope="module")
def images():
    pixels = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return TensorItems(pixel_values=pixels, labels=torch.arange(10) % 3)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 16])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_logits_are_in_the_order_of_the_images(model, images, batch_size, num_workers):
    logits = predict_logits(model, images, create_inference_accelerator(bf16=False), batch_size, num_workers)
    with torch.inference_mode():
        expected = model(pixel_values=images.columns["pixel_values"]).logits
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-6, atol=1e-6)


def test_precision_of_an_earlier_prediction_does_not_remain(model, images):
    def logits(bf16):
        return predict_logits(model, images, create_inference_accelerator(bf16), 5)

    before, in_bf16, after = logits(False), logits(True), logits(False)
    assert (before == after).all() and (before != in_bf16).any()
    assert in_bf16.dtype == before.dtype == "float32" and abs(before - in_bf16).max() < 0.1
