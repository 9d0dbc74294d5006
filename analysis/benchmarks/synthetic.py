"""Made-up pictures in the shape of Fashion-MNIST, and networks of three sizes, for measuring time."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from evo_topo.genome import Genome
from evo_topo.splits import Split
from evo_topo.task import Task
from populations.founders import conv_net

SHAPE, CLASSES = (1, 28, 28), 10
TRAINING, VALIDATION, TEST = 55_000, 5_000, 10_000
NetworkName = Literal["0.5 M", "2 M", "7 M", "2 M strided"]


class Layers(NamedTuple):
    """Widths and strides of a network's convolutions."""

    widths: tuple[int, ...]
    strides: tuple[int, ...] = (1, 1, 2, 1, 2, 1)


LAYERS: dict[NetworkName, Layers] = {
    "0.5 M": Layers((4, 4, 8, 8, 16, 16)),
    "2 M": Layers((8, 8, 16, 16, 32, 32)),
    "7 M": Layers((16, 16, 32, 32, 64, 64)),
    "2 M strided": Layers((16, 16, 32, 32, 64, 64), (2, 1, 2, 1, 2, 1)),
}
"""By MACs of the network; the last is the founder of the preset, but that its classifier reads means."""


def network(name: NetworkName) -> Genome:
    """The network of this name."""
    return conv_net(SHAPE, CLASSES, *LAYERS[name])


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
