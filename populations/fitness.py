"""Objectives, and what DEAP needs to select by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np
from deap import base

from populations.config import Objective
from populations.individual import Individual

T = TypeVar("T")
Judgement = Literal["soft_error", "loss"]
"""What tells accuracies with less noise, by its name in an `Outcome`."""
FEWEST_FOR_LINE = 6
"""Individuals that it takes to say how accuracy goes with a steadier figure."""
CREDIT = 0.05
"""Power of the number of training examples that errors are corrected by. Over 48 polished networks of six
runs of Fashion-MNIST, what is left to chance in the logarithm of their errors afterwards is .082 without,
.070 with it, .067 with twice as much; in runs of five minutes .076, .082 and .089."""
EVENNESS = 0.125
"""Power of the FLOPs along which those who are polished are spread evenly. By their logarithm, half of eight
networks came to have less than a fortieth of the founder's FLOPs, and gaps above were up to sevenfold."""
HARM = 2.0
"""Standard errors by which a network must be worse than before to have been harmed by its training. Of 378
polished networks, four were by as many; three, of few channels, had lost 3 to 5 % of all examples."""
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
        accuracy_floor: Below this accuracy it loses against everyone above.
        accuracy: Its validation accuracy, measured or estimated.
    """

    def __init__(
        self, individual: Individual, objective: Objective, accuracy_floor: float, accuracy: float
    ) -> None:
        self.individual = individual
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


def is_harmed(child: Individual, parent: Individual) -> bool:
    """Whether training on made a network worse, beyond chance: McNemar's test (1947).

    Only examples that one of both gets right tell; were both as good, they would be as many either way.

    Args:
        child: Developed, without any edit.
        parent: The network before, measured on the same validation examples.
    """
    after, before = (int(individual.outcome.correct, 16) for individual in (child, parent))
    gained, lost = (after & ~before).bit_count(), (before & ~after).bit_count()
    return lost - gained > HARM * math.sqrt(lost + gained)


def estimated_accuracies(
    individuals: Sequence[Individual], num_validation: int, fold: int, by: Judgement
) -> list[float]:
    """Accuracies with less noise: measured ones, drawn towards what a steadier figure lets expect.

    By how far a network gets examples right or wrong says more of its true accuracy than the few that a small
    validation split lets it get wrong. So a line is fitted from that to accuracy over all individuals,
    and each measurement is moved towards it by as much as chance accounts for the distances from the line
    (empirical Bayes, Fay & Herriot 1979): nearly all the way on some hundred examples.

    Args:
        individuals: Developed individuals that compete.
        num_validation: Number of validation examples.
        fold: Bit mask of the examples that accuracies are measured on.
        by: The steadier figure: the soft error, or the loss where targets are not smoothed.

    Returns:
        One accuracy per individual.
    """
    measured = np.array([fold_accuracy(individual, num_validation, fold) for individual in individuals])
    errors = np.array([getattr(individual.outcome, by) for individual in individuals], dtype=float)
    as_measured = [float(accuracy) for accuracy in measured]
    if len(individuals) < FEWEST_FOR_LINE or np.ptp(errors) == 0:
        return as_measured
    slope, intercept = np.polyfit(errors, measured, 1)
    expected = intercept + slope * errors
    chance = float(np.mean(measured * (1 - measured))) / fold.bit_count()
    spread = float(np.sum((measured - expected) ** 2)) / (len(individuals) - 2)
    if slope >= 0 or spread == 0:
        return as_measured
    trust = max(0.0, 1 - chance / spread)
    return [float(accuracy) for accuracy in expected + trust * (measured - expected)]


def credited(individuals: Sequence[Individual], accuracies: Sequence[float], least: int) -> list[float]:
    """Accuracies with a credit for those who have trained less, since the polish trains everyone for long.

    Cheap networks come from longer lines of descent, in which they also see more examples at a time. Costly
    ones lost against them for lack of training alone, and left a gap in the front. Errors fall by a power of
    the number of examples (learning curves: Hestness et al. 2017), in the polish by one of 0.04 to 0.15.

    Args:
        individuals: Developed individuals that compete.
        accuracies: One of each.
        least: Training examples that everyone is taken to have seen: a founder may have come with weights.
    """
    seen = [max(individual.total_examples, least) for individual in individuals]
    return [
        1 - (1 - accuracy) * (examples / max(seen)) ** CREDIT
        for accuracy, examples in zip(accuracies, seen, strict=True)
    ]


def chance_of(accuracies: Sequence[float], num_validation: int) -> float:
    """Standard error of a difference between two such accuracies, were they measured on other examples."""
    variance = sum(accuracy * (1 - accuracy) for accuracy in accuracies) / len(accuracies)
    return math.sqrt(2 * variance / num_validation)


def spread_front(
    items: Sequence[T],
    accuracy: Callable[[T], float],
    cost: Callable[[T], float],
    tolerance: float,
    most: int,
) -> list[T]:
    """Items near the Pareto front that span it, by rising cost.

    Args:
        items: To choose from.
        accuracy: Of an item.
        cost: Of an item.
        tolerance: An item stays if no cheaper one is more accurate by more than this.
        most: Number of items to keep. The cheapest and the costliest stay, as long as two do; of whoever has
            the least room between its neighbours, and the nearer of these, the less accurate goes. Room is
            the difference of their costs to the power of `EVENNESS`.
    """
    kept: list[T] = []
    best = -math.inf
    for item in sorted(items, key=lambda item: (cost(item), -accuracy(item))):
        if accuracy(item) > best - tolerance:
            kept.append(item)
        best = max(best, accuracy(item))
    sizes = np.array([max(cost(item), 1.0) ** EVENNESS for item in kept])
    while len(kept) > max(most, 2):
        crowded = 1 + int(np.argmin(sizes[2:] - sizes[:-2]))
        left, right = np.diff(sizes[crowded - 1 : crowded + 2])
        nearer = crowded - 1 if left < right else crowded + 1
        inner = [i for i in (crowded, nearer) if 0 < i < len(kept) - 1]
        worse = min(inner, key=lambda i: accuracy(kept[i]))
        del kept[worse]
        sizes = np.delete(sizes, worse)
    return kept if most > 1 else [max(kept, key=accuracy)]


def pareto_front(items: Sequence[T], accuracy: Callable[[T], float], cost: Callable[[T], float]) -> list[T]:
    """The items that no other one beats on accuracy and cost, by rising cost; the first of equals."""
    front: list[T] = []
    for item in sorted(items, key=lambda item: (cost(item), -accuracy(item))):
        if not front or accuracy(item) > accuracy(front[-1]):
            front.append(item)
    return front
