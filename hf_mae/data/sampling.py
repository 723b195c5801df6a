"""Class-balanced sampling of training images."""

import numpy as np

from ..errors import UsageError
from .images.messages import ImageMessage


class ClassBalancedSampler:
    """Draws the images of an epoch with class frequencies that differ from those of the data.

    The length of an epoch does not change. The frequency of a class of n images is proportional to n ** exponent.
    Within a class, each image is drawn once before any is drawn again. An epoch depends on (seed, epoch) alone.

    Source: Kang et al., 2020, Decoupling representation and classifier for long-tailed recognition, equation 1. Here
    the frequencies are exact in each epoch (up to one image), not only on average.

    Args:
        labels: class ids (images,).
        exponent: 1 keeps the frequencies, 0 makes them equal.
        seed: of the random order.

    Raises:
        UsageError: If the labels are not class ids.
    """

    def __init__(self, labels: np.ndarray | None, exponent: float, seed: int):
        if labels is None or np.ndim(labels) != 1:
            raise UsageError(ImageMessage.SAMPLING_REQUIRES_CLASS_IDS)
        self.labels, self.exponent, self.seed = np.asarray(labels), exponent, seed
        self._cached_rows: tuple[int, np.ndarray] | None = None

    def row(self, position: int, epoch: int) -> int:
        """Returns the row of the image at a position of an epoch."""
        if self._cached_rows is None or self._cached_rows[0] != epoch:
            self._cached_rows = epoch, self.rows(epoch)
        return int(self._cached_rows[1][position])

    def rows(self, epoch: int) -> np.ndarray:
        """Returns the rows of the images of an epoch, class by class: int64 (images,)."""
        rng = np.random.default_rng((self.seed, epoch))
        classes, counts = np.unique(self.labels, return_counts=True)
        weights = np.cumsum(counts**self.exponent)
        ends = np.rint(weights / weights[-1] * len(self.labels)).astype(int)
        return np.concatenate(
            [
                _cycle(np.flatnonzero(self.labels == label), count, rng)
                for label, count in zip(classes, np.diff(ends, prepend=0), strict=True)
            ]
        )


def _cycle(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws `count` of the images; each one once before any is drawn again."""
    rounds = -(-count // len(images))
    return np.concatenate([rng.permutation(images) for _ in range(rounds)] or [images[:0]])[:count]
