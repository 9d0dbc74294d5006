from collections import Counter

import pytest

from evo_topo.edits import (
    PruneUnits,
    SplitLayer,
    SplitUnits,
)
from evo_topo.ops import Add, Concat
from evo_topo.prices import Prices, UnitPrices
from evo_topo.unit_choice import MOST_OF_GROUP
from evo_topo.units import unit_table
from tests.priced import chain, flat_prices, proposals
from tests.strategies import EXAMPLES, Sketch


def test_a_unit_that_must_stay_is_skipped_and_not_charged():
    net = Sketch(4)
    x, y, z = (net.relu(net.linear(net.input, width)) for width in (1, 7, 8))
    genome = net.finish(net.linear(net.add(Add(), net.add(Concat(), x, y), z), 3))
    (group,) = unit_table(genome).groups
    prices = Prices("test", {group: UnitPrices(tuple(range(8)), (0.25, 1, 2, 4, 8, 16, 32, 64))}, {})
    found = proposals(genome, prices, 30, growth=0, largest=0.9)
    assert {proposal.edit.units for proposal in found} == {
        ((group, tuple(range(1, 1 + count))),)
        for count in range(1, 6)  # unit 0 alone comes from x
    }
    assert {proposal.predicted_loss_change for proposal in found} == {0.75, 1.75, 3.75, 7.75, 15.75}


@pytest.mark.parametrize(("share", "units"), [(0.001, 1), (0.029, 1), (0.031, 2), (0.108, 5), (0.112, 6)])
@pytest.mark.parametrize("growth", [0, 1])
def test_the_number_of_units_is_the_nearest(share, units, growth):
    net = Sketch(8)
    genome = net.finish(net.linear(net.linear(net.input, 50), 3))  # each unit takes 2 % of the MACs
    ((edit, *_),) = proposals(genome, flat_prices(genome), 1, growth=growth, smallest=share, largest=share)
    assert len(edit.units[0][1]) == units


def test_at_least_one_unit_and_at_most_three_quarters_of_a_group_go():
    genome = chain(10, 7, 1)
    for share, expected in ((1e-9, [1]), (0.99, [7, 5])):
        found = proposals(
            genome, flat_prices(genome, layer_price=1e9), 20, growth=0, smallest=share, largest=share
        )
        for proposal in found:
            assert [len(units) for _, units in proposal.edit.units] == expected
    assert MOST_OF_GROUP == 0.75


def test_probability_is_inverse_to_the_price_per_flop():
    genome = chain(8, 8)  # the input has 8 features too
    cheap, dear = flat_prices(genome).layers
    prices = Prices("test", {}, {cheap: 1.0, dear: 4.0})
    counts = Counter(p.edit.layer for p in proposals(genome, prices, 1000, growth=0))
    assert counts[cheap] / 1000 == pytest.approx(0.8, abs=0.04)
    assert counts[dear] / 1000 == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize(("growth", "power"), [(0, -1), (1, 1)])
def test_groups_are_drawn_by_their_price_per_mac(growth, power):
    """Inverse to the price for prunes, proportional to it for splits."""
    net = Sketch(8)
    x = net.input
    for width in (8, 20, 4):
        x = net.linear(x, width)
    genome = net.finish(net.linear(x, 3))
    units, price, macs = {}, {}, {}
    for name, each, of_unit in (("linear1", 1.0, 8 + 20), ("linear2", 2.0, 8 + 4), ("linear3", 0.5, 20 + 3)):
        width = genome.shapes[name][0]
        units[name] = UnitPrices(tuple(range(width)), tuple(each * n for n in range(1, width + 1)))
        price[name], macs[name] = each, of_unit
    found = proposals(genome, Prices("test", units, {}), 2000, growth=growth, smallest=1e-9, largest=1e-9)
    counts = Counter(proposal.edit.units[0][0] for proposal in found)
    weights = {name: (price[name] / macs[name]) ** power for name in units}
    for name, weight in weights.items():
        assert counts[name] / 2000 == pytest.approx(weight / sum(weights.values()), abs=0.04)


def test_units_that_cannot_be_split_are_passed_over():
    genome = EXAMPLES["grouped"]()
    splittable = unit_table(genome).groups["conv1"].splittable
    assert splittable == (True, False, True, True)
    prices = Prices("test", {"conv1": flat_prices(genome).units["conv1"]}, {})
    found = proposals(genome, prices, 100, growth=1, smallest=0.9, largest=0.9)
    splits = [proposal.edit.units for proposal in found if isinstance(proposal.edit, SplitUnits)]
    assert set(splits) == {(("conv1", (0, 2, 3)),)}
    assert len(splits) > 50  # two in three, the others insert a layer


def test_cheap_groups_are_pruned_and_dear_ones_split():
    genome = chain(8, 8, 8)
    prices = flat_prices(genome)
    dear = prices.units["linear3"]
    units = {**prices.units, "linear3": UnitPrices(dear.order, tuple(20 * c for c in dear.cumulative))}
    prices = Prices("test", units, {})
    for growth, kind, compare in ((0, PruneUnits, int.__lt__), (1, SplitUnits, int.__gt__)):
        touched = Counter()
        for proposal in proposals(genome, prices, 300, growth=growth):
            if isinstance(proposal.edit, kind):
                touched.update(group for group, _ in proposal.edit.units)
        assert compare(touched["linear3"], touched["linear1"])
        assert touched["linear1"] > 5


def test_in_a_group_the_cheapest_go_and_the_dearest_are_split():
    genome = chain(8)
    order = (3, 1, 4, 0, 5, 2, 6, 7)
    prices = Prices("test", {"linear1": UnitPrices(order, tuple(float(n) for n in range(1, 9)))}, {})
    for growth, line in ((0, order), (1, order[::-1])):
        edits = [p.edit for p in proposals(genome, prices, 100, growth=growth, largest=0.5)]
        taken = [edit.units[0][1] for edit in edits if not isinstance(edit, SplitLayer)]
        assert {len(units) for units in taken} >= {1, 2, 3, 4}
        assert all(set(units) == set(line[: len(units)]) for units in taken)


def test_groups_of_one_unit_are_only_split():
    genome = chain(1)
    found = proposals(genome, flat_prices(genome), 20, growth=0)
    assert {type(p.edit) for p in found} == {SplitUnits, SplitLayer}
    units = [p.edit.units for p in found if isinstance(p.edit, SplitUnits)]
    assert set(units) == {(("linear1", (0,)),)}
