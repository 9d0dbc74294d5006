"""What new parameters promise that start without effect.

Every growth adds a linear map, zero so far, from one activation ``x`` to another ``y``: the path of a new
branch, the border taps of a larger window, the connections that a sparse layer gains, the deviation of an
inserted layer from the identity, the outgoing weights of new units. Its direction of descent (see `new_maps`)
makes a change ``d`` to ``y`` that has an exact slope ``p`` and GGN curvature ``c``, and the best step along
it promises ``-p^2 / 2c`` (Martens & Grosse 2015, sec. 6.4). Slope and curvature are taken on other examples
than the direction, or noise would pass for promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from evo_topo.edits import AddUnits, AnyEdit, GrowConnections, GrowKernel, SplitBranch, SplitLayer
from evo_topo.genome import Genome, Node
from evo_topo.inheritance import inherit_some, new_norms
from evo_topo.inheritance.directions import Reading, direct_new_units
from evo_topo.inheritance.statistics import settle_norm
from evo_topo.ops import Conv, Linear
from evo_topo.phenotype import node_value
from evo_topo.saliency.changes import Response, Values, nodes_towards, run_nodes
from evo_topo.saliency.new_maps import NewMap, border, steepest
from evo_topo.units import NEW, mixes_units


class Growth:
    """The new maps of one edit.

    Args:
        model: The parent's network.
        genome: The parent's genome.
        edit: AddUnits, SplitLayer, SplitBranch, GrowKernel or GrowConnections.
        readings: Of `layer_readings`, from which new units take their directions.

    Attributes:
        joints: The parent's nodes whose gradients are needed.
    """

    def __init__(
        self, model: nn.Module, genome: Genome, edit: AnyEdit, readings: Mapping[str, Reading]
    ) -> None:
        self._nodes: list[Node] = []
        self._modules = nn.Module()
        self._fresh: dict[str, list[int] | None] = {}  # channels of Norms whose statistics are to be taken
        child = edit.apply(genome)
        match edit:
            case SplitLayer():
                (layer, *_) = _new_nodes(genome, child)
                maps = [(_whole(edit.after), NewMap(edit.after, _layer(layer), behind_relu=True))]
            case SplitBranch():
                layers = [n for n in _new_nodes(genome, child) if isinstance(n.op, Conv | Linear)]
                op = _layer(layers[0]) if layers else None
                maps = [(_whole(edit.source), NewMap(edit.target, op))]
            case GrowKernel():
                node, op = genome.by_name[edit.conv], _layer(child.by_name[edit.conv])
                assert isinstance(node.op, Conv)
                maps = [(_whole(node.inputs[0]), NewMap(edit.conv, op, border(node.op.kernel)))]
            case GrowConnections():
                node, mask = genome.by_name[edit.layer], model.get_buffer(f"{edit.layer}.mask")
                room = steepest(mask, edit.count)
                maps = [(_whole(node.inputs[0]), NewMap(edit.layer, _layer(node), room))]
            case AddUnits():
                maps = self._outgoing(model, genome, edit, child, readings)
            case _:
                raise TypeError(f"expected an edit with parameters that start at zero, got {edit.describe()}")
        self._maps = maps
        self.joints = {new.target for _, new in maps}

    def _outgoing(
        self,
        model: nn.Module,
        genome: Genome,
        edit: AddUnits,
        child: Genome,
        readings: Mapping[str, Reading],
    ) -> list[tuple[Callable[[Values], Tensor], NewMap]]:
        """One map for each layer that reads the new units; sets what computes these."""
        channels = edit.channel_map(genome)
        known = {name for name, origins in channels.items() if NEW not in origins}
        readers = [n for n in child.nodes if mixes_units(n) and NEW in channels[n.inputs[0]]]
        self._nodes = nodes_towards(child, {node.inputs[0] for node in readers}, known)
        self._modules = inherit_some(model, genome, edit, child, self._nodes)
        direct_new_units(model, genome, edit, self._modules, readings)
        here = {node.name for node in self._nodes}
        self._fresh = {n: at for n, at in new_norms(genome, child, channels).items() if n in here}
        maps = []
        for node in readers:
            at = [c for c, origin in enumerate(channels[node.inputs[0]]) if origin == NEW]
            maps.append((_part(node.inputs[0], at), NewMap(node.name, _layer(node))))
        return maps

    @torch.no_grad()
    def observe(self, values: Values, responses: Sequence[Response]) -> None:
        """Adds examples to what decides the direction."""
        for node in self._nodes if self._fresh else ():
            read = [values[name] for name in node.inputs]
            if node.name in self._fresh:
                settle_norm(self._modules.get_submodule(node.name), read[0], self._fresh.pop(node.name))
            values = {**values, node.name: node_value(node, self._modules, read)}
        values = run_nodes(self._nodes, self._modules, values)
        loss, *curvatures = responses
        for source, new in self._maps:
            at = new.target
            new.observe(source(values), values[at], loss.at[at], [r.at[at] for r in curvatures])

    def settle(self) -> None:
        """Sets the direction from all that was observed."""
        for _, new in self._maps:
            new.settle()

    @torch.no_grad()
    def differences(self, values: Values) -> Iterator[tuple[str, Tensor]]:
        """Each target, and by how much its value changes per unit of step."""
        values = run_nodes(self._nodes, self._modules, values)
        for source, new in self._maps:
            yield new.target, new.change(source(values), values[new.target])


def _new_nodes(genome: Genome, child: Genome) -> list[Node]:
    return [node for node in child.nodes if node.name not in genome.by_name]


def _layer(node: Node) -> Conv | Linear:
    assert isinstance(node.op, Conv | Linear)
    return node.op


def _whole(name: str) -> Callable[[Values], Tensor]:
    return lambda values: values[name]


def _part(name: str, channels: Sequence[int]) -> Callable[[Values], Tensor]:
    return lambda values: values[name][:, list(channels)]
