"""Architecture, size and origin of a network, as facts."""

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


@dataclass(frozen=True)
class ModelFacts:
    """A classifier.

    Args:
        architecture: its class in transformers.
        image_size: side of the square input, in pixels.
        pooling: `mean` (of the patch tokens) or `cls` (class token); None: other networks.
        masked_pretraining: whether its weights were those of a masked autoencoder before fine-tuning; None: unknown.
        new_head: whether it got a new classification head; None: unknown.
    """

    architecture: str
    image_size: int
    pooling: str | None = None
    masked_pretraining: bool | None = None
    new_head: bool | None = None
