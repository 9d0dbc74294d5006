"""How long the last phases of a run will take, judged by how long its children took."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evo_topo.genome import Genome
from populations.individual import Individual, Outcome

CROWDED = 1.15
"""The founder was trained alone; beside others, which share memory and clock rate, it takes longer."""


def last_phases_seconds(
    population: Sequence[Individual],
    founder: Individual,
    polish_examples: Callable[[Genome], int],
    reference_examples: int,
    slots: int,
) -> float:
    """Seconds that polishing, and training the founder for comparison beside it, will take.

    Args:
        population: Who is polished.
        founder: The founder as it was developed.
        polish_examples: Training examples of a network in the polish.
        reference_examples: Training examples of the founder for comparison; 0 where there is none.
        slots: Children developed at once.
    """
    tasks = [development_seconds(i.outcome, polish_examples(i.genome)) for i in population]
    if reference_examples:
        crowded = 1.0 if slots == 1 else CROWDED
        tasks.append(crowded * development_seconds(founder.outcome, reference_examples))
    return makespan(tasks, slots)


def makespan(tasks: Sequence[float], slots: int) -> float:
    """Seconds until the last of some tasks is done, where each free slot takes the longest that is left.

    Args:
        tasks: Seconds of each.
        slots: Tasks done at once.
    """
    ends = [0.0] * slots
    for seconds in sorted(tasks, reverse=True):
        ends[ends.index(min(ends))] += seconds
    return max(ends)


def most_that_fit(seconds: Callable[[int], float], limit: float, at_least: int) -> int:
    """The largest number of examples that takes no longer than a time limit, to about a percent.

    Args:
        seconds: What a number of examples takes; rises.
        limit: In seconds.
        at_least: The answer where not even this many fit.
    """
    examples, step = at_least, 2.0
    while step > 1.01:
        more = round(step * max(examples, 1))
        if more > examples and seconds(more) <= limit:
            examples = more
        else:
            step **= 0.5
    return examples


def development_seconds(outcome: Outcome, examples: int) -> float:
    """What a development like this one would take with another number of training examples."""
    per_example = outcome.training_seconds / max(outcome.examples, 1)
    return outcome.seconds - outcome.training_seconds + per_example * examples
