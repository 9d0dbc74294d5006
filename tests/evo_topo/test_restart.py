import pytest
import torch

from evo_topo import build
from evo_topo.restart import shrink_and_perturb
from tests.small import small_founder


def test_weights_are_a_mixture_and_all_else_stays():
    genome = small_founder()
    model, fresh, before = build(genome, 1), build(genome, 2), build(genome, 1)
    shrink_and_perturb(model, genome, 0.7, seed=2)
    changed = set()
    for (name, got), old, new in zip(
        model.named_parameters(), before.parameters(), fresh.parameters(), strict=True
    ):
        if got.ndim > 1:
            assert torch.allclose(got, 0.7 * old + 0.3 * new)
            changed.add(name)
        else:
            assert torch.equal(got, old)
    assert len(changed) == 4


@pytest.mark.parametrize(("factor", "seed"), [(1.0, 1), (0.0, 3)])
def test_the_ends_are_the_old_and_the_fresh_weights(factor, seed):
    genome = small_founder()
    model = build(genome, 1)
    shrink_and_perturb(model, genome, factor, seed=3)
    for got, expected in zip(model.parameters(), build(genome, seed).parameters(), strict=True):
        assert got.ndim == 1 or torch.equal(got, expected)


@pytest.mark.parametrize("factor", [-0.1, 1.1])
def test_other_factors_are_refused(factor):
    with pytest.raises(ValueError, match="from 0 to 1"):
        shrink_and_perturb(build(small_founder()), small_founder(), factor, 0)
