"""The polish: survivors that span the front train on, each for so long that a timed run ends in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import count

import msgspec

from populations.births import Birth, further_training
from populations.config import Config
from populations.dispatch import Dispatch, EvolutionError
from populations.generations import Generations
from populations.individual import Individual
from populations.orders import Order, Teacher
from populations.polish_plan import PolishPlan
from populations.reference import reference_from, reference_order
from populations.schedule import Schedule
from populations.selection import kept_after_polish

Wait = Callable[[int], Iterable[int]]


def polish(
    config: Config, generations: Generations, schedule: Schedule, dispatch: Dispatch, wait: Wait
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
    trainings = _Trainings(config, generations, schedule, dispatch, wait)
    if config.compare:
        trainings.begin_reference()
    teacher = trainings.teacher() if config.distill and trainings.waiting else None
    while trainings.waiting or dispatch.crew.is_busy:
        while trainings.waiting and dispatch.crew.has_free_slot:
            trainings.begin(trainings.waiting[0], trainings.plan.examples(trainings.waiting), teacher)
        if dispatch.crew.is_busy:
            trainings.wait()
    children = [birth.id for birth in trainings.births.values()]
    generations.select(generations.last + 1, children, schedule.elapsed, is_polish=True)


class _Trainings:
    """Trainings of the last phases; arguments as of `polish`.

    Attributes:
        births: Children of those who are polished, by their parents' ids.
        waiting: Who has not begun; whoever takes longest comes first.
        plan: How long they train.
    """

    def __init__(
        self, config: Config, generations: Generations, schedule: Schedule, dispatch: Dispatch, wait: Wait
    ) -> None:
        self._config, self._generations, self._wait = config, generations, wait
        self._schedule, self._dispatch = schedule, dispatch
        generation, finalists = generations.last + 1, generations.finalists
        ids = count(generations.memory.first_id(generation))
        self.births: dict[int, Birth] = {
            parent.id: further_training(parent, next(ids), generation) for parent in finalists.promising
        }
        self.plan = plan = PolishPlan(schedule, finalists)
        self.waiting = sorted(
            finalists.promising, key=lambda parent: -schedule.polish_seconds(parent, plan.first_examples)
        )
        self._reference: Order | None = None

    def begin(self, parent: Individual, examples: int, teacher: Teacher | None = None) -> None:
        """Has one of those who wait trained on so many examples, before scaling."""
        self.waiting.remove(parent)
        birth, foreseen = self.births[parent.id], self._schedule.polish_seconds(parent, examples)
        scaled, limit = partial(self._schedule.scaled, examples), self.plan.limit(foreseen)
        if self._dispatch.submit(birth, scaled, teacher=teacher, seconds=limit):
            self.plan.begin(birth.id, foreseen)

    def begin_reference(self) -> None:
        """Has the founder trained for comparison, unless that is done."""
        generations, schedule, dispatch = self._generations, self._schedule, self._dispatch
        examples = schedule.reference_examples(generations.finalists, self.plan.first_examples)
        order = reference_order(self._config, generations.founder, dispatch.lineage.run_dir, examples)
        foreseen = schedule.reference_seconds(examples)
        order = msgspec.structs.replace(order, seconds=self.plan.limit(foreseen))
        self._reference = order
        if not order.read_outcome():
            dispatch.crew.submit(order)
            self.plan.begin(order.id, foreseen)

    def wait(self) -> None:
        """Waits until some are done."""
        self.plan.finish(self._wait(len(self.births)))

    def teacher(self) -> Teacher:
        """Whom the others learn from, once trained: the founder for comparison, or the costliest of them."""
        best, order = self._generations.finalists.promising[-1], self._reference
        if order is None:
            self.begin(best, self.plan.first_examples)
        while self._dispatch.crew.is_busy:
            self.wait()
        if order is None:
            polished = self._generations.memory.individuals[self.births[best.id].id]
            network = kept_after_polish(polished, best)
        elif outcome := order.read_outcome():
            network = reference_from(outcome, self._generations.founder)
        else:  # a failure is not left on disk
            raise EvolutionError(
                "the founder could not be trained for comparison, so nobody can learn from it; resume the "
                "run with --no-compare: then the costliest of those who are polished teaches"
            )
        return Teacher(
            network.id, network.genome.to_json(), network.outcome.weights_sha256, self._config.distill
        )
