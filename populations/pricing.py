"""Price lists of those who are bred from, asked for when they first are: most never are. No torch."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from populations.births import order_for_prices
from populations.config import Config
from populations.individual import Individual, Outcome
from populations.lineage import Lineage
from populations.memory import Memory
from populations.workers import Crew


class Pricing:
    """Has survivors priced, and keeps their prices.

    Who cannot be priced is left with a reason instead, and its children only train on.

    Args:
        config: Of the run.
        lineage: Store of the run.
        memory: Of the run.
    """

    def __init__(self, config: Config, lineage: Lineage, memory: Memory) -> None:
        self.config, self.lineage, self.memory = config, lineage, memory
        self._underway: set[int] = set()

    @property
    def is_done(self) -> bool:
        """Whether everyone who was asked for is priced."""
        return not self._underway

    def ask(self, population: Iterable[Individual], crew: Crew) -> None:
        """Has those of a population priced who have not been yet."""
        for individual in population:
            if _is_unpriced(individual) and individual.id not in self._underway:
                self._underway.add(individual.id)
                crew.submit(order_for_prices(individual, self.config, self.lineage.run_dir))

    def take(self, id: int, outcome: Outcome) -> None:  # noqa: A002
        """Stores the prices of an individual, or why it has none."""
        self._underway.remove(id)
        individual = self.memory.individuals[id]
        reason = "" if outcome.prices else f"it could not be priced: {outcome.reason}"
        priced = msgspec.structs.replace(individual.outcome, prices=outcome.prices, reason=reason)
        individual = msgspec.structs.replace(individual, outcome=priced)
        self.lineage.set_prices(individual)
        self.memory.update(individual)


def _is_unpriced(individual: Individual) -> bool:
    return individual.outcome.prices is None and not individual.outcome.reason
