"""Reading the test split: once, at the end, by the workers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import torch

from evo_topo.genome import Genome
from evo_topo.recipe import Recipe
from populations.development import measure_on_test
from populations.dispatch import EvolutionError
from populations.orders import Order
from populations.slots import Slots
from populations.workers import run_tasks


class Stored(NamedTuple):
    """A trained network whose weights lie in a run folder.

    Attributes:
        id: Its number, which its weights bear.
        genome: The network as data.
        weights_sha256: Digest of its weights.
    """

    id: int
    genome: Genome
    weights_sha256: str


def accuracies_on_test(
    networks: Sequence[Stored], run_dir: Path, recipe: Recipe, slots: Slots
) -> dict[int, float]:
    """Measures networks on the test split of the data in a run folder.

    Args:
        networks: Networks of that run.
        run_dir: The run folder.
        recipe: How they were trained.
        slots: Where they are measured.

    Returns:
        Accuracies by id.

    Raises:
        populations.weights.WeightsError: When weights are missing or damaged.
        EvolutionError: When a worker process died.
    """
    orders = [
        Order(
            id=network.id,
            run_dir=str(run_dir.absolute()),
            genome=network.genome.to_json(),
            parent=network.id,
            parent_sha256=network.weights_sha256,
            edit=None,
            seed=0,
            recipe=recipe,
            probe_examples=1,
        )
        for network in networks
    ]
    try:
        return {order.id: value for order, value in run_tasks(measure_on_test, orders, slots)}
    except (BrokenProcessPool, MemoryError, torch.OutOfMemoryError):
        raise EvolutionError(
            "a worker process died, or had no memory, while the test split was read; resume the run, which "
            "reads it again"
        ) from None
