"""Drawing the candidates for one mutation from a price list. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import msgspec

from evo_topo.calibration import Calibration
from evo_topo.cost import count_flops, count_macs, node_macs
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
)
from evo_topo.edits.trade import TOLERANCE
from evo_topo.genome import Genome, once_per_genome
from evo_topo.ops import MAX_WIDTH
from evo_topo.prices import Prices
from evo_topo.unit_choice import as_sets, choose_units, cut, gumbel, macs_of, steps_of

TRIES = 6
"""Growths that are tried for a trade."""
LEAST_GROWTH = 0.02
"""Of the parent's MACs: cheaper growths count as much, or paths that cost nothing would always be best."""


class Candidate(NamedTuple):
    """An edit, what it is predicted to change, and the FLOPs or MACs that it saves or adds."""

    edit: AnyEdit
    loss_change: float
    promise: float
    size: float


class Choice(NamedTuple):
    """Draws candidates for one proposal."""

    genome: Genome
    prices: Prices
    rng: RandomSource
    calibration: Calibration

    def prunes(self, target: float, least: float) -> Iterator[Candidate]:
        """Prunes in the order of a draw with probability inverse to predicted loss per MAC.

        Units come near the target. Whatever saves less than the least comes last: loss rises faster than what
        is saved, so the smallest steps would always look best, and a search of many does not get far. Like
        growths, they are drawn when the first of them is asked for: most mutations need one or the other.
        """
        small: list[Candidate] = []
        large: list[Candidate] = []
        for candidate in chain(self._unit_prunes(target), self._layer_prunes(), self._priced()):
            if candidate.size < 0:
                (small if -candidate.size < least else large).append(candidate)
        yield from self._drawn(large)
        yield from self._drawn(small)

    def _drawn(self, candidates: list[Candidate]) -> list[Candidate]:
        rates = [self._value(c) / max(abs(c.size), 1) for c in candidates]
        floor = 1e-3 * max([0.0, *rates]) or 1.0
        # The order of log-price plus Gumbel noise is a draw without replacement, P ~ 1 / price.
        keyed = [(math.log(max(rate, floor)) - gumbel(self.rng), i) for i, rate in enumerate(rates)]
        return [candidates[i] for _, i in sorted(keyed)]

    def growths(self, target: float) -> Iterator[Candidate]:
        """Growths by what they promise per MAC; some splits of units, which promise nothing, come first."""
        taken = choose_units(self.genome, self.prices, self.rng, target, prune=False)
        found = [Candidate(SplitUnits(as_sets(taken)), 0.0, 0.0, 1.0)] if taken else []
        others = self._promising()
        sites = [] if others else list(SplitLayer.legal(self.genome))
        if sites:
            others = [Candidate(draw(sites, self.rng), 0.0, 0.0, 1.0)]
        splits_first = self.rng.random() >= (2 / 3 if self.prices.edits else 1 / 3)
        yield from [*found, *others] if splits_first or not others else [*others, *found]

    def trade(self, prune: Candidate, between: Genome) -> tuple[Candidate, Genome] | None:
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
                return Candidate(Trade(prune.edit, sized.edit), loss_change, promise, 0.0), child
        return None

    def _priced(self) -> Iterator[Candidate]:
        for item in self.prices.edits:
            yield Candidate(item.edit, item.loss_change, item.promise, item.flop_change / 2)

    def _promising(self) -> list[Candidate]:
        """Priced growths in the order of a draw with probability proportional to their promise per MAC."""
        grown = [c for c in self._priced() if c.size >= 0]
        least = LEAST_GROWTH * count_macs(self.genome)  # a path that is free is no better than a small one
        rates = [-self._value(c) / max(c.size, least) for c in grown]
        floor = 1e-3 * max([0.0, *rates]) or 1.0
        keyed = [(-math.log(max(rate, floor)) - gumbel(self.rng), i) for i, rate in enumerate(rates)]
        return [grown[i] for _, i in sorted(keyed)]

    def _unit_prunes(self, target: float) -> Iterator[Candidate]:
        genome, prices = self.genome, self.prices
        if prices.joint:
            taken, predicted, saved = cut(genome, prices, self.rng, target)
        else:
            taken = choose_units(genome, prices, self.rng, target, prune=True)
            steps = {name: steps_of(prices.units[name]) for name in taken}
            predicted = math.fsum(steps[name][unit] for name, units in taken.items() for unit in units)
            saved = macs_of(genome, taken)
        if taken:
            yield Candidate(PruneUnits(as_sets(taken)), predicted, 0.0, -saved)

    def _layer_prunes(self) -> Iterator[Candidate]:
        for edit, saved in _bypasses(self.genome):
            if edit.layer in self.prices.layers:
                yield Candidate(edit, self.prices.layers[edit.layer], 0.0, -saved)

    def _value(self, candidate: Candidate) -> float:
        """Loss change after training, as far as it is known."""
        kind = str(candidate.edit.__struct_config__.tag)
        return self.calibration.recovered(kind, candidate.loss_change + candidate.promise)


@once_per_genome
def _bypasses(genome: Genome) -> list[tuple[PruneLayer, int]]:
    """All prunes of layers that apply, each with the MACs that it saves."""
    macs = node_macs(genome)
    edits = list(PruneLayer.legal(genome))
    return [(edit, sum(macs[name] for name in layer_chain(genome, edit.layer))) for edit in edits]


def _sized(growth: Candidate, macs: float) -> Candidate:
    """A growth of units with as many as cost about so many MACs; any other as it is."""
    edit = growth.edit
    if not isinstance(edit, AddUnits) or not growth.size:
        return growth
    count = min(max(1, round(edit.count * macs / growth.size)), MAX_WIDTH)
    promise = growth.promise * min(1.0, count / edit.count)  # more units are not known to promise more
    return growth._replace(edit=msgspec.structs.replace(edit, count=count), promise=promise)
