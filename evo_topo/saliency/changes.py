"""What local edits change at their joints, and the gradients there.

A local edit replaces the value of one node of the parent by what some nodes of the child compute from the
parent's activations. So its change ``d`` of that value needs these nodes alone, and one forward pass of the
parent with the gradients at all joints prices every such edit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evo_topo.curvature import seeded_gradients
from evo_topo.genome import Genome, Node
from evo_topo.hooks import in_mode
from evo_topo.ops import Input
from evo_topo.phenotype import node_value
from evo_topo.saliency.gates import GateProbe

Values = Mapping[str, Tensor]
"""Activations of a network by node, (examples, ...) each."""


class Response(NamedTuple):
    """Derivatives for one weighting of the logits.

    Attributes:
        table: Along every gate, (examples, columns).
        at: With respect to the value of each joint, by node.
    """

    table: Tensor
    at: Values


class ChangeProbe(GateProbe):
    """A `GateProbe` that also keeps every activation, and takes gradients at some.

    Args:
        model: Network of `genome`.
        genome: Its genome.
        joints: Nodes at whose values gradients are taken.

    Attributes:
        values: Every activation of the last forward pass, without its graph.
    """

    def __init__(self, model: nn.Module, genome: Genome, joints: Collection[str]) -> None:
        super().__init__(model, genome)
        self.values: dict[str, Tensor] = {}
        self._joints = dict.fromkeys(joints)
        self._kept: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor, fast: bool = False) -> Tensor:
        """Logits (examples, classes) of normalised inputs, with the graph for `responses`."""
        graph: dict[str, Tensor] = {}
        self.values, self._kept = {}, {}  # or two batches would be held at once
        self._reads = {}
        with torch.enable_grad(), torch.autocast(inputs.device.type, torch.bfloat16, enabled=fast):
            for node in self.genome.nodes:
                if isinstance(node.op, Input):
                    value = inputs.detach().requires_grad_()
                else:
                    value = node_value(node, self.model, [graph[name] for name in node.inputs])
                graph[node.name] = value.view_as(value) if node.name in self._joints else value
        self.values = {name: value.detach() for name, value in graph.items()}
        self._kept = {name: graph[name] for name in self._joints}
        return graph[self.genome.nodes[-1].name].to(inputs.dtype)

    def responses(self, logits: Tensor, seeds: Iterator[Tensor]) -> list[Response]:
        """Derivatives of each example's ``<seed, logits>``, for each seed (examples, classes)."""
        reads, found = list(self._reads.values()), []
        places = [*reads, *self._kept.values()]
        for seed in seeds:
            grads = seeded_gradients(logits, seed, places)
            at = dict(zip(self._kept, grads[len(reads) :], strict=True))
            found.append(Response(self._table(grads[: len(reads)], logits.dtype), at))
        return found


def in_common(genome: Genome, child: Genome) -> set[str]:
    """Nodes that compute the same in parent and child."""
    common: set[str] = set()
    for node in child.nodes:
        if genome.by_name.get(node.name) == node and common.issuperset(node.inputs):
            common.add(node.name)
    return common


def nodes_towards(child: Genome, ends: Collection[str], known: Collection[str]) -> list[Node]:
    """The nodes that must run for the values of `ends`, in order, where those of `known` are there."""
    needed, nodes = set(ends).difference(known), []
    for node in reversed(child.nodes):
        if node.name in needed:
            nodes.append(node)
            needed.update(name for name in node.inputs if name not in known)
    return nodes[::-1]


def run_nodes(nodes: Sequence[Node], modules: nn.Module, values: Values) -> dict[str, Tensor]:
    """All values, those of these nodes computed."""
    found = dict(values)
    for node in nodes:
        found[node.name] = node_value(node, modules, [found[name] for name in node.inputs])
    return found


@torch.no_grad()
def activations(model: nn.Module, genome: Genome, inputs: Tensor) -> dict[str, Tensor]:
    """Every activation of a network in evaluation mode, without its graph."""
    values: dict[str, Tensor] = {}
    with in_mode(model, training=False):
        for node in genome.nodes:
            is_input = isinstance(node.op, Input)
            reads = [values[name] for name in node.inputs]
            values[node.name] = inputs if is_input else node_value(node, model, reads)
    return values


def along(responses: Sequence[Response], differences: Iterable[tuple[str, Tensor]]) -> list[Tensor]:
    """Derivatives along a change, summed over its joints and over space: (examples,) per response."""
    totals = [response.table.new_zeros(len(response.table)) for response in responses]
    for joint, difference in differences:
        for total, response in zip(totals, responses, strict=True):
            product = response.at[joint] * difference  # flattened first, channels_last would be copied
            total += product.sum(tuple(range(1, product.dim())))
    return totals
