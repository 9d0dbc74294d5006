"""Explicit gates and switches: what the derivatives of `GateProbe` are derivatives of."""

from functools import partial

import torch
from torch.autograd.functional import jacobian

from evo_topo.edits import layer_chain
from evo_topo.units import is_maker, mixes_units, unit_table
from tests.reference import evaluate_nodes, find_components, layer_output


class Gated:
    """A network to be evaluated node by node, with a factor per unit and a switch per layer.

    The factors, of shape (units,) by group, are applied wherever a node mixes units; a switch at t turns
    the output f(x) of a layer into (1 - t) f(x) + t x.
    """

    def __init__(self, model, genome, factors, switches):
        self.model, self.genome, self.factors = model, genome, factors
        self.reads = {}
        self.switches = {layer_chain(genome, layer)[-1]: (layer, t) for layer, t in switches.items()}
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
        self.reads[name] = read
        node = self.genome.by_name[name]
        change = partial(self.gate, node) if mixes_units(node) else lambda read: read
        module = self.model.get_submodule(name)
        made = layer_output(module, node.op, read, change) if is_maker(node) else module(read)
        layer, t = self.switches.get(name, (None, 0))
        return made if layer is None else (1 - t) * made + t * self.reads[layer]

    def gate(self, node, read):
        units = [self.unit_of.get((node.inputs[0], c)) for c in range(read.shape[1])]
        one = read.new_ones(())
        factors = torch.stack([one if u is None else self.factors[u[0]][u[1]] for u in units])
        return read * factors.view(-1, *[1] * (read.dim() - 2))


def changed_logits(model, genome, inputs, probe, changes):
    """Logits when gates are closed and switches thrown by `changes`, one number per column of `probe`."""
    factors = {name: 1 - changes[where] for name, where in probe.columns.items()}
    switches = {name: changes[column] for name, column in probe.layer_columns.items()}
    gated = Gated(model, genome, factors, switches)
    return evaluate_nodes(gated, genome, inputs)[genome.nodes[-1].name]


def dense_jacobian(model, genome, inputs, probe):
    """Derivative of every logit of every example along every change: (examples, classes, columns)."""
    nothing = torch.zeros(probe.width, dtype=torch.float64)
    return jacobian(partial(changed_logits, model, genome, inputs, probe), nothing)
