import msgspec
import pytest

from evo_topo.cost import count_flops
from populations.births import further_training
from populations.dispatch import Dispatch, EvolutionError
from populations.individual import Outcome
from populations.lineage import Lineage
from populations.memory import Memory
from populations.orders import outcome_path
from populations.reference import REFERENCE_ID, reference_order
from populations.slots import Slots
from populations.workers import Crew
from tests.bred import parent, screening_births
from tests.small import small_config, small_founder


class Desk(Crew):
    """Answers every order at once, with an outcome that its number names."""

    def __init__(self, outcomes):
        super().__init__(Slots(("cpu",), 1, None))
        self.outcomes, self.orders = outcomes, []

    def submit(self, order):
        self.orders.append(order)

    def wait(self):
        while self.orders:
            order = self.orders.pop(0)
            yield order, self.outcomes[order.id]


@pytest.fixture
def dispatch(tmp_path):
    """Of a lineage that holds one individual, without prices."""
    with Lineage(tmp_path) as lineage:
        lineage.add(parent(prices=None))
        outcomes = {9: Outcome("ok", accuracy=0.5), REFERENCE_ID: Outcome("ok"), 7: Outcome("failed", "why")}
        yield Dispatch(small_config(), lineage, Memory(lineage.individuals()), Desk(outcomes))


def test_a_birth_becomes_an_individual_once(dispatch):
    birth = further_training(dispatch.memory.individuals[7], 9, 3)
    assert dispatch.submit(birth, lambda _: 123, rate=0.5, seconds=4.0)
    (order,) = dispatch.crew.orders
    assert (order.recipe.examples, order.seconds) == (123, 4.0)
    assert list(dispatch.wait()) == [9]
    assert [i.id for i in dispatch.lineage.individuals()] == [7, 9]
    assert dispatch.memory.individuals[9].outcome.accuracy == 0.5
    assert not dispatch.submit(birth, lambda _: 123)
    assert not dispatch.crew.orders


def test_another_birth_of_the_same_number_is_an_error(dispatch):
    dispatch.submit(further_training(dispatch.memory.individuals[7], 9, 3), lambda _: 123)
    list(dispatch.wait())
    edited = next(birth for birth in screening_births() if birth.edit)
    with pytest.raises(EvolutionError, match="another individual 9"):
        dispatch.submit(edited._replace(id=9), lambda _: 123)


def test_every_rival_has_examples_of_its_own(dispatch):
    birth = next(birth for birth in screening_births() if birth.rivals)
    dispatch.submit(birth, count_flops)
    (order,) = dispatch.crew.orders
    assert order.recipe.examples == count_flops(birth.genome)
    assert [rival.edit for rival in order.rivals] == [rival.edit.to_json() for rival in birth.rivals]
    assert [rival.examples for rival in order.rivals] == [count_flops(rival.genome) for rival in birth.rivals]


def test_prices_are_stored_and_not_told_of(dispatch):
    dispatch.ask_prices(list(dispatch.memory.individuals.values()))
    assert dispatch.is_pricing
    assert list(dispatch.wait()) == []
    assert not dispatch.is_pricing
    assert "why" in dispatch.lineage.individuals()[0].outcome.reason


def test_the_founder_for_comparison_is_no_part_of_the_lineage(dispatch, tmp_path):
    order = reference_order(small_config(seed=3), small_founder(), tmp_path, 99)
    assert order.recipe.examples == 99
    other = reference_order(small_config(seed=3), small_founder(), tmp_path, 50)
    assert other == msgspec.structs.replace(order, recipe=other.recipe)
    dispatch.crew.submit(order)
    assert list(dispatch.wait()) == [REFERENCE_ID]
    assert len(dispatch.lineage.individuals()) == 1


def test_what_a_driver_that_died_left_of_this_number_is_removed(dispatch):
    path = outcome_path(dispatch.lineage.run_dir, 9)
    path.parent.mkdir()
    path.write_text("{}")
    dispatch.submit(further_training(dispatch.memory.individuals[7], 9, 3), lambda _: 123)
    assert not path.exists()
