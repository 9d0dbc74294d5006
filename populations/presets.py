"""Presets: founder, data and recipe by name, each a few lines. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from evo_topo.genome import Genome
from evo_topo.recipe import Recipe
from populations.config import Config, PresetName
from populations.founders import conv_net, residual_net


class Preset(NamedTuple):
    """A starting point.

    Attributes:
        about: One line on it.
        founder: Makes the genome that the evolution starts from.
        config: All settings; the data set is the one with the preset's name.
    """

    about: str
    founder: Callable[[], Genome]
    config: Config


PRESETS: dict[PresetName, Preset] = {
    "digits": Preset(
        "1,797 handwritten digits of 8 x 8 pixels; comes with scikit-learn",
        lambda: conv_net((1, 8, 8), 10, (32, 32, 64, 64), (1, 1, 2, 1), pooled=False),
        Config(
            preset="digits",
            recipe=Recipe(
                examples=2500, learning_rate=0.1, weight_decay=0.01, crop_padding=1, label_smoothing=0.1
            ),
            generations=15,
            parents=12,
            offspring=5,
            ahead=6,  # so that every computer breeds the same children, however many cores it has
            outward=0.0,  # what few examples tell apart is not that small
            train_on=0.05,
            screened=2,
            probe_examples=500,
            example_exponent=0.25,
            founder_examples=7000,
            polish_examples=30_000,
            polished=12,
            heirs=0,
            doubling=5,
            accuracy_floor=0.95,
        ),
    ),
    "fashion-mnist": Preset(
        "70,000 pictures of clothes, 28 x 28 pixels",
        lambda: conv_net((1, 28, 28), 10, (16, 16, 32, 32, 64, 64), (2, 1, 2, 1, 2, 1), pooled=False),
        Config(
            preset="fashion-mnist",
            recipe=Recipe(
                examples=8000,
                batch_doublings=2,
                learning_rate=0.05,
                weight_decay=0.002,
                full_decay=40_000,
                clip_norm=5.0,
                flip=True,
                erase=0.25,
                erase_from=300_000,
                skip_easy=0.5,
            ),
            parents=15,
            offspring=6,
            train_on=0.05,
            founder_examples=200_000,
            polish_examples=40_000,
            probe_examples=500,
            example_exponent=0.25,
            polished=8,
            doubling=10,
            accuracy_floor=0.8,  # in so short a training, a linear classifier (7,840 MACs) comes to 0.79
        ),
    ),
    "cifar10": Preset(
        "60,000 colour pictures of 10 kinds, 32 x 32 pixels",
        lambda: residual_net((3, 32, 32), 10, (16, 32, 64), 3),
        Config(
            preset="cifar10",
            recipe=Recipe(examples=100_000, batch_size=128, learning_rate=0.1, crop_padding=4, flip=True),
            founder_examples=1_000_000,
            polish_examples=500_000,
            accuracy_floor=0.6,
        ),
    ),
    "cifar100": Preset(
        "60,000 colour pictures of 100 kinds, 32 x 32 pixels",
        lambda: residual_net((3, 32, 32), 100, (16, 32, 64), 3),
        Config(
            preset="cifar100",
            recipe=Recipe(examples=100_000, batch_size=128, learning_rate=0.1, crop_padding=4, flip=True),
            founder_examples=1_000_000,
            polish_examples=500_000,
            accuracy_floor=0.3,
        ),
    ),
}
