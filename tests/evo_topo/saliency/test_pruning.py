import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from evo_topo.cost import count_macs
from evo_topo.edits import EditError, edit_from_json
from evo_topo.genome import Genome
from evo_topo.saliency import cheapest_units, mean_loss
from evo_topo.saliency.pruning import as_edit, composed, prune_to
from tests.evo_topo.saliency.test_joint import random_statistics
from tests.reference import masked_forward, random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, genomes

NAMES = ["small_resnet", "dense", "squeeze_excitation", "grouped", "concat_swapped", "flat_tied"]


def subject(genome, batch=12):
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(genome.num_classes, (batch,), generator=generator)
    return randomised(genome), genome, random_inputs(genome, batch), targets


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_pure_prune_is_the_network_with_its_units_masked(name, steps):
    model, genome, inputs, targets = subject(EXAMPLES[name]())
    macs = int(0.6 * count_macs(genome))
    pruned = prune_to(model, genome, macs, inputs, targets, steps, compensate=False)
    assert pruned.genome == edit_from_json(pruned.edit.to_json()).apply(genome)
    assert Genome.from_json(pruned.genome.to_json()) == pruned.genome
    assert count_macs(pruned.genome) <= macs
    expected = masked_forward(model, genome, pruned.edit.units, inputs)
    assert relative_error(pruned.model(inputs), expected) < 1e-9


@given(genomes(), st.integers(0, 5))
def test_two_prunes_one_after_the_other_are_one(genome, seed):
    try:
        first_statistics = random_statistics(genome, seed)
        first = as_edit(first_statistics, cheapest_units(first_statistics, genome, 0.8 * count_macs(genome)))
        child = first.apply(genome)
        statistics = random_statistics(child, seed + 1)
        second = as_edit(statistics, cheapest_units(statistics, child, 0.8 * count_macs(child)))
        both = composed(genome, first, second)
        grandchild = second.apply(child)
    except EditError:
        assume(False)
    assert both.apply(genome) == grandchild
    model, inputs = randomised(genome), random_inputs(genome)
    from evo_topo.inheritance import inherit

    stepwise = inherit(inherit(model, genome, first), child, second)
    assert relative_error(inherit(model, genome, both)(inputs), stepwise(inputs)) < 1e-9


def test_compensation_pays_on_a_trained_network(trained):
    """Fewer than half of the MACs, judged by the loss on the examples themselves."""
    model, genome, inputs, targets = trained
    macs = int(0.4 * count_macs(genome))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = {}
    for steps, compensate in ((1, False), (1, True), (4, False), (4, True)):
        pruned = prune_to(model, genome, macs, inputs, targets, steps, compensate)
        assert 0.9 * macs < count_macs(pruned.genome) <= macs
        losses[steps, compensate] = mean_loss(pruned.model, inputs, targets)
    assert losses[1, True] < 0.9 * losses[1, False]
    assert losses[4, True] < 0.5 * losses[4, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_prediction_of_a_small_prune_comes_true(trained):
    model, genome, inputs, targets = trained
    macs = int(0.93 * count_macs(genome))
    pruned = prune_to(model, genome, macs, inputs, targets, steps=1, compensate=False, curvature="exact")
    measured = mean_loss(pruned.model, inputs, targets) - mean_loss(model, inputs, targets)
    assert pruned.predicted_loss_change == pytest.approx(measured, rel=0.5)


@pytest.mark.parametrize(
    ("macs", "steps", "error", "message"),
    [
        (0, 1, EditError, "expected between 1 and"),
        (10**9, 1, EditError, "expected between 1 and"),
        (1, 1, EditError, "one channel per layer"),
        (1000, 0, ValueError, "steps: expected at least 1"),
    ],
)
def test_what_cannot_be_is_said(macs, steps, error, message):
    model, genome, inputs, targets = subject(EXAMPLES["small_resnet"](), 2)
    with pytest.raises(error, match=message):
        prune_to(model, genome, macs, inputs, targets, steps)
