"""Limits on untrusted files and on the cache, for this process and its workers.

The module imports nothing of the package, so that exported programs contain it.
"""

import os
from typing import Any

MAX_PIXELS = 89_478_485  # pixels of an image; Pillow's threshold for its decompression-bomb warning
MAX_PIXELS_ENV = "HF_MAE_MAX_PIXELS"  # environment variable: maximum pixels of an image, without `--max_pixels`
CACHE_LIMIT_ENV = "HF_MAE_CACHE_LIMIT"  # environment variable: maximum size of the pixel cache, without `--cache_limit`

_limits: dict[str, Any] = {"max_pixels": None, "cache_limit": None}  # of the current command


def apply_limits(max_pixels: int | None = None, cache_limit: str | None = None) -> None:
    """Sets the limits of this process, at the start of a command.

    Args:
        max_pixels: maximum number of pixels of an image; None: that of the environment, or `MAX_PIXELS`.
        cache_limit: maximum size of the pixel cache, such as `200GB`; None: that of the environment, or no limit.
    """
    _limits.update(max_pixels=max_pixels, cache_limit=cache_limit)


def max_pixels() -> int:
    """Returns the maximum number of pixels of an image."""
    if _limits["max_pixels"] is not None:
        return int(_limits["max_pixels"])
    value = os.environ.get(MAX_PIXELS_ENV, "")
    return int(value) if value.isdecimal() else MAX_PIXELS


def cache_limit() -> str:
    """Returns the maximum size of the pixel cache, such as `200GB`; empty: no limit."""
    return _limits["cache_limit"] or os.environ.get(CACHE_LIMIT_ENV, "")


def count_usable_cores() -> int:
    """Counts the CPU cores that this process may use: those of its job or container."""
    from joblib import cpu_count  # type: ignore[import-untyped]

    return max(1, int(cpu_count()))


class CarriesLimits:
    """A dataset that sets the limits in the worker process that unpickles it."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_limits": dict(_limits)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        apply_limits(**state["_limits"])
        self.__dict__.update({name: value for name, value in state.items() if name != "_limits"})
