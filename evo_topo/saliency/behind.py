"""What lies behind a joint, as it runs fastest: for the loss of many edits on few examples."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from evo_topo.genome import Genome, Node
from evo_topo.in_place import overwritten
from evo_topo.ops import Conv
from evo_topo.phenotype import in_mode
from evo_topo.saliency.changes import Values, run_nodes


class Behind:
    """The nodes whose values follow from that of a node. BatchNorms are folded, ReLUs write in place.

    Args:
        model: Network of `genome`; what it later becomes makes no difference to what is folded.
        genome: Its genome.
        joint: The node.
    """

    def __init__(self, model: nn.Module, genome: Genome, joint: str) -> None:
        self._joint, self._nodes = joint, list[Node]()
        changed = {joint}
        for node in genome.nodes:
            if not changed.isdisjoint(node.inputs):
                changed.add(node.name)
                self._nodes.append(node)
        made, children = changed - {joint}, dict(model.named_children())
        self._modules = nn.Module()
        with in_mode(model, training=False):
            for node in self._nodes:
                if node.name not in children:
                    continue
                module, read = children[node.name], node.inputs[0]
                if isinstance(module, nn.ReLU | nn.ReLU6) and overwritten(genome, node) in made:
                    module = nn.ReLU(inplace=True) if isinstance(module, nn.ReLU) else nn.ReLU6(inplace=True)
                elif isinstance(module, _BatchNorm) and read in made and _is_foldable(genome, node):
                    layer = children[read]
                    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
                    self._modules.add_module(read, fuse_conv_bn_eval(layer, module))
                    module = nn.Identity()
                self._modules.add_module(node.name, module)

    def logits(self, values: Values, value: Tensor) -> Tensor:
        """What the network answers where the joint has another value.

        Args:
            values: Every activation with the joint's own value, (examples, ...) each.
            value: The other value.
        """
        if not self._nodes:
            return value
        found = run_nodes(self._nodes, self._modules, {**values, self._joint: value})
        return found[self._nodes[-1].name]


def _is_foldable(genome: Genome, norm: Node) -> bool:
    """Whether a BatchNorm is that of a real, dense convolution that nothing else reads."""
    conv = genome.by_name[norm.inputs[0]]
    is_plain = isinstance(conv.op, Conv) and not conv.op.binary and conv.op.fan_in is None
    return is_plain and genome.readers[conv.name] == (norm.name,)
