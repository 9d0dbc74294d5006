"""Choosing the units that one edit prunes or splits, by their price per MAC. Needs no torch."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from operator import neg

from evo_topo.cost import count_macs, unit_macs
from evo_topo.edits import RandomSource, draw, spare_units
from evo_topo.genome import Genome
from evo_topo.prices import Prices, UnitPrices
from evo_topo.units import UnitGroup, unit_table

MOST_OF_GROUP = 0.75
"""Largest share of a group that one edit prunes: further away the quadratic prediction fails."""


def cut(
    genome: Genome, prices: Prices, rng: RandomSource, target: float
) -> tuple[dict[str, list[int]], float, float]:
    """The head of one of the joint orders that saves as near to `target` MACs as can be.

    Returns:
        Units by group, predicted loss change, MACs saved.
    """
    order, macs = draw(prices.joint, rng), count_macs(genome)
    if not order.columns:
        return {}, 0.0, 0.0
    below = bisect_left(order.macs, target - macs, key=neg)  # the first place that saves the target
    near = [place for place in (below - 1, below) if 0 <= place < len(order.macs)]
    last = min(near, key=lambda place: abs(macs - order.macs[place] - target))
    names = list(prices.units)
    starts = [0, *accumulate(len(unit.order) for unit in prices.units.values())]
    taken: dict[str, list[int]] = {}
    for column in order.columns[: last + 1]:
        group = bisect_right(starts, column) - 1
        taken.setdefault(names[group], []).append(column - starts[group])
    return taken, order.cumulative[last], macs - order.macs[last]


def choose_units(
    genome: Genome, prices: Prices, rng: RandomSource, target: float, prune: bool
) -> dict[str, list[int]]:
    """Units over all groups, best next unit first, until about `target` MACs are reached.

    Each group's prices are multiplied by a random factor, so that siblings differ in where they cut: a group
    comes first with probability inverse to its price per MAC, or proportional to it for splits.
    """
    saved = unit_macs(genome)
    queues = {}
    heap: list[tuple[float, str]] = []
    scales = {}
    for group in unit_table(genome).groups.values():
        if group.name in prices.units:
            queues[group.name] = _queue(genome, group, prices.units[group.name], prune)
            scales[group.name] = math.exp(-gumbel(rng) if prune else gumbel(rng))
    current: dict[str, tuple[int, float]] = {}

    def push(name: str) -> None:
        for unit, price in queues[name]:
            current[name] = (unit, saved[name][unit])
            value = price / max(saved[name][unit], 1.0) * scales[name]
            heapq.heappush(heap, (value if prune else -value, name))
            return

    for name in queues:
        push(name)
    taken: dict[str, list[int]] = {}
    total = 0.0
    while heap:
        _, name = heapq.heappop(heap)
        unit, macs = current[name]
        if taken and total + macs / 2 > target:
            break
        taken.setdefault(name, []).append(unit)
        total += macs
        push(name)
    return taken


def _queue(genome: Genome, group: UnitGroup, prices: UnitPrices, prune: bool) -> Iterator[tuple[int, float]]:
    """Units of one group in the order in which an edit takes them, each with its own price."""
    price_of = steps_of(prices)
    if prune:
        most = max(1, int(MOST_OF_GROUP * group.width))
        for unit in list(spare_units(genome, group, prices.order[:most])):
            yield unit, price_of[unit]
    else:
        for unit in reversed(prices.order):
            if group.splittable[unit]:
                yield unit, price_of[unit]


def steps_of(prices: UnitPrices) -> dict[int, float]:
    """What each unit adds to the price of those before it in the order."""
    before = (0.0, *prices.cumulative[:-1])
    return {unit: b - a for unit, a, b in zip(prices.order, before, prices.cumulative, strict=True)}


def macs_of(genome: Genome, taken: Mapping[str, list[int]]) -> float:
    """MACs that prunes of these units save, each on its own."""
    saved = unit_macs(genome)
    return sum(saved[name][unit] for name, units in taken.items() for unit in units)


def as_sets(taken: Mapping[str, list[int]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Units by group as an edit holds them."""
    return tuple([(name, tuple(sorted(units))) for name, units in sorted(taken.items())])


def gumbel(rng: RandomSource) -> float:
    """A draw from the standard Gumbel distribution."""
    return -math.log(-math.log(min(max(rng.random(), 1e-12), 1 - 1e-12)))
