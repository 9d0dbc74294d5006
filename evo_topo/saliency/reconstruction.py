"""Least-squares compensation: survivors take over, as far as they can, what removed units did.

Layer by layer, in the order in which they run, the incoming weights of each Conv and Linear are refit such
that the child's pre-activations come as close as they can to the parent's (He, Zhang & Sun 2017, sec. 3.1;
Optimal Brain Surgeon within a layer: Dong, Chen & Pan 2017). What a layer reads is the child's own
activation, with the errors of all layers before it, so these are mended on the way and do not add up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from evo_topo.edits import SingleEdit
from evo_topo.genome import Genome, Node
from evo_topo.hooks import in_mode
from evo_topo.ops import Input, Norm, is_plain
from evo_topo.phenotype import node_value
from evo_topo.saliency.changes import in_common
from evo_topo.saliency.least_squares import fit_layer, has_free_mean
from evo_topo.units import mixes_units


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
    last of those that take a layer's place, solves ``min |X w - z|^2 + damping |w - w_0|^2`` with inputs X of
    its own in the child, the parent's pre-activations z and the inherited weights w_0. Sparse and binary
    layers keep what they inherit, for theirs are not any weights. BatchNorm statistics become those of the
    child. All activations of a few layers are held at once, for all examples.

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
            # of nodes in common nothing is asked: at a joint the parent may have run past them
            target = None if counterpart is None or node.name in common else before.value(counterpart)
            if target is not None:
                rows = channels.get(node.name, range(target.shape[1]))
                width, *extents = child.shapes[node.name]
                is_refit = mixes_units(node) and is_plain(node.op)
                if is_refit and (len(rows), *extents) == (width, *target.shape[2:]):
                    layer, read = child_model.get_submodule(node.name), after.read(node)
                    fit_layer(layer, read, target, rows, has_free_mean(child, node), generator)
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


def _measure(norm: nn.Module, read: Tensor) -> None:
    """Sets a BatchNorm's statistics to those of what it reads."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    dims = [dim for dim in range(read.dim()) if dim != 1]
    variance, mean = torch.var_mean(read, dims, correction=0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
