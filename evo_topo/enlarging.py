"""Large steps up, where a front is to be drawn out at its costly end. Needs no torch."""

from __future__ import annotations

import math

from evo_topo.cost import count_flops, count_macs
from evo_topo.edits import EditError, RandomSource, SplitLayer, SplitUnits, draw
from evo_topo.genome import Genome
from evo_topo.mutation import Proposal
from evo_topo.prices import Prices
from evo_topo.unit_choice import as_sets, choose_units

LEAST_STEP_UP, DEEPER = 0.5, 1 / 3
"""Of the parent's FLOPs, what the smallest step adds, and how many of the steps insert a layer."""


def propose_larger(
    genome: Genome,
    prices: Prices,
    rng: RandomSource,
    most: float,
    smallest: float = LEAST_STEP_UP,
    largest: float = 3.0,
) -> Proposal:
    """Samples a large step up: many units split at once (Net2Wider) or, less often, a layer inserted.

    Either leaves the function as it is. Units are split by saliency per FLOP, over the whole network, each
    once at most.

    Args:
        genome: The parent.
        prices: Its price list.
        rng: Source of uniform numbers.
        most: Largest size asked for, as a share of the parent's FLOPs.
        smallest: Smallest size of a split that is drawn, as a share of the parent's FLOPs.
        largest: Largest size; sizes between are log-uniform, and met where all layers widen alike. A layer
            has the size that it has.

    Raises:
        EditError: When no edit applies to this genome.
    """
    sites = list(SplitLayer.legal(genome))
    deepens = rng.random() < DEEPER
    size = min(most, smallest * (largest / smallest) ** rng.random())
    alone = 2 * (math.sqrt(1 + size) - 1)  # a convolution that gains x of both its widths gains (1 + x)^2 - 1
    taken = choose_units(genome, prices, rng, alone * count_macs(genome), prune=False)
    if not sites and not taken:
        raise EditError("no edit applies to this genome")
    edit = draw(sites, rng) if sites and (deepens or not taken) else SplitUnits(as_sets(taken))
    child = edit.apply(genome)
    return Proposal(edit, child, 0.0, count_flops(child) - count_flops(genome))
