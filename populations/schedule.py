"""The schedule of a run: how long it may still breed, and for how long its last phases train."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import NamedTuple

from evo_topo.genome import Genome
from populations.births import scaled_examples
from populations.config import Config
from populations.individual import Individual
from populations.memory import Memory
from populations.timing import development_seconds, makespan, most_that_fit

CROWDED = 1.15
"""Trainings side by side share memory and clock rate: what they take, as a multiple of what is told by the
founder, who was trained alone, or by children, who do much else. Twelve polished networks took 1.14."""
ENLARGED = 0.5
"""Of the founder's examples, those that a large step up sees."""
FOUNDER_SHARE = 0.2
"""Most of a timed run that the founder trains for."""
DRAWN, DRAWN_STEPS = 0.125, 3
"""Training examples of whoever draws the polished front out, as a share of those of a polish, and how many of
them time is kept for."""
END_SECONDS = 5.0
"""Kept free at the end of a timed run for measuring the front on the test split."""


class Finalists(NamedTuple):
    """Whom the last phases are about.

    Attributes:
        longest: Most training examples along the line of descent of any survivor of the last generation.
        promising: The survivors that would be polished.
    """

    longest: int
    promising: Sequence[Individual]


class Schedule:
    """Time of a run, what is left of it, and what that allows.

    Args:
        config: Of the run.
        founder: Genome of the founder.
        memory: Of the run; its founder is developed before anything but `elapsed` is asked.
        slots: Children developed at once.
        spent: Seconds of earlier sittings.

    Attributes:
        polished_at: When the last polish ended; 0 before the first.
    """

    polished_at = 0.0

    def __init__(self, config: Config, founder: Genome, memory: Memory, slots: int, spent: float) -> None:
        self.config, self.founder, self.memory, self.slots = config, founder, memory, slots
        self._begun = time.perf_counter() - spent

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, earlier sittings included."""
        return time.perf_counter() - self._begun

    @property
    def left(self) -> float:
        """Seconds until the last phases must be done; infinite where there is no limit."""
        minutes = self.config.minutes
        return math.inf if minutes is None else 60 * minutes - END_SECONDS - self.elapsed

    @property
    def child_seconds(self) -> float:
        """What a child takes, judged by the latest; at first by the founder, which trains longer."""
        seconds = [i.outcome.seconds for i in self.memory.recent if i.parent is not None]
        founder, recipe = self.memory.individuals[0], self.config.recipe
        return fmean(seconds) if seconds else development_seconds(founder.outcome, recipe, recipe.examples)

    @property
    def founder_seconds(self) -> float:
        """For how long the founder may train; infinite where there is no limit."""
        minutes = self.config.minutes
        return math.inf if minutes is None else FOUNDER_SHARE * 60 * minutes

    def child_examples(self, generation: int) -> int:
        """Training examples of a child of a generation, before scaling.

        What short trainings tell apart is found in the first generations; then only longer ones bring the
        front further (as in successive halving: Jamieson & Talwalkar 2016).
        """
        examples, doubling = self.config.recipe.examples, self.config.doubling
        if doubling is None:
            return examples
        most = max(examples, self.config.founder_examples)
        return min(examples << (generation - 1) // doubling, most)

    @property
    def enlarged_examples(self) -> int:
        """Training examples of a large step up: new units are of no use before that."""
        return max(1, round(ENLARGED * self.config.founder_examples))

    def first_alike(self, generation: int) -> int:
        """The first of the generations before this one whose children train as long as its own."""
        examples = self.child_examples(generation)
        return next(first for first in range(1, generation + 1) if self.child_examples(first) == examples)

    def scaled(self, examples: int, genome: Genome) -> int:
        """Training examples of a network where one as costly as the founder has so many."""
        return scaled_examples(examples, genome, self.founder, self.config.example_exponent)

    def has_time(self, finalists: Finalists) -> bool:
        """Whether one more child can be developed, those in flight be waited for, and the run be ended."""
        return 2 * self.child_seconds + self.reserve(finalists) < self.left

    def polish_examples(self, finalists: Finalists) -> int:
        """Training examples of a survivor in the polish, before scaling: in a timed run, what time allows."""
        if self.config.minutes is None:
            return self.config.polish_examples
        return self.most_examples(partial(self.last_seconds, finalists))

    def most_examples(self, seconds: Callable[[int], float]) -> int:
        """The most examples that fit into what is left of a timed run, and at least a batch.

        Args:
            seconds: What a number of examples takes.
        """
        return most_that_fit(seconds, self.left, self.config.recipe.batch_size)

    def reference_examples(self, finalists: Finalists, polish_examples: int = 0) -> int:
        """Training examples of the founder for comparison: as many as the longest line of any survivor has.

        Args:
            finalists: Whom it is compared with.
            polish_examples: Training examples that they are still going to see, before scaling. Heirs see
                those of everyone before them as well.
        """
        promising, heirs = finalists.promising, self.heirs(finalists)
        further = [self.scaled(polish_examples, i.genome) for i in promising]
        lines = [i.total_examples + more for i, more in zip(promising, further, strict=True)]
        if heirs:
            lines.append(promising[-1].total_examples + sum(further[-heirs - 1 :]))
        return max([finalists.longest, *lines])

    def polish_seconds(self, individual: Individual, examples: int) -> float:
        """Seconds that a survivor takes in the polish, with so many examples before scaling."""
        return self._crowding * development_seconds(
            individual.outcome, self.config.recipe, self.scaled(examples, individual.genome)
        )

    def draws_out(self, finalists: Finalists) -> bool:
        """Whether the polished front is drawn out: where there is a front."""
        return self._bears_prunes and len(finalists.promising) > 1 and self.config.outward > 0

    @property
    def _bears_prunes(self) -> bool:
        return self.config.mutations != "growths" and self.config.objective == "pareto"

    def heirs(self, finalists: Finalists) -> int:
        """For how many of those who are polished heirs compete: not for the costliest, nor the cheapest."""
        config, others = self.config, len(finalists.promising) - 2
        return max(0, min(config.heirs or 0, others)) if self._bears_prunes and config.inherit else 0

    def drawn_examples(self, polish_examples: int) -> int:
        """Training examples of whoever draws the front out, before scaling, by those of the polish."""
        return max(self.config.recipe.batch_size, round(DRAWN * polish_examples))

    def drawing_seconds(self, finalists: Finalists, examples: int) -> float:
        """Seconds kept for drawing the front out, with so many examples of polish before scaling."""
        if not self.draws_out(finalists):
            return 0.0
        return DRAWN_STEPS * self.polish_seconds(finalists.promising[0], self.drawn_examples(examples))

    def reference_seconds(self, examples: int) -> float:
        """Seconds that training the founder for comparison takes beside the polish."""
        return self._crowding * development_seconds(
            self.memory.individuals[0].outcome, self.config.recipe, examples
        )

    @property
    def _crowding(self) -> float:
        return 1.0 if self.slots == 1 else CROWDED

    def last_seconds(self, finalists: Finalists, examples: int) -> float:
        """Seconds that the last phases take with so many examples of polish, before scaling."""
        tasks = [self.polish_seconds(individual, examples) for individual in finalists.promising]
        if tasks:
            tasks[0] += self.drawing_seconds(finalists, examples)  # by one child after the other
            tasks[-1] += self.heirs(finalists) * self.child_seconds
        if self.config.compare:
            tasks.append(self.reference_seconds(self.reference_examples(finalists, examples)))
        first = tasks.pop() if self.config.distill and tasks else 0.0  # the teacher, whom all wait for
        return first + makespan(tasks, self.slots)

    def reserve(self, finalists: Finalists) -> float:
        """Seconds that are kept for the last phases."""
        if self.config.minutes is None or not self.config.polish_examples:
            return self.last_seconds(finalists, self.config.polish_examples)
        return self.config.polish_share * max(0.0, 60 * self.config.minutes - self.polished_at)

    def remaining(
        self, finalists: Finalists, done: int, generation: int, children: int, last: int | None
    ) -> float | None:
        """Seconds to the end of the run, as far as can be told.

        Args:
            finalists: Of the last finished generation, which is number `done`.
            done: The last finished generation.
            generation: The one under way.
            children: How many it has.
            last: The last generation that is bred; None where time decides.
        """
        config, born = self.config, self.memory.born
        if config.minutes is not None:
            return max(0.0, 60 * config.minutes - self.elapsed)
        if last is None or done < 0 or born.total() <= self.slots:
            return None
        if generation > last:  # the polish
            return self.reserve(finalists) * (1 - born[generation] / children)
        lengths = [self.child_examples(later) for later in range(done + 1, last + 1)]
        left = config.offspring * sum(lengths) / lengths[0] - born[generation] if lengths else 0
        return max(0.0, left) * self.child_seconds / self.slots + self.reserve(finalists)
