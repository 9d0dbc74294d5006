"""The finished generations of a run: who survived each of them, and who is on the front now."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from deap import tools

from evo_topo.genome import Genome
from populations.breeding import make_toolbox
from populations.config import Config
from populations.individual import Individual
from populations.lineage import Lineage
from populations.memory import Memory
from populations.orders import weights_path
from populations.records import LineageError
from populations.schedule import Finalists
from populations.selection import Judge, kept_after_polish


class Generations:
    """Who survived, by DEAP's selection; all of it is in the lineage as well.

    Args:
        config: Of the run.
        founder: Its founder.
        num_validation: Number of validation examples.
        lineage: Store of the run, possibly with earlier generations.
        memory: Individuals of that lineage.

    Attributes:
        survivors: Ids of the survivors of each finished generation, by its number.
        judge: Compares individuals.
        toolbox: DEAP's.
        logbook: DEAP's.
        front: Who is on the front of the last finished generation, by rising FLOPs.
        finalists: Whom the last phases would be about.
    """

    def __init__(
        self, config: Config, founder: Genome, num_validation: int, lineage: Lineage, memory: Memory
    ) -> None:
        self.config, self.founder, self.lineage, self.memory = config, founder, lineage, memory
        self.judge = Judge(config, num_validation)
        self.toolbox = make_toolbox(config)
        self.survivors = lineage.populations()
        missing = {i for ids in self.survivors.values() for i in ids} - memory.individuals.keys()
        if missing:
            raise LineageError(f"survivors {sorted(missing)} are missing in the lineage")
        self.statistics = tools.MultiStatistics(
            accuracy=tools.Statistics(lambda individual: individual.outcome.accuracy),
            flops=tools.Statistics(lambda individual: individual.flops),
        )
        for name, function in (("min", np.min), ("median", np.median), ("max", np.max)):
            self.statistics.register(name, function)
        self.logbook = tools.Logbook()
        for generation in self.survivors:
            self._record(generation)
        self._judge()

    @property
    def last(self) -> int:
        """The last finished generation; -1 before the founder is developed."""
        return next(reversed(self.survivors), -1)

    @property
    def is_taught(self) -> bool:
        """Whether survivors have learned from a teacher, if there is one: who is polished does."""
        return bool(self.lineage.polished())

    @property
    def population(self) -> list[Individual]:
        """The survivors of the last finished generation, by id."""
        return self.population_of(self.last) if self.survivors else []

    def population_of(self, generation: int) -> list[Individual]:
        """The survivors of a finished generation that is still bred from, by id."""
        return [self.memory.individuals[i] for i in self.survivors[generation]]

    def select(
        self, generation: int, children: Sequence[int], elapsed: float, is_polish: bool = False
    ) -> None:
        """Selects among the population and its children, and finishes a generation.

        Args:
            generation: Its number.
            children: Ids of all its children, developed.
            elapsed: Seconds since the run began.
            is_polish: Whether the children are survivors who were polished, and who draws the front out.
        """
        born = [self.memory.individuals[i] for i in children]
        if is_polish:
            further = [i for i in born if i.edit is None]
            kept = [kept_after_polish(i, self.memory.individuals[i.parent or 0]) for i in further]
            drawn = [i for i in born if i.edit is not None and self.judge.is_able(i)]
            chosen = self.judge.select_polished([*kept, *drawn], self.population, generation, self.toolbox)
        else:
            able = [child for child in born if child.is_alive]
            chosen = self.judge.select([*self.population, *able], generation, self.toolbox, self.is_taught)
        self.finish(generation, chosen, elapsed, is_polish)

    def finish(
        self, generation: int, survivors: Sequence[Individual], elapsed: float, is_polish: bool = False
    ) -> None:
        """Stores who survived, then removes the weights that nobody will be bred from any more."""
        ids = sorted({individual.id for individual in survivors})
        self.lineage.set_population(generation, ids, elapsed, is_polish)
        self.survivors[generation] = ids
        self._record(generation)
        reach = 1 + math.ceil((self.config.ahead or 0) / self.config.offspring)
        sources = range(generation if is_polish else generation - reach, generation + 1)
        kept = {i for source in sources for i in self.survivors.get(source, [])}
        for path in weights_path(self.lineage.run_dir, 0).parent.glob("*.safetensors"):
            owner = self.memory.individuals.get(int(path.stem)) if path.stem.isdigit() else None
            if owner is not None and owner.generation <= generation and owner.id not in kept:
                path.unlink()
        self.memory.forget(generation, kept)
        self._judge()

    def _judge(self) -> None:
        """Finds who is on the front and who spans it: once, because every report and every deadline asks.

        Once survivors are polished, the others stand back: a front of both would compare unlike things. But
        whose polish failed or did harm is there as it was.
        """
        population = self.population
        phases = self.lineage.polished()
        is_polished = self.last in phases  # no more so where a finished run goes on
        left = self.lineage.unpolished() if is_polished else set()  # which reads all rows
        polished = [i for i in population if is_polished and (i.generation in phases or i.id in left)]
        self.front = self.judge.front(polished or population, self.is_taught) if population else []
        others = [i for i in population if i.genome != self.founder]  # which has a test of its own
        able = others if self.config.compare and others else population
        longest = max((i.total_examples for i in population), default=0)
        self.finalists = Finalists(longest, self.judge.promising(able, self.is_taught) if able else [])

    def _record(self, generation: int) -> None:
        """Adds a finished generation to DEAP's logbook."""
        children, survivors = self.memory.born[generation], self.population_of(generation)
        self.logbook.record(generation=generation, children=children, **self.statistics.compile(survivors))
