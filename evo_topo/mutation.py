"""Choosing mutations by their price: predicted loss change per FLOP. Needs no torch.

Prunes of all kinds are sampled with probability inverse to what they are predicted to cost per FLOP saved,
growths with probability proportional to what they promise per FLOP; splits go to the units of highest
saliency per FLOP. The size, a share of the parent's FLOPs, is drawn first: edits of units come near it, and
others that save far less stand back. Some prunes become trades.
Controls (`random_prices`, and magnitude in `saliency`) differ in the price list alone.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate, chain
from operator import neg
from typing import Literal, NamedTuple

import msgspec

from evo_topo.calibration import Calibration
from evo_topo.cost import count_flops, count_macs, node_macs, unit_macs
from evo_topo.edits import (
    AddUnits,
    AnyEdit,
    EditError,
    PruneLayer,
    PruneUnits,
    RandomSource,
    SplitLayer,
    SplitUnits,
    Trade,
    draw,
    layer_chain,
    legal_layer_edits,
    spare_units,
)
from evo_topo.edits.trade import TOLERANCE
from evo_topo.genome import Genome
from evo_topo.ops import MAX_WIDTH
from evo_topo.prices import Prices, UnitPrices
from evo_topo.units import UnitGroup, unit_table

Mutations = Literal["all", "prunes", "growths"]
"""Which edits a mutation may be: those that save FLOPs, those that do not, or both, and trades of the two."""

TRADES = 0.2
"""Share of the prunes that become trades, where a growth fits."""
TRIES = 6
SMALL, SMALLEST = 0.25, 0.5
"""Of the target, and of the smallest there is: prunes that save less than these shares stand back."""
LEAST_GROWTH = 0.02
"""Of the parent's MACs: cheaper growths count as much, or paths that cost nothing would always be best."""
MOST_OF_GROUP = 0.75
"""Largest share of a group that one edit prunes: further away the quadratic prediction fails."""


class Proposal(NamedTuple):
    """An edit with its price.

    Attributes:
        edit: The mutation.
        genome: The child.
        predicted_loss_change: By the price list; 0 where the edit preserves the function.
        flop_change: FLOPs of the child minus those of the parent.
        promise: Predicted loss change, at most 0, that new parameters add when they are trained.
    """

    edit: AnyEdit
    genome: Genome
    predicted_loss_change: float
    flop_change: int
    promise: float = 0.0


class _Candidate(NamedTuple):
    """An edit, what it is predicted to change, and the FLOPs or MACs that it saves or adds."""

    edit: AnyEdit
    loss_change: float
    promise: float
    size: float


def propose(
    genome: Genome,
    prices: Prices,
    rng: RandomSource,
    growth: float = 0.25,
    smallest: float = 0.1,
    largest: float = 0.75,
    calibration: Calibration | None = None,
    mutations: Mutations = "all",
) -> Proposal:
    """Samples an edit: prunes by predicted loss per FLOP, splits by saliency per FLOP.

    Args:
        genome: The parent.
        prices: Its price list.
        rng: Source of uniform numbers.
        growth: Probability of growing rather than pruning, where both apply.
        smallest: Smallest size that is drawn, as a share of the parent's FLOPs.
        largest: Largest size; sizes between are log-uniform. Units are taken to come near it, at least one;
            of other prunes, those that save less than half of the smallest come last.
        calibration: What predicted loss changes come to after training, for comparing kinds.
        mutations: Which edits may be proposed; where it is not all, `growth` says nothing.

    Raises:
        EditError: When no edit applies to this genome.
    """
    share = smallest * (largest / smallest) ** rng.random()
    target = share * count_macs(genome)
    choice = _Choice(genome, prices, rng, calibration or Calibration())
    grows = rng.random() < growth
    least = max(SMALL * target, SMALLEST * smallest * count_macs(genome))
    growths, prunes = choice.growths(target), choice.prunes(target, least)
    both = chain(growths, prunes) if grows else chain(prunes, growths)
    for candidate in {"all": both, "prunes": prunes, "growths": growths}[mutations]:
        try:
            child = candidate.edit.apply(genome)
        except EditError:
            continue  # over the size limits of a genome; the next candidate may fit
        traded = None
        if mutations == "all" and prices.edits and count_flops(child) < count_flops(genome):
            traded = choice.trade(candidate, child) if rng.random() < TRADES else None
        if traded is not None:
            candidate, child = traded
        flop_change = count_flops(child) - count_flops(genome)
        return Proposal(candidate.edit, child, candidate.loss_change, flop_change, candidate.promise)
    raise EditError("no edit applies to this genome")


def rivals(
    genome: Genome,
    prices: Prices,
    rng: RandomSource,
    proposal: Proposal,
    most: int,
    calibration: Calibration | None = None,
) -> list[Proposal]:
    """Other prunes of about the size of a proposal, each from a draw of its own.

    Prices rank edits roughly; what they do to the loss can be measured once the child has inherited, before
    it trains, and the best one be trained alone.

    Args:
        genome: The parent.
        prices: Its price list.
        rng: Source of uniform numbers.
        proposal: From `propose`.
        most: Largest number of rivals.
        calibration: As for `propose`.

    Returns:
        Prunes of other networks; none where the proposal is a growth or a trade.
    """
    if proposal.flop_change >= 0 or isinstance(proposal.edit, Trade):
        return []
    choice = _Choice(genome, prices, rng, calibration or Calibration())
    found = {proposal.genome.fingerprint: proposal}
    for _ in range(most):
        saved = -proposal.flop_change / 2
        for candidate in choice.prunes(saved, SMALL * saved):
            try:
                child = candidate.edit.apply(genome)
            except EditError:
                continue
            flop_change = count_flops(child) - count_flops(genome)
            if flop_change < 0 and child.fingerprint not in found:
                found[child.fingerprint] = Proposal(
                    candidate.edit, child, candidate.loss_change, flop_change, candidate.promise
                )
                break
    return list(found.values())[1:]


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


class _Choice(NamedTuple):
    """Draws candidates for one proposal."""

    genome: Genome
    prices: Prices
    rng: RandomSource
    calibration: Calibration

    def prunes(self, target: float, least: float) -> Iterator[_Candidate]:
        """Prunes in the order of a draw with probability inverse to predicted loss per MAC.

        Units come near the target. Whatever saves less than the least comes last: loss rises faster than what
        is saved, so the smallest steps would always look best, and a search of many does not get far.
        """
        small: list[_Candidate] = []
        large: list[_Candidate] = []
        for candidate in chain(self._unit_prunes(target), self._layer_prunes(), self._priced()):
            if candidate.size < 0:
                (small if -candidate.size < least else large).append(candidate)
        return chain(self._drawn(large), self._drawn(small))

    def _drawn(self, candidates: list[_Candidate]) -> Iterator[_Candidate]:
        rates = [self._value(c) / max(abs(c.size), 1) for c in candidates]
        floor = 1e-3 * max([0.0, *rates]) or 1.0
        # The order of log-price plus Gumbel noise is a draw without replacement, P ~ 1 / price.
        keyed = [(math.log(max(rate, floor)) - _gumbel(self.rng), i) for i, rate in enumerate(rates)]
        return (candidates[i] for _, i in sorted(keyed))

    def growths(self, target: float) -> Iterator[_Candidate]:
        """Growths by what they promise per MAC; some splits of units, which promise nothing, come first."""
        taken = _choose_units(self.genome, self.prices, self.rng, target, prune=False)
        found = [_Candidate(SplitUnits(_as_sets(taken)), 0.0, 0.0, 1.0)] if taken else []
        others = self._promising()
        sites = [] if others else [e for e in legal_layer_edits(self.genome) if isinstance(e, SplitLayer)]
        if sites:
            others = [_Candidate(draw(sites, self.rng), 0.0, 0.0, 1.0)]
        splits_first = self.rng.random() >= (2 / 3 if self.prices.edits else 1 / 3)
        return iter([*found, *others] if splits_first or not others else [*others, *found])

    def trade(self, prune: _Candidate, between: Genome) -> tuple[_Candidate, Genome] | None:
        """The prune and a promising growth of about its size, and their child; None where none fits."""
        before = count_flops(self.genome)
        if isinstance(prune.edit, Trade):
            return None
        for growth in self._promising()[:TRIES]:
            sized = _sized(growth, (before - count_flops(between)) / 2)
            try:
                child = sized.edit.apply(between)
            except EditError:
                continue
            if not isinstance(sized.edit, Trade) and abs(count_flops(child) - before) <= TOLERANCE * before:
                loss_change, promise = prune.loss_change + sized.loss_change, prune.promise + sized.promise
                return _Candidate(Trade(prune.edit, sized.edit), loss_change, promise, 0.0), child
        return None

    def _priced(self) -> Iterator[_Candidate]:
        for item in self.prices.edits:
            yield _Candidate(item.edit, item.loss_change, item.promise, item.flop_change / 2)

    def _promising(self) -> list[_Candidate]:
        """Priced growths in the order of a draw with probability proportional to their promise per MAC."""
        grown = [c for c in self._priced() if c.size >= 0]
        least = LEAST_GROWTH * count_macs(self.genome)  # a path that is free is no better than a small one
        rates = [-self._value(c) / max(c.size, least) for c in grown]
        floor = 1e-3 * max([0.0, *rates]) or 1.0
        keyed = [(-math.log(max(rate, floor)) - _gumbel(self.rng), i) for i, rate in enumerate(rates)]
        return [grown[i] for _, i in sorted(keyed)]

    def _unit_prunes(self, target: float) -> Iterator[_Candidate]:
        genome, prices = self.genome, self.prices
        if prices.joint:
            taken, predicted, saved = _cut(genome, prices, self.rng, target)
        else:
            taken = _choose_units(genome, prices, self.rng, target, prune=True)
            steps = {name: _steps(prices.units[name]) for name in taken}
            predicted = math.fsum(steps[name][unit] for name, units in taken.items() for unit in units)
            saved = _macs_of(genome, taken)
        if taken:
            yield _Candidate(PruneUnits(_as_sets(taken)), predicted, 0.0, -saved)

    def _layer_prunes(self) -> Iterator[_Candidate]:
        macs = node_macs(self.genome)
        for edit in legal_layer_edits(self.genome):
            if isinstance(edit, PruneLayer) and edit.layer in self.prices.layers:
                saved = sum(macs[name] for name in layer_chain(self.genome, edit.layer))
                yield _Candidate(edit, self.prices.layers[edit.layer], 0.0, -saved)

    def _value(self, candidate: _Candidate) -> float:
        """Loss change after training, as far as it is known."""
        kind = str(candidate.edit.__struct_config__.tag)
        return self.calibration.recovered(kind, candidate.loss_change + candidate.promise)


def _sized(growth: _Candidate, macs: float) -> _Candidate:
    """A growth of units with as many as cost about so many MACs; any other as it is."""
    edit = growth.edit
    if not isinstance(edit, AddUnits) or not growth.size:
        return growth
    count = min(max(1, round(edit.count * macs / growth.size)), MAX_WIDTH)
    promise = growth.promise * min(1.0, count / edit.count)  # more units are not known to promise more
    return growth._replace(edit=msgspec.structs.replace(edit, count=count), promise=promise)


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
