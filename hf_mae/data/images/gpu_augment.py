"""Random flips and rotation of uint8 batches on any device, bit-identical to torchvision on PIL images.

Source of the arithmetic: Pillow's `Image.rotate` and the fixed-point affine transform (16 bits) that it calls.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

FIXED_POINT_ONE = 1 << 16


@dataclass(frozen=True)
class FlipsAndRotation:
    """`RandomHorizontalFlip`, `RandomVerticalFlip`, `RandomRotation(degrees)` (nearest, black outside), `ToTensor` and
    `Normalize(mean, std)` of torchvision. Parameters are sampled per image and applied per batch."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    degrees: float

    def sample_params(self, height: int, width: int) -> Tensor:
        """Samples the parameters of one image from torch's generator (see `flip_rotation_params`)."""
        horizontal, vertical = (bool(torch.rand(1) < 0.5) for _ in range(2))
        angle = float(torch.empty(1).uniform_(-self.degrees, self.degrees).item())
        return flip_rotation_params(horizontal, vertical, angle, height, width)

    def __call__(self, pixels: Tensor, params: Tensor) -> Tensor:
        """Transforms uint8 (batch, height, width, 3) with params (batch, 8) into float32 (batch, 3, height, width).

        Does not read from the device, so it does not synchronize.
        """
        height, width = pixels.shape[1:3]
        horizontal, vertical, x_of_x, x_of_y, x_start, y_of_x, y_of_y, y_start = params.T[..., None, None]
        x = torch.arange(width, device=pixels.device)
        y = torch.arange(height, device=pixels.device)[:, None]
        column = (x_start + x_of_y * y + x_of_x * x) >> 16
        row = (y_start + y_of_y * y + y_of_x * x) >> 16
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        column = torch.where(horizontal > 0, width - 1 - column, column).clamp_(0, width - 1)
        row = torch.where(vertical > 0, height - 1 - row, row).clamp_(0, height - 1)
        index = (row * width + column).flatten(1)[..., None].expand(-1, -1, 3)
        rotated = pixels.flatten(1, 2).gather(1, index).unflatten(1, (height, width))
        rotated = rotated.masked_fill(~inside[..., None], 0).permute(0, 3, 1, 2).contiguous()
        channel = torch.arange(3, device=pixels.device)[:, None, None]
        return normalized_levels(self.mean, self.std, pixels.device)[channel, rotated.long()]


@lru_cache
def normalized_levels(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Tensor:
    """Returns the lookup table (3, 256) of the values that `ToTensor` and `Normalize` compute for every grey level.

    The table is computed on the CPU: a GPU divides by multiplying with the reciprocal, which may differ in the last
    digit.
    """
    levels = torch.arange(256, dtype=torch.uint8).float().div(255).expand(3, -1)
    shift, scale = (torch.tensor(values, dtype=torch.float32)[:, None] for values in (mean, std))
    return levels.sub(shift).div_(scale).to(device)


def flip_rotation_params(horizontal: bool, vertical: bool, angle: float, height: int, width: int) -> Tensor:
    """Returns both flips, and Pillow's inverse affine matrix of a rotation about the centre by `angle` degrees: int64
    (8,).

    The matrix is in units of 1 / 65536. It is computed on the CPU: a GPU's sine may differ in the last digit.
    """
    radians = -math.radians(angle % 360.0)
    cosine, sine = round(math.cos(radians), 15), round(math.sin(radians), 15)
    x_shift = cosine * -(width / 2) + sine * -(height / 2) + width / 2
    y_shift = -sine * -(width / 2) + cosine * -(height / 2) + height / 2
    row = (cosine, sine, x_shift + cosine * 0.5 + sine * 0.5, -sine, cosine, y_shift - sine * 0.5 + cosine * 0.5)
    return torch.tensor([horizontal, vertical, *(math.floor(value * FIXED_POINT_ONE + 0.5) for value in row)])
