"""The genome: an immutable, validated graph of operations. No torch.

A genome is data. Its JSON is exact (`Genome.from_json(g.to_json()) == g`), its fingerprint depends on
the graph alone (not on node names, node order or Python's hash seed), and text from a stranger ends
either in a valid genome or in a `GenomeError`, at a cost bounded by the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, wraps
from math import prod
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from evo_topo.fingerprint import fingerprint_of
from evo_topo.ops import MAX_CHANNELS, MAX_ELEMENTS, AnyOp, Input, Layer, OpError, Output, Shape

T = TypeVar("T")
MAX_JSON_BYTES = 4 * 2**20
MAX_NODES = 20_000
# The last character is a digit, so that no name meets an attribute of torch.nn.Module.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}[0-9]")


class GenomeError(ValueError):
    """A genome is not valid; the message names the node and the fault."""


class Node(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One operation and the names of the nodes it reads, in order."""

    name: str
    op: AnyOp
    inputs: tuple[str, ...] = ()


class Genome(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """A network as data: nodes in topological order, one `Input` and one `Output` among them.

    Attributes:
        nodes: The operations; each reads only nodes listed before it.

    Raises:
        GenomeError: On construction, when the nodes are not a valid network.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        _ = self.shapes  # inferring the shapes checks every node
        _check_ends(self.nodes)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Output shape of every node for one example, by node name."""
        return _infer_shapes(self.nodes)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def positions(self) -> dict[str, int]:
        """Place of each node in the order, by name."""
        return {node.name: place for place, node in enumerate(self.nodes)}

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Names of the nodes that read each node, in node order; one entry per node."""
        found: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node.name)
        return {name: tuple(readers) for name, readers in found.items()}

    @property
    def input_shape(self) -> Shape:
        """Shape of one example."""
        return next(node.op.shape for node in self.nodes if isinstance(node.op, Input))

    @property
    def num_classes(self) -> int:
        """Number of class scores."""
        return next(self.shapes[n.name][0] for n in self.nodes if isinstance(n.op, Output))

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        """Shapes that a node reads."""
        return tuple([self.shapes[name] for name in node.inputs])

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits, equal for isomorphic graphs, in any process."""
        return fingerprint_of(self)

    def to_json(self) -> str:
        """The genome as JSON text; `from_json` gives the equal genome back."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Genome:
        """Reads a genome from JSON text, trusted or not.

        Args:
            text: At most 4 MiB of JSON.

        Raises:
            GenomeError: When the text is no valid genome; names the node and the fault.
        """
        if len(text) > MAX_JSON_BYTES:
            raise GenomeError(f"genome of {len(text):,} characters: at most {MAX_JSON_BYTES:,} are read")
        try:
            return _decoder.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            if isinstance(error.__cause__, GenomeError):
                raise error.__cause__ from None
            raise GenomeError(_locate(str(error), text)) from None

    def __str__(self) -> str:
        """One line per node: name, operation, output shape, what it reads."""
        rows = []
        for node in self.nodes:
            shape = "x".join(map(str, self.shapes[node.name]))
            params = node.op.num_params(self.input_shapes(node), self.shapes[node.name])
            rows.append((node.name, node.op.describe(), shape, f"{params:,}", *node.inputs))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            f"{name:<{widths[0]}}  {what:<{widths[1]}}  {shape:>{widths[2]}}"
            f"  {params:>{widths[3]}}  {'<- ' if reads else ''}{', '.join(reads)}".rstrip()
            for name, what, shape, params, *reads in rows
        )


_decoder = msgspec.json.Decoder(Genome)


def once_per_genome(function: Callable[[Genome], T]) -> Callable[[Genome], T]:
    """Decorates a pure function of a genome: computed at its first call, then kept with the genome."""
    key = f"{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def kept(genome: Genome) -> T:
        if key not in genome.__dict__:
            genome.__dict__[key] = function(genome)
        value: T = genome.__dict__[key]
        return value

    return kept


def _infer_shapes(nodes: tuple[Node, ...]) -> dict[str, Shape]:
    """Shapes in one pass, checking names, order, arity and sizes on the way."""
    if len(nodes) > MAX_NODES:
        raise GenomeError(f"{len(nodes):,} nodes: at most {MAX_NODES:,} are allowed")
    shapes: dict[str, Shape] = {}
    for node in nodes:
        name = node.name
        if not _NAME.fullmatch(name):
            raise GenomeError(
                f"node {name[:80]!r}: a name is up to 64 lower-case letters, digits and underscores, "
                "starts with a letter and ends in a digit"
            )
        if name in shapes:
            raise GenomeError(f"node {name!r}: the name occurs twice")
        try:
            shapes[name] = infer_shape(node, shapes)
        except KeyError as error:
            raise GenomeError(_unknown_input(nodes, name, error.args[0])) from None
    return shapes


@lru_cache(maxsize=4096)
def _fault_of(text: bytes, kind: type[AnyOp]) -> str | None:
    """What a reader of an operation's JSON would refuse: msgspec checks ranges only when it reads."""
    try:
        msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        return str(error)
    return None


def infer_shape(node: Node, shapes: Mapping[str, Shape]) -> Shape:
    """Output shape of one node for one example, from those of what it reads.

    Raises:
        GenomeError: When it cannot read them, or its output is too large.
        KeyError: When a node that it reads has no shape.
    """
    name, op = node.name, node.op
    fewest, most = op.num_inputs
    if not fewest <= len(node.inputs) <= most:
        raise GenomeError(
            f"node {name!r}: {type(op).__name__} reads {fewest} to {most} inputs, got {len(node.inputs)}"
        )
    try:
        shape = op.infer(tuple([shapes[source] for source in node.inputs]))
    except OpError as error:
        raise GenomeError(f"node {name!r}: {error}") from None
    try:
        fault = _fault_of(msgspec.json.encode(op), type(op))
    except TypeError as error:  # what JSON has no word for
        fault = str(error)
    if fault:
        raise GenomeError(f"node {name!r}: {fault}")
    if shape[0] > MAX_CHANNELS or prod(shape) > MAX_ELEMENTS:
        raise GenomeError(
            f"node {name!r}: output {shape} has over {MAX_CHANNELS} channels or {MAX_ELEMENTS} elements"
        )
    return shape


def _unknown_input(nodes: tuple[Node, ...], name: str, source: str) -> str:
    if any(node.name == source for node in nodes):
        return (
            f"node {name!r}: reads {source!r}, which is not listed before it: "
            "a cycle, or nodes out of topological order"
        )
    return f"node {name!r}: reads {source[:80]!r}, which does not exist"


def _check_ends(nodes: tuple[Node, ...]) -> None:
    """One input, one output, something to train between them, and nothing left unread."""
    for kind in (Input, Output):
        found = [node.name for node in nodes if isinstance(node.op, kind)]
        if len(found) != 1:
            raise GenomeError(f"expected one {kind.__name__} node, got {found[:5] or 'none'}")
    read = {source for node in nodes for source in node.inputs}
    for node in nodes:
        if isinstance(node.op, Output):
            if node.name in read:
                raise GenomeError(f"node {node.name!r}: the output is read by another node")
        elif node.name not in read:
            raise GenomeError(f"node {node.name!r}: no other node reads it")
    if not any(isinstance(node.op, Layer) for node in nodes):
        raise GenomeError("the network has no Conv or Linear node, so nothing to train")


def _locate(message: str, text: str | bytes) -> str:
    """Turns msgspec's path into the node's name where the text is good enough to have one."""
    match = re.search(r"\$\.nodes\[(\d+)\]\S*?([\w.\[\]]*)`", message)
    if match is None:
        return f"not a genome: {message}"
    index = int(match[1])
    try:
        raw: Any = msgspec.json.decode(text)
        name = raw["nodes"][index]["name"]
    except (msgspec.DecodeError, LookupError, TypeError, RecursionError, UnicodeError):
        name = None
    where = f"node {name[:80]!r}" if isinstance(name, str) else f"node number {index}"
    return f"{where}: {message}"
