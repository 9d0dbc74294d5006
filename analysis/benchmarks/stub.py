"""A crew that trains nothing: what is left of an evolution on it is the driver's own work."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from evo_topo.candidates import PRICED_ONE_BY_ONE
from evo_topo.cost import count_flops, count_macs, unit_macs
from evo_topo.edits import AnyEdit, EditError, edit_from_json
from evo_topo.genome import Genome
from evo_topo.mutation import random_prices
from evo_topo.prices import JointOrder, PricedEdit, Prices
from populations.individual import Outcome, Screened
from populations.orders import Order, weights_path
from populations.slots import Slots
from populations.workers import Crew

JOINT_ORDERS, PRICED_EDITS, MOST_PRUNED = 4, 20, 0.75


class StubCrew(Crew):
    """Makes up an outcome for every order, in this process, in the order of submission.

    Args:
        slots: Says how many orders are taken at a time.
        num_validation: Validation examples that an outcome tells of.

    Attributes:
        seconds: What making up outcomes took; no cost of the driver.
        cpu_seconds: The same in CPU time.
    """

    def __init__(self, slots: Slots, num_validation: int) -> None:
        super().__init__(slots)
        self.num_validation = num_validation
        self.seconds = self.cpu_seconds = 0.0
        self._orders: deque[Order] = deque()

    @property
    def is_busy(self) -> bool:
        """Whether any order waits."""
        return bool(self._orders)

    @property
    def has_room(self) -> bool:
        """Whether another order may be submitted, as in a real crew."""
        return len(self._orders) <= len(self.slots.devices)

    def submit(self, order: Order) -> None:
        """Takes an order."""
        self._orders.append(order)

    def wait(self) -> Iterator[tuple[Order, Outcome]]:
        """Yields the oldest order with what is made up for it."""
        started, cpu_started = time.perf_counter(), time.process_time()
        order = self._orders.popleft()
        outcome = stub_outcome(order, self.num_validation)
        weights = weights_path(Path(order.run_dir), order.id)
        weights.parent.mkdir(exist_ok=True)
        weights.touch()  # the driver removes it when nobody will be bred from it
        self.cpu_seconds += time.process_time() - cpu_started
        self.seconds += time.perf_counter() - started
        yield order, outcome


def stub_outcome(order: Order, num_validation: int) -> Outcome:
    """An outcome as large as a real one; accuracy rises with the logarithm of FLOPs, with noise."""
    parent = genome = Genome.from_json(order.genome)
    if order.criterion is not None:
        return Outcome("ok", prices=stub_prices(genome, random.Random(order.seed)))
    if order.edit is not None:
        genome = edit_from_json(order.edit).apply(parent)
    rng = random.Random(order.seed)
    loss = max(0.05, 1.6 - 0.06 * math.log2(max(count_flops(genome), 1)) + rng.gauss(0, 0.03))
    correct = np.random.default_rng(order.seed).random(num_validation) < 1 - loss / 3
    bits = int.from_bytes(np.packbits(correct, bitorder="little").tobytes(), "little")
    return Outcome(
        "ok",
        inherited_loss=loss,
        screened=_stub_screened(order, parent, genome, loss),
        probe_loss=loss,
        loss=loss,
        accuracy=float(correct.mean()),
        soft_error=loss / 3,
        correct=f"{bits:x}",
        examples=order.recipe.examples,
        flops=3 * count_flops(genome) * order.recipe.examples,
        seconds=1.0,
        training_seconds=0.7,
        device="cpu",
        weights_sha256="0" * 64,
    )


def _stub_screened(order: Order, parent: Genome, child: Genome, loss: float) -> tuple[Screened, ...]:
    """The order's own mutation as the best of those that it leaves the choice of."""
    if not order.rivals or order.edit is None:
        return ()
    edits = [edit_from_json(edit) for edit in (order.edit, *(rival.edit for rival in order.rivals))]
    genomes = [child, *(edit.apply(parent) for edit in edits[1:])]
    return tuple(
        Screened(edit, genome.fingerprint, count_flops(genome), loss)
        for edit, genome in zip(edits, genomes, strict=True)
    )


def stub_prices(genome: Genome, rng: random.Random) -> Prices:
    """A price list of random numbers with all the parts that a real one has."""
    plain = random_prices(genome, rng)
    joint = [_joint_order(genome, plain, rng) for _ in range(JOINT_ORDERS)]
    return Prices("obd", plain.units, plain.layers, tuple(joint), tuple(_priced_edits(genome, rng)))


def _priced_edits(genome: Genome, rng: random.Random) -> Iterator[PricedEdit]:
    """Other edits, of all kinds in turn."""
    queues: list[Iterator[AnyEdit]] = [kind.candidates(genome) for kind in PRICED_ONE_BY_ONE]
    sites = (site for row in zip_longest(*queues) for site in row if site is not None)
    for site in islice(sites, PRICED_EDITS):
        with suppress(EditError):
            change = count_flops(site.apply(genome)) - count_flops(genome)
            yield PricedEdit(site, rng.random(), -rng.random(), change, "gauss-newton")


def _joint_order(genome: Genome, prices: Prices, rng: random.Random) -> JointOrder:
    """Units of all groups in random order, with the MACs that would be left if they did not interact."""
    saved, left, first = unit_macs(genome), float(count_macs(genome)), 0
    columns = []
    for name, unit_prices in prices.units.items():
        most = int(MOST_PRUNED * len(unit_prices.order))
        columns += [(first + unit, saved[name][unit]) for unit in unit_prices.order[:most]]
        first += len(unit_prices.order)
    rng.shuffle(columns)
    macs = [round(max(0.0, left := left - share)) for _, share in columns]
    cumulative = sorted(rng.random() for _ in columns)
    return JointOrder(tuple(column for column, _ in columns), tuple(cumulative), tuple(macs))
