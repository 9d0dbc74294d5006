"""The frame of all edits: a mutation as frozen data."""

from __future__ import annotations

from typing import ClassVar, Protocol

import msgspec
from msgspec import Struct

from evo_topo.genome import Genome, GenomeError, Node
from evo_topo.ops import Conv, Linear


class EditError(ValueError):
    """An edit does not apply to a genome; the message says why."""


class RandomSource(Protocol):
    """Anything that draws uniform numbers from [0, 1): random.Random or a NumPy Generator."""

    def random(self) -> float: ...


class Edit(Struct, frozen=True, forbid_unknown_fields=True, tag_field="edit"):
    """Base of all edits.

    Attributes:
        is_function_preserving: Whether a child that inherits through it computes what its parent does.
    """

    is_function_preserving: ClassVar[bool] = False

    def apply(self, genome: Genome) -> Genome:
        """The child genome.

        Raises:
            EditError: When the edit does not apply to this genome.
        """
        raise EditError(f"{type(self).__name__} cannot be applied")

    def unit_map(self, genome: Genome) -> dict[str, list[int]]:
        """For each group whose units change: for each unit of the child, the parent's unit."""
        return {}

    def describe(self) -> str:
        """A few words for tables and figures."""
        return type(self).__name__

    def to_json(self) -> str:
        """The edit as JSON text; `edit_from_json` gives the equal edit back."""
        return msgspec.json.encode(self).decode()


def child_of(nodes: tuple[Node, ...], edit: Edit) -> Genome:
    """The child genome with these nodes; an `EditError` where they are no valid network."""
    try:
        return Genome(nodes)
    except GenomeError as error:
        raise EditError(f"{edit.describe()}: the child is not valid: {error}") from None


def weighted_layer(genome: Genome, layer: str) -> Conv | Linear:
    """The Conv or Linear of a name.

    Raises:
        EditError: When there is no such node.
    """
    node = genome.by_name.get(layer)
    if node is None or not isinstance(node.op, Conv | Linear):
        raise EditError(f"there is no Conv or Linear node {layer!r}")
    return node.op


def with_op(genome: Genome, name: str, op: Conv | Linear) -> tuple[Node, ...]:
    """The nodes, one of them with another operation."""
    return tuple([Node(name, op, node.inputs) if node.name == name else node for node in genome.nodes])
