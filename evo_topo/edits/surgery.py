"""Small operations on the graph that several edits share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from math import prod

from evo_topo.channel_slots import is_maker
from evo_topo.edits.base import Edit, EditError
from evo_topo.genome import MAX_NODES, Genome, GenomeError, Node, infer_shape, once_per_genome
from evo_topo.ops import (
    MAX_CHANNELS,
    MAX_ELEMENTS,
    MAX_WIDTH,
    AnyOp,
    Conv,
    Layer,
    Output,
    Shape,
    is_plain,
)


def child_of(nodes: Sequence[Node], edit: Edit) -> Genome:
    """The child genome with these nodes; an `EditError` where they are no valid network."""
    try:
        return Genome(tuple(nodes))
    except GenomeError as error:
        raise EditError(f"{edit.describe()}: the child is not valid: {error}") from None


def node_of(genome: Genome, name: str) -> Node:
    """The node of that name; an `EditError` where there is none."""
    node = genome.by_name.get(name)
    if node is None:
        raise EditError(f"there is no node {name!r}")
    return node


def conv_of(genome: Genome, name: str) -> tuple[Node, Conv]:
    """The convolution of that name; an `EditError` where there is none."""
    node = genome.by_name.get(name)
    if node is None or not isinstance(node.op, Conv):
        raise EditError(f"there is no Conv node {name!r}")
    return node, node.op


def layer_of(genome: Genome, name: str) -> tuple[Node, Layer]:
    """The Conv or Linear of that name; an `EditError` where there is none."""
    node = genome.by_name.get(name)
    if node is None or not isinstance(node.op, Layer):
        raise EditError(f"there is no Conv or Linear node {name!r}")
    return node, node.op


def check_plain(node: Node) -> None:
    """Refuses, by an `EditError`, sparse and binary layers, whose taps and factors are not any numbers."""
    if not is_plain(node.op):
        raise EditError(f"{node.name!r} is sparse or binary: grow all its connections, or make it real first")


def fitting(genome: Genome, place: str, added: Sequence[Node]) -> dict[str, Shape]:
    """Shapes of nodes that take the place of another one's value; nothing else of the network changes.

    Finds in time that does not grow with the network whether they leave a valid one.

    Args:
        genome: The parent.
        place: Name of the node whose readers read the last of the new nodes.
        added: The new nodes, in order.

    Returns:
        Shapes of the new nodes and of what they read.

    Raises:
        EditError: When they are not valid, or make another shape.
    """
    known = genome.shapes
    found = {name: known[name] for node in added for name in node.inputs if name in known}
    try:
        for node in added:
            found[node.name] = infer_shape(node, found)
    except GenomeError as error:
        raise EditError(f"the child is not valid: {error}") from None
    made, expected = found[added[-1].name], known[place]
    if made != expected:
        raise EditError(f"the new nodes make {made}, but {place!r} {expected}")
    if len(genome.nodes) + len(added) > MAX_NODES:
        raise EditError(f"the network would have over {MAX_NODES:,} nodes")
    return found


def with_ops(genome: Genome, ops: Mapping[str, AnyOp], edit: Edit) -> Genome:
    """The child in which the named nodes have other operations."""
    nodes = [Node(n.name, ops[n.name], n.inputs) if n.name in ops else n for n in genome.nodes]
    return child_of(nodes, edit)


def reading(node: Node, renamed: Mapping[str, str]) -> Node:
    """The node with some of its inputs renamed."""
    if renamed.keys().isdisjoint(node.inputs):
        return node
    return Node(node.name, node.op, tuple([renamed.get(name, name) for name in node.inputs]))


def inserted(genome: Genome, after: str, added: Sequence[Node]) -> list[Node]:
    """The nodes with some more behind one of them; who read that one reads the last of them."""
    nodes: list[Node] = []
    for node in genome.nodes:
        nodes.append(reading(node, {after: added[-1].name}))
        if node.name == after:
            nodes.extend(added)
    return nodes


def substituted(genome: Genome, gone: str, added: Sequence[Node]) -> list[Node]:
    """The nodes with some in the place of one; who read that one reads the last of them."""
    nodes: list[Node] = []
    for node in genome.nodes:
        if node.name == gone:
            nodes.extend(added)
        else:
            nodes.append(reading(node, {gone: added[-1].name}))
    return nodes


def without_unread(nodes: Sequence[Node]) -> list[Node]:
    """The nodes without those whose value nobody uses any more."""
    used: set[str] = set()
    kept = []
    for node in reversed(nodes):  # readers come behind what they read
        if node.name in used or isinstance(node.op, Output):
            used.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def fresh_names(genome: Genome, *words: str) -> dict[str, str]:
    """For each word a new name, all with one number; depends on the genome alone, so edits replay."""
    taken = genome.by_name.keys()
    for number in count(len(genome.nodes)):
        names = {word: f"{word}{number}" for word in words}
        if taken.isdisjoint(names.values()):
            break
    return names


def num_params(genome: Genome, node: Node) -> int:
    """Trainable parameters of one node."""
    return node.op.num_params(genome.input_shapes(node), genome.shapes[node.name])


@once_per_genome
def is_roomy(genome: Genome) -> bool:
    """Whether any single split stays below the size limits, so that none must be tried out."""
    return len(genome.nodes) + 3 <= MAX_NODES and all(
        4 * max(prod(genome.shapes[node.name]), num_params(genome, node)) <= MAX_ELEMENTS
        and 2 * genome.shapes[node.name][0] <= (MAX_WIDTH if is_maker(node) else MAX_CHANNELS)
        for node in genome.nodes
    )
