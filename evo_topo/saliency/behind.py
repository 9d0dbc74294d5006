"""What lies behind a joint, as it runs fastest: for the loss of many edits on few examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from evo_topo.genome import Genome, Node
from evo_topo.hooks import in_mode
from evo_topo.in_place import overwritten
from evo_topo.ops import Conv
from evo_topo.saliency.changes import Values, run_nodes


class Behind:
    """Runs the nodes whose values follow from that of one. BatchNorms are folded, ReLUs write in place.

    Args:
        model: Network of `genome`, as it is now.
        genome: Its genome.
    """

    def __init__(self, model: nn.Module, genome: Genome) -> None:
        self._genome, self._children = genome, dict(model.named_children())
        self._folded: dict[str, nn.Module] = {}  # convolutions, by their BatchNorm
        with in_mode(model, training=False):
            for node in genome.nodes:
                norm, layer = self._children.get(node.name), self._children.get(next(iter(node.inputs), ""))
                if isinstance(norm, _BatchNorm) and _is_foldable(genome, node):
                    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
                    self._folded[node.name] = fuse_conv_bn_eval(layer, norm)
        self._parts: dict[str, tuple[list[Node], nn.Module]] = {}

    def logits(self, joint: str, values: Values, value: Tensor) -> Tensor:
        """What the network answers where a node has another value.

        Args:
            joint: The node.
            values: Every activation with the node's own value, (examples, ...) each.
            value: The other value, or several for each example, (several x examples, ...).

        Returns:
            Logits (several x examples, classes).
        """
        if joint not in self._parts:
            self._parts[joint] = self._part(joint)
        nodes, modules = self._parts[joint]
        made = {joint, *(node.name for node in nodes)}
        beside = {name: values[name] for node in nodes for name in node.inputs if name not in made}
        again = len(value) // len(next(iter(values.values())))
        known = {name: torch.cat([kept] * again) for name, kept in beside.items()} if again > 1 else beside
        return run_nodes(nodes, modules, {**known, joint: value})[self._genome.nodes[-1].name]

    def _part(self, joint: str) -> tuple[list[Node], nn.Module]:
        """The nodes behind one, in order, and their modules."""
        nodes, changed, modules = list[Node](), {joint}, nn.Module()
        for node in self._genome.nodes:
            if changed.isdisjoint(node.inputs):
                continue
            module, over = self._children.get(node.name), overwritten(self._genome, node)
            if node.name in self._folded and node.inputs[0] in changed - {joint}:
                modules.add_module(node.inputs[0], self._folded[node.name])
                module = nn.Identity()
            elif over in changed - {joint} and isinstance(module, nn.ReLU | nn.ReLU6):
                module = nn.ReLU(inplace=True) if isinstance(module, nn.ReLU) else nn.ReLU6(inplace=True)
            if module is not None:
                modules.add_module(node.name, module)
            changed.add(node.name)
            nodes.append(node)
        return nodes, modules


def _is_foldable(genome: Genome, norm: Node) -> bool:
    """Whether a BatchNorm is that of a real, dense convolution that nothing else reads."""
    conv = genome.by_name[norm.inputs[0]]
    is_plain = isinstance(conv.op, Conv) and not conv.op.binary and conv.op.fan_in is None
    return is_plain and genome.readers[conv.name] == (norm.name,)
