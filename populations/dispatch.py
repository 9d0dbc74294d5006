"""Between driver and workers: births go out as orders, and outcomes come into the lineage. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import msgspec

from evo_topo.genome import Genome
from populations.births import Birth, as_individual, order_for
from populations.config import Config
from populations.individual import Individual
from populations.lineage import Lineage
from populations.memory import Memory
from populations.orders import Rival, Teacher, outcome_path
from populations.pricing import Pricing
from populations.workers import Crew


class EvolutionError(RuntimeError):
    """A run cannot go on; the message says why."""


class Dispatch:
    """Has births developed and survivors priced, and stores what comes of it.

    Args:
        config: Of the run.
        lineage: Store of the run.
        memory: Of the run.
        crew: Who develops and prices.
    """

    def __init__(self, config: Config, lineage: Lineage, memory: Memory, crew: Crew) -> None:
        self.config, self.lineage, self.memory, self.crew = config, lineage, memory, crew
        self._pricing = Pricing(config, lineage, memory)
        self._underway: dict[int, Birth] = {}

    def submit(
        self,
        birth: Birth,
        examples: Callable[[Genome], int],
        rate: float = 1.0,
        teacher: Teacher | None = None,
        seconds: float = math.inf,
    ) -> bool:
        """Has a birth developed, unless the lineage holds it already.

        Args:
            birth: The child.
            examples: Training examples that a network sees.
            rate: Its largest learning rate, as a share of the recipe's.
            teacher: Whom it learns from beside the targets.
            seconds: For how long it may train.

        Returns:
            Whether the lineage did not hold it.

        Raises:
            EvolutionError: When the lineage holds another child of this number.
        """
        stored = self.memory.individuals.get(birth.id)
        if stored is None:
            self._underway[birth.id] = birth
            order = order_for(birth, self.config, self.lineage.run_dir, examples(birth.genome), rate, teacher)
            rivals = [Rival(rival.edit.to_json(), examples(rival.genome)) for rival in birth.rivals]
            outcome_path(self.lineage.run_dir, birth.id).unlink(missing_ok=True)  # of a driver that died
            self.crew.submit(msgspec.structs.replace(order, rivals=tuple(rivals), seconds=seconds))
            return True
        parent = None if birth.parent is None else birth.parent.id
        if stored.parent != parent or stored.edit not in [option.edit for option in birth.options]:
            raise EvolutionError(
                f"the lineage holds another individual {birth.id} than this configuration breeds; if the run "
                "was stopped while survivors were polished, finish it as it was before changing anything"
            )
        return False

    def ask_prices(self, population: Iterable[Individual]) -> None:
        """Has everyone of a population priced who is not yet."""
        self._pricing.ask(population, self.crew)

    @property
    def is_pricing(self) -> bool:
        """Whether anyone who was asked for is not priced yet."""
        return not self._pricing.is_done

    def wait(self) -> Iterator[int]:
        """Waits for at least one order; stores what came of each, and yields those that were no prices."""
        for order, outcome in self.crew.wait():
            if order.criterion is not None:
                self._pricing.take(order.id, outcome)
                continue
            if birth := self._underway.pop(order.id, None):  # else its outcome stays on disk
                individual = as_individual(birth, outcome, self.config.inherit)
                self.lineage.add(individual)
                self.memory.add(individual, birth.parent)
                outcome_path(self.lineage.run_dir, individual.id).unlink(missing_ok=True)
            yield order.id
