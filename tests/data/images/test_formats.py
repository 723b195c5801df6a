"""Real variants of all formats: the pixels are those of a second decoder, and the same on all code paths."""

import numpy as np
import pytest
from support.image_formats import VARIANTS

from hf_mae.data.images.image_io import read_rgb


@pytest.mark.parametrize("name", VARIANTS)
def test_pixels_are_those_of_a_second_decoder(tmp_path, name):
    content, expected, tolerance = VARIANTS[name](tmp_path / "x")
    expected = np.stack([expected] * 3, -1) if expected.ndim == 2 else expected
    pixels = np.asarray(read_rgb(content))
    assert pixels.shape == expected.shape and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance
