"""Which edits apply to a genome, and drawing one at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import msgspec

from evo_topo.edits.base import EditError, RandomSource, shuffled
from evo_topo.edits.kinds import WEIGHT_KINDS, SingleEdit
from evo_topo.edits.trade import Trade
from evo_topo.genome import Genome

AnyEdit = SingleEdit | Trade
"""Every kind of edit: what a lineage may hold."""

KINDS: tuple[type[AnyEdit], ...] = get_args(AnyEdit)
"""Every kind of edit."""

STRUCTURAL_KINDS = tuple([kind for kind in KINDS if kind not in WEIGHT_KINDS])
"""The kinds that leave dense layers of real weights dense and real: what is drawn by default."""

SITE_KINDS = tuple([kind for kind in STRUCTURAL_KINDS if kind is not Trade])
"""Those of one site each, what is listed by default: of trades there are as many as pairs of sites."""

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


def legal_edits(genome: Genome, kinds: Sequence[type[AnyEdit]] = SITE_KINDS) -> Iterator[AnyEdit]:
    """Every edit that applies, lazily: one per kind and site, unit edits with one unit each.

    By default those of `SITE_KINDS`: the descendants of a dense network of real weights are so too, and
    their `count_flops` is what torch's ``FlopCounterMode`` counts. Edits that make layers sparse or binary,
    and one trade for each pair of kinds that go together, are offered with ``kinds=KINDS``.

    Args:
        genome: The parent.
        kinds: Kinds of edits to list, one after the other.
    """
    for kind in kinds:
        yield from kind.legal(genome)


def random_edit(
    genome: Genome, rng: RandomSource, kinds: Sequence[type[AnyEdit]] = STRUCTURAL_KINDS
) -> AnyEdit:
    """Draws a kind of edit, a site and a size, each uniformly (sizes up to half of a group).

    Args:
        genome: The parent.
        rng: Source of uniform numbers: ``random.Random`` or a NumPy ``Generator``.
        kinds: Kinds to draw from. By default none that makes a layer sparse or binary, as in `legal_edits`;
            ``kinds=KINDS`` draws from all.

    Raises:
        EditError: When no edit applies to this genome.
    """
    for kind in shuffled(kinds, rng):
        edit = kind.drawn(genome, rng)
        if edit is not None:
            return edit
    raise EditError("no edit applies to this genome")
