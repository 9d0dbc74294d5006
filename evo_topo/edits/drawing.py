"""Which edits apply to a genome, and drawing one at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod
from typing import TypeVar

import msgspec

from evo_topo.edits.base import EditError, RandomSource
from evo_topo.edits.connection_edits import (
    GrowConnections,
    PruneConnections,
    legal_connection_edits,
    random_connection_edits,
)
from evo_topo.edits.layer_edits import PruneLayer, SplitLayer, is_idempotent, layer_chain
from evo_topo.edits.precision_edits import Binarise, Debinarise, legal_precision_edits
from evo_topo.edits.unit_edits import PruneUnits, SplitUnits, spare_units
from evo_topo.genome import MAX_NODES, Genome, Node, once_per_genome
from evo_topo.ops import MAX_CHANNELS, MAX_ELEMENTS, MAX_WIDTH, Conv, Linear
from evo_topo.units import UnitGroup, is_maker, unit_table

T = TypeVar("T")

AnyEdit = (
    PruneUnits
    | SplitUnits
    | PruneLayer
    | SplitLayer
    | PruneConnections
    | GrowConnections
    | Binarise
    | Debinarise
)
"""Every kind of edit: what a lineage may hold."""

_decoder: msgspec.json.Decoder[AnyEdit] = msgspec.json.Decoder(AnyEdit)


def edit_from_json(text: str | bytes) -> AnyEdit:
    """Reads an edit from JSON text, trusted or not.

    Raises:
        EditError: When the text is no edit.
    """
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise EditError(f"not an edit: {error}") from None


def legal_edits(genome: Genome) -> Iterator[AnyEdit]:
    """Every edit that applies, lazily: one per kind and site, unit edits with one unit each."""
    roomy = _is_roomy(genome)
    for group in unit_table(genome).groups.values():
        for unit in range(group.width):
            if list(spare_units(genome, group, (unit,))):
                yield PruneUnits(((group.name, (unit,)),))
            split = SplitUnits(((group.name, (unit,)),))
            if group.splittable[unit] and (roomy or _applies(split, genome)):
                yield split
    yield from legal_layer_edits(genome)
    yield from legal_connection_edits(genome)
    yield from legal_precision_edits(genome)


def legal_layer_edits(genome: Genome) -> Iterator[PruneLayer | SplitLayer]:
    """The layer edits that apply, lazily."""
    roomy = _is_roomy(genome)
    trainable = [node for node in genome.nodes if isinstance(node.op, Conv | Linear)]
    for node in trainable:
        end = layer_chain(genome, node.name)[-1]
        if len(trainable) > 1 and genome.shapes[end] == genome.shapes[node.inputs[0]]:
            yield PruneLayer(node.name)
    for node in genome.nodes:
        if is_idempotent(node):
            width, *extents = genome.shapes[node.name]
            kernel = 3 if max(extents, default=1) > 1 else 1
            insert = SplitLayer(node.name, kernel)
            weights = width**2 * kernel ** len(extents)
            if (roomy and weights <= MAX_ELEMENTS) or _applies(insert, genome):
                yield insert


def random_edit(genome: Genome, rng: RandomSource) -> AnyEdit:
    """Draws a kind of edit, a site and a size, each uniformly (sizes up to half).

    Args:
        genome: The parent.
        rng: Source of uniform numbers: ``random.Random`` or a NumPy ``Generator``.

    Raises:
        EditError: When no edit applies to this genome.
    """
    groups = list(unit_table(genome).groups.values())
    layers = list(legal_layer_edits(genome))
    connections = list(random_connection_edits(genome, rng))
    precisions = list(legal_precision_edits(genome))
    kinds: list[list[AnyEdit]] = [
        list(_random_unit_edits(genome, groups, rng, PruneUnits)),
        list(_random_unit_edits(genome, groups, rng, SplitUnits)),
        [edit for edit in layers if isinstance(edit, PruneLayer)],
        [edit for edit in layers if isinstance(edit, SplitLayer)],
        [edit for edit in connections if isinstance(edit, PruneConnections)],
        [edit for edit in connections if isinstance(edit, GrowConnections)],
        [edit for edit in precisions if isinstance(edit, Binarise)],
        [edit for edit in precisions if isinstance(edit, Debinarise)],
    ]
    candidates = [kind for kind in kinds if kind]
    if not candidates:
        raise EditError("no edit applies to this genome")
    return draw(draw(candidates, rng), rng)


def draw(items: Sequence[T], rng: RandomSource) -> T:
    """One of the items, uniformly."""
    return items[int(rng.random() * len(items))]


def _random_unit_edits(
    genome: Genome,
    groups: list[UnitGroup],
    rng: RandomSource,
    kind: type[PruneUnits] | type[SplitUnits],
) -> Iterator[AnyEdit]:
    """At most one edit of a random size, of a random group that allows it."""
    for group in sorted(groups, key=lambda _: rng.random()):
        order = sorted(range(group.width), key=lambda _: rng.random())
        size = 1 + int(rng.random() * group.width / 2)
        if kind is PruneUnits:
            units = list(islice(spare_units(genome, group, order), size))
        else:
            units = [unit for unit in order if group.splittable[unit]][:size]
        edit = kind(((group.name, tuple(sorted(units))),))
        if units and (kind is PruneUnits or _applies(edit, genome)):
            yield edit
            return


@once_per_genome
def _is_roomy(genome: Genome) -> bool:
    """Whether any single split stays below the size limits, so that none must be tried out."""
    return len(genome.nodes) + 3 <= MAX_NODES and all(
        4 * max(prod(genome.shapes[node.name]), _num_params(genome, node)) <= MAX_ELEMENTS
        and 2 * genome.shapes[node.name][0] <= (MAX_WIDTH if is_maker(node) else MAX_CHANNELS)
        for node in genome.nodes
    )


def _num_params(genome: Genome, node: Node) -> int:
    return node.op.num_params(genome.input_shapes(node), genome.shapes[node.name])


def _applies(edit: AnyEdit, genome: Genome) -> bool:
    try:
        edit.apply(genome)
    except EditError:
        return False
    return True
