"""What new parameters promise that start without effect.

Every growth adds a linear map ``W``, zero so far, from one activation ``x`` to another ``y``: the path of a
new branch, the border taps of a larger window, the deviation of an inserted layer from the identity, the
outgoing weights of new units. With gradient ``M = E[g x^T]`` and curvature ``A (x) B`` of the
Kronecker-factored Gauss-Newton matrix (Martens & Grosse 2015; for convolutions Grosse & Martens 2016, here
with the identity over the taps) its direction of descent is ``-B^-1 M A^-1``. The change ``d`` that this
direction makes to ``y`` has an exact slope ``p`` and GGN curvature ``c``, and the best step along it promises
``-p^2 / 2c`` (Martens & Grosse 2015, sec. 6.4). Slope and curvature are taken on other examples than the
direction, or noise would pass for promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from evo_topo.edits import AddUnits, AnyEdit, GrowKernel, SplitBranch, SplitLayer
from evo_topo.genome import Genome, Node
from evo_topo.inheritance import inherit_some, new_norms
from evo_topo.inheritance.directions import Reading, conv_weight_gradient, direct_new_units
from evo_topo.inheritance.statistics import settle_norm
from evo_topo.ops import Conv, Linear
from evo_topo.phenotype import node_value
from evo_topo.saliency.changes import Response, Values, nodes_towards, run_nodes
from evo_topo.units import NEW, mixes_units

DAMPING = 0.1
"""Added to each Kronecker factor, as a share of its mean eigenvalue."""


class NewMap:
    """A linear map that starts at zero, and the direction in which it should leave it.

    Args:
        target: Node to whose value it is added.
        op: A Conv or Linear that says how it reads; None for one factor per channel.
        inner: Extents of the window in the middle that is not new, if any.
        behind_relu: Whether it is added in front of the activation that `target` is.
    """

    def __init__(
        self,
        target: str,
        op: Conv | Linear | None,
        inner: Sequence[int] = (),
        behind_relu: bool = False,
    ) -> None:
        self.target, self._op, self._inner, self._behind_relu = target, op, inner, behind_relu
        self._slope: Tensor | None = None  # sums over what was observed
        self._reads: Tensor | None = None
        self._curves: Tensor | None = None
        self.weight: Tensor | None = None

    def observe(self, x: Tensor, y: Tensor, gradient: Tensor, curvatures: Sequence[Tensor]) -> None:
        """Adds examples: what is read, what is added to, its gradients of the loss and of `hessian_root`."""
        slope = self._weight_gradient(x, self._seen(y, gradient))
        reads = _second_moment(x)
        curves = sum((_second_moment(self._seen(y, s)) for s in curvatures), torch.zeros(()))
        self._slope = slope if self._slope is None else self._slope + slope
        self._reads = reads if self._reads is None else self._reads + reads
        self._curves = curves if self._curves is None else self._curves + curves

    def settle(self) -> None:
        """Sets the direction, from all that was observed."""
        assert self._slope is not None
        assert self._reads is not None
        assert self._curves is not None
        slope = self._slope.double()
        if self._inner:
            border = [(k - n) // 2 for k, n in zip(slope.shape[2:], self._inner, strict=True)]
            middle = [slice(b, k - b) for b, k in zip(border, slope.shape[2:], strict=True)]
            slope[(slice(None), slice(None), *middle)] = 0
        a, b = _damped(self._reads), _damped(self._curves)
        if self._op is None:
            step = slope / (a.diagonal() * b.diagonal())
        elif slope.shape[1] != len(a):  # groups: each output reads inputs of its own
            step = slope / b.diagonal().view(-1, *[1] * (slope.dim() - 1))
        else:
            step = torch.linalg.solve(b, slope.flatten(1)).reshape(slope.shape)
            step = torch.linalg.solve(a, step.transpose(0, 1).flatten(1)).reshape(
                len(a), len(b), *slope.shape[2:]
            )
            step = step.transpose(0, 1)
        self.weight = -step.to(self._slope.dtype).contiguous()

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """By how much the value of the target changes, per unit of step."""
        assert self.weight is not None
        op = self._op
        if op is None:
            return self._seen(y, x * self.weight.view(-1, *[1] * (x.dim() - 2)))
        if isinstance(op, Linear):
            return self._seen(y, functional.linear(x, self.weight))
        run: Callable[..., Tensor] = functional.conv1d if len(op.kernel) == 1 else functional.conv2d
        made = run(x, self.weight, None, op.stride, op.padding, op.dilation, op.groups)
        return self._seen(y, made)

    def _seen(self, y: Tensor, values: Tensor) -> Tensor:
        """What passes the activation; y is its output, of a ReLU or ReLU6."""
        return values * ((y > 0) & (y != 6)) if self._behind_relu else values

    def _weight_gradient(self, x: Tensor, gradient: Tensor) -> Tensor:
        op = self._op
        if op is None:
            return (x * gradient).transpose(0, 1).flatten(1).sum(1)
        if isinstance(op, Linear):
            return gradient.T @ x
        size = (gradient.shape[1], x.shape[1] // op.groups, *op.kernel)
        return conv_weight_gradient(op, x, size, gradient)


def _second_moment(values: Tensor) -> Tensor:
    """Products of channels summed over examples and space, (channels, channels)."""
    rows = values.transpose(0, 1).flatten(1)
    return rows @ rows.T


def _damped(moment: Tensor) -> Tensor:
    mean = moment.diagonal().double().mean()
    eye = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
    return moment.double() + (DAMPING * mean + 1e-30) * eye


class Growth:
    """The new maps of one edit.

    Args:
        model: The parent's network.
        genome: The parent's genome.
        edit: AddUnits, SplitLayer, SplitBranch or GrowKernel.
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
                maps = [(_whole(node.inputs[0]), NewMap(edit.conv, op, node.op.kernel))]
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
