"""Which structural edits are worth a price. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from evo_topo.cost import count_flops
from evo_topo.edits import (
    PRUNES,
    SITE_KINDS,
    AnyEdit,
    Fuse,
    PruneLayer,
    PruneUnits,
    RandomSource,
    SplitUnits,
)
from evo_topo.edits.base import shuffled
from evo_topo.genome import Genome

PRICED_ONE_BY_ONE: tuple[type[AnyEdit], ...] = tuple(
    k for k in SITE_KINDS if k not in (PruneUnits, SplitUnits, PruneLayer)
)
"""Kinds that the prices of units and layers say nothing of."""


def candidate_edits(genome: Genome, rng: RandomSource, most: int = 14) -> list[AnyEdit]:
    """Draws structural edits of the kinds that are priced one by one: random sites, sizes varied.

    The kinds take turns, so that one with few sites is not crowded out. A kind that prunes gives two at its
    turn, for more prunes are wanted than growths.

    Args:
        genome: The parent.
        rng: Source of uniform numbers.
        most: Largest number of edits.
    """
    queues: list[Iterator[AnyEdit]] = []
    for kind in PRICED_ONE_BY_ONE:
        queue: Iterator[AnyEdit] = iter(shuffled(list(kind.candidates(genome)), rng))
        queues += [queue] * (2 if kind in PRUNES else 1)
    found: dict[AnyEdit, None] = {}
    while queues and len(found) < most:
        for queue in list(queues):
            site = next(queue, None)
            if site is None:
                queues.remove(queue)
                continue
            sizes: tuple[AnyEdit, AnyEdit] = (site.varied(genome, rng), site)
            edit = next((sized for sized in sizes if sized.is_legal(genome)), None)
            if edit is not None and not _is_idle(edit, genome):
                found[edit] = None
    return list(found)[:most]


def _is_idle(edit: AnyEdit, genome: Genome) -> bool:
    """Whether an edit changes neither function nor cost."""
    return isinstance(edit, Fuse) and count_flops(edit.apply(genome)) == count_flops(genome)
