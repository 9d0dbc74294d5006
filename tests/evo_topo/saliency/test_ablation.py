import pytest
import torch
from torch.nn.functional import cross_entropy

from evo_topo.edits import PruneUnits, legal_edits
from evo_topo.inheritance import inherit
from evo_topo.saliency import ablation, brute_force, mean_loss
from evo_topo.units import unit_table
from tests.reference import masked_forward, random_inputs, randomised
from tests.strategies import EXAMPLES


def example(name):
    genome = EXAMPLES[name]()
    return randomised(genome), genome, random_inputs(genome, 7), torch.arange(7) % genome.num_classes


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_mean_loss_is_the_mean_over_examples_in_evaluation_mode(batch_size):
    model, _, inputs, targets = example("one_dimensional")  # holds dropout and BatchNorm
    losses = [cross_entropy(model(x[None]), y[None]).item() for x, y in zip(inputs, targets, strict=True)]
    assert mean_loss(model.train(), inputs, targets, batch_size) == pytest.approx(sum(losses) / 7)


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {"flat_unequal"}))  # whose one unit cannot go
def test_ablation_is_the_loss_of_the_pruned_child_less_the_parents(name):
    model, genome, *data = example(name)
    edits = list(legal_edits(genome, (PruneUnits,)))
    measured = brute_force(model, genome, *data)
    for edit in edits:
        child_loss = mean_loss(inherit(model, genome, edit), *data)
        ((group, (unit,)),) = edit.units
        expected = child_loss - mean_loss(model, *data)
        assert ablation(model, genome, {group: [unit]}, *data) == pytest.approx(expected, abs=1e-12)
        assert measured[group][unit].item() == pytest.approx(expected, abs=1e-12)
    assert edits


@pytest.mark.parametrize("name", EXAMPLES)
def test_sets_over_several_groups_are_removed_together(name):
    model, genome, inputs, targets = example(name)
    units = {group.name: [0, group.width - 1] for group in unit_table(genome).groups.values()}
    expected = cross_entropy(masked_forward(model, genome, units.items(), inputs), targets).item()
    found = ablation(model, genome, units, inputs, targets)
    assert found == pytest.approx(expected - mean_loss(model, inputs, targets), abs=1e-12)


def test_nothing_removed_costs_nothing():
    model, genome, *data = example("dense")
    assert ablation(model, genome, {}, *data) == 0
