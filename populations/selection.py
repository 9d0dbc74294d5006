"""Selection: who is bred from, who survives, who spans the front."""

from __future__ import annotations

import random
from collections.abc import Sequence

from deap import base, tools

from evo_topo.cost import count_flops
from populations.config import Config
from populations.fitness import (
    Judgement,
    Member,
    chance_of,
    credited,
    estimated_accuracies,
    is_harmed,
    pareto_front,
    spread_front,
)
from populations.individual import Individual
from populations.seeds import derive_seed, global_random

FOLD = 0.8
"""Share of the validation examples that one generation is selected on."""
FEWEST_FOR_NEIGHBOURS = 3
"""Members of a front from which one of its ends can be as crowded as others."""


class Judge:
    """Compares individuals, by accuracies drawn towards what a steadier figure lets expect.

    Args:
        config: Of the run.
        num_validation: Number of validation examples.
    """

    def __init__(self, config: Config, num_validation: int) -> None:
        self.config, self.num_validation = config, num_validation

    def _by(self, is_taught: bool) -> Judgement:
        """The loss says more, but where smoothed targets or a teacher made it rise while errors fell."""
        is_smooth = self.config.recipe.label_smoothing > 0 or (is_taught and self.config.distill > 0)
        return "soft_error" if is_smooth else "loss"

    def members(
        self, individuals: Sequence[Individual], generation: int, is_taught: bool = False
    ) -> list[Member]:
        """Individuals with their fitness on this generation's draw of the validation examples.

        Parents and children are compared on the same examples, and survivors are measured anew, on
        another draw, each generation: who was only lucky once does not stay.

        Args:
            individuals: Who competes.
            generation: Number of the draw.
            is_taught: Whether some of them may have learned from a teacher.
        """
        rng = random.Random(derive_seed(self.config.seed, "fold", generation))
        size = max(1, round(FOLD * self.num_validation))
        fold = sum(1 << i for i in rng.sample(range(self.num_validation), size))
        objective, floor = self.config.objective, self.config.accuracy_floor
        accuracies = self._credited(individuals, self._estimates(individuals, fold, is_taught))
        return [Member(i, objective, floor, a) for i, a in zip(individuals, accuracies, strict=True)]

    def parents(
        self, individuals: Sequence[Individual], generation: int, is_taught: bool = False
    ) -> list[Member]:
        """Members; where NSGA-II mates them, their fitness also knows how crowded it is on its front.

        The cheap end is never crowded, as in NSGA-II; the costly end is as crowded as its place.
        """
        members = self.members(individuals, generation, is_taught)
        if self.config.objective == "pareto":
            for front in tools.sortLogNondominated(members, len(members)):  # not quadratic
                tools.emo.assignCrowdingDist(front)
                _bound_costly_end(front)
        return members

    def select(
        self,
        individuals: Sequence[Individual],
        generation: int,
        toolbox: base.Toolbox,
        is_taught: bool = False,
    ) -> list[Individual]:
        """The survivors of a generation, by DEAP."""
        pool = self.members(individuals, generation, is_taught)
        with global_random(derive_seed(self.config.seed, "select", generation)):
            return [member.individual for member in toolbox.select(pool)]

    def select_polished(
        self,
        polished: Sequence[Individual],
        others: Sequence[Individual],
        generation: int,
        toolbox: base.Toolbox,
    ) -> list[Individual]:
        """Who survives the polish: all who were polished, however many, then the best of the others.

        The front that a run reports is made of them alone: others trained for less long.

        Args:
            polished: Who trained on for longer, or was kept as it was, and who drew the front out.
            others: Who did not.
            generation: Number of the polish.
            toolbox: Of `make_toolbox`.
        """
        survivors = self.select([*others, *polished], generation, toolbox, is_taught=True)
        ids = {individual.id for individual in polished}
        most = max(self.config.parents, len(polished))
        return [*polished, *(i for i in survivors if i.id not in ids)][:most]

    def is_able(self, individual: Individual) -> bool:
        """Whether an individual is at least as accurate as is asked for."""
        accuracy = individual.outcome.accuracy
        return individual.is_alive and accuracy is not None and accuracy >= self.config.accuracy_floor

    def prefers(self, one: Individual, other: Individual) -> bool:
        """Whether one individual is better than another that costs about as much."""
        by = self._by(is_taught=True)
        return one.is_alive and getattr(one.outcome, by) < getattr(other.outcome, by)

    def front(self, population: Sequence[Individual], is_taught: bool = False) -> list[Individual]:
        """The Pareto front by accuracies drawn towards what is expected, by rising FLOPs."""
        estimates = self._estimates(population, self._all_examples, is_taught)
        floor, pairs = self.config.accuracy_floor, list(zip(population, estimates, strict=True))
        able = [pair for pair in pairs if pair[1] >= floor] or pairs
        return [individual for individual, _ in pareto_front(able, _accuracy, _flops)]

    def promising(self, population: Sequence[Individual], is_taught: bool = False) -> list[Individual]:
        """Who spans the front; nobody is left out because another one was lucky."""
        estimates = self._estimates(population, self._all_examples, is_taught)
        accuracies = self._credited(population, estimates)
        tolerance = chance_of(accuracies, self.num_validation)
        pairs = list(zip(population, accuracies, strict=True))
        spread = spread_front(pairs, _accuracy, _flops, tolerance, self.config.polished)
        return [individual for individual, _ in spread]

    @property
    def _all_examples(self) -> int:
        return (1 << self.num_validation) - 1

    def _estimates(self, individuals: Sequence[Individual], fold: int, is_taught: bool) -> list[float]:
        return estimated_accuracies(individuals, self.num_validation, fold, self._by(is_taught))

    def _credited(self, individuals: Sequence[Individual], accuracies: Sequence[float]) -> list[float]:
        return credited(individuals, accuracies, self.config.founder_examples)


def kept_after_polish(polished: Individual, parent: Individual) -> Individual:
    """Who goes on after a polish: whoever was polished; their parent where that failed or did harm.

    Networks of few channels may lose one of them for good in a long training, and many examples with it.
    """
    return parent if not polished.is_alive or is_harmed(polished, parent) else polished


def _bound_costly_end(front: Sequence[Member]) -> None:
    """Gives the costliest of a front a finite crowding distance: twice that to its neighbour.

    DEAP's is infinite, for what is beyond an end is unknown. But beyond the costly one is the ceiling: as
    long as the founder stood there, it had up to a quarter of all children.
    """
    if len(front) < FEWEST_FOR_NEIGHBOURS:
        return
    values = [member.fitness.values for member in front]
    ranges = [max(column) - min(column) or 1.0 for column in zip(*values, strict=True)]
    *_, beside, end = sorted(front, key=lambda member: member.fitness.values[::-1])
    steps = zip(end.fitness.values, beside.fitness.values, ranges, strict=True)
    end.fitness.crowding_dist = sum(2 * abs(a - b) / (len(ranges) * span) for a, b, span in steps)


def _accuracy(pair: tuple[Individual, float]) -> float:
    return pair[1]


def _flops(pair: tuple[Individual, float]) -> float:
    return float(count_flops(pair[0].genome))
