import msgspec
import pytest
import torch
from torch.nn.functional import cross_entropy

from evo_topo.datasets import load_dataset
from evo_topo.edits import PruneLayer, legal_edits
from evo_topo.ops import Norm
from evo_topo.phenotype import build
from evo_topo.prices import Prices
from evo_topo.recipe import Recipe
from evo_topo.saliency import (
    GateProbe,
    LabelGradients,
    ablation,
    apoz,
    magnitude,
    magnitude_prices,
    norm_scale,
)
from evo_topo.training import train
from evo_topo.units import mixes_units, unit_table
from tests.gated import changed_logits
from tests.reference import evaluate_nodes, random_inputs, randomised
from tests.strategies import EXAMPLES, Sketch


def units_of(genome):
    groups = unit_table(genome).groups.values()
    return [(group.name, unit) for group in groups for unit in range(group.width)]


def check(found, expected, genome):
    units = units_of(genome)
    assert {name: len(values) for name, values in found.items()} == {
        group.name: group.width for group in unit_table(genome).groups.values()
    }
    assert [found[group][unit].item() for group, unit in units] == pytest.approx(
        [expected(group, unit) for group, unit in units], rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_magnitude_is_the_norm_of_all_weights_that_make_a_unit(name):
    genome = EXAMPLES[name]()
    model = randomised(genome)

    def expected(group, unit):
        total = 0.0
        for maker, channels in unit_table(genome).groups[group].makers.items():
            for channel in channels[unit]:
                total += sum(w**2 for w in model.get_submodule(maker).weight[channel].flatten().tolist())
        return total**0.5

    check(magnitude(model, genome), expected, genome)


@pytest.mark.parametrize("name", EXAMPLES)
def test_norm_scale_is_the_mean_over_a_units_channels(name):
    genome = EXAMPLES[name]()
    model, members = randomised(genome), unit_table(genome).members
    norms = [node.name for node in genome.nodes if isinstance(node.op, Norm)]

    def expected(group, unit):
        scales = [
            abs(scale)
            for norm in norms
            for scale, member in zip(model.get_submodule(norm).weight.tolist(), members[norm], strict=True)
            if member == (group, unit)
        ]
        return sum(scales) / len(scales) if scales else 0.0

    check(norm_scale(model, genome), expected, genome)


@pytest.mark.parametrize("name", EXAMPLES)
def test_apoz_is_the_share_of_what_is_not_zero_where_a_unit_is_read(name):
    genome = EXAMPLES[name]()
    model, inputs, members = randomised(genome), random_inputs(genome), unit_table(genome).members
    values = evaluate_nodes(model, genome, inputs)
    reads = [node.inputs[0] for node in genome.nodes if mixes_units(node)]

    def expected(group, unit):
        shares = []
        for read in reads:
            for channel, member in enumerate(members[read]):
                if member == (group, unit):
                    seen = values[read][:, channel].flatten().tolist()
                    shares.append(sum(value != 0 for value in seen) / len(seen))
        return sum(shares) / len(shares) if shares else 1.0  # read nowhere: no zero was seen

    check(apoz(model, genome, inputs), expected, genome)


@pytest.mark.parametrize(
    "name", ["small_resnet", "dense", "squeeze_excitation", "one_dimensional", "grouped"]
)
def test_label_gradients_are_those_of_each_examples_own_loss(name):
    genome = EXAMPLES[name]()
    model, inputs, targets = randomised(genome), random_inputs(genome, 5), torch.arange(5) % 3
    probe, table = GateProbe(model, genome), []
    for example, target in zip(inputs.split(1), targets.split(1), strict=True):
        changes = torch.zeros(probe.width, dtype=torch.float64, requires_grad=True)
        loss = cross_entropy(changed_logits(model, genome, example, probe, changes), target)
        table.append(torch.autograd.grad(loss, changes)[0].tolist())
    found = LabelGradients(model, genome, inputs, targets, batch_size=2)

    def column(group, unit):
        return [row[probe.columns[group].start + unit] for row in table]

    check(found.taylor, lambda *at: sum(abs(g) for g in column(*at)) / 5, genome)
    check(found.mean_taylor, lambda *at: abs(sum(column(*at))) / 5, genome)
    check(found.empirical_fisher, lambda *at: sum(g**2 for g in column(*at)) / 10, genome)


@pytest.mark.parametrize("name", EXAMPLES)
def test_magnitude_prices_sum_relative_magnitudes(name):
    genome = EXAMPLES[name]()
    model = randomised(genome)
    prices = magnitude_prices(model, genome)
    assert msgspec.json.decode(msgspec.json.encode(prices), type=Prices) == prices
    assert prices.are_finite
    for group, norms in magnitude(model, genome).items():
        order = sorted(range(len(norms)), key=norms.tolist().__getitem__)
        assert list(prices.units[group].order) == order
        for count, total in enumerate(prices.units[group].cumulative, 1):
            expected = sum(norms[unit].item() for unit in order[:count]) * len(norms) / norms.sum().item()
            assert total == pytest.approx(expected)
    assert prices.layers == {
        edit.layer: genome.shapes[edit.layer][0] for edit in legal_edits(genome, (PruneLayer,))
    }


def test_the_units_that_apoz_finds_silent_can_go():
    """A quarter of a ReLU network without BatchNorm, as in Network Trimming (Hu et al. 2016)."""
    task = load_dataset("digits")
    net = Sketch(1, 8, 8)
    hidden = net.relu(net.linear(net.flat(net.input), 64))
    genome = net.finish(net.linear(net.relu(net.linear(hidden, 64)), 10))
    model = build(genome, seed=1)
    train(model, task, Recipe(examples=6000, batch_size=32, learning_rate=0.05), seed=1)
    importance = apoz(model, genome, task.normalise(task.train.inputs[:300]))
    judged = task.normalise(task.validation.inputs), task.validation.targets

    def cost(scores):
        quarter = {group: values.argsort()[: len(values) // 4].tolist() for group, values in scores.items()}
        return ablation(model, genome, quarter, *judged)

    generator = torch.Generator().manual_seed(0)
    by_chance = [cost({group: torch.rand(64, generator=generator) for group in importance}) for _ in range(9)]
    assert cost(importance) < min(by_chance) / 2
    assert cost({group: -values for group, values in importance.items()}) > 10 * cost(importance)
