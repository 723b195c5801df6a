"""Random flips and rotation of whole uint8 batches, on any device: to the bit what torchvision makes of PIL images.

Source of the arithmetic: `Image.rotate` of Pillow and the fixed-point affine transform (16 bits) beneath it.
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
    `Normalize(mean, std)` of torchvision: drawn image by image, done batch by batch."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    degrees: float

    def sample_params(self, height: int, width: int) -> Tensor:
        """What torch's generator draws for one image of a size, as `mapping` has it."""
        horizontal, vertical = (bool(torch.rand(1) < 0.5) for _ in range(2))
        angle = float(torch.empty(1).uniform_(-self.degrees, self.degrees).item())
        return flip_rotation_params(horizontal, vertical, angle, height, width)

    def __call__(self, pixels: Tensor, params: Tensor) -> Tensor:
        """uint8 (batch, height, width, 3) and draws (batch, 8) -> float32 (batch, 3, height, width).

        Nothing is read back from the device, so that nothing waits for it.
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
        place = (row * width + column).flatten(1)[..., None].expand(-1, -1, 3)
        turned = pixels.flatten(1, 2).gather(1, place).unflatten(1, (height, width))
        turned = turned.masked_fill(~inside[..., None], 0).permute(0, 3, 1, 2).contiguous()
        channel = torch.arange(3, device=pixels.device)[:, None, None]
        return normalized_levels(self.mean, self.std, pixels.device)[channel, turned.long()]


@lru_cache
def normalized_levels(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Tensor:
    """(3, 256): every grey level as `ToTensor` and `Normalize` make it.

    A table, for on a GPU a division by a number is a product with its reciprocal, which may end in another digit.
    """
    levels = torch.arange(256, dtype=torch.uint8).float().div(255).expand(3, -1)
    shift, scale = (torch.tensor(values, dtype=torch.float32)[:, None] for values in (mean, std))
    return levels.sub(shift).div_(scale).to(device)


def flip_rotation_params(horizontal: bool, vertical: bool, angle: float, height: int, width: int) -> Tensor:
    """Both flips, and Pillow's inverse affine matrix of a rotation about the centre, by `angle` in degrees: int64 (8,).

    The matrix is in 1 / 65536, and computed here, on the CPU, since a GPU's sine may end in another digit.
    """
    radians = -math.radians(angle % 360.0)
    cosine, sine = round(math.cos(radians), 15), round(math.sin(radians), 15)
    x_shift = cosine * -(width / 2) + sine * -(height / 2) + width / 2
    y_shift = -sine * -(width / 2) + cosine * -(height / 2) + height / 2
    row = (cosine, sine, x_shift + cosine * 0.5 + sine * 0.5, -sine, cosine, y_shift - sine * 0.5 + cosine * 0.5)
    return torch.tensor([horizontal, vertical, *(math.floor(value * FIXED_POINT_ONE + 0.5) for value in row)])
