"""Objectives, and what DEAP needs to select by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from deap import base

from populations.config import Objective
from populations.individual import Individual

T = TypeVar("T")
WORST_SIZE = 64.0
"""log2 FLOPs beyond any network: finite, since infinity makes DEAP's crowding distance NaN."""


class ParetoFitness(base.Fitness):  # type: ignore[misc]
    """Accuracy upwards, log2 of FLOPs downwards."""

    weights = (1.0, -1.0)


class RatioFitness(base.Fitness):  # type: ignore[misc]
    """One figure, upwards."""

    weights = (1.0,)


class Member:
    """An individual under selection: what DEAP's operators take.

    Args:
        individual: A developed individual.
        objective: What its fitness is made of.
        accuracy_floor: Below this validation accuracy it loses against everyone above.
        fold: Validation examples to judge by, as a bit mask; None for all.
        num_validation: Number of validation examples.
    """

    def __init__(
        self,
        individual: Individual,
        objective: Objective,
        accuracy_floor: float,
        num_validation: int,
        fold: int | None = None,
    ) -> None:
        self.individual = individual
        accuracy = fold_accuracy(individual, num_validation, fold)
        # The logarithm leaves the order as it is and spreads the front evenly over its decades.
        size = math.log2(max(individual.flops, 1))
        if objective == "pareto":
            self.fitness = ParetoFitness()
            self.fitness.values = (accuracy, size if accuracy >= accuracy_floor else WORST_SIZE)
        else:
            self.fitness = RatioFitness()
            # Accuracy alone, below any ratio, where the ratio would reward chance at no cost.
            ratio = accuracy / max(individual.flops, 1)
            self.fitness.values = (ratio if accuracy >= accuracy_floor else accuracy - 1,)


def fold_accuracy(individual: Individual, num_validation: int, fold: int | None = None) -> float:
    """Accuracy on some of the validation examples.

    Args:
        individual: A developed individual.
        num_validation: Number of validation examples.
        fold: Bit mask of the examples to count; None for all.
    """
    correct = int(individual.outcome.correct, 16)
    if fold is None:
        return correct.bit_count() / num_validation
    return (correct & fold).bit_count() / fold.bit_count()


def pareto_front(items: Sequence[T], accuracy: Callable[[T], float], cost: Callable[[T], float]) -> list[T]:
    """The items that no other one beats on accuracy and cost, by rising cost; the first of equals."""
    front: list[T] = []
    for item in sorted(items, key=lambda item: (cost(item), -accuracy(item))):
        if not front or accuracy(item) > accuracy(front[-1]):
            front.append(item)
    return front
