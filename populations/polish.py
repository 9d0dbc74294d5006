"""The polish: survivors that span the front train on, each for so long that a timed run ends in time.

Of the costliest, each is pruned to the size of the next one, in whose place the prune is polished if it is
better. The cheapest is pruned on, as far as the accuracy floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count

import msgspec

from populations.births import Birth, further_training
from populations.calibrating import calibration_from
from populations.config import Config
from populations.dispatch import Dispatch, EvolutionError
from populations.generations import Generations
from populations.orders import Order, Teacher
from populations.polish_plan import PolishPlan
from populations.pruning_on import PruningOn
from populations.reference import reference_from, reference_order
from populations.schedule import Schedule
from populations.selection import kept_after_polish

Wait = Callable[[int], Iterable[int]]


def polish(
    config: Config, generations: Generations, schedule: Schedule, dispatch: Dispatch, wait: Wait
) -> None:
    """One more generation, in which every promising survivor has a child that trains on for longer.

    The founder for comparison trains beside them, or before them if they learn from it. Whoever others wait
    for comes first; then those that take longest: none is waited for alone.

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
    while True:
        trainings.prune_on(teacher)
        while trainings.waiting and dispatch.crew.has_free_slot:
            trainings.begin_next(teacher)
        if not dispatch.crew.is_busy:
            break
        trainings.wait()
    generations.select(generations.last + 1, trainings.children, schedule.elapsed, is_polish=True)


class _Trainings:
    """Trainings of the last phases; arguments as of `polish`.

    Attributes:
        children: Ids of those who are polished, and of those who draw the front out.
        waiting: Who has not begun and waits for nobody, in turn.
        plan: How long they train.
    """

    def __init__(
        self, config: Config, generations: Generations, schedule: Schedule, dispatch: Dispatch, wait: Wait
    ) -> None:
        self._config, self._generations, self._wait = config, generations, wait
        self._schedule, self._dispatch = schedule, dispatch
        generation, finalists = generations.last + 1, generations.finalists
        promising, heirs = finalists.promising, schedule.heirs(finalists)
        self._places = list(promising[::-1][1 : heirs + 1])
        now = [parent for parent in promising if parent not in self._places]
        ids = count(generations.memory.first_id(generation))  # parents come before their children
        self._births = {parent.id: further_training(parent, next(ids), generation) for parent in now}
        numbers = [(next(ids), next(ids)) for _ in self._places]
        self.children = [*(birth.id for birth in self._births.values()), *(further for _, further in numbers)]
        self._born = len(promising)
        self.plan = PolishPlan(schedule, finalists)
        seconds = partial(schedule.polish_seconds, examples=self.plan.first_examples)
        self.waiting = sorted(now, key=seconds, reverse=True)
        self._reference: Order | None = None
        self._heirs: Iterator[Birth | None] = iter(())
        self._outward: Iterator[Birth | None] = iter(())
        calibration = calibration_from(generations.memory.lessons_until(generations.last))
        pruning = PruningOn(config, generations, dispatch, calibration)
        if schedule.draws_out(finalists):
            self.waiting.sort(key=lambda parent: parent is not promising[0])
            self._outward = pruning.outward(self._births[promising[0].id], ids)
        if self._places:
            self.waiting.sort(key=lambda parent: parent is not promising[-1])
            self._heirs = pruning.heirs(self._births[promising[-1].id], tuple(self._places), numbers)

    def begin_next(self, teacher: Teacher | None = None) -> None:
        """Has the next one of those who wait trained on, for as long as time allows."""
        examples = self.plan.examples([*self.waiting, *self._places], heirs=len(self._places))
        self._submit(self._births[self.waiting.pop(0).id], examples, teacher)

    def prune_on(self, teacher: Teacher | None) -> None:
        """Has those developed who others had to be waited for, as soon as it can be told who they are."""
        for birth in self._heirs:
            if birth is None:
                break
            if birth.edit is not None:
                examples = self._schedule.child_examples(self._generations.last)
                self._submit(birth, examples, None, self._config.inherited_rate)
            else:
                examples = self.plan.examples([*self.waiting, *self._places], heirs=len(self._places) - 1)
                del self._places[0]
                self._submit(birth, examples, teacher)
        for birth in self._outward:
            if birth is None:
                return
            examples = self._schedule.drawn_examples(self.plan.first_examples)
            if not self._has_time(birth, examples):
                self._outward = iter(())
                break
            self.children.append(birth.id)
            self._submit(birth, examples, teacher)
            self.plan.kept_seconds -= self._foreseen(birth, examples)
        self.plan.kept_seconds = 0.0

    def _has_time(self, birth: Birth, examples: int) -> bool:
        is_developed = birth.id in self._generations.memory.individuals
        return is_developed or self.plan.has_time(self._foreseen(birth, examples))

    def _foreseen(self, birth: Birth, examples: int) -> float:
        """Seconds that a birth takes, judged by its parent, with so many examples before scaling."""
        return 0.0 if birth.parent is None else self._schedule.polish_seconds(birth.parent, examples)

    def _submit(self, birth: Birth, examples: int, teacher: Teacher | None, rate: float = 1.0) -> None:
        """Has a birth developed, with so many examples before scaling, for no longer than is foreseen."""
        foreseen = self._foreseen(birth, examples)
        scaled, limit = partial(self._schedule.scaled, examples), self.plan.limit(foreseen)
        self._born += birth.edit is not None
        if self._dispatch.submit(birth, scaled, rate, teacher, limit):
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
        self.plan.finish(self._wait(self._born))

    def teacher(self) -> Teacher:
        """Whom the others learn from, once trained: the founder for comparison, or the costliest of them."""
        best, order = self._generations.finalists.promising[-1], self._reference
        if order is None:
            self.waiting.remove(best)
            self._submit(self._births[best.id], self.plan.first_examples, None)
        while self._dispatch.crew.is_busy:
            self.wait()
        if order is None:
            polished = self._generations.memory.individuals[self._births[best.id].id]
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
