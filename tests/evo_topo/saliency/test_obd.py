from random import Random

import pytest
import torch
from hypothesis import given
from torch.autograd.functional import hessian, jacobian
from torch.nn.functional import cross_entropy, one_hot

from evo_topo.curvature import hessian_root
from evo_topo.saliency import (
    GateProbe,
    brute_force,
    cautious_saliency,
    gate_statistics,
    obd_saliency,
    set_saliency,
)
from tests.gated import changed_logits, dense_jacobian
from tests.reference import random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch, genomes

NAMES = ["small_resnet", "dense", "squeeze_excitation", "one_dimensional", "flat_tied", "partly_fixed"]


def examples_of(genome, batch=4):
    generator = torch.Generator().manual_seed(3)
    return random_inputs(genome, batch), torch.randint(genome.num_classes, (batch,), generator=generator)


def dense_statistics(model, genome, inputs, targets):
    """Gradient (columns,) and J^T H J (columns, columns) over explicit gates."""
    jac = dense_jacobian(model, genome, inputs, GateProbe(model, genome))
    p = model(inputs).softmax(1).detach()
    output_hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    gradient = torch.einsum("nc,ncw->w", p - one_hot(targets, p.shape[1]), jac)
    curvature = torch.einsum("ncv,ncd,ndw->vw", jac, output_hessian, jac)
    return gradient / len(inputs), curvature / len(inputs)


def check_statistics(statistics, dense, probe, tolerance):
    """Gradient and curvature over all groups together, interactions across groups included."""
    gradient, curvature = dense
    assert statistics.columns == probe.columns
    assert relative_error(statistics.gradient, gradient) < 1e-9
    assert relative_error(statistics.root.T @ statistics.root, curvature) < tolerance
    assert len(statistics.root) <= max(2 * probe.width, 1)


@given(genomes())
def test_exact_statistics_are_those_of_the_dense_ggn(genome):
    model, (inputs, targets) = randomised(genome), examples_of(genome)
    probe = GateProbe(model, genome)
    found = gate_statistics(model, genome, inputs, targets, batch_size=3)
    check_statistics(found, dense_statistics(model, genome, inputs, targets), probe, 1e-9)


@pytest.mark.parametrize(("name", "samples"), [(name, 1) for name in NAMES] + [("dense", 3)])
def test_drawn_labels_give_the_dense_ggn_in_the_mean(name, samples):
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome), examples_of(genome)
    with torch.no_grad():
        model.get_submodule(genome.nodes[-2].name).weight.mul_(0.1)  # or some labels are too rare to draw
    probe, dense = GateProbe(model, genome), dense_statistics(model, genome, inputs, targets)
    often = [tensor.repeat(2000 // samples, *[1] * (tensor.dim() - 1)) for tensor in (inputs, targets)]
    found = gate_statistics(model, genome, *often, "sampled", samples, batch_size=4000)
    check_statistics(found, dense, probe, 0.1)
    again = gate_statistics(model, genome, *often, "sampled", samples, batch_size=4000, seed=1)
    different = again.root.T @ again.root != found.root.T @ found.root
    assert all(different[where, where].any() for where in probe.columns.values())


@pytest.mark.parametrize("classes", [2, 5])
def test_columns_of_the_root_multiply_to_the_hessian_of_the_loss(classes):
    logits = torch.randn(classes, generator=torch.Generator().manual_seed(0)).double()
    expected = hessian(lambda z: cross_entropy(z[None], torch.tensor([1])), logits)
    columns = torch.cat(list(hessian_root(logits.log_softmax(0)[None], "exact", 1, torch.Generator())))
    assert relative_error(columns.T @ columns, expected) < 1e-12


@pytest.mark.parametrize("classes", [2, 5])
def test_every_drawn_column_is_as_long_as_the_trace_says(classes):
    logits = 3 * torch.randn(20, classes, generator=torch.Generator().manual_seed(0)).double()
    p = logits.softmax(1)
    drawn = [
        next(hessian_root(p.log(), "sampled", 1, torch.Generator().manual_seed(seed))) for seed in range(30)
    ]
    for columns in drawn:
        assert torch.allclose(columns.square().sum(1), 1 - p.square().sum(1))
    assert not torch.equal(drawn[0], drawn[1])


def test_a_network_that_is_certain_has_no_curvature():
    log_p = torch.tensor([[0.0, -torch.inf], [0.0, -1000.0], [-1e-9, -30.0]])
    (columns,) = hessian_root(log_p, "sampled", 1, torch.Generator())
    assert (columns[:2] == 0).all()
    assert columns.isfinite().all()


@pytest.mark.parametrize("name", ["one_dimensional", "depthwise", "grouped", "concat_swapped"])
def test_in_a_chain_of_relu_layers_the_ggn_is_the_hessian(name):
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome), examples_of(genome)
    probe, found = GateProbe(model, genome), gate_statistics(model, genome, inputs, targets)
    curvature = found.root.T @ found.root
    for where in probe.columns.values():

        def loss(part, where=where):
            changes = torch.cat([part.new_zeros(where.start), part, part.new_zeros(probe.width - where.stop)])
            return cross_entropy(changed_logits(model, genome, inputs, probe, changes), targets)

        nothing = torch.zeros(where.stop - where.start, dtype=torch.float64)
        assert relative_error(found.gradient[where], jacobian(loss, nothing)) < 1e-9
        assert relative_error(curvature[where, where], hessian(loss, nothing)) < 1e-9


def test_the_prediction_errs_in_the_third_order_only():
    net = Sketch(5)
    genome = net.finish(net.linear(net.linear(net.input, 6), 3))
    model, (inputs, targets) = randomised(genome), examples_of(genome, 20)
    errors = []
    for _ in range(3):
        predicted = obd_saliency(model, genome, inputs, targets, "exact")
        measured = brute_force(model, genome, inputs, targets)
        errors.append((predicted["linear1"] - measured["linear1"]).norm().item())
        model.linear2.weight.data /= 10  # what a removal changes shrinks by this factor
    assert errors[1] == pytest.approx(errors[0] / 1000, rel=0.9)
    assert errors[2] == pytest.approx(errors[1] / 1000, rel=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_costs_the_quadratic_form(name):
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome), examples_of(genome)
    gradient, curvature = dense_statistics(model, genome, inputs, targets)
    statistics, rng = gate_statistics(model, genome, inputs, targets), Random(0)
    columns = GateProbe(model, genome).columns
    for share in (0.2, 0.5, 1.0):
        sets, d = {}, torch.zeros(len(gradient)).double()
        for group, where in columns.items():
            width = where.stop - where.start
            sets[group] = rng.sample(range(width), max(1, int(share * width)))
            d[[where.start + unit for unit in sets[group]]] = 1
        expected = gradient @ d + 0.5 * d @ curvature @ d
        assert set_saliency(statistics, sets) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_cautious_price_counts_no_gains(name):
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome), examples_of(genome)
    gradient, curvature = dense_statistics(model, genome, inputs, targets)
    statistics, rng = gate_statistics(model, genome, inputs, targets), Random(0)
    sets, columns = {}, []
    for group, where in statistics.columns.items():
        sets[group] = rng.sample(range(where.stop - where.start), (1 + where.stop - where.start) // 2)
        columns += [where.start + unit for unit in sets[group]]
    expected = sum(max(gradient[a].item(), 0) for a in columns)
    expected += 0.5 * sum(max(curvature[a, b].item(), 0) for a in columns for b in columns)
    found = cautious_saliency(statistics, sets)
    assert found == pytest.approx(expected, rel=1e-9)
    assert found >= set_saliency(statistics, sets)


@pytest.mark.parametrize("curvature", ["exact", "sampled"])
def test_a_unit_costs_as_much_as_a_set_of_one(curvature):
    genome = EXAMPLES["dense"]()
    model, data = randomised(genome), examples_of(genome)
    statistics = gate_statistics(model, genome, *data, curvature, seed=5)
    for group, found in obd_saliency(model, genome, *data, curvature, seed=5).items():
        expected = [set_saliency(statistics, {group: [unit]}) for unit in range(len(found))]
        assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_saliency_knows_what_units_are_worth(trained):
    measured = brute_force(*trained)
    for curvature in ("exact", "sampled"):
        predicted = obd_saliency(*trained, curvature)
        ranks = [torch.cat(list(x.values())).argsort().argsort().double() for x in (predicted, measured)]
        assert torch.corrcoef(torch.stack(ranks))[0, 1] > 0.9


def test_where_the_network_has_no_doubt_there_is_neither_slope_nor_curvature():
    genome = EXAMPLES["perceptron"]()
    model, (inputs, _) = randomised(genome), examples_of(genome)
    model.get_submodule(genome.nodes[-2].name).weight.data *= 1e4
    targets = model(inputs).argmax(1)
    statistics = gate_statistics(model, genome, inputs, targets, "sampled")
    assert statistics.gradient.abs().max() < 1e-9
    assert statistics.root.abs().max() < 1e-9
