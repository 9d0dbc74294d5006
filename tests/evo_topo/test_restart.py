import pytest
import torch

from evo_topo.edits import PruneConnections
from evo_topo.inheritance import inherit
from evo_topo.phenotype import build
from evo_topo.restart import shrink_and_perturb
from tests.small import small_founder


def test_kernels_and_matrices_are_a_mixture_and_all_else_stays():
    genome = small_founder()
    before, fresh, model = (build(genome, seed) for seed in (1, 2, 1))
    for network in (before, model):
        for parameter in network.parameters():
            parameter.data.add_(0.5)
    shrink_and_perturb(model, genome, 0.25, seed=2)
    trios = zip(model.parameters(), before.parameters(), fresh.parameters(), strict=True)
    mixed = [(got, 0.25 * old + 0.75 * new if got.ndim > 1 else old) for got, old, new in trios]
    assert sum(got.ndim > 1 for got, _ in mixed) == 4
    for got, expected in mixed:
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("factor", "seed"), [(1.0, 1), (0.0, 3)])
def test_the_ends_are_the_weights_as_they_were_and_fresh_ones(factor, seed):
    genome = small_founder()
    model = build(genome, 1)
    shrink_and_perturb(model, genome, factor, seed=3)
    for got, expected in zip(model.parameters(), build(genome, seed).parameters(), strict=True):
        assert got.ndim == 1 or torch.equal(got, expected)


def test_masked_weights_stay_at_zero():
    genome = small_founder()
    edit = PruneConnections("conv4", 20)
    sparse, model = edit.apply(genome), inherit(build(genome, 1), genome, edit)
    layer = model.get_submodule("conv4")
    mask, before = layer.mask.clone(), layer.weight.detach().clone()
    shrink_and_perturb(model, sparse, 0.5, seed=3)
    assert torch.equal(layer.mask, mask)
    assert not layer.weight[~mask].any()
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan")])
def test_other_factors_are_refused(factor):
    with pytest.raises(ValueError, match="expected 0 <= factor <= 1, got"):
        shrink_and_perturb(build(small_founder()), small_founder(), factor, 0)
