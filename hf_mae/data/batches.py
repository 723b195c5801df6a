"""Random flips and rotation of whole uint8 batches, on any device: to the bit what torchvision makes of PIL images.

Source of the arithmetic: `Image.rotate` of Pillow and the fixed-point affine transform (16 bits) beneath it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FIXED = 1 << 16


@dataclass(frozen=True)
class FlipsAndRotation:
    """`RandomHorizontalFlip`, `RandomVerticalFlip`, `RandomRotation(degrees)` (nearest, black outside), `ToTensor` and
    `Normalize(mean, std)` of torchvision: drawn image by image, done batch by batch."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    degrees: float

    def draw(self) -> Tensor:
        """What torch's generator draws for one image: float64 (horizontal flip, vertical flip, angle in degrees)."""
        horizontal, vertical = (float(torch.rand(1) < 0.5) for _ in range(2))
        angle = float(torch.empty(1).uniform_(-self.degrees, self.degrees).item())
        return torch.tensor([horizontal, vertical, angle], dtype=torch.float64)

    def __call__(self, pixels: Tensor, drawn: Tensor) -> Tensor:
        """uint8 (batch, height, width, 3) and draws (batch, 3) -> float32 (batch, 3, height, width)."""
        height, width = pixels.shape[1:3]
        horizontal, vertical, angle = (drawn[:, column, None, None] for column in range(3))
        x_of_x, x_of_y, x_start, y_of_x, y_of_y, y_start = _fixed_point(angle, height, width)
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
        return self._normalized(pixels.device)[channel, turned.long()]

    def _normalized(self, device: torch.device) -> Tensor:
        """(3, 256): every grey level as `ToTensor` and `Normalize` make it.

        A table, for on a GPU a division by a number is a product with its reciprocal, which may end in another digit.
        """
        levels = torch.arange(256, dtype=torch.uint8).float().div(255).expand(3, -1)
        mean, std = (torch.tensor(values, dtype=torch.float32)[:, None] for values in (self.mean, self.std))
        return levels.sub(mean).div_(std).to(device)


def _fixed_point(angle: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Pillow's inverse affine matrix of a rotation about the centre, by `angle` in degrees (float64), in 1 / 65536.

    The few numbers are computed one by one, on the CPU, since a GPU's sine may end in another digit.
    """
    rows = []
    for degrees in angle.flatten().tolist():
        radians = -math.radians(degrees % 360.0)
        cosine, sine = round(math.cos(radians), 15), round(math.sin(radians), 15)
        x_shift = cosine * -(width / 2) + sine * -(height / 2) + width / 2
        y_shift = -sine * -(width / 2) + cosine * -(height / 2) + height / 2
        row = (cosine, sine, x_shift + cosine * 0.5 + sine * 0.5, -sine, cosine, y_shift - sine * 0.5 + cosine * 0.5)
        rows.append([math.floor(value * FIXED + 0.5) for value in row])
    matrix = torch.tensor(rows).to(angle.device, non_blocking=True)
    return tuple(matrix[:, place, None, None] for place in range(6))
