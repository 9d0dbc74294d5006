"""The polish: survivors that span the front train on, each for so long that a timed run ends in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count

from evo_topo.genome import Genome
from populations.births import further_training
from populations.config import Config
from populations.dispatch import Dispatch, EvolutionError
from populations.generations import Generations
from populations.individual import Individual
from populations.orders import Order, Teacher
from populations.reference import reference_from, reference_order
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
    """

    def __init__(self, schedule: Schedule, finalists: Finalists) -> None:
        self.schedule = schedule
        self.first_examples = schedule.polish_examples(finalists)
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

    def examples(self, waiting: Sequence[Individual]) -> int:
        """Training examples of those who have not begun, before scaling: in a timed run, what time allows."""
        schedule = self.schedule
        if schedule.config.minutes is None:
            return self.first_examples
        now, pace = schedule.elapsed, self.pace
        busy = [max(0.0, begun + pace * seconds - now) for begun, seconds in self._running.values()]

        def last_seconds(examples: int) -> float:
            tasks = [pace * schedule.polish_seconds(individual, examples) for individual in waiting]
            return makespan(tasks, schedule.slots, busy)

        return schedule.most_examples(last_seconds)

    def limit(self, seconds: float) -> float:
        """For how long a training may go on that should take so many seconds at a pace of 1."""
        schedule = self.schedule
        return math.inf if schedule.config.minutes is None else min(schedule.left, self.pace * seconds)


def polish(
    config: Config,
    generations: Generations,
    schedule: Schedule,
    dispatch: Dispatch,
    wait: Callable[[int], Iterable[int]],
) -> None:
    """One more generation, in which every promising survivor has a child that trains on for longer.

    The founder for comparison trains beside them, or before them if they learn from it. Those that take
    longest come first: none is waited for alone.

    Args:
        config: Of the run.
        generations: Of the run; the one of the polish is finished in the end.
        schedule: Of the run.
        dispatch: Has them developed.
        wait: Given how many there are, waits for some orders and tells which.

    Raises:
        EvolutionError: When the founder for comparison, which is to teach, cannot be trained.
    """
    generation, finalists = generations.last + 1, generations.finalists
    ids = count(generations.memory.first_id(generation))
    births = {parent.id: further_training(parent, next(ids), generation) for parent in finalists.promising}
    plan, seconds = PolishPlan(schedule, finalists), schedule.polish_seconds
    waiting = sorted(finalists.promising, key=lambda parent: -seconds(parent, plan.first_examples))

    def begin(parent: Individual, examples: int, teacher: Teacher | None = None) -> None:
        birth, foreseen = births[parent.id], seconds(parent, examples)
        scaled, limit = partial(schedule.scaled, examples), plan.limit(foreseen)
        if dispatch.submit(birth, scaled, teacher=teacher, seconds=limit):
            plan.begin(birth.id, foreseen)

    def finish() -> None:
        while dispatch.crew.is_busy:
            plan.finish(wait(len(births)))

    teacher = None
    if config.compare:
        examples = schedule.reference_examples(finalists, plan.first_examples)
        order = reference_order(config, generations.founder, dispatch.lineage.run_dir, examples)
        if not order.read_outcome():
            dispatch.crew.submit(order)
            plan.begin(order.id, schedule.reference_seconds(examples))
        if config.distill:
            finish()
            teacher = _teacher(config, _developed(order, generations.founder))
    elif config.distill and waiting:
        best = finalists.promising[-1]
        waiting.remove(best)
        begin(best, plan.first_examples)
        finish()
        polished = generations.memory.individuals[births[best.id].id]
        teacher = _teacher(config, polished if polished.is_alive else best)
    while waiting or dispatch.crew.is_busy:
        while waiting and dispatch.crew.has_free_slot:
            examples = plan.examples(waiting)
            begin(waiting.pop(0), examples, teacher)
        if dispatch.crew.is_busy:
            plan.finish(wait(len(births)))
    children = [birth.id for birth in births.values()]
    generations.select(generation, children, schedule.elapsed, is_polish=True)


def _developed(order: Order, founder: Genome) -> Individual:
    """The founder for comparison, once its order is done."""
    outcome = order.read_outcome()
    if outcome is None:  # a failure is not left on disk
        raise EvolutionError(
            "the founder could not be trained for comparison, so nobody can learn from it; lower the "
            "learning rate, or leave out distill"
        )
    return reference_from(outcome, founder)


def _teacher(config: Config, network: Individual) -> Teacher:
    """A network, for those who are polished to learn from."""
    return Teacher(network.id, network.genome.to_json(), network.outcome.weights_sha256, config.distill)
