import pytest
import torch

from evo_topo.edits import Factorise
from evo_topo.inheritance import inherit
from evo_topo.inheritance.factors import (
    expand_factors,
    fire_factors,
    nearest_product,
    reduce_factors,
    separable_factors,
)
from evo_topo.ops import Conv
from evo_topo.phenotype import build
from tests.reference import random_inputs, randomised, relative_error
from tests.strategies import Sketch

WEIGHTS = {"image": (6, 5, 3, 3), "series": (6, 5, 3), "features": (6, 5)}


def products(form, shape):
    """A weight and its factors multiplied out, as a function of the factors, which take a gradient."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if form == "reduce":
        factors = reduce_factors(weight, 2)
        return weight, factors, lambda a, b: torch.einsum("or...,ri->oi...", b, a.flatten(1))
    if form == "expand":
        factors = expand_factors(weight, 2)
        return weight, factors, lambda a, b: torch.einsum("or,ri...->oi...", b.flatten(1), a)
    if form == "separable":
        factors = separable_factors(weight)
        return weight, factors, lambda a, b: torch.einsum("oi,i...->oi...", b.flatten(1), a[:, 0])

    def fire(squeeze, point, window):
        padded = torch.nn.functional.pad(point, [1, 1] * (point.dim() - 2))
        return torch.einsum("or...,ri->oi...", torch.cat([padded, window]), squeeze.flatten(1))

    return weight, fire_factors(weight, 2, 3), fire


CASES = [(form, kind) for form in ("reduce", "expand", "separable", "fire") for kind in WEIGHTS]
CASES = [case for case in CASES if case[1] != "features" or case[0] == "reduce"]


@pytest.mark.parametrize(("form", "kind"), CASES)
def test_no_small_change_of_the_factors_comes_nearer(form, kind):
    """At the nearest factors the error has no slope, and it grows along random directions."""
    weight, factors, product = products(form, WEIGHTS[kind])
    factors = [factor.requires_grad_() for factor in factors]
    error = (product(*factors) - weight).square().sum()
    slopes = torch.autograd.grad(error, factors)
    assert max(slope.abs().max() for slope in slopes) < 1e-10 < error
    generator = torch.Generator().manual_seed(1)
    for size in (1e-2, 1e-1, 1):
        for _ in range(20):
            moved = [f + size * torch.randn(f.shape, generator=generator).double() for f in factors]
            assert (product(*moved) - weight).square().sum() >= error


@pytest.mark.parametrize("form", ["reduce", "expand"])
def test_the_error_is_what_the_dropped_singular_values_hold(form):
    weight, factors, product = products(form, (6, 5, 3, 3))
    rows = weight.flatten(1) if form == "expand" else weight.movedim(1, -1).reshape(-1, 5)
    dropped = torch.linalg.svdvals(rows)[2:].square().sum()
    assert torch.isclose((product(*factors) - weight).square().sum(), dropped, rtol=1e-10)


def test_factors_have_one_scale():
    left, right = nearest_product(torch.randn(4, 7, generator=torch.Generator().manual_seed(0)), 3)
    assert torch.allclose(left.norm(dim=0), right.norm(dim=1))


def sketch(**settings):
    net = Sketch(4, 7, 7)
    return net.end(net.relu(net.conv(net.input, 6, 3, bias=True, **settings)))


@pytest.mark.parametrize("settings", [{}, {"stride": (2, 2)}, {"dilation": (2, 2), "padding": (2, 2)}])
@pytest.mark.parametrize(("form", "rank"), [("reduce", 4), ("expand", 6)])
def test_factors_of_full_rank_are_exact(form, rank, settings):
    genome = sketch(**settings)
    model, inputs = randomised(genome), random_inputs(genome)
    child_model = inherit(model, genome, Factorise("conv1", form, rank))
    assert relative_error(child_model(inputs), model(inputs)) < 1e-12


def test_a_separable_layer_is_found_again():
    """A product of a depthwise and a 1x1 convolution comes apart without loss."""
    genome = sketch()
    model, inputs = randomised(genome), random_inputs(genome)
    depthwise, point = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0)).double()
    weight = model.get_submodule("conv1").weight.data
    weight.copy_(torch.einsum("oi,it->oit", point[:, :4], depthwise[:4]).reshape(weight.shape))
    edit = Factorise("conv1", "separable")
    assert relative_error(inherit(model, genome, edit)(inputs), model(inputs)) < 1e-12
    child = edit.apply(genome)
    convs = [node.op for node in child.nodes if isinstance(node.op, Conv)]
    assert [(c.groups, c.kernel, c.bias) for c in convs] == [(4, (3, 3), False), (1, (1, 1), True)]


def test_factors_are_found_in_low_precision():
    genome = sketch()
    model = build(genome).bfloat16()
    child_model = inherit(model, genome, Factorise("conv1", "reduce", 4))
    inputs = random_inputs(genome).bfloat16()
    assert relative_error(child_model(inputs).float(), model(inputs).float()) < 0.05
