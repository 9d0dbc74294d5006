"""Explicit gates: what the derivatives of `GateProbe` are derivatives of."""

from functools import partial

import torch
from torch.autograd.functional import jacobian

from evo_topo.channel_slots import is_maker
from evo_topo.units import mixes_units, unit_table
from tests.reference import evaluate_nodes, find_components, layer_output


class Gated:
    """A network to be evaluated node by node, with a factor per unit.

    The factors, of shape (units,) by group, are applied wherever a node mixes units.
    """

    def __init__(self, model, genome, factors):
        self.model, self.genome, self.factors = model, genome, factors
        self.unit_of = {}  # by node and channel
        components = {vertex: part for part in find_components(genome) for vertex in part}
        for group in unit_table(genome).groups.values():
            for maker, channels in group.makers.items():
                for unit, held in enumerate(channels):
                    for channel in held:
                        part = components[maker, channel]
                        self.unit_of.update(dict.fromkeys(part, (group.name, unit)))

    def get_submodule(self, name):
        return partial(self.run, name)

    def run(self, name, read):
        node = self.genome.by_name[name]
        change = partial(self.gate, node) if mixes_units(node) else lambda read: read
        module = self.model.get_submodule(name)
        return layer_output(module, node.op, read, change) if is_maker(node) else module(read)

    def gate(self, node, read):
        units = [self.unit_of.get((node.inputs[0], c)) for c in range(read.shape[1])]
        one = read.new_ones(())
        factors = torch.stack([one if u is None else self.factors[u[0]][u[1]] for u in units])
        return read * factors.view(-1, *[1] * (read.dim() - 2))


def changed_logits(model, genome, inputs, probe, changes):
    """Logits when gates are closed by `changes`, one number per column of `probe`."""
    factors = {name: 1 - changes[where] for name, where in probe.columns.items()}
    gated = Gated(model, genome, factors)
    return evaluate_nodes(gated, genome, inputs)[genome.nodes[-1].name]


def dense_jacobian(model, genome, inputs, probe):
    """Derivative of every logit of every example along every change: (examples, classes, columns)."""
    nothing = torch.zeros(probe.width, dtype=torch.float64)
    return jacobian(partial(changed_logits, model, genome, inputs, probe), nothing)
