import copy
import random

import pytest
import torch
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from analysis.ranks import spearman
from evo_topo.datasets import load_dataset
from evo_topo.saliency import ggn_diagonal, mean_loss, weight_obd
from tests.reference import random_inputs, randomised, relative_error
from tests.strategies import EXAMPLES, Sketch


def convolutional():
    net = Sketch(1, 4, 4)
    x = net.unit(net.input, 2)
    return net.end(net.relu(net.conv(x, 3, stride=(2, 2), bias=True)))


def linear():
    net = Sketch(4)
    return net.finish(net.linear(net.relu(net.linear(net.input, 5)), 3))


NETWORKS = {
    "conv": convolutional,
    "linear": linear,
    "perceptron": EXAMPLES["perceptron"],
    "depthwise": EXAMPLES["depthwise"],
}


def flat_call(model):
    """The network as a function of all its parameters in one vector, and that vector."""
    named = dict(model.named_parameters())
    sizes = [value.numel() for value in named.values()]

    def call(vector, inputs):
        parts = zip(named.items(), vector.split(sizes), strict=True)
        return functional_call(model, {name: part.view_as(old) for (name, old), part in parts}, inputs)

    return call, torch.cat([value.detach().flatten() for value in named.values()])


def joined(by_name, model):
    return torch.cat([by_name[name].flatten() for name, _ in model.named_parameters()])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_diagonal_is_that_of_the_dense_ggn(name):
    genome = NETWORKS[name]()
    model, inputs = randomised(genome), random_inputs(genome, 5)
    call, vector = flat_call(model)
    jac = jacobian(lambda v: call(v, inputs), vector)
    p = call(vector, inputs).softmax(1)
    output_hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("ncv,ncd,ndv->v", jac, output_hessian, jac) / len(inputs)
    found = ggn_diagonal(model, inputs, batch_size=2)
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in model.named_parameters()
    }
    assert relative_error(joined(found, model), expected) < 1e-9


@pytest.mark.parametrize("name", ["conv", "linear", "depthwise"])
def test_in_a_relu_network_it_is_the_diagonal_of_the_hessian(name):
    genome = NETWORKS[name]()
    model, inputs = randomised(genome), random_inputs(genome, 5)
    call, vector = flat_call(model)
    targets = torch.arange(5) % genome.num_classes
    full = hessian(lambda v: cross_entropy(call(v, inputs), targets), vector)
    assert relative_error(joined(ggn_diagonal(model, inputs), model), full.diagonal()) < 1e-9
    assert (full - full.diag().diag()).abs().max() > 0.01  # only the diagonal is kept


@pytest.mark.parametrize("name", ["conv", "linear"])
def test_drawn_labels_give_it_in_the_mean(name):
    genome = NETWORKS[name]()
    model, inputs = randomised(genome), random_inputs(genome, 3)
    expected = joined(ggn_diagonal(model, inputs), model)
    often = inputs.repeat(2000, *[1] * (inputs.dim() - 1))
    found = joined(ggn_diagonal(model, often, "sampled", batch_size=500), model)
    assert relative_error(found, expected) < 0.1
    assert (found != joined(ggn_diagonal(model, often, "sampled", batch_size=500, seed=1), model)).any()


def test_saliency_is_half_the_curvature_times_the_square():
    genome = NETWORKS["linear"]()
    model, inputs = randomised(genome), random_inputs(genome)
    for curvature in ("exact", "sampled"):
        diagonal = ggn_diagonal(model, inputs, curvature, seed=2)
        found = weight_obd(model, inputs, curvature, seed=2)
        for name, value in model.named_parameters():
            assert found[name].flatten().tolist() == pytest.approx(
                (diagonal[name] * value**2 / 2).flatten().tolist()
            )


def test_saliency_ranks_single_weights_as_their_removal_does(trained):
    model, _, inputs, targets = trained
    saliency, rng = weight_obd(model, inputs), random.Random(0)
    before, predicted, measured, sizes = mean_loss(model, inputs, targets), [], [], []
    weights = {name: value for name, value in model.named_parameters() if value.dim() > 1}
    for name in rng.choices(list(weights), k=150):
        flat = weights[name].data.view(-1)
        index = rng.randrange(len(flat))
        kept = flat[index].item()
        flat[index] = 0
        measured.append(mean_loss(model, inputs, targets) - before)
        flat[index] = kept
        predicted.append(saliency[name].view(-1)[index].item())
        sizes.append(abs(kept))
    assert spearman(predicted, [abs(change) for change in measured]) > 0.7
    assert spearman(predicted, measured) > max(0.3, spearman(sizes, measured))


def test_removing_many_weights_by_saliency_hurts_least(trained):
    model, _, inputs, _ = trained
    task = load_dataset("digits")
    judged = task.normalise(task.validation.inputs).double(), task.validation.targets
    weights = {name: value for name, value in model.named_parameters() if value.dim() > 1}
    saliency = weight_obd(model, inputs)
    by_obd = torch.cat([saliency[name].flatten() for name in weights])
    by_size = torch.cat([value.detach().abs().flatten() for value in weights.values()])
    before = mean_loss(model, *judged)

    def cost(scores, share):
        """Loss increase without the given share of all weights, those of the smallest scores."""
        gone = torch.zeros(len(scores), dtype=torch.bool)
        gone[scores.argsort()[: int(share * len(scores))]] = True
        thinned, parts = copy.deepcopy(model), gone.split([value.numel() for value in weights.values()])
        for name, part in zip(weights, parts, strict=True):
            thinned.get_parameter(name).data.view(-1)[part] = 0
        return mean_loss(thinned, *judged) - before

    generator = torch.Generator().manual_seed(0)
    by_chance = [cost(torch.rand(len(by_obd), generator=generator), 0.5) for _ in range(5)]
    assert cost(by_obd, 0.5) < min(by_chance) / 4
    assert cost(by_obd, 0.3) < cost(by_size, 0.3)
