from collections import Counter

import msgspec
import pytest

from evo_topo.calibration import Calibration, Isotonic
from evo_topo.cost import count_flops
from evo_topo.edits import (
    AddUnits,
    Factorise,
    GrowKernel,
    ShrinkKernel,
    Trade,
)
from evo_topo.prices import Prices
from evo_topo.unit_choice import choose_units
from evo_topo.units import unit_table
from tests.priced import chain, flat_prices, priced, proposals
from tests.strategies import versatile


def test_structural_prunes_compete_by_predicted_loss_per_flop():
    genome = versatile()
    cheap, dear = ShrinkKernel("conv4"), ShrinkKernel("conv10")
    edits = priced(cheap, genome=genome, loss_change=0.1) + priced(dear, genome=genome, loss_change=10.0)
    prices = Prices("test", {}, {}, edits=edits)
    counts = Counter(
        p.edit for p in proposals(genome, prices, 300, growth=0) if not isinstance(p.edit, Trade)
    )
    rates = {item.edit: item.loss_change / -item.flop_change for item in edits}
    share = rates[dear] / (rates[cheap] + rates[dear])
    assert counts[cheap] / sum(counts.values()) == pytest.approx(share, abs=0.06)


def test_prunes_far_below_the_drawn_size_stand_back():
    genome = versatile()
    small, large = priced(ShrinkKernel("conv14"), ShrinkKernel("conv4"), genome=genome)
    cheap = msgspec.structs.replace(small, loss_change=1e-6), msgspec.structs.replace(large, loss_change=1.0)
    between = -(small.flop_change + large.flop_change) / count_flops(genome)  # its half lies between them
    for edits, share, expected in ((cheap, between, large.edit), (cheap[:1], between, small.edit)):
        prices = Prices("test", {}, {}, edits=edits)
        found = proposals(genome, prices, 50, growth=0, smallest=share, largest=share)
        assert {p.edit.first if isinstance(p.edit, Trade) else p.edit for p in found} == {expected}


def test_prunes_far_below_the_smallest_size_stand_back():
    genome = versatile()
    small, large = priced(ShrinkKernel("conv14"), ShrinkKernel("conv4"), genome=genome)
    edits = msgspec.structs.replace(small, loss_change=1e-6), msgspec.structs.replace(large, loss_change=1.0)
    own = -small.flop_change / count_flops(genome)
    for share, expected in ((1.6 * own, small.edit), (3 * own, large.edit)):  # above a quarter of both
        found = proposals(
            genome, Prices("test", {}, {}, edits=edits), 50, growth=0, smallest=share, largest=share
        )
        counts = Counter(p.edit.first if isinstance(p.edit, Trade) else p.edit for p in found)
        assert counts[expected] > 45


def test_growths_are_drawn_by_promise_per_flop_and_keep_their_price():
    genome = versatile()
    good, bad = GrowKernel("conv4"), GrowKernel("conv10")
    edits = priced(good, genome=genome, promise=-0.4) + priced(bad, genome=genome, promise=-0.02)
    found = proposals(genome, Prices("test", {}, {}, edits=edits), 300, growth=1)
    counts = Counter(p.edit for p in found)
    assert counts[good] > 3 * counts[bad] > 0
    assert {(p.edit, p.promise, p.predicted_loss_change) for p in found} == {(good, -0.4, 0), (bad, -0.02, 0)}


def test_some_prunes_become_trades_of_about_the_same_flops():
    genome = versatile()
    group = next(iter(unit_table(genome).groups))
    edits = priced(ShrinkKernel("conv4"), genome=genome, loss_change=0.1)
    edits += priced(AddUnits(group, 2), genome=genome, promise=-0.05)
    found = proposals(genome, Prices("test", {}, {}, edits=edits), 1000, growth=0)
    trades = [p for p in found if isinstance(p.edit, Trade)]
    assert 3 < len(trades) < 30
    for trade in trades:
        assert abs(trade.flop_change) <= 0.1 * count_flops(genome)
        assert trade.predicted_loss_change == 0.1
        assert -0.05 <= trade.promise < 0
        assert trade.genome == trade.edit.apply(genome)


def test_the_calibration_decides_between_kinds():
    genome = versatile()
    shrink, factorise = ShrinkKernel("conv4"), Factorise("conv10", "separable")
    edits = priced(shrink, factorise, genome=genome, loss_change=1.0)
    prices = Prices("test", {}, {}, edits=edits)
    recovers = Calibration({"factorise": Isotonic((0.0, 1.0), (0.0, 1e-3))})
    found = proposals(genome, prices, 200, growth=0, calibration=recovers)
    counts = Counter(type(p.edit) for p in found)
    assert counts[Factorise] > 0.7 * 200
    assert {p.predicted_loss_change for p in found} == {1.0}  # what is stored is the prediction itself


@pytest.mark.parametrize("growth", [0, 1])
def test_a_mutation_draws_nothing_that_it_does_not_need(monkeypatch, growth):
    drawn = []

    def choosing(*args, prune):
        drawn.append(prune)
        return choose_units(*args, prune=prune)

    monkeypatch.setattr("evo_topo.choice.choose_units", choosing)
    proposals(chain(8, 8), flat_prices(chain(8, 8)), 20, growth=growth)
    assert set(drawn) == {growth == 0}
