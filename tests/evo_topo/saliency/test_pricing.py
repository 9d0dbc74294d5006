from random import Random

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evo_topo.cost import count_macs
from evo_topo.edits import Factorise, PruneLayer, legal_edits
from evo_topo.mutation import propose
from evo_topo.prices import JointOrder, PricedEdit, Prices
from evo_topo.saliency import (
    GateProbe,
    GateStatistics,
    cautious_saliency,
    gate_statistics,
    obd_prices,
    set_saliency,
)
from evo_topo.saliency.pricing import JOINT_ORDERS
from evo_topo.saliency.pruning import as_edit
from evo_topo.unit_choice import MOST_OF_GROUP
from tests.reference import random_inputs, randomised
from tests.strategies import EXAMPLES, genomes, marked_genomes, resnet

NAMES = ["small_resnet", "dense", "squeeze_excitation", "one_dimensional", "flat_tied", "partly_fixed"]


def random_statistics(genome, seed=0):
    probe = GateProbe(None, genome)
    generator = torch.Generator().manual_seed(seed)
    gradient = 0.3 * torch.randn(probe.width, generator=generator).double()
    root = 0.3 * torch.randn(9, probe.width, generator=generator).double()
    return GateStatistics(gradient, root, probe.columns)


@given(genomes())
def test_in_a_group_each_next_unit_adds_least(genome):
    statistics = random_statistics(genome)
    prices = obd_prices(statistics, genome)
    for group, where in statistics.columns.items():
        order, left = [], set(range(where.stop - where.start))
        while left:
            cost = {unit: set_saliency(statistics, {group: [*order, unit]}) for unit in left}
            order.append(min(cost, key=cost.get))
            left.remove(order[-1])
            found = prices.units[group].cumulative[len(order) - 1]
            assert found == pytest.approx(cost[order[-1]], rel=1e-4)
        assert list(prices.units[group].order) == order


@given(st.one_of(genomes(), marked_genomes()))
def test_every_head_of_a_joint_order_is_a_prune_at_the_price_of_its_set(genome):
    statistics = random_statistics(genome)
    joint = obd_prices(statistics, genome).joint
    assert len(joint) == JOINT_ORDERS
    for order in joint:
        for place in range(0, len(order.columns), 3):
            edit = as_edit(statistics, order.columns[: place + 1])
            predicted = cautious_saliency(statistics, dict(edit.units))
            assert order.cumulative[place] == pytest.approx(predicted, rel=1e-4, abs=1e-9)
            assert order.macs[place] == count_macs(edit.apply(genome))
            widths = {name: where.stop - where.start for name, where in statistics.columns.items()}
            assert all(len(u) <= max(1, MOST_OF_GROUP * widths[name]) for name, u in edit.units)


def test_orders_differ_and_follow_their_seed():
    genome = resnet((8, 16), 1, 8)
    statistics = random_statistics(genome)
    joint = obd_prices(statistics, genome, seed=1).joint
    assert len({order.columns for order in joint}) == JOINT_ORDERS
    assert (
        obd_prices(statistics, genome, seed=1).joint == joint != obd_prices(statistics, genome, seed=2).joint
    )


@pytest.mark.parametrize("name", NAMES)
def test_prices_are_complete_finite_and_survive_json(name):
    genome = EXAMPLES[name]()
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(genome.num_classes, (4,), generator=generator)
    statistics = gate_statistics(randomised(genome), genome, random_inputs(genome), targets)
    priced = [PricedEdit(e, 0.1234567, 0.0, -1, "obd") for e in legal_edits(genome, (PruneLayer, Factorise))]
    prices = obd_prices(statistics, genome, edits=priced)
    assert prices.are_finite
    assert msgspec.json.decode(msgspec.json.encode(prices), type=Prices) == prices
    assert prices.layers == {e.layer: 0.12346 for e in legal_edits(genome, (PruneLayer,))}
    assert [item.edit for item in prices.edits] == list(legal_edits(genome, (Factorise,)))
    assert {group: len(priced.order) for group, priced in prices.units.items()} == {
        group: where.stop - where.start for group, where in statistics.columns.items()
    }
    bad = JointOrder((0,), (float("nan"),), (1,))
    assert not msgspec.structs.replace(prices, joint=(bad,)).are_finite


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_proposals_are_cut_from_the_orders_at_the_nearest_size(share):
    genome = resnet((8, 16), 2, 8)
    statistics = random_statistics(genome)
    prices = obd_prices(statistics, genome)
    rng = Random(0)
    for _ in range(30):
        proposal = propose(genome, prices, rng, growth=0, smallest=share, largest=share)
        gone = dict(proposal.edit.units)
        assert proposal.predicted_loss_change == pytest.approx(cautious_saliency(statistics, gone), rel=1e-4)
        goal = (1 - share) * count_macs(genome)
        distance = abs(count_macs(proposal.genome) - goal)
        assert any(
            distance == pytest.approx(min(abs(macs - goal) for macs in order.macs)) for order in prices.joint
        )
