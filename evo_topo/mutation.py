"""Choosing mutations by their price: predicted loss change per FLOP. Needs no torch.

Prunes are sampled with probability inverse to what they are predicted to cost per FLOP saved; splits go
to the units of highest saliency per FLOP. The size of an edit, a share of the parent's FLOPs, is drawn first.
Controls (`random_prices`, and magnitude in `saliency`) differ in the price list alone.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from operator import neg
from typing import NamedTuple

from evo_topo.cost import count_flops, count_macs, node_macs, unit_macs
from evo_topo.edits import (
    AnyEdit,
    EditError,
    PruneLayer,
    PruneUnits,
    RandomSource,
    SplitLayer,
    SplitUnits,
    draw,
    layer_chain,
    legal_layer_edits,
    spare_units,
)
from evo_topo.genome import Genome
from evo_topo.prices import Prices, UnitPrices
from evo_topo.units import UnitGroup, unit_table

MOST_OF_GROUP = 0.75
"""Largest share of a group that one edit prunes: further away the quadratic prediction fails."""


class Proposal(NamedTuple):
    """An edit with its price.

    Attributes:
        edit: The mutation.
        genome: The child.
        predicted_loss_change: By the price list; 0 where the edit preserves the function.
        flop_change: FLOPs of the child minus those of the parent.
    """

    edit: AnyEdit
    genome: Genome
    predicted_loss_change: float
    flop_change: int


def propose(
    genome: Genome,
    prices: Prices,
    rng: RandomSource,
    growth: float = 0.25,
    smallest: float = 0.1,
    largest: float = 0.75,
) -> Proposal:
    """Samples an edit: prunes by predicted loss per FLOP, splits by saliency per FLOP.

    Args:
        genome: The parent.
        prices: Its price list.
        rng: Source of uniform numbers.
        growth: Probability of growing rather than pruning, where both apply.
        smallest: Smallest size of an edit, as a share of the parent's FLOPs.
        largest: Largest size; sizes between are log-uniform. An edit is at least one unit.

    Raises:
        EditError: When no edit applies to this genome.
    """
    share = smallest * (largest / smallest) ** rng.random()
    target = share * count_macs(genome)
    kinds = [_growths, _prunes] if rng.random() < growth else [_prunes, _growths]
    for kind in kinds:
        for edit, predicted in kind(genome, prices, rng, target):
            try:
                child = edit.apply(genome)
            except EditError:
                continue  # over the size limits of a genome; the next candidate may fit
            return Proposal(edit, child, predicted, count_flops(child) - count_flops(genome))
    raise EditError("no edit applies to this genome")


def random_prices(genome: Genome, rng: RandomSource) -> Prices:
    """A price list of random numbers: the control that knows nothing.

    A layer costs about as much as the units of a group of its width, or layers would always be cheapest.
    """
    units = {}
    for group in unit_table(genome).groups.values():
        order = sorted(range(group.width), key=lambda _: rng.random())
        total = 0.0
        units[group.name] = UnitPrices(tuple(order), tuple([total := total + rng.random() for _ in order]))
    layers = {
        edit.layer: genome.shapes[edit.layer][0] * rng.random()
        for edit in legal_layer_edits(genome)
        if isinstance(edit, PruneLayer)
    }
    return Prices("random", units, layers)


def _prunes(
    genome: Genome, prices: Prices, rng: RandomSource, target: float
) -> Iterator[tuple[AnyEdit, float]]:
    """Prunes in the order of a draw with probability inverse to predicted loss per MAC."""
    candidates: list[tuple[AnyEdit, float, float]] = []
    if prices.joint:
        taken, predicted, saved = _cut(genome, prices, rng, target)
    else:
        taken = _choose_units(genome, prices, rng, target, prune=True)
        steps = {name: _steps(prices.units[name]) for name in taken}
        predicted = math.fsum(steps[name][unit] for name, units in taken.items() for unit in units)
        saved = _macs_of(genome, taken)
    if taken:
        candidates.append((PruneUnits(_as_sets(taken)), predicted, predicted / max(saved, 1)))
    macs = node_macs(genome)
    for edit in legal_layer_edits(genome):
        if isinstance(edit, PruneLayer) and edit.layer in prices.layers:
            predicted = prices.layers[edit.layer]
            saved = sum(macs[name] for name in layer_chain(genome, edit.layer))
            candidates.append((edit, predicted, predicted / max(saved, 1)))
    floor = 1e-3 * max([0.0, *[price for _, _, price in candidates]]) or 1.0
    # The order of log-price plus Gumbel noise is a draw without replacement, P ~ 1 / price.
    keyed = [(math.log(max(price, floor)) - _gumbel(rng), i) for i, (_, _, price) in enumerate(candidates)]
    for _, i in sorted(keyed):
        yield candidates[i][0], candidates[i][1]


def _growths(
    genome: Genome, prices: Prices, rng: RandomSource, target: float
) -> Iterator[tuple[AnyEdit, float]]:
    """A split of units and an inserted layer, in random order; both start without effect."""
    edits: list[AnyEdit] = []
    taken = _choose_units(genome, prices, rng, target, prune=False)
    if taken:
        edits.append(SplitUnits(_as_sets(taken)))
    sites = [edit for edit in legal_layer_edits(genome) if isinstance(edit, SplitLayer)]
    if sites:
        edits.append(draw(sites, rng))
    if len(edits) == 2 and rng.random() < 1 / 3:
        edits.reverse()
    for edit in edits:
        yield edit, 0.0


def _cut(
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


def _choose_units(
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
            scales[group.name] = math.exp(-_gumbel(rng) if prune else _gumbel(rng))
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
    price_of = _steps(prices)
    if prune:
        most = max(1, int(MOST_OF_GROUP * group.width))
        for unit in list(spare_units(genome, group, prices.order[:most])):
            yield unit, price_of[unit]
    else:
        for unit in reversed(prices.order):
            if group.splittable[unit]:
                yield unit, price_of[unit]


def _steps(prices: UnitPrices) -> dict[int, float]:
    """What each unit adds to the price of those before it in the order."""
    before = (0.0, *prices.cumulative[:-1])
    return {unit: b - a for unit, a, b in zip(prices.order, before, prices.cumulative, strict=True)}


def _macs_of(genome: Genome, taken: Mapping[str, list[int]]) -> float:
    saved = unit_macs(genome)
    return sum(saved[name][unit] for name, units in taken.items() for unit in units)


def _as_sets(taken: Mapping[str, list[int]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple([(name, tuple(sorted(units))) for name, units in sorted(taken.items())])


def _gumbel(rng: RandomSource) -> float:
    """A draw from the standard Gumbel distribution."""
    return -math.log(-math.log(min(max(rng.random(), 1e-12), 1 - 1e-12)))
