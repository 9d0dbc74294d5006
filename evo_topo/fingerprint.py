"""Fingerprints of genomes: equal for isomorphic graphs, whatever their nodes are called. No torch."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from evo_topo.ops import AnyOp

if TYPE_CHECKING:
    from evo_topo.genome import Genome, Node


def fingerprint_of(genome: Genome) -> str:
    """Digest of a genome's graph as 32 hexadecimal digits.

    Colour refinement (Weisfeiler & Leman 1968) along the graph, down and up, then as a multiset: each node's
    first colour says what it computes from the input; its second adds how it is used, which tells a shared
    node from two equal ones.
    """
    down: dict[str, str] = {}
    for node in genome.nodes:
        reads = [down[name] for name in node.inputs]
        if node.op.routing == "ties":
            reads.sort()  # the order of a sum or product does not matter
        down[node.name] = _digest(f"({_described(node.op)}, {reads!r})")
    uses: dict[str, list[tuple[str, list[int]]]] = {name: [] for name in down}
    colours = []
    for node in reversed(genome.nodes):
        used = sorted(uses[node.name])
        colour = _digest(f"({down[node.name]!r}, {used!r})")
        colours.append(colour)
        if len(node.inputs) == 1:  # as most do
            uses[node.inputs[0]].append((colour, [0]))
        else:
            for name, places in _places(node).items():
                uses[name].append((colour, places))
    return _digest(repr((sorted(colours),)))


def _places(node: Node) -> dict[str, list[int]]:
    """The places at which a node reads each of its inputs; all are alike to a sum or product."""
    places: dict[str, list[int]] = {name: [] for name in node.inputs}
    for place, name in enumerate(node.inputs):
        places[name].append(0 if node.op.routing == "ties" else place)
    return places


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)  # a search meets the same operations again and again
def _described(op: AnyOp) -> str:
    """Kind and values of all fields; what marks a layer as sparse or binary counts only where it is set."""
    fields = msgspec.structs.asdict(op)
    marks = [(name, fields.pop(name, None)) for name in ("fan_in", "binary")]
    return f"{type(op).__name__!r}, {(*fields.values(), *[mark for mark in marks if mark[1]])!r}"
