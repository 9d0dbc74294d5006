"""Unit edits: prune and split channels and neurons, with everything tied to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, ClassVar, Self

from msgspec import Meta
from msgspec.structs import replace

from evo_topo.channels import channel_origins, selected_channels
from evo_topo.edits.base import Edit, EditError, RandomSource, applies, shuffled
from evo_topo.edits.connection_edits import reading_other_channels
from evo_topo.edits.surgery import is_roomy, with_ops
from evo_topo.genome import Genome
from evo_topo.ops import AnyOp, Layer, Linear, Select
from evo_topo.units import UnitGroup, unit_table

UnitSets = tuple[tuple[str, tuple[Annotated[int, Meta(ge=0)], ...]], ...]
"""Units by group: ``(("conv1", (0, 3)), ("conv4", (2,)))``."""


class PruneUnits(Edit, frozen=True, tag="prune_units"):
    """Removes units, with every channel and weight that belongs to them."""

    units: UnitSets

    def apply(self, genome: Genome) -> Genome:
        return with_units(genome, self)

    def unit_map(self, genome: Genome) -> dict[str, list[int]]:
        kept = {}
        for group, units in _checked(genome, self.units):
            gone = set(units)
            for maker, channels in group.makers.items():
                lost = sum(len(channels[unit]) for unit in gone)
                if lost == genome.shapes[maker][0]:
                    raise EditError(f"pruning {len(gone)} units of {group.name!r} empties {maker!r}")
            for node, counts in group.selections.items():
                if sum(counts[unit] for unit in gone) == genome.shapes[node][0]:
                    raise EditError(f"pruning {len(gone)} units of {group.name!r} empties {node!r}")
            kept[group.name] = [unit for unit in range(group.width) if unit not in gone]
        return kept

    @classmethod
    def legal(cls, genome: Genome) -> Iterator[Self]:
        for name, group in unit_table(genome).groups.items():
            held = [
                (genome.shapes[node][0], counts)
                for node, counts in (
                    *((maker, tuple(map(len, channels))) for maker, channels in group.makers.items()),
                    *group.selections.items(),
                )
            ]
            needed = {counts.index(total) for total, counts in held if total in counts}  # these hold all
            for unit in range(group.width):
                if unit not in needed:
                    yield cls(((name, (unit,)),))

    @classmethod
    def drawn(cls, genome: Genome, rng: RandomSource) -> Self | None:
        """Units of a random group, up to half of it."""
        for group in shuffled(list(unit_table(genome).groups.values()), rng):
            order = shuffled(range(group.width), rng)
            units = tuple(islice(spare_units(genome, group, order), _random_size(group, rng)))
            if units:
                return cls(((group.name, tuple(sorted(units))),))
        return None

    def describe(self) -> str:
        return _describe_units("prune", self.units)


class SplitUnits(Edit, frozen=True, tag="split_units"):
    """Repeats units; each outgoing weight goes to one of the two copies (after Net2Wider).

    Net2Wider (Chen et al. 2016) halves the weights. Copies would then receive equal gradients and never part;
    with .6 and .4 of each, gradients of one direction, and hardly part in 100,000 examples.

    Attributes:
        units: The units to split, each into two.
    """

    units: UnitSets
    is_function_preserving: ClassVar[bool] = True

    def apply(self, genome: Genome) -> Genome:
        return with_units(genome, self)

    def unit_map(self, genome: Genome) -> dict[str, list[int]]:
        repeated = {}
        for group, units in _checked(genome, self.units):
            twice = set(units)
            for unit in twice:
                if not group.splittable[unit]:
                    raise EditError(
                        f"unit {unit} of {group.name!r} cannot be split: its copies would not stay aligned "
                        "with the channels tied to it, or share the weights of a binary layer that reads it"
                    )
            repeated[group.name] = [unit for unit in range(group.width) for _ in range(1 + (unit in twice))]
        return repeated

    @classmethod
    def legal(cls, genome: Genome) -> Iterator[Self]:
        roomy = is_roomy(genome)
        for name, group in unit_table(genome).groups.items():
            for unit, can in enumerate(group.splittable):
                if can:
                    edit = cls(((name, (unit,)),))
                    if roomy or applies(edit, genome):
                        yield edit

    @classmethod
    def drawn(cls, genome: Genome, rng: RandomSource) -> Self | None:
        """Units of a random group, up to half of it."""
        for group in shuffled(list(unit_table(genome).groups.values()), rng):
            order = [unit for unit in shuffled(range(group.width), rng) if group.splittable[unit]]
            units = tuple(sorted(order[: _random_size(group, rng)]))
            edit = cls(((group.name, units),))
            if units and applies(edit, genome):
                return edit
        return None

    def describe(self) -> str:
        return _describe_units("split", self.units)


def spare_units(genome: Genome, group: UnitGroup, order: Iterable[int]) -> Iterator[int]:
    """Those units of `order`, lazily, that can all go while every maker and selection keeps a channel."""
    left = {node: genome.shapes[node][0] for node in (*group.makers, *group.selections)}
    for unit in order:
        held = {maker: len(channels[unit]) for maker, channels in group.makers.items()}
        held |= {node: counts[unit] for node, counts in group.selections.items()}
        if all(left[maker] > count for maker, count in held.items()):
            for maker, count in held.items():
                left[maker] -= count
            yield unit


def _random_size(group: UnitGroup, rng: RandomSource) -> int:
    return 1 + int(rng.random() * group.width / 2)


def _checked(genome: Genome, units: UnitSets) -> Iterator[tuple[UnitGroup, tuple[int, ...]]]:
    """Each group with its units, after checking that they exist and occur once."""
    groups = unit_table(genome).groups
    if not units or len({name for name, _ in units}) != len(units):
        raise EditError(f"expected one set of units per group, got groups {[n for n, _ in units]}")
    for name, chosen in units:
        if name not in groups:
            raise EditError(f"there is no unit group {name!r}; groups are {', '.join(groups)}")
        width = groups[name].width
        if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0 or max(chosen) >= width:
            raise EditError(f"units of {name!r} must be distinct, from 0 to {width - 1}: {chosen}")
        yield groups[name], chosen


def with_units(genome: Genome, edit: Edit) -> Genome:
    """The child whose makers have the widths that the edit's unit map asks for."""
    origins = channel_origins(genome, edit.unit_map(genome))
    ops: dict[str, AnyOp] = {}
    for node in genome.nodes:
        op = node.op
        if isinstance(op, Layer):
            made, read = len(origins[node.name]), len(origins[node.inputs[0]])
            before = genome.shapes[node.inputs[0]][0]
            if made != genome.shapes[node.name][0] or read != before:
                wide = _with_widths(op, made, read, before)
                ops[node.name] = reading_other_channels(op, wide, before, read)
        elif isinstance(op, Select):
            chosen = [channel for _, channel in selected_channels(op, origins[node.inputs[0]])]
            ops[node.name] = Select(tuple(chosen))
    return with_ops(genome, ops, edit)


def _with_widths(op: Layer, made: int, read: int, read_before: int) -> Layer:
    if isinstance(op, Linear):
        return replace(op, out_features=made)
    # The blocks of a grouped convolution keep their size, their number follows the units.
    groups = op.groups if op.groups == 1 else read * op.groups // read_before
    return replace(op, out_channels=made, groups=groups)


def _describe_units(verb: str, units: UnitSets) -> str:
    return f"{verb} " + ", ".join(f"{len(chosen)} of {name}" for name, chosen in units)
