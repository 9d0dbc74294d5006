"""A prune and a growth as one child, at about the same cost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Self

import msgspec

from evo_topo.cost import count_flops, unit_macs
from evo_topo.edits.add_units import AddUnits
from evo_topo.edits.base import Edit, EditError, RandomSource, draw, shuffled
from evo_topo.edits.kinds import GROWTHS, PRUNES, SingleEdit
from evo_topo.edits.unit_edits import PruneUnits, SplitUnits
from evo_topo.genome import Genome
from evo_topo.ops import MAX_WIDTH
from evo_topo.units import unit_table

TOLERANCE = 0.1
"""Largest change of FLOPs that a drawn trade makes, as a share of the parent's."""
_TRIES = 4
_SITES = 20


class Trade(Edit, frozen=True, tag="trade"):
    """Two edits, one after the other.

    Attributes:
        first: Applies to the parent.
        second: Applies to what the first makes of it.
    """

    first: SingleEdit
    second: SingleEdit

    def apply(self, genome: Genome) -> Genome:
        return self.second.apply(self.first.apply(genome))

    def unit_map(self, genome: Genome) -> dict[str, list[int]]:
        raise EditError("a trade has no unit map of its own: each of its two edits has one")

    def parts(self, genome: Genome) -> tuple[SingleEdit, ...]:
        """Both edits as edits of the parent; the first alone where the second touches what it has made."""
        second = self.second
        if isinstance(second, PruneUnits | SplitUnits):
            origins = self.first.unit_map(genome)
            units = []
            for name, chosen in second.units:
                origin = origins.get(name)
                back = chosen if origin is None else sorted({origin[unit] for unit in chosen} - {-1})
                units.append((name, tuple(back)))
            second = type(second)(tuple(units))
        try:
            second.apply(genome)
        except EditError:
            return (self.first,)
        return self.first, second

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        """One for each kind of prune, at its first site, and each kind of growth that can make up for it.

        Of each kind of growth the first `_SITES` sites of different cost are tried.
        """
        for kind in PRUNES:
            prune = next(kind.legal(genome), None)
            if prune is None:
                continue
            child = prune.apply(genome)
            for growth in GROWTHS:
                trades = (cls(prune, edit) for edit in islice(_of_different_cost(growth, child), _SITES))
                yield from islice((t for t in trades if t._is_balanced(genome, child)), 1)

    @classmethod
    def legal(cls, genome: Genome) -> Iterator[Self]:
        return cls.candidates(genome)

    @classmethod
    def drawn(cls, genome: Genome, rng: RandomSource) -> Self | None:
        """A random prune of random size, and a random growth of a size to match."""
        for kind in shuffled(PRUNES, rng):
            prune = kind.drawn(genome, rng)
            if prune is None:
                continue
            child = prune.apply(genome)
            saved = count_flops(genome) - count_flops(child)
            for growth in shuffled(GROWTHS * _TRIES, rng):
                edit = _drawn_to_match(growth, child, saved, rng)
                if edit is not None and cls(prune, edit)._is_balanced(genome, child):
                    return cls(prune, edit)
        return next(cls.candidates(genome), None)  # few sizes match in a small network

    def _is_balanced(self, genome: Genome, between: Genome) -> bool:
        """Whether the child is another genome of about the same FLOPs."""
        try:
            child = self.second.apply(between)
        except EditError:
            return False
        before, after = count_flops(genome), count_flops(child)
        return child != genome and abs(after - before) <= TOLERANCE * before

    def describe(self) -> str:
        return f"{self.first.describe()}; {self.second.describe()}"


def _of_different_cost(kind: type[SingleEdit], genome: Genome) -> Iterator[SingleEdit]:
    """The edits of a kind that apply; of units that cost the same, the first alone."""
    seen: set[float] = set()
    for edit in kind.legal(genome):
        if isinstance(edit, AddUnits | SplitUnits):
            (group, units), *_ = edit.units if isinstance(edit, SplitUnits) else ((edit.group, (0,)),)
            cost = unit_macs(genome)[group][units[0]]
            if cost in seen:
                continue
            seen.add(cost)
        yield edit


def _drawn_to_match(
    kind: type[SingleEdit], genome: Genome, flops: int, rng: RandomSource
) -> SingleEdit | None:
    """A random edit of a kind; as many units of a random group as cost about so many FLOPs."""
    groups = list(unit_table(genome).groups.values())
    if not issubclass(kind, AddUnits | SplitUnits):
        return kind.drawn(genome, rng)
    if not groups:
        return None
    group = draw(groups, rng)
    per_unit = 2 * sum(unit_macs(genome)[group.name]) / group.width
    count = min(max(1, round(flops / max(per_unit, 1))), MAX_WIDTH)
    if issubclass(kind, AddUnits):
        return msgspec.structs.replace(AddUnits(group.name).varied(genome, rng), count=count)
    units = [unit for unit in shuffled(range(group.width), rng) if group.splittable[unit]][:count]
    return SplitUnits(((group.name, tuple(sorted(units))),))
