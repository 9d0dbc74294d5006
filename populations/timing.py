"""How long the last phases of a run will take, judged by how long its children took."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evo_topo.genome import Genome
from populations.individual import Individual, Outcome


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
        reference_examples: Training examples of the founder for comparison.
        slots: Children developed at once.
    """
    polish = [_pace(i.outcome) * polish_examples(i.genome) for i in population]
    reference = _pace(founder.outcome) * reference_examples
    return max(reference, *polish, (sum(polish) + reference) / slots)


def _pace(outcome: Outcome) -> float:
    """Seconds per training example, all else that a development takes included."""
    return outcome.seconds / max(outcome.examples, 1)
