"""Test-time augmentation: the eight views, and the mean of their scores."""

import pytest
import torch

from hf_mae import build_classifier
from hf_mae.inference.tta import apply_tta, make_views


def test_the_eight_views_differ_and_are_rotations_and_mirror_images():
    image = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    views = make_views(image)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8 and torch.equal(views[0], image)
    for quarter, view in enumerate(views[:4]):
        assert torch.equal(torch.rot90(view, -quarter, dims=(-2, -1)), image)
        assert torch.equal(views[quarter + 4].flip(-1), view)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_averaged_scores_are_the_mean_and_do_not_depend_on_the_rotation(tiny_pth, pooling):
    torch.manual_seed(0)
    model = build_classifier(tiny_pth, pooling=pooling, num_labels=3).eval()
    torch.nn.init.normal_(model.classifier.weight)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        mean = torch.stack([model(pixel_values=view).logits.softmax(-1) for view in make_views(image)]).mean(0)
        plain = model(pixel_values=image).logits.softmax(-1)
        with apply_tta(model):
            averaged = model(pixel_values=image).logits.softmax(-1)
            rotated = model(pixel_values=torch.rot90(image, 1, dims=(-2, -1))).logits.softmax(-1)
        again = model(pixel_values=image).logits.softmax(-1)
    torch.testing.assert_close(averaged, mean)
    torch.testing.assert_close(rotated, averaged)
    assert (plain - averaged).abs().max() > 1e-3
    assert torch.equal(again, plain) and "forward" not in vars(model)  # the model is restored
