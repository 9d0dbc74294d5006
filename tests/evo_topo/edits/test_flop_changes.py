from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evo_topo import count_flops
from evo_topo.edits import EditError, FlopChanges, PruneUnits, SplitUnits, legal_edits
from evo_topo.edits.base import applies
from evo_topo.units import unit_table
from tests.strategies import EXAMPLES, genomes, marked_genomes, versatile

NAMED = st.sampled_from(sorted(EXAMPLES)).map(lambda name: EXAMPLES[name]())


@given(genome=st.one_of(genomes(), marked_genomes(), NAMED))
def test_flop_changes_are_those_of_the_children(genome):
    groups = unit_table(genome).groups.items()
    units = [
        kind(((name, (unit,)),))
        for name, group in groups
        for unit in range(group.width)
        for kind in (PruneUnits, SplitUnits)
    ]
    changes = FlopChanges(genome)
    for edit in chain(units, legal_edits(genome)):
        if applies(edit, genome):
            assert changes.of(edit) == count_flops(edit.apply(genome)) - count_flops(genome)
        else:
            with pytest.raises(EditError):
                changes.of(edit)


def test_units_that_do_not_exist_have_no_flop_change():
    changes = FlopChanges(versatile())
    for units in ((("conv1", (999,)),), (("nowhere", (0,)),)):
        with pytest.raises(EditError):
            changes.of(PruneUnits(units))
