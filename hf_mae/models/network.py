"""Architecture and size of a network, as facts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """Architecture and size of a network.

    Args:
        architecture: `ViT`, `BEiT`, or the name of an architecture of timm or transformers.
        blocks: number of residual blocks.
        width: width of the blocks of a ViT; None: other networks.
    """

    architecture: str
    blocks: int
    width: int | None = None

    def __str__(self) -> str:
        return f"{self.architecture} of {self.blocks} blocks" + ("" if self.width is None else f" of {self.width}")
