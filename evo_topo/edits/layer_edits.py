"""Layer edits: bypass a layer, or insert one that starts as the identity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

from msgspec import Meta

from evo_topo.edits.base import Edit, EditError, applies
from evo_topo.edits.surgery import child_of, fresh_names, inserted, is_roomy, layer_of, node_of, reading
from evo_topo.genome import Genome, Node
from evo_topo.ops import MAX_ELEMENTS, Activation, Conv, Layer, Linear, Norm


class PruneLayer(Edit, frozen=True, tag="prune_layer"):
    """Bypasses a layer: a Conv or Linear with the Norm and Activation that follow it alone."""

    layer: str

    def apply(self, genome: Genome) -> Genome:
        chain = layer_chain(genome, self.layer)
        source = genome.by_name[self.layer].inputs[0]
        if genome.shapes[source] != genome.shapes[chain[-1]]:
            raise EditError(
                f"layer {self.layer!r} reads shape {genome.shapes[source]} and makes "
                f"{genome.shapes[chain[-1]]}: only equal shapes can be bypassed"
            )
        nodes = [reading(node, {chain[-1]: source}) for node in genome.nodes if node.name not in chain]
        return child_of(nodes, self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return layer_chain(genome, self.layer)[-1], genome.by_name[self.layer].inputs[0]

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        trainable = [node for node in genome.nodes if isinstance(node.op, Layer)]
        for node in trainable:
            end = layer_chain(genome, node.name)[-1]
            if len(trainable) > 1 and genome.shapes[end] == genome.shapes[node.inputs[0]]:
                yield cls(node.name)

    @classmethod
    def legal(cls, genome: Genome) -> Iterator[Self]:
        return cls.candidates(genome)

    def describe(self) -> str:
        return f"prune layer {self.layer}"


class SplitLayer(Edit, frozen=True, tag="split_layer"):
    """Inserts a layer that starts as the identity behind a ReLU or ReLU6 (Net2Deeper).

    The new layer is a convolution (a linear layer behind a feature vector), normalised where the
    layer before it is, and the same activation, which leaves its own output as it is.

    Attributes:
        after: Name of the activation node.
        kernel: Odd extent of the new convolution.
    """

    after: str
    kernel: Annotated[int, Meta(ge=1, le=31)] = 3
    is_function_preserving: ClassVar[bool] = True

    def apply(self, genome: Genome) -> Genome:
        node = node_of(genome, self.after)
        if not is_idempotent(node):
            raise EditError(f"{self.after!r} is no ReLU: a layer behind it cannot start as identity")
        if self.kernel not in range(1, 32, 2):
            raise EditError(f"kernel must be odd, from 1 to 31, got {self.kernel}")
        return child_of(inserted(genome, self.after, self._new_nodes(genome, node)), self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return self.after, self._new_nodes(genome, genome.by_name[self.after])[-1].name

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        for node in genome.nodes:
            if is_idempotent(node):
                extents = genome.shapes[node.name][1:]
                yield cls(node.name, 3 if max(extents, default=1) > 1 else 1)

    @classmethod
    def legal(cls, genome: Genome) -> Iterator[Self]:
        for edit in cls.candidates(genome):
            width, *extents = genome.shapes[edit.after]
            fits = width**2 * edit.kernel ** len(extents) <= MAX_ELEMENTS
            if (is_roomy(genome) and fits) or applies(edit, genome):
                yield edit

    def _new_nodes(self, genome: Genome, node: Node) -> list[Node]:
        width, *extents = genome.shapes[node.name]
        before = genome.by_name[node.inputs[0]]
        has_norm = isinstance(before.op, Norm)
        names = fresh_names(genome, "conv", "linear", "norm", "relu")
        if extents:
            kernel = (self.kernel,) * len(extents)
            padding = (self.kernel // 2,) * len(extents)
            conv = Conv(width, kernel, padding=padding, bias=not has_norm)
            nodes = [Node(names["conv"], conv, (node.name,))]
        else:
            linear = Linear(width, bias=not has_norm)
            nodes = [Node(names["linear"], linear, (node.name,))]
        if has_norm:
            nodes.append(Node(names["norm"], before.op, (nodes[-1].name,)))
        return [*nodes, Node(names["relu"], node.op, (nodes[-1].name,))]

    def describe(self) -> str:
        return f"insert layer after {self.after}"


def is_idempotent(node: Node) -> bool:
    """Whether a node is an activation that leaves its own output as it is."""
    return isinstance(node.op, Activation) and node.op.function in ("relu", "relu6")


def layer_chain(genome: Genome, layer: str) -> list[str]:
    """Names of a Conv or Linear and of the Norm and Activation that alone read it, in order.

    Raises:
        EditError: When there is no such Conv or Linear.
    """
    layer_of(genome, layer)
    chain = [layer]
    for kind in (Norm, Activation):
        readers = genome.readers[chain[-1]]
        if len(readers) == 1 and isinstance(genome.by_name[readers[0]].op, kind):
            chain.append(readers[0])
    return chain
