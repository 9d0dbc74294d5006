"""Local edits against the loss that the whole inherited child has, in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evo_topo.edits import KINDS, AddUnits, PruneConnections, PruneUnits, SplitUnits, Trade, legal_edits
from evo_topo.inheritance import Probe, inherit
from evo_topo.ops import Norm, is_plain
from evo_topo.saliency import least_squares, mean_loss, price
from evo_topo.saliency.local import corrected
from evo_topo.units import mixes_units
from tests.reference import evaluate_nodes, random_inputs, randomised, solve_layer
from tests.strategies import EXAMPLES

LOCAL = tuple(kind for kind in KINDS if kind not in (PruneUnits, SplitUnits, AddUnits, Trade))
NAMES = [
    "dense",
    "squeeze_excitation",
    "one_dimensional",
    "strided",
    "perceptron",
    "versatile",
    "small_resnet",
]


def local_edits(genome):
    return [e for e in legal_edits(genome, LOCAL) if not e.is_function_preserving and e.joint(genome)]


def examples_of(genome, count):
    generator = torch.Generator().manual_seed(3)
    return random_inputs(genome, count), torch.randint(genome.num_classes, (count,), generator=generator)


def rises(model, genome, edit, inputs, targets):
    """By how much the loss of each example rises when the child has inherited."""
    # connections are chosen on an eighth of the examples
    child = inherit(model, genome, edit, Probe(inputs[: len(inputs) // 8], targets))
    each = [(x, t) for x, t in zip(inputs.split(1), targets.split(1), strict=True)]
    return [mean_loss(child, x, t) - mean_loss(model, x, t) for x, t in each]


@pytest.mark.parametrize("name", NAMES)
def test_with_all_examples_measured_the_price_is_what_comes_true(name):
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 8)
    edits = local_edits(genome)
    assert edits
    for item in price(model, genome, edits, inputs, targets, share=1, batch_size=4, measured=8):
        expected = rises(model, genome, item.edit, inputs, targets)
        assert item.loss_change == pytest.approx(sum(expected) / 8, rel=1e-9, abs=1e-12)
        assert (item.promise, item.criterion) == (0.0, "corrected")


@pytest.mark.parametrize("name", NAMES)
def test_prices_may_be_those_after_the_layer_at_the_joint_is_refit(name, monkeypatch):
    """With all examples measured: what the child loses whose layer solves the least squares by itself."""
    monkeypatch.setattr(least_squares, "EQUATIONS_PER_WEIGHT", 10**9)  # every position
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 32)
    edits, refitted = local_edits(genome), 0
    for item in price(model, genome, edits, inputs, targets, share=1, measured=32, refit=True):
        seen, (before, after) = Probe(inputs[:4], targets[:4]), item.edit.joint(genome)
        child, child_model = item.edit.apply(genome), inherit(model, genome, item.edit, seen)
        node = child.by_name[after]
        if mixes_units(node) and is_plain(node.op) and genome.by_name.get(after) != node:
            refitted += 1
            wanted = evaluate_nodes(model, genome, seen.inputs)[before]
            read = evaluate_nodes(child_model, child, seen.inputs)[node.inputs[0]]
            layer = child_model.get_submodule(after)
            free_mean = layer.bias is not None or bool(behind(child, after))
            apart = solve_layer(layer, read, wanted, free_mean, least_squares.DAMPING)
            for norm in behind(child, after) if node.op.bias is False else ():
                child_model.get_submodule(norm).running_mean -= apart  # what its own estimate would take out
        rise = mean_loss(child_model, inputs, targets) - mean_loss(model, inputs, targets)
        assert item.loss_change == pytest.approx(rise, rel=1e-7, abs=1e-10)
    assert refitted


def behind(genome, name):
    """The readers of a node if all of them are Norms."""
    readers = genome.readers[name]
    return readers if all(isinstance(genome.by_name[reader].op, Norm) for reader in readers) else ()


def test_a_few_measured_examples_correct_the_prediction_on_more():
    """By an estimate in plain numbers, from prices of single examples and their measured losses."""
    genome = EXAMPLES["small_resnet"]()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 12)
    edits = [e for e in local_edits(genome) if not isinstance(e, PruneConnections)]  # chosen by the examples
    alone = [  # the prediction for each example
        price(model, genome, edits, *pair, "exact", measured=0)
        for pair in zip(inputs.split(1), targets.split(1), strict=True)
    ]
    found = price(model, genome, edits, inputs, targets, "exact", share=1, batch_size=4, measured=5)
    for place, item in enumerate(found):
        predicted = [prices[place].loss_change for prices in alone]
        true = rises(model, genome, item.edit, inputs[:5], targets[:5])
        mean_p, mean_t = sum(predicted[:5]) / 5, sum(true) / 5
        pairs = list(zip(predicted[:5], true, strict=True))
        slope = sum((p - mean_p) * (t - mean_t) for p, t in pairs) / sum((p - mean_p) ** 2 for p, _ in pairs)
        expected = mean_t + min(max(slope, 0), 1) * (sum(predicted) / 12 - mean_p)
        assert item.loss_change == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_fewer_than_no_examples_cannot_be_measured():
    genome = EXAMPLES["perceptron"]()
    with pytest.raises(ValueError, match="measured: expected a number of examples, at least 0, got -1"):
        price(randomised(genome), genome, [], *examples_of(genome, 4), measured=-1)


tables = st.integers(0, 2**31).map(
    lambda seed: torch.randn(9, 4, generator=torch.Generator().manual_seed(seed)).double()
)


@given(tables, st.floats(0, 1), st.floats(-5, 5))
def test_what_predictions_are_right_about_is_as_if_all_were_measured(predicted, factor, offset):
    true = factor * predicted + offset
    assert torch.allclose(corrected(predicted, true[:3]), true.mean(0))


@given(tables, tables)
def test_what_predictions_say_nothing_about_is_the_mean_of_the_measured(predicted, true):
    same = predicted[:1].expand(9, 4)
    assert torch.allclose(corrected(same, true[:4]), true[:4].mean(0))
    assert torch.allclose(corrected(predicted, true), true.mean(0))
    opposite = corrected(predicted, -predicted[:4])
    assert torch.allclose(opposite, -predicted[:4].mean(0))  # a slope below zero is noise
