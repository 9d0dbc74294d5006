"""The evolution: DEAP chooses and selects, workers develop, the lineage remembers.

Generations overlap, so that no worker waits for the slowest child of a generation: a child is bred as soon
as all but the last `ahead` children before it are judged. What it is bred from depends on its number alone,
so a run on the CPU gives the same lineage whatever the number of workers (up to `ahead`), and a resumed run
ends as the uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import count
from typing import NamedTuple

from evo_topo.calibration import Calibration
from evo_topo.cost import count_flops
from evo_topo.genome import Genome
from populations.births import Birth
from populations.breeding import breed
from populations.calibrating import calibration_from, outlook_from
from populations.config import Config
from populations.dispatch import Dispatch, EvolutionError
from populations.generations import Generations
from populations.hurdles import Outlook, hurdle_for, lowest_losses
from populations.lineage import Lineage
from populations.memory import Memory
from populations.orders import weights_path
from populations.parents import Parents
from populations.polish import polish
from populations.progress import Progress, Report
from populations.reference import forget_results
from populations.schedule import Schedule
from populations.slots import Slots
from populations.workers import Crew


class Place(NamedTuple):
    """A child to come.

    Attributes:
        id: Its number.
        generation: Its generation.
        source: The generation whose survivors it is bred from.
    """

    id: int
    generation: int
    source: int


class Circumstances(NamedTuple):
    """What children with the same source and generation share.

    Attributes:
        parents: Who they are bred from.
        lowest: What they compete with, from `lowest_losses`.
        calibration: What predictions came to so far.
        outlook: How earlier children ended that trained as long.
    """

    parents: Parents
    lowest: list[tuple[int, float]]
    calibration: Calibration
    outlook: Outlook | None


class Evolution:
    """One run: mu + lambda over overlapping generations, with all state in the lineage.

    Args:
        config: How to evolve.
        founder: Genome to start from.
        num_validation: Number of validation examples.
        lineage: Store of the run, possibly with earlier generations.
        slots: Where children are developed.
        report: Called after every developed child.
    """

    def __init__(
        self,
        config: Config,
        founder: Genome,
        num_validation: int,
        lineage: Lineage,
        slots: Slots,
        report: Report,
    ) -> None:
        self.config = config = config.for_slots(len(slots.devices))
        self.founder = founder
        self.lineage = lineage
        self.report = report
        self.memory = Memory(lineage.individuals())
        self.generations = Generations(config, founder, num_validation, lineage, self.memory)
        spent = max(lineage.seconds().values(), default=0.0)
        self.schedule = Schedule(config, founder, self.memory, len(slots.devices), spent)
        self.dispatch = Dispatch(config, lineage, self.memory, Crew(slots))
        self.schedule.polished_at = max((lineage.seconds()[g] for g in lineage.polished()), default=0.0)
        self._last = self._last_to_breed()
        self._priced = -1  # the latest generation whose survivors were asked to be priced
        self._circumstances = lru_cache(maxsize=1)(self._circumstances_of)

    def run(self) -> None:
        """Evolves until the generations are done or the time is up, then polishes the survivors."""
        if self.generations.last < 0:
            self._found()
        if self.lineage.polishing() is not None:  # as it was begun, whatever is asked for now
            self._polish()
            self._last = self._last_to_breed()
        if self._last is None or self.generations.last < self._last:
            self._evolve()
        if self.config.polish_examples and self.generations.last not in self.lineage.polished():
            self._polish()

    def _last_to_breed(self) -> int | None:
        """The last generation to breed; None where time decides. Each polish before has a number as well."""
        generations = self.config.generations
        return None if generations is None else generations + len(self.lineage.polished())

    def _polish(self) -> None:
        generation = self.generations.last + 1
        if self.lineage.polishing() is None:
            for id_ in self.lineage.begin_polish(generation):
                weights_path(self.lineage.run_dir, id_).unlink(missing_ok=True)
            self.memory.drop_from(generation)
        phase = "polishing the survivors"
        self._report(generation, len(self.generations.finalists.promising), phase)
        wait = partial(self._wait, phase=phase)
        polish(self.config, self.generations, self.schedule, self.dispatch, wait)
        self.schedule.polished_at = self.schedule.elapsed

    def _found(self) -> None:
        self._report(0, 1)
        birth, seconds = Birth(0, 0, None, None, self.founder, None), self.schedule.founder_seconds
        self.dispatch.submit(birth, lambda _: self.config.founder_examples, seconds=seconds)
        while self.dispatch.crew.is_busy:
            self._wait(1)
        founder = self.memory.individuals[0]
        if not founder.is_alive:
            raise EvolutionError(f"the founder could not be trained: {founder.outcome.reason}")
        self.generations.finish(0, [founder], self.schedule.elapsed)

    def _evolve(self) -> None:
        """Breeds whenever a worker has room and the population to breed from is known and priced."""
        waiting: deque[Birth] = deque()  # bred, and not selected upon yet
        self.memory.know_all_before(self.generations.last + 1)
        places = self._places()
        place = next(places, None)
        if place is not None:  # what was measured, and the founder that it was compared with, are out of date
            forget_results(self.lineage.run_dir)
        self._report(self.generations.last + 1, self.config.offspring)
        while place or waiting or self.dispatch.crew.is_busy:
            while place and self.dispatch.crew.has_room and self._is_ready(place.source):
                waiting.append(self._breed(place))
                self._submit(waiting[-1])
                place = next(places, None)
            if self.dispatch.crew.is_busy:
                self._wait(self.config.offspring)
            self._select_finished(waiting, is_last=place is None)

    def _places(self) -> Iterator[Place]:
        """Every child to come, as long as there are generations or there is time for it."""
        config, first = self.config, self.generations.last + 1
        base, ahead = max(self.lineage.polished(), default=0), config.ahead or 0
        ids = count(self.memory.first_id(first))
        for generation in count(first) if self._last is None else range(first, self._last + 1):
            for index in range(config.offspring):
                if not self.schedule.has_time(self.generations.finalists):
                    return
                behind = max(0, math.ceil((ahead - index) / config.offspring))
                yield Place(next(ids), generation, max(base, generation - 1 - behind))

    def _is_ready(self, source: int) -> bool:
        """Whether a generation can be bred from: it is finished, and its survivors are priced."""
        if source > self.generations.last:
            return False
        if source != self._priced:
            self.dispatch.ask_prices(self.generations.population_of(source))
            self._priced = source
        return not self.dispatch.is_pricing

    def _breed(self, place: Place) -> Birth:
        """Plans a child of the population that its place names."""
        here = self._circumstances(place.source, place.generation)
        ceiling = math.inf if self.config.ceiling is None else self.config.ceiling * count_flops(self.founder)
        toolbox, known = self.generations.toolbox, self.memory.known
        id, generation, learned = place.id, place.generation, here.calibration  # noqa: A001
        birth = breed(self.config, toolbox, here.parents, ceiling, id, generation, learned, known)
        known |= {option.genome.fingerprint for option in birth.options}
        return birth._replace(hurdle=self._hurdle_for(birth, here))

    def _submit(self, birth: Birth) -> None:
        """Has a child developed, in a short training; who is much larger than its parent, in a long one."""
        schedule, short = self.schedule, self.schedule.child_examples(birth.generation)
        if birth.is_enlarged:
            seconds = schedule.founder_seconds
            self.dispatch.submit(birth, lambda _: max(short, schedule.enlarged_examples), seconds=seconds)
        else:
            self.dispatch.submit(birth, partial(schedule.scaled, short), self.config.inherited_rate)

    def _circumstances_of(self, source: int, generation: int) -> Circumstances:
        population, alike = self.generations.population_of(source), self.schedule.first_alike(generation)
        parents = self.generations.judge.parents(population, generation, self.generations.is_taught)
        return Circumstances(
            Parents.of(parents, self.config.accuracy_floor, count_flops(self.founder)),
            lowest_losses(population),
            calibration_from(self.memory.lessons_until(source)),
            outlook_from(self.memory.lessons_until(source, alike)),
        )

    def _hurdle_for(self, birth: Birth, here: Circumstances) -> float | None:
        """The most that its halfway loss may be; only mutations that compete for the front have a hurdle."""
        if birth.edit is None or birth.is_enlarged or self.config.objective != "pareto":
            return None
        flops = [count_flops(option.genome) for option in birth.options]
        return hurdle_for(flops, here.lowest, here.outlook)

    def _select_finished(self, waiting: deque[Birth], is_last: bool) -> None:
        """Selects upon every generation, in turn, whose children are all developed."""
        while waiting:
            generation = waiting[0].generation
            births = [birth for birth in waiting if birth.generation == generation]
            is_whole = is_last or len(births) == self.config.offspring
            if not is_whole or any(birth.id not in self.memory.individuals for birth in births):
                return
            for _ in births:
                waiting.popleft()
            self.generations.select(generation, [birth.id for birth in births], self.schedule.elapsed)

    def _wait(self, children: int, phase: str | None = None) -> list[int]:
        """Stores whoever is developed next; reports on the generation, which has so many children.

        Returns:
            The ids of the orders that are done.
        """
        done = []
        for number in self.dispatch.wait():
            done.append(number)
            self._report(self.generations.last + 1, children, phase)
        return done

    def report_phase(self, phase: str) -> None:
        """Reports what is being done after the last generation."""
        self._report(self.generations.last, max(1, self.memory.born[self.generations.last]), phase)

    def _report(self, generation: int, children: int, phase: str | None = None) -> None:
        front = [(i.id, i.outcome.accuracy or 0.0, i.flops) for i in self.generations.front]
        done, finalists = self.generations.last, self.generations.finalists
        self.report(
            Progress(
                run_dir=self.lineage.run_dir,
                phase=phase or ("evolving" if generation else "training the founder"),
                generation=generation,
                generations=self._last,
                children_done=self.memory.born[generation],
                children=children,
                failed=self.memory.failed,
                stopped=self.memory.stopped,
                best_accuracy=max((accuracy for _, accuracy, _ in front), default=0.0),
                front=front,
                elapsed=self.schedule.elapsed,
                remaining=self.schedule.remaining(finalists, done, generation, children, self._last),
            )
        )
