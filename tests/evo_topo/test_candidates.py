import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evo_topo.candidates import PRICED_ONE_BY_ONE, candidate_edits
from evo_topo.edits import STRUCTURAL_KINDS, Fuse
from populations.founders import conv_net
from tests.strategies import EXAMPLES, genomes, versatile


@given(genomes(), st.integers(0, 99))
def test_candidates_apply_and_follow_from_the_seed(genome, seed):
    edits = candidate_edits(genome, random.Random(seed), 12)
    assert len(set(edits)) == len(edits) <= 12
    for edit in edits:
        assert edit.apply(genome) != genome
    assert candidate_edits(genome, random.Random(seed), 12) == edits


def test_every_kind_has_its_turn():
    genome = versatile()
    found = {type(edit) for edit in candidate_edits(genome, random.Random(0), 3 * len(PRICED_ONE_BY_ONE))}
    assert found == set(PRICED_ONE_BY_ONE) - {Fuse}  # folding a Norm saves nothing that is counted
    assert found <= set(STRUCTURAL_KINDS)  # genomes stay dense and real


@pytest.mark.parametrize("name", ["small_resnet", "dense"])
def test_sites_and_sizes_vary_with_the_seed(name):
    genome = EXAMPLES[name]()
    assert candidate_edits(genome, random.Random(0), 6) != candidate_edits(genome, random.Random(1), 6)


@pytest.mark.parametrize("seed", range(10))
def test_no_factors_are_priced_that_save_nothing(seed):
    genome = conv_net((1, 8, 8), 10, (16, 16), (1, 2))  # one channel has no fewer between
    for edit in candidate_edits(genome, random.Random(seed), 30):
        assert edit.is_legal(genome)
