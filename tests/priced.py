"""Price lists made by hand, and networks to go with them."""

import random

from evo_topo.cost import count_flops
from evo_topo.edits import PruneLayer
from evo_topo.mutation import propose
from evo_topo.prices import PricedEdit, Prices, UnitPrices
from evo_topo.units import unit_table
from tests.strategies import Sketch


def flat_prices(genome, unit_price=1.0, layer_price=1.0):
    """Every unit at one price, in order of its number; every layer at another."""
    units = {
        group.name: UnitPrices(
            tuple(range(group.width)), tuple(unit_price * (n + 1) for n in range(group.width))
        )
        for group in unit_table(genome).groups.values()
    }
    layers = {edit.layer: layer_price for edit in PruneLayer.legal(genome)}
    return Prices("flat", units, layers)


def proposals(genome, prices, count, **settings):
    rng = random.Random(0)
    return [propose(genome, prices, rng, **settings) for _ in range(count)]


def chain(*widths):
    net = Sketch(8)
    x = net.input
    for width in widths:
        x = net.relu(net.linear(x, width))
    return net.finish(net.linear(x, 3))


def priced(*edits, genome, loss_change=0.0, promise=0.0):
    found = []
    for edit in edits:
        change = count_flops(edit.apply(genome)) - count_flops(genome)
        found.append(PricedEdit(edit, loss_change, promise, change, "test"))
    return tuple(found)
