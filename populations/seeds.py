"""Randomness that depends on names alone, not on when and where it is drawn."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager


def derive_seed(*parts: object) -> int:
    """A seed of 32 bits for what the parts name; the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big")


@contextmanager
def global_random(seed: int) -> Iterator[None]:
    """DEAP draws from the module `random`: seeded here, and put back as it was."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
