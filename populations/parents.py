"""Who may be bred from, and from which of them the ends of the front are to be drawn out."""

from __future__ import annotations

from typing import NamedTuple

from populations.fitness import Member
from populations.individual import Individual

NEAR = 0.25
"""Of the way from the accuracy asked for to the best, what counts as near the former."""


class Parents(NamedTuple):
    """Who may be bred from, and what every birth among them asks for: found once, however many they are.

    Attributes:
        members: With their fitness, from `Judge.parents`.
        outward: The cheapest of them, from which the front is to be drawn out; None where it is out.
        upward: The costliest of them, which is to be enlarged; None where that no longer pays.
    """

    members: list[Member]
    outward: Individual | None
    upward: Individual | None

    @classmethod
    def of(cls, members: list[Member], floor: float, founder_flops: int) -> Parents:
        """All of the members.

        Below the cheapest there is nobody to compete with, so it need not be approached in small steps; not
        so near the accuracy that is asked for, where large steps lead nowhere. Beyond the costliest there is
        nobody, either, unless the founder was as large.

        Args:
            members: From `Judge.parents`.
            floor: Least accuracy asked for.
            founder_flops: FLOPs of the founder.
        """
        individuals = [member.individual for member in members]
        best = max(_accuracy(individual) for individual in individuals)
        cheapest = min(individuals, key=lambda individual: (individual.flops, individual.id))
        is_out = _accuracy(cheapest) < floor + NEAR * (best - floor)
        costliest = max(members, key=lambda member: (member.individual.flops, -member.individual.id))
        grows = costliest.individual.flops >= founder_flops and _pays(costliest, members)
        return cls(members, None if is_out else cheapest, costliest.individual if grows else None)


def _pays(costliest: Member, members: list[Member]) -> bool:
    """Whether the costliest has fewer errors than whoever has half of its FLOPs at most.

    However few: a long training, like that of the polish, makes more of large networks than this one did.
    """
    half = [m for m in members if 2 * m.individual.flops <= costliest.individual.flops]
    return not half or _errors(costliest) < min(map(_errors, half))


def _errors(member: Member) -> float:
    return 1.0 - float(member.fitness.values[0])


def _accuracy(individual: Individual) -> float:
    return individual.outcome.accuracy or 0.0
