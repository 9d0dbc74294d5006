import msgspec
import pytest

from populations.individual import Outcome
from populations.lineage import Lineage
from populations.memory import Memory
from populations.pricing import Pricing
from tests.bred import parent
from tests.small import small_config


class Desk:
    """Takes orders and leaves them lying."""

    def __init__(self):
        self.orders = []

    def submit(self, order):
        self.orders.append(order)


@pytest.fixture
def store(tmp_path):
    """A lineage of one individual without prices, and a second one with."""
    unpriced = parent(prices=None, weights_sha256="ab")
    priced = msgspec.structs.replace(parent(), id=8)
    with Lineage(tmp_path) as lineage:
        for individual in (unpriced, priced):
            lineage.add(individual)
        yield lineage, Memory(lineage.individuals())


def test_each_is_asked_for_once(store):
    lineage, memory = store
    pricing, desk = Pricing(small_config(criterion="magnitude"), lineage, memory), Desk()
    assert pricing.is_done
    for _ in range(2):
        pricing.ask(memory.individuals.values(), desk)
        assert not pricing.is_done
    (order,) = desk.orders
    assert (order.id, order.parent, order.parent_sha256, order.criterion) == (7, 7, "ab", "magnitude")


def test_an_individual_is_priced_by_its_own_weights_also_where_nobody_inherits(store):
    lineage, memory = store
    desk = Desk()
    Pricing(small_config(inherit=False), lineage, memory).ask(memory.individuals.values(), desk)
    assert desk.orders[0].parent == 7


@pytest.mark.parametrize("fails", [False, True])
def test_prices_or_the_reason_are_kept_everywhere(store, fails):
    lineage, memory = store
    pricing, desk = Pricing(small_config(), lineage, memory), Desk()
    pricing.ask(memory.individuals.values(), desk)
    prices = memory.individuals[8].outcome.prices
    pricing.take(7, Outcome("failed", "not finite") if fails else Outcome("ok", prices=prices))
    assert pricing.is_done
    pricing.ask(memory.individuals.values(), desk)
    assert len(desk.orders) == 1
    outcome = memory.individuals[7].outcome
    assert outcome == next(i.outcome for i in lineage.individuals() if i.id == 7)
    assert outcome.status == "ok"
    if fails:
        assert (outcome.prices, outcome.reason) == (None, "it could not be priced: not finite")
    else:
        assert (outcome.prices, outcome.reason) == (prices, "")
