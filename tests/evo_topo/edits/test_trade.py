import random
from collections import Counter

import pytest

from evo_topo.cost import count_flops
from evo_topo.edits import (
    GROWTHS,
    PRUNES,
    AddUnits,
    DownsampleEarlier,
    PruneUnits,
    Trade,
    legal_edits,
    random_edit,
)
from evo_topo.edits.trade import TOLERANCE
from tests.strategies import EXAMPLES, resnet


@pytest.mark.parametrize("name", EXAMPLES)
def test_trades_cost_about_nothing(name):
    genome, rng = EXAMPLES[name](), random.Random(0)
    legal = list(legal_edits(genome, (Trade,)))
    drawn = [random_edit(genome, rng, (Trade,)) for _ in range(5 if legal else 0)]
    for trade in legal + drawn:
        between, child = trade.first.apply(genome), trade.apply(genome)
        assert child == trade.second.apply(between)
        assert type(trade.first) in PRUNES
        assert type(trade.second) in GROWTHS
        assert count_flops(between) <= count_flops(genome)
        assert abs(count_flops(child) - count_flops(genome)) <= TOLERANCE * count_flops(genome)
    pairs = Counter((type(trade.first), type(trade.second)) for trade in legal)
    assert not pairs or max(pairs.values()) == 1


def test_trades_are_of_many_kinds():
    genome, rng = resnet((8, 12), 1, 8), random.Random(0)
    trades = [random_edit(genome, rng, (Trade,)) for _ in range(60)]
    assert {type(t.first) for t in trades} == set(PRUNES) - {DownsampleEarlier}  # which has no site
    assert len({type(t.second) for t in trades}) >= 4


def test_a_trade_says_what_it_does():
    trade = Trade(PruneUnits((("conv1", (0,)),)), AddUnits("conv4", 2, "tiny"))
    assert trade.describe() == "prune 1 of conv1; add 2 to conv4 (tiny)"
