"""The frame of all edits: a mutation as frozen data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol, Self, TypeVar

import msgspec
from msgspec import Struct

from evo_topo.channels import channel_origins
from evo_topo.genome import Genome

T = TypeVar("T")


class EditError(ValueError):
    """An edit does not apply to a genome; the message says why."""


class RandomSource(Protocol):
    """Anything that draws uniform numbers from [0, 1): random.Random or a NumPy Generator."""

    def random(self) -> float: ...


class Edit(Struct, frozen=True, forbid_unknown_fields=True, tag_field="edit", gc=False):
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
        """For each group whose units change: for each unit of the child, the parent's unit, or `NEW`."""
        return {}

    def channel_map(self, genome: Genome) -> dict[str, list[int]]:
        """For each node: for each channel of the child, the parent's channel, or `NEW`.

        Empty where no channel changes.
        """
        unit_map = self.unit_map(genome)
        return channel_origins(genome, unit_map) if unit_map else {}

    def joint(self, genome: Genome) -> tuple[str, str] | None:
        """Where a local edit meets what it leaves alone.

        Returns:
            The parent's node whose value the edit changes, and the child's node that computes the new
            value, of the same shape: all that is computed from that value stays as it is. The new value
            follows from the parent's activations and the child's parameters alone. None for edits
            of units, and where there is no single such place.

        Raises:
            EditError: When the edit does not apply to this genome.
        """
        return None

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        """One edit for each site, lazily; some may turn out not to apply."""
        return iter(())

    @classmethod
    def legal(cls, genome: Genome) -> Iterator[Self]:
        """The edits of this kind that apply, lazily, one for each site."""
        return (edit for edit in cls.candidates(genome) if edit.is_legal(genome))

    def is_legal(self, genome: Genome) -> bool:
        """Whether it applies; edits of one place find out without a look at the whole network."""
        return applies(self, genome)

    def varied(self, genome: Genome, rng: RandomSource) -> Self:
        """An edit of the same site whose size and other settings are drawn."""
        return self

    @classmethod
    def drawn(cls, genome: Genome, rng: RandomSource) -> Self | None:
        """An edit of this kind that applies, of a random site and size; None where there is none."""
        for site in shuffled(list(cls.candidates(genome)), rng):
            for edit in (site.varied(genome, rng), site):
                if edit.is_legal(genome):
                    return edit
        return None

    def describe(self) -> str:
        """A few words for tables and figures."""
        return type(self).__name__

    def to_json(self) -> str:
        """The edit as JSON text; `edit_from_json` gives the equal edit back."""
        return msgspec.json.encode(self).decode()


def applies(edit: Edit, genome: Genome) -> bool:
    """Whether an edit applies, found by trying."""
    try:
        edit.apply(genome)
    except EditError:
        return False
    return True


def draw(items: Sequence[T], rng: RandomSource) -> T:
    """One of the items, uniformly."""
    return items[int(rng.random() * len(items))]


def shuffled(items: Sequence[T], rng: RandomSource) -> list[T]:
    """The items in random order."""
    return sorted(items, key=lambda _: rng.random())
