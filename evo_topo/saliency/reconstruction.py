"""Least-squares compensation: survivors take over, as far as they can, what removed units did.

Layer by layer, in the order in which they run, the incoming weights of each Conv and Linear are refit such
that the child's pre-activations come as close as they can to the parent's (He, Zhang & Sun 2017, sec. 3.1;
Optimal Brain Surgeon within a layer: Dong, Chen & Pan 2017). What a layer reads is the child's own
activation, with the errors of all layers before it, so these are mended on the way and do not add up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.fx import GraphModule

from evo_topo.edits import SingleEdit
from evo_topo.genome import Genome, Node
from evo_topo.hooks import in_mode
from evo_topo.ops import Input, Norm, is_plain
from evo_topo.phenotype import node_value
from evo_topo.saliency.changes import in_common
from evo_topo.units import mixes_units

DAMPING = 1e-2
"""Ridge on the change of a layer's weights, as a share of the mean second moment of what it reads."""
EQUATIONS_PER_WEIGHT = 100
"""Of more positions in space than these, some are drawn: neighbours tell nearly the same."""
_CHUNK = 128  # examples whose patches are held at once


@torch.no_grad()
def reconstruct(
    child_model: nn.Module,
    model: nn.Module,
    genome: Genome,
    edit: SingleEdit,
    inputs: Tensor,
    seed: int = 0,
) -> None:
    """Refits the network of a child to its parent's, layer by layer, in place.

    Each Conv (but grouped ones) and Linear behind the change that has a counterpart in the parent, and the
    last factor of a factorised layer, solves ``min |X w - z|^2 + damping |w - w_0|^2`` with its inputs X in
    the child, the parent's pre-activations z and the inherited weights w_0. Sparse and binary layers keep
    what they inherit, for theirs are not any weights. BatchNorm statistics become those of the child. All
    activations of a few layers are held at once, for all examples.

    Args:
        child_model: Network of ``edit.apply(genome)`` with any inherited weights.
        model: Network of `genome`; it stays as it is.
        genome: The parent's genome.
        edit: The mutation.
        inputs: Normalised inputs (examples, *input_shape); no targets are needed.
        seed: Decides the positions in space that large layers are fit on.

    Raises:
        TypeError: When a network comes neither from `build` nor from `inherit`.
    """
    for network in (model, child_model):
        if not isinstance(network, GraphModule):
            raise TypeError(f"expected a network from build or inherit, got {type(network).__name__}")
    child, channels, joint = edit.apply(genome), edit.channel_map(genome), edit.joint(genome)
    counterparts = {node.name: node.name for node in child.nodes if node.name in genome.by_name}
    if joint is not None:
        counterparts[joint[1]] = joint[0]
    common = in_common(genome, child)
    generator = torch.Generator().manual_seed(seed)
    with in_mode(model, training=False), in_mode(child_model, training=False):
        after = _Run(child_model, child, inputs)
        before = _Run(model, genome, inputs)
        for node in child.nodes:
            counterpart = counterparts.get(node.name)
            target = None if counterpart is None else before.value(counterpart)
            if node.name not in common and target is not None:
                rows = channels.get(node.name, range(target.shape[1]))
                width, *extents = child.shapes[node.name]
                is_refit = mixes_units(node) and is_plain(node.op)
                if is_refit and (len(rows), *extents) == (width, *target.shape[2:]):
                    layer, read = child_model.get_submodule(node.name), after.read(node)
                    _refit(layer, read, target, rows, _has_free_mean(child, node), generator)
                elif isinstance(node.op, Norm):
                    _measure(child_model.get_submodule(node.name), after.read(node))
            after.value(node.name)


class _Run:
    """A network that runs as far as it is asked to; a value is kept as long as a later node reads it.

    Args:
        model: Network of `genome`.
        genome: Its genome.
        inputs: What it reads.
    """

    def __init__(self, model: nn.Module, genome: Genome, inputs: Tensor) -> None:
        self._model, self._inputs = model, inputs
        self._waiting = iter(genome.nodes)
        self._values: dict[str, Tensor] = {}
        self._left = {name: len(readers) for name, readers in genome.readers.items()}

    def value(self, name: str) -> Tensor:
        """The value of a node, which is not forgotten yet; runs the network up to it."""
        while name not in self._values:
            node = next(self._waiting)
            is_input = isinstance(node.op, Input)
            value = self._inputs if is_input else node_value(node, self._model, self._reads(node))
            self._values[node.name] = value
            for read in dict.fromkeys(node.inputs):
                self._left[read] -= 1
                if not self._left[read]:
                    del self._values[read]
        return self._values[name]

    def read(self, node: Node) -> Tensor:
        """What a node of one input reads."""
        return self.value(node.inputs[0])

    def _reads(self, node: Node) -> list[Tensor]:
        return [self._values[name] for name in node.inputs]


def _has_free_mean(genome: Genome, node: Node) -> bool:
    """Whether a shift of each output channel can be made up: by a bias, or by the BatchNorm behind it."""
    readers = [genome.by_name[name].op for name in genome.readers[node.name]]
    return bool(getattr(node.op, "bias", False)) or all(isinstance(op, Norm) for op in readers)


def _refit(
    layer: nn.Module,
    read: Tensor,
    target: Tensor,
    rows: Sequence[int],
    free_mean: bool,
    generator: torch.Generator,
) -> None:
    """Least squares of a layer's weights, and of its bias where it has one."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    size, places = weight[0].numel(), target.shape[2:].numel()
    wanted = -(-EQUATIONS_PER_WEIGHT * size // len(read))
    gram = weight.new_zeros(size, size, dtype=torch.float64)
    cross = weight.new_zeros(size, len(rows), dtype=torch.float64)
    mean_x, mean_z, count = gram[0].clone(), cross[0].clone(), 0
    for x, z in zip(torch.split(read, _CHUNK), torch.split(target, _CHUNK), strict=True):
        at = torch.randperm(places, generator=generator)[:wanted].to(x.device)
        x = _equations(layer, x, at)
        z = z[:, rows].reshape(len(z), len(rows), places)[:, :, at].transpose(1, 2).reshape(-1, len(rows))
        gram += x.T @ x
        cross += x.T @ z
        mean_x += x.sum(0)
        mean_z += z.sum(0)
        count += len(x)
    gram, cross, mean_x, mean_z = (total / count for total in (gram, cross, mean_x, mean_z))
    if free_mean:
        gram -= torch.outer(mean_x, mean_x)
        cross -= torch.outer(mean_x, mean_z)
    old = weight.flatten(1).T.double()
    ridge = (DAMPING * gram.diagonal().mean()).clamp(min=1e-30)
    new = old + torch.linalg.solve(gram + ridge * torch.eye(size).to(gram), cross - gram @ old)
    weight.copy_(new.T.reshape(weight.shape))
    if isinstance(bias, Tensor):
        bias.copy_(mean_z - mean_x @ new)


def _equations(layer: nn.Module, read: Tensor, at: Tensor) -> Tensor:
    """What a layer multiplies with its weights, one row per example and position: (rows, weights)."""
    if isinstance(layer, nn.Linear):
        return read
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    kernel, strides, dilations = layer.kernel_size, layer.stride, layer.dilation
    assert not isinstance(layer.padding, str)
    paddings: list[int] = [side for extent in layer.padding[::-1] for side in (extent, extent)]
    windows = F.pad(read, paddings)
    for dim, size in enumerate(kernel):
        windows = windows.unfold(dim + 2, (size - 1) * dilations[dim] + 1, strides[dim])
        windows = windows[..., :: dilations[dim]]
    if len(kernel) == 1:
        patches = windows[:, :, at]
    else:
        patches = windows[:, :, at // windows.shape[3], at % windows.shape[3]]
    return patches.transpose(1, 2).reshape(len(read) * len(at), -1)


def _measure(norm: nn.Module, read: Tensor) -> None:
    """Sets a BatchNorm's statistics to those of what it reads."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    dims = [dim for dim in range(read.dim()) if dim != 1]
    variance, mean = torch.var_mean(read, dims, correction=0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
