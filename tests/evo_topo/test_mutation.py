import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evo_topo.candidates import candidate_edits
from evo_topo.cost import count_flops
from evo_topo.edits import (
    AddUnits,
    EditError,
    PruneLayer,
    PruneUnits,
    ShrinkKernel,
    SplitLayer,
    SplitUnits,
    Trade,
    edit_from_json,
    legal_edits,
)
from evo_topo.genome import Genome
from evo_topo.mutation import propose, random_prices, rivals
from evo_topo.prices import Prices
from evo_topo.units import unit_table
from tests.priced import chain, flat_prices, priced, proposals
from tests.strategies import EXAMPLES, Sketch, genomes, resnet, versatile

ROOT = Path(__file__).parents[2]


PROPOSED = (PruneUnits, SplitUnits, PruneLayer, SplitLayer)
"""The kinds that proposals are made of."""


def predicted_by_hand(genome, prices, edit):
    """The price of an edit: cumulative where the cheapest units go, else what each adds."""
    if isinstance(edit, PruneLayer):
        return prices.layers[edit.layer]
    if not isinstance(edit, PruneUnits):
        return 0.0
    total = 0.0
    for group, units in edit.units:
        order, cumulative = prices.units[group].order, prices.units[group].cumulative
        if set(order[: len(units)]) == set(units):
            total += cumulative[len(units) - 1]
        else:
            places = [order.index(unit) for unit in units]
            total += sum(cumulative[at] - (cumulative[at - 1] if at else 0) for at in places)
    return total


@given(genomes(), st.integers(0, 999), st.floats(0, 1))
def test_proposals_are_legal_and_carry_the_price_of_the_list(genome, seed, growth):
    assume(any(legal_edits(genome, PROPOSED)))
    rng = random.Random(seed)
    for _ in range(3):
        prices = random_prices(genome, rng)
        edit, child, predicted, flop_change, _ = propose(genome, prices, rng, growth)
        assert edit_from_json(edit.to_json()).apply(genome) == child == Genome.from_json(child.to_json())
        assert flop_change == count_flops(child) - count_flops(genome)
        assert predicted == pytest.approx(predicted_by_hand(genome, prices, edit))
        assert (flop_change < 0) == isinstance(edit, PruneUnits | PruneLayer)
        assert (flop_change > 0) == edit.is_function_preserving
        if not any(legal_edits(genome := child, PROPOSED)):
            break


@pytest.mark.parametrize("growth", [0, 1])
@pytest.mark.parametrize("name", EXAMPLES)
def test_growth_zero_only_prunes_and_growth_one_only_grows(name, growth):
    genome = EXAMPLES[name]()
    can = {edit.is_function_preserving for edit in legal_edits(genome, PROPOSED)}
    found = proposals(genome, flat_prices(genome), 20, growth=growth)
    expected = bool(growth) if bool(growth) in can else not growth
    assert {proposal.edit.is_function_preserving for proposal in found} == {expected}


def test_growth_is_the_probability_of_growing():
    genome = resnet((8, 16), 1, 8)
    found = proposals(genome, flat_prices(genome), 400, growth=0.25)
    assert sum(p.edit.is_function_preserving for p in found) == pytest.approx(100, abs=25)
    assert {type(p.edit) for p in found} == {PruneUnits, PruneLayer, SplitUnits, SplitLayer}


@pytest.mark.parametrize("growth", [0, 1])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.25])
def test_size_is_near_the_share_that_was_asked_for(share, growth):
    genome = resnet((16, 32), 2, 8)
    prices = flat_prices(genome, layer_price=1e9)
    found = proposals(genome, prices, 60, growth=growth, smallest=share, largest=share)
    changes = [
        abs(p.flop_change) / count_flops(genome) for p in found if isinstance(p.edit, PruneUnits | SplitUnits)
    ]
    assert len(changes) > 20
    assert all(0.5 * share < change < 1.6 * share for change in changes)
    assert sum(changes) / len(changes) == pytest.approx(share, rel=0.25)


def test_sizes_are_drawn_log_uniformly():
    genome = resnet((16, 32), 2, 8)
    prices = flat_prices(genome, layer_price=1e9)
    found = proposals(genome, prices, 400, growth=0, smallest=0.02, largest=0.32)
    sizes = [-proposal.flop_change / count_flops(genome) for proposal in found]
    middle = (0.02 * 0.32) ** 0.5
    assert sum(size < middle for size in sizes) / 400 == pytest.approx(0.5, abs=0.1)
    assert min(sizes) < 0.03
    assert max(sizes) > 0.25


BOTH = {PruneUnits, PruneLayer}


@pytest.mark.parametrize(
    ("unit_price", "layer_price", "kinds"),
    [
        (-1.0, -2.0, BOTH),
        (0.0, 0.0, BOTH),
        (-1.0, 0.0, BOTH),
        (-1.0, 1.0, {PruneUnits}),
        (0.0, 1.0, {PruneUnits}),
        (1e-30, 0.0, {PruneLayer}),
        (1e30, 1.0, {PruneLayer}),
        (1.0, -1e30, {PruneLayer}),
    ],
)
def test_any_finite_price_will_do(unit_price, layer_price, kinds):
    genome = EXAMPLES["small_resnet"]()
    prices = flat_prices(genome, unit_price, layer_price)
    found = proposals(genome, prices, 50, growth=0)
    assert {type(proposal.edit) for proposal in found} == kinds
    for edit, _, predicted, *_ in found:
        assert predicted == pytest.approx(predicted_by_hand(genome, prices, edit))


@pytest.mark.parametrize("make", [random.Random, np.random.default_rng])
def test_equal_generators_make_equal_proposals(make):
    genome = resnet((8, 16), 1, 8)
    first, second, other = make(7), make(7), make(8)
    draws = [
        [propose(genome, random_prices(genome, rng), rng) for _ in range(10)]
        for rng in (first, second, other)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert {type(value) for p in draws[0] for value in p[2:]} <= {float, int}


@pytest.mark.parametrize("name", EXAMPLES)
def test_random_prices_cover_every_unit_and_every_layer_that_can_go(name):
    genome = EXAMPLES[name]()
    prices = random_prices(genome, np.random.default_rng(0))
    groups = unit_table(genome).groups
    assert {name: sorted(units.order) for name, units in prices.units.items()} == {
        name: list(range(group.width)) for name, group in groups.items()
    }
    for units in prices.units.values():
        assert list(units.cumulative) == sorted(set(units.cumulative))
    assert list(prices.layers) == [e.layer for e in legal_edits(genome, (PruneLayer,))]
    assert msgspec.json.decode(msgspec.json.encode(prices), type=Prices) == prices


def test_random_prices_of_units_and_layers_are_of_one_scale():
    genome = chain(8, 8, 8, 8)
    kinds = Counter()
    for seed in range(300):
        rng = random.Random(seed)
        kinds[type(propose(genome, random_prices(genome, rng), rng, growth=0).edit)] += 1
    assert min(kinds[PruneUnits], kinds[PruneLayer]) > 60


def test_without_any_legal_edit_there_is_no_proposal():
    net = Sketch(4)
    genome = net.finish(net.linear(net.input, 1))
    assert not any(legal_edits(genome))
    with pytest.raises(EditError, match="no edit applies"):
        propose(genome, random_prices(genome, random.Random(0)), random.Random(0))


def test_choosing_needs_neither_torch_nor_numpy():
    code = """
import random, sys
from evo_topo import Genome, propose, random_prices
genome, rng = Genome.from_json(sys.stdin.read()), random.Random(0)
for _ in range(20):
    genome = propose(genome, random_prices(genome, rng), rng).genome
print(*(name for name in ("torch", "numpy") if name in sys.modules))
"""
    command = [sys.executable, "-W", "error", "-c", code]
    text = EXAMPLES["small_resnet"]().to_json()
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("growth", [0.0, 0.5, 1.0])
def test_prunes_alone_and_growths_alone_stay_apart(growth):
    genome = versatile()
    group = next(iter(unit_table(genome).groups))
    edits = priced(ShrinkKernel("conv4"), genome=genome, loss_change=0.1)
    edits += priced(AddUnits(group, 2), genome=genome, promise=-0.05)
    for prices in (
        Prices("test", {}, {}, edits=edits),
        msgspec.structs.replace(flat_prices(genome), edits=edits),
    ):
        prunes = proposals(genome, prices, 60, growth=growth, mutations="prunes")
        growths = proposals(genome, prices, 60, growth=growth, mutations="growths")
        assert all(p.flop_change < 0 and not isinstance(p.edit, Trade) for p in prunes)
        assert all(p.flop_change >= 0 and not isinstance(p.edit, Trade) for p in growths)


def test_where_nothing_can_be_pruned_prunes_alone_propose_nothing():
    genome = chain(1)
    prices = msgspec.structs.replace(flat_prices(genome), layers={})
    assert proposals(genome, prices, 1, growth=0.0)
    with pytest.raises(EditError, match="no edit applies"):
        proposals(genome, prices, 1, mutations="prunes")


@given(genomes(), st.integers(0, 2**32), st.integers(0, 4))
def test_rivals_are_other_prunes_of_the_same_parent(genome, seed, most):
    prices, rng = flat_prices(genome), random.Random(seed)
    try:
        proposal = propose(genome, prices, rng)
    except EditError:
        assume(False)
    found = rivals(genome, prices, rng, proposal, most)
    assert len(found) <= (most if proposal.flop_change < 0 else 0)
    fingerprints = {rival.genome.fingerprint for rival in found} | {proposal.genome.fingerprint}
    assert len(fingerprints) == 1 + len(found)
    for rival in found:
        assert rival.genome == rival.edit.apply(genome)
        assert rival.flop_change == count_flops(rival.genome) - count_flops(genome) < 0


def test_rivals_are_of_about_the_size_of_the_proposal():
    genome = chain(40, 36, 44, 38)
    prices = flat_prices(genome, layer_price=1e9)
    proposal = propose(genome, prices, random.Random(0), growth=0.0, smallest=0.3, largest=0.3)
    found = rivals(genome, prices, random.Random(1), proposal, 6)
    assert len(found) >= 2  # equal draws count once
    assert all(0.9 < rival.flop_change / proposal.flop_change < 1.1 for rival in found)


def test_a_child_whose_edit_is_drawn_again_is_not_made_again(monkeypatch):
    made, apply = [], PruneLayer.apply

    def counted(edit, genome):
        made.append(genome)
        return apply(edit, genome)

    monkeypatch.setattr(PruneLayer, "apply", counted)
    for width in (11, 13):  # of no other test: what is kept outlives them
        genome = chain(width, width)
        prices = Prices("test", {}, {"linear3": 1.0})
        found = proposals(genome, prices, 20, growth=0.0) + proposals(
            Genome(genome.nodes), prices, 20, growth=0.0
        )
        assert {p.genome for p in found} == {apply(PruneLayer("linear3"), genome)}
    assert made == [chain(11, 11), chain(13, 13)]


def test_a_proposal_for_a_resnet20_takes_about_a_millisecond():
    genome, rng = resnet(), random.Random(0)
    edits = priced(*candidate_edits(genome, rng), genome=genome, loss_change=0.1, promise=-0.1)
    units = flat_prices(genome)
    prices = Prices("test", units.units, units.layers, edits=edits)
    propose(genome, prices, rng)  # what is kept with the genome is made once
    times = []
    for _ in range(30):
        started = time.process_time()
        propose(genome, prices, rng)
        times.append(time.process_time() - started)
    assert sorted(times)[15] < 10e-3  # a slow computer's; about 1 ms on a fast one
