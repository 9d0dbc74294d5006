"""Widening a group by new units, which start without effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self, get_args

from msgspec import Meta

from evo_topo.edits.base import Edit, EditError, RandomSource, applies, draw
from evo_topo.edits.surgery import is_roomy
from evo_topo.edits.unit_edits import with_units
from evo_topo.genome import Genome
from evo_topo.ops import MAX_CHANNELS, MAX_WIDTH
from evo_topo.units import NEW, unit_table

Directions = Literal["gradmax", "tiny", "random"]


class AddUnits(Edit, frozen=True, tag="add_units"):
    """Adds units to a group whose outgoing weights are zero.

    Their incoming weights are computed when the child inherits, from a batch of examples:

    - ``gradmax``: those that give the outgoing weights the largest gradient (Evci et al. 2022).
    - ``tiny``: those of the largest decrease of the loss that the layer's own weights cannot make, to
      first order, for outputs of unit size (Verbockhaven et al. 2024).
    - ``random``: the initialisation of a new layer, as for all criteria without examples, and for groups that
      a grouped, sparse or binary layer makes, or that only such layers, selections and paddings read.

    Attributes:
        group: Name of the unit group.
        count: How many.
        directions: Criterion of the incoming weights.
        seed: Seed of the random ones.
    """

    group: str
    count: Annotated[int, Meta(ge=1, le=MAX_WIDTH)] = 1
    directions: Directions = "gradmax"
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    is_function_preserving: ClassVar[bool] = True

    def apply(self, genome: Genome) -> Genome:
        return with_units(genome, self)

    def unit_map(self, genome: Genome) -> dict[str, list[int]]:
        groups = unit_table(genome).groups
        if self.group not in groups:
            raise EditError(f"there is no unit group {self.group!r}; groups are {', '.join(groups)}")
        if not 1 <= self.count <= MAX_WIDTH:
            raise EditError(f"the number of new units must be from 1 to {MAX_WIDTH}, got {self.count}")
        group = groups[self.group]
        places = [unit for unit in range(group.width) if group.splittable[unit]]
        if not places:
            raise EditError(f"{self.group!r} has no place where new units stay aligned with what is tied")
        members = unit_table(genome).members
        crowded = [(n, s[0]) for n, s in genome.shapes.items() if (1 + self.count) * s[0] > MAX_CHANNELS]
        for name, width in crowded:
            if width + self.count * members[name].count((self.group, places[-1])) > MAX_CHANNELS:
                raise EditError(f"{self.count} units more: {name!r} would have over {MAX_CHANNELS} channels")
        units = list(range(group.width))
        after = places[-1] + 1
        return {self.group: [*units[:after], *[NEW] * self.count, *units[after:]]}

    def varied(self, genome: Genome, rng: RandomSource) -> Self:
        """Up to half as many units as there are."""
        width = unit_table(genome).groups[self.group].width
        count, directions = 1 + int(rng.random() * width / 2), draw(get_args(Directions), rng)
        return type(self)(self.group, count, directions, int(rng.random() * 2**32))

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        return (cls(name) for name, group in unit_table(genome).groups.items() if any(group.splittable))

    @classmethod
    def legal(cls, genome: Genome) -> Iterator[Self]:
        roomy = is_roomy(genome)
        return (edit for edit in cls.candidates(genome) if roomy or applies(edit, genome))

    def describe(self) -> str:
        return f"add {self.count} to {self.group} ({self.directions})"
