"""What the last phases of a run have under way, and for how long whoever begins later may train. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from populations.individual import Individual
from populations.schedule import Finalists, Schedule
from populations.timing import makespan


class PolishPlan:
    """What is under way in the last phases, and what the rest of the time allows.

    Whoever begins later is planned anew, with the time that those before took: a machine that slows down or
    speeds up in the last phases, which may be half of a run, would else end it late or idle. Nobody trains
    for longer than foreseen, or the last to begin, often the largest networks, would pay for all the others.

    Args:
        schedule: Of the run.
        finalists: Who is polished.

    Attributes:
        first_examples: Training examples of those who begin first, before scaling.
        kept_seconds: Kept free for drawing the front out, at a pace of 1.
    """

    def __init__(self, schedule: Schedule, finalists: Finalists) -> None:
        self.schedule = schedule
        self.first_examples = schedule.polish_examples(finalists)
        self.kept_seconds = schedule.drawing_seconds(finalists, self.first_examples)
        self._child_seconds = schedule.child_seconds  # before those who are polished count as children
        self._running: dict[int, tuple[float, float]] = {}  # when they began, how long they should take
        self._foreseen = self._taken = 0.0

    @property
    def pace(self) -> float:
        """Seconds that those who are done took, for each second that had been foreseen."""
        return self._taken / self._foreseen if self._foreseen else 1.0

    def begin(self, order: int, seconds: float) -> None:
        """Notes that an order has begun, and the seconds that it should take at a pace of 1."""
        self._running[order] = self.schedule.elapsed, seconds

    def finish(self, orders: Iterable[int]) -> None:
        """Notes that orders are done."""
        for order in orders:
            begun, foreseen = self._running.pop(order)
            self._taken += self.schedule.elapsed - begun
            self._foreseen += foreseen

    def examples(self, waiting: Sequence[Individual], heirs: int = 0) -> int:
        """Training examples of those who have not begun, before scaling: in a timed run, what time allows.

        Args:
            waiting: They.
            heirs: Children that are to be developed besides.
        """
        schedule = self.schedule
        if schedule.config.minutes is None:
            return self.first_examples
        now, pace = schedule.elapsed, self.pace
        busy = [max(0.0, begun + pace * seconds - now) for begun, seconds in self._running.values()]

        def last_seconds(examples: int) -> float:
            tasks = [pace * schedule.polish_seconds(individual, examples) for individual in waiting]
            tasks.append(pace * (max(0.0, self.kept_seconds) + heirs * self._child_seconds))
            return makespan(tasks, schedule.slots, busy)

        return schedule.most_examples(last_seconds)

    def has_time(self, seconds: float) -> bool:
        """Whether there is time for a training that should take so many seconds at a pace of 1."""
        return self.pace * seconds <= self.schedule.left

    def limit(self, seconds: float) -> float:
        """For how long a training may go on that should take so many seconds at a pace of 1."""
        schedule = self.schedule
        return math.inf if schedule.config.minutes is None else min(schedule.left, self.pace * seconds)
