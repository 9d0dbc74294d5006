"""How long the last phases of a run will take, judged by how long its children took."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evo_topo.recipe import Recipe
from populations.individual import Outcome

STEP_SHARE = 0.45
"""Share of the time of a step that a larger batch does not prolong: launches and set-up. A guess, from small
networks on a CPU; who plans by it corrects it by what trainings take."""


def makespan(tasks: Sequence[float], slots: int, busy: Sequence[float] = ()) -> float:
    """Seconds until the last of some tasks is done, where each free slot takes the longest that is left.

    Args:
        tasks: Seconds of each.
        slots: Tasks done at once.
        busy: Seconds for which slots are taken already; at most one entry per slot.
    """
    ends, last = [*busy, *[0.0] * (slots - len(busy))], 0.0
    for seconds in sorted(tasks, reverse=True):
        slot = ends.index(min(ends))
        ends[slot] += seconds
        last = max(last, ends[slot])
    return last


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


def relative_seconds(recipe: Recipe, examples: int) -> float:
    """About how long an example takes in a training of so many, as a share of that with `batch_size`."""
    return 1 - STEP_SHARE * (1 - recipe.batch_size / recipe.batch_of(examples))


def development_seconds(outcome: Outcome, recipe: Recipe, examples: int) -> float:
    """What a development like this one would take with another number of training examples.

    Args:
        outcome: Of a training by the same recipe but for its length.
        recipe: How it trained.
        examples: The other number.
    """
    per_example = outcome.training_seconds / max(outcome.examples, 1)
    now, then = (relative_seconds(recipe, max(n, 1)) for n in (examples, outcome.examples))
    return outcome.seconds - outcome.training_seconds + per_example * now / then * examples
