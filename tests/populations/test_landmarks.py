"""Landmark architectures train: digits, one seed, the test split read once."""

import pytest
import torch

from evo_topo import (
    Binarise,
    Factorise,
    Recipe,
    build,
    count_bops,
    count_flops,
    count_macs,
    count_params,
    evaluate,
    inherit,
    load_dataset,
    train,
)
from evo_topo.evaluation import reestimate_batchnorm
from evo_topo.ops import Conv
from populations.founders import conv_net
from populations.landmarks import binary_net, squeeze_net

RECIPE = Recipe(examples=5000, batch_size=32, learning_rate=0.1)


def accuracy_after(recipe, model):
    task = load_dataset("digits")
    train(model, task, recipe, seed=0)
    reestimate_batchnorm(model, task, 1024, seed=0)
    return evaluate(model, task.test, task).accuracy


@pytest.mark.slow
def test_squeeze_net_learns_the_digits():
    genome = squeeze_net((1, 8, 8), 10, 16, [[(6, 12)], [(12, 24)]])
    assert count_params(genome) == 4830
    assert accuracy_after(RECIPE, build(genome)) >= 0.95


@pytest.mark.slow
def test_binary_net_learns_the_digits():
    genome = binary_net((1, 8, 8), 10, (32, 64, 64), (1, 2, 1))
    assert count_bops(genome) == 16 * (64 * 32 * 9 + 64 * 64 * 9)
    assert accuracy_after(RECIPE, build(genome)) >= 0.9


@pytest.mark.slow
def test_a_trained_network_factorised_into_fire_modules_learns_the_digits():
    task = load_dataset("digits")
    genome = conv_net((1, 8, 8), 10, (16, 24, 48), (1, 1, 2))
    model = build(genome)
    train(model, task, RECIPE, seed=0)
    before = count_flops(genome)
    for layer, squeezed in (("conv4", 6), ("conv7", 12)):
        edit = Factorise(layer, "fire", squeezed)
        model, genome = inherit(model, genome, edit), edit.apply(genome)
    assert [n.op.kernel for n in genome.nodes if isinstance(n.op, Conv)] == [
        (3, 3),
        *[(1, 1), (1, 1), (3, 3)] * 2,  # squeezed, then expanded side by side
    ]
    assert count_flops(genome) < before / 3
    assert evaluate(model, task.validation, task).accuracy < 0.9  # what training has to mend
    short = Recipe(examples=3000, batch_size=32, learning_rate=0.05)
    assert accuracy_after(short, model) >= 0.95


@pytest.mark.slow
def test_a_trained_network_made_binary_learns_the_digits():
    task = load_dataset("digits")
    genome = conv_net((1, 8, 8), 10, (32, 64, 64), (1, 2, 1))
    model = build(genome)
    real = accuracy_after(RECIPE, model)
    for layer in ("conv4", "conv7"):
        edit = Binarise(layer)
        model, genome = inherit(model, genome, edit), edit.apply(genome)
    assert evaluate(model, task.validation, task).accuracy < 0.5  # what training has to mend
    short = Recipe(examples=3000, batch_size=32, learning_rate=0.05)
    assert real >= accuracy_after(short, model) >= 0.9


def test_fire_modules_expand_side_by_side():
    genome = squeeze_net((3, 8, 8), 10, 4, [[(2, 4)], [(3, 5)]])
    assert [genome.shapes[n.name] for n in genome.nodes if n.name.startswith("concat")] == [
        (8, 8, 8),
        (10, 4, 4),
    ]
    assert count_macs(genome) == 64 * (4 * 27 + 2 * 4 + 4 * 2 * 10) + 16 * (3 * 8 + 5 * 3 * 10) + 10 * 10


@pytest.mark.parametrize(
    "genome", [squeeze_net((2, 12), 3, 4, [[(2, 3)]]), binary_net((2, 12), 3, (4, 4), (1, 2))]
)
def test_landmarks_of_sequences_run(genome):
    assert build(genome)(torch.randn(4, 2, 12)).shape == (4, 3)
