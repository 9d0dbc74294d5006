"""Pruning on from those who are polished: what was trained for long bears prunes far better.

On Fashion-MNIST, a polished founder pruned to 1.2 M MACs and refit has a loss of 0.214 before any training,
where survivors as costly had 0.233. A cheapest network that short trainings left at an accuracy of 0.82 came
to 0.88 by the polish, and a fifth of it still to 0.83.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Generator, Iterator, Sequence
from random import Random
from typing import Any

from evo_topo.calibration import Calibration
from evo_topo.cost import count_flops
from evo_topo.genome import Genome
from evo_topo.mutation import Proposal, propose
from evo_topo.prices import Prices
from populations.births import Birth, further_training
from populations.breeding import TRIES, breed, make_toolbox
from populations.config import Config
from populations.dispatch import Dispatch
from populations.fitness import Member
from populations.generations import Generations
from populations.individual import Individual
from populations.parents import Parents
from populations.selection import kept_after_polish

SIZES, SMALLER = (0.5, 0.75), (0.1, 0.75)
"""Smallest and largest step outward, as a share of the parent's FLOPs, and once a step has failed."""
FAILURES = 2
"""Steps to below the accuracy floor after which the front is drawn out."""
LARGEST = 0.6
"""Largest prune to an heir, as a share of its parent's FLOPs. On Fashion-MNIST, eight of up to 0.55 beat
those whose places they were to take, two of 0.63 and 0.7 did not."""
LEEWAY = 1.1
"""FLOPs of an heir, at most, as a multiple of those of whose place it takes."""

Steps = Generator["Birth | None", None, Individual]


class PruningOn:
    """Children of the polished, planned one after the other, as soon as their parents are trained and priced.

    Births are yielded to be developed, and None as long as the next one cannot be told.

    Args:
        config: Of the run.
        generations: Those finished; their memory tells what becomes of the children.
        dispatch: Has parents priced.
        calibration: What predictions came to so far.
    """

    def __init__(
        self, config: Config, generations: Generations, dispatch: Dispatch, calibration: Calibration
    ) -> None:
        self._config = dataclasses.replace(config, growth=0.0, train_on=0.0)
        self._memory, self._judge = generations.memory, generations.judge
        self._dispatch, self._calibration = dispatch, calibration

    def outward(self, polished: Birth, ids: Iterator[int]) -> Iterator[Birth | None]:
        """Draws the front out: each child is a prune of the one before, as far as the accuracy floor.

        Args:
            polished: The further training of the cheapest, whom the first step leads down from.
            ids: Numbers for the children.
        """
        tip = yield from self._polished(polished)
        known, failures = {tip.genome.fingerprint}, 0
        while failures < FAILURES and self._judge.is_able(tip):
            tip = yield from self._priced(tip)
            sizes = SMALLER if failures else SIZES
            birth = self._prune(tip, next(ids), polished.generation, sizes, tip.flops, known)
            if birth.edit is None:
                return
            known |= {option.genome.fingerprint for option in birth.options}
            child = yield from self._developed(birth)
            if self._judge.is_able(child):
                tip = child
            else:
                failures += 1

    def heirs(
        self, polished: Birth, places: Sequence[Individual], ids: Sequence[tuple[int, int]]
    ) -> Iterator[Birth | None]:
        """Further trainings of the costlier ones, down from the costliest.

        For each place, the network polished before is pruned to its size: the heir, which trains like any
        child. Whoever is better then, the heir or who held the place, is polished. Where too much would have
        to go at once, there is no heir.

        Args:
            polished: The further training of the costliest.
            places: Who comes next, by falling FLOPs.
            ids: Of each, a number for the heir and one for the further training.
        """
        tip = yield from self._polished(polished)
        for place, (heir_id, further_id) in zip(places, ids, strict=True):
            best, most = place, round(LEEWAY * place.flops)
            share = 1 - place.flops / tip.flops
            if 0 < share <= LARGEST:
                tip = yield from self._priced(tip)
                birth = self._prune(tip, heir_id, polished.generation, (share, share), most)
                if birth.edit is not None:
                    heir = yield from self._developed(birth)
                    best = heir if self._judge.prefers(heir, place) else place
            further = further_training(best, further_id, polished.generation)
            yield further
            tip = yield from self._polished(further)

    def _prune(
        self,
        tip: Individual,
        id: int,  # noqa: A002
        generation: int,
        sizes: tuple[float, float],
        most: int,
        known: Collection[str] = (),
    ) -> Birth:
        """A prune of about a size, to so many FLOPs at most; a birth without any where none is found."""
        blank = further_training(tip, id, generation)
        config, accuracy = self._config, tip.outcome.accuracy or 0.0
        parents = Parents([Member(tip, config.objective, config.accuracy_floor, accuracy)], None, None)
        toolbox = make_toolbox(config)
        toolbox.register("mutate", _propose_sized, sizes, most)
        birth = breed(config, toolbox, parents, tip.flops, id, generation, self._calibration, known)
        if count_flops(birth.genome) > most:
            return blank
        fitting = [rival for rival in birth.rivals if count_flops(rival.genome) <= most]
        return birth._replace(rivals=tuple(fitting))

    def _priced(self, individual: Individual) -> Steps:
        self._dispatch.ask_prices([individual])
        while self._dispatch.is_pricing:
            yield None
        return self._memory.individuals[individual.id]

    def _developed(self, birth: Birth) -> Steps:
        yield birth
        return (yield from self._found(birth))

    def _polished(self, birth: Birth) -> Steps:
        """Who goes on after a polish."""
        child = yield from self._found(birth)
        parent = birth.parent
        return child if parent is None else kept_after_polish(child, parent)

    def _found(self, birth: Birth) -> Steps:
        while (child := self._memory.individuals.get(birth.id)) is None:
            yield None
        return child


def _propose_sized(
    sizes: tuple[float, float], most: int, genome: Genome, prices: Prices, rng: Random, **settings: Any
) -> Proposal:
    """`propose` with sizes of its own, until something has few enough FLOPs: layers save what they do."""
    settings |= {"smallest": sizes[0], "largest": sizes[1]}
    for _ in range(TRIES):
        proposal = propose(genome, prices, rng, **settings)
        if count_flops(proposal.genome) <= most:
            break
    return proposal
