"""How many images each class has in an epoch."""

import numpy as np

from ..errors import UsageError


class ClassBalancedSampler:
    """Which images an epoch has, where classes have other shares of it than of the data.

    An epoch stays as long as it is. A class of n images has a share of it in proportion to n ** exponent; within a
    class images take turns: none comes twice more often than another. What an epoch has depends on (seed, epoch) alone.

    Source: Kang et al., 2020, Decoupling representation and classifier for long-tailed recognition, equation 1. The
    shares are kept in each epoch, to a whole image, and not only on average.

    Args:
        labels: class ids (images,).
        exponent: 1 leaves the shares as they are, 0 makes them equal.
        seed: of the draws.

    Raises:
        UsageError: the labels are no class ids.
    """

    def __init__(self, labels: np.ndarray | None, exponent: float, seed: int):
        if labels is None or np.ndim(labels) != 1:
            raise UsageError("sampling needs one class for each image: leave it out, or give class ids.")
        self.labels, self.exponent, self.seed = np.asarray(labels), exponent, seed
        self._cached_rows: tuple[int, np.ndarray] | None = None

    def row(self, position: int, epoch: int) -> int:
        """The image at a place of an epoch."""
        if self._cached_rows is None or self._cached_rows[0] != epoch:
            self._cached_rows = epoch, self.rows(epoch)
        return int(self._cached_rows[1][position])

    def rows(self, epoch: int) -> np.ndarray:
        """Images of an epoch, class by class: int64 (images,)."""
        random = np.random.default_rng((self.seed, epoch))
        classes, counts = np.unique(self.labels, return_counts=True)
        shares = np.cumsum(counts**self.exponent)
        ends = np.rint(shares / shares[-1] * len(self.labels)).astype(int)
        return np.concatenate(
            [
                _cycle(np.flatnonzero(self.labels == name), count, random)
                for name, count in zip(classes, np.diff(ends, prepend=0), strict=True)
            ]
        )


def _cycle(images: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """So many of the images; each once before one comes again."""
    rounds = -(-count // len(images))
    return np.concatenate([random.permutation(images) for _ in range(rounds)] or [images[:0]])[:count]
