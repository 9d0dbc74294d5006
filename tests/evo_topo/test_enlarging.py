import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evo_topo.cost import count_flops
from evo_topo.edits import EditError, SplitLayer, SplitUnits, legal_edits
from evo_topo.enlarging import propose_larger
from evo_topo.units import unit_table
from tests.priced import flat_prices
from tests.strategies import genomes, resnet


@given(genomes(), st.integers(0, 2**32), st.floats(0.1, 2.0))
def test_large_steps_up_split_units_or_insert_a_layer(genome, seed, most):
    try:
        edit, child, predicted, flop_change, promise = propose_larger(
            genome, flat_prices(genome), random.Random(seed), most
        )
    except EditError:
        assert not any(any(group.splittable) for group in unit_table(genome).groups.values())
        assert not any(isinstance(edit, SplitLayer) for edit in legal_edits(genome))
        return
    assert type(edit) in (SplitUnits, SplitLayer)
    assert edit.apply(genome) == child
    assert flop_change == count_flops(child) - count_flops(genome) >= 0
    assert (predicted, promise) == (0.0, 0.0)


@pytest.mark.parametrize("size", [0.5, 1.0, 3.0])
def test_large_steps_up_come_near_the_size_asked_for(size):
    genome, rng = resnet((8, 16), 2, 8), random.Random(0)

    def sizes(most, **bounds):
        found = [propose_larger(genome, flat_prices(genome), rng, most, **bounds) for _ in range(60)]
        assert 10 < sum(isinstance(proposal.edit, SplitLayer) for proposal in found) < 30
        wider = [proposal for proposal in found if isinstance(proposal.edit, SplitUnits)]
        return [proposal.flop_change / count_flops(genome) for proposal in wider]

    met = sizes(9.0, smallest=size, largest=size)
    assert sum(met) / len(met) == pytest.approx(size, rel=0.2)
    assert max(sizes(size)) <= 1.3 * size
