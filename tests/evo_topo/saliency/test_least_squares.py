"""One layer's least squares against stacked equations, whichever system is solved."""

import copy

import pytest
import torch
from torch import nn

from evo_topo.saliency.least_squares import DAMPING, fit_layer
from tests.reference import relative_error, solve_layer


@pytest.mark.parametrize("free_mean", [True, False])
@pytest.mark.parametrize("examples", [5, 150])  # fewer equations than weights, and more
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(40, 3, bias=False), (40,)),
        (nn.Conv2d(30, 2, 3, stride=2, bias=False), (30, 5, 5)),
        (nn.Conv1d(9, 2, 3, padding=1, bias=False), (9, 6)),
    ],
    ids=["linear", "2-D", "1-D"],
)
def test_the_smaller_system_has_the_same_solution(layer, shape, examples, free_mean):
    generator = torch.Generator().manual_seed(0)
    layer = copy.deepcopy(layer).double()
    expected = copy.deepcopy(layer)
    read = torch.randn(examples, *shape, generator=generator, dtype=torch.float64) + 0.3
    with torch.no_grad():
        made = layer(read)
    wanted = torch.randn(made.shape, generator=generator, dtype=torch.float64)
    fit_layer(layer, read, wanted, range(len(layer.weight)), free_mean, generator)
    solve_layer(expected, read, wanted, free_mean, DAMPING)
    assert relative_error(layer.weight, expected.weight) < 1e-9


def test_a_classifier_of_a_large_map_takes_little_memory():
    """A system of (weights, weights) would take 20 GB."""
    layer, read = nn.Linear(50_000, 2), torch.randn(4, 50_000)
    fit_layer(layer, read, torch.randn(4, 2), range(2), True, torch.Generator())
    assert layer.weight.isfinite().all()
