"""Made-up pictures in the shape of Fashion-MNIST, and networks of three sizes, for measuring time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from evo_topo.genome import Genome
from evo_topo.splits import Split
from evo_topo.task import Task
from populations.founders import conv_net

SHAPE, CLASSES = (1, 28, 28), 10
TRAINING, VALIDATION, TEST = 55_000, 5_000, 10_000
NetworkName = Literal["0.5 M", "2 M", "7 M"]
STRIDES = (1, 1, 2, 1, 2, 1)
WIDTHS: dict[NetworkName, tuple[int, ...]] = {
    "0.5 M": (4, 4, 8, 8, 16, 16),
    "2 M": (8, 8, 16, 16, 32, 32),
    "7 M": (16, 16, 32, 32, 64, 64),
}
"""Of the convolutions, by MACs of the network."""


def network(widths: Sequence[int]) -> Genome:
    """The network with these widths."""
    return conv_net(SHAPE, CLASSES, widths, STRIDES)


def pictures(training: int = TRAINING, validation: int = VALIDATION, test: int = TEST, seed: int = 0) -> Task:
    """A task that can be learned: one pattern of large squares a class, under noise.

    Args:
        training: Training examples.
        validation: Validation examples.
        test: Test examples.
        seed: Of patterns, noise and classes.
    """
    generator = torch.Generator().manual_seed(seed)
    squares = torch.randint(192, (CLASSES, 1, 4, 4), generator=generator, dtype=torch.uint8)
    patterns = squares.repeat_interleave(7, 2).repeat_interleave(7, 3)

    def split(count: int) -> Split:
        targets = torch.randint(CLASSES, (count,), generator=generator)
        noise = torch.randint(64, (count, *SHAPE), generator=generator, dtype=torch.uint8)
        return Split(patterns[targets] + noise, targets)

    return Task.from_splits("pictures", split(training), split(validation), split(test), CLASSES)
