"""Temporary seeding of all random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ...compat.torch import get_cpu_generator


@contextmanager
def seed_all(*seed: int) -> Iterator[None]:
    """Seeds `random`, numpy and torch (CPU) within the block, and restores their states afterwards."""
    generator = get_cpu_generator()
    states = random.getstate(), np.random.get_state(legacy=False), generator.get_state()
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)
    generator.manual_seed(number)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        generator.set_state(states[2])
