"""Prices of edits against explicit derivatives of the loss along what each edit changes."""

from functools import partial
from itertools import islice

import pytest
import torch
from msgspec.structs import replace
from torch.autograd.functional import jacobian
from torch.nn.functional import cross_entropy

from evo_topo.cost import count_flops
from evo_topo.edits import (
    KINDS,
    AddUnits,
    EditError,
    Factorise,
    GrowConnections,
    GrowKernel,
    PruneBranch,
    PruneConnections,
    PruneUnits,
    ShrinkKernel,
    SplitBranch,
    SplitLayer,
    SplitUnits,
    Trade,
    legal_edits,
)
from evo_topo.inheritance import Probe, inherit
from evo_topo.inheritance.directions import layer_readings
from evo_topo.saliency import gate_statistics, mean_loss, price, set_saliency
from evo_topo.saliency.changes import ChangeProbe, along
from evo_topo.saliency.growth import Growth
from evo_topo.saliency.obd import loss_seeds
from tests.reference import Layer, evaluate_nodes, forward, layer_output, random_inputs, randomised
from tests.strategies import EXAMPLES, Sketch, versatile

NAMES = ["dense", "squeeze_excitation", "one_dimensional", "strided", "perceptron", "versatile"]
LOCAL = tuple(kind for kind in KINDS if kind not in (PruneUnits, SplitUnits, AddUnits, Trade))


QUADRATIC = partial(price, curvature="exact", share=1, measured=0)


def examples_of(genome, batch=6):
    generator = torch.Generator().manual_seed(3)
    return random_inputs(genome, batch), torch.randint(genome.num_classes, (batch,), generator=generator)


def twice(*tensors):
    """The same examples in both halves: in that for directions and local edits, and in that for slopes."""
    return [torch.cat([tensor, tensor]) for tensor in tensors]


def quadratic(logits_of, targets):
    """Slope and GGN curvature of the mean loss along one number, by an explicit jacobian of the logits."""
    zero = torch.zeros((), dtype=torch.float64)
    jac, p = jacobian(logits_of, zero), logits_of(zero).softmax(1).detach()
    onehot = torch.nn.functional.one_hot(targets, p.shape[1])
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    slope = torch.einsum("nc,nc->n", p - onehot, jac).mean()
    return slope.item(), torch.einsum("nc,ncd,nd->n", jac, hessian, jac).mean().item()


def change_at_joint(model, genome, edit, inputs):
    """The joint, its value, and the value that the whole inherited child has there."""
    before, after = edit.joint(genome)
    probe = Probe(inputs[:2], torch.zeros(2, dtype=torch.long))  # an eighth of twelve; OBD asks for no labels
    child, child_model = edit.apply(genome), inherit(model, genome, edit, probe)
    values = evaluate_nodes(model, genome, inputs)
    common = {}
    for node in child.nodes:
        if genome.by_name.get(node.name) == node and common.keys() >= set(node.inputs):
            common[node.name] = values[node.name]
    return before, values[before], evaluate_nodes(child_model, child, inputs, known=common)[after]


@pytest.mark.parametrize("name", NAMES)
def test_local_edits_cost_the_quadratic_form_along_their_change(name):
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome), examples_of(genome)
    edits = [e for e in legal_edits(genome, LOCAL) if not e.is_function_preserving and e.joint(genome)]
    assert edits
    for priced in QUADRATIC(model, genome, edits, *twice(inputs, targets), batch_size=3):
        joint, old, new = change_at_joint(model, genome, priced.edit, inputs)

        def logits(t, joint=joint, old=old, new=new):
            return forward(model, genome, inputs, known={joint: old + t * (new - old)})

        slope, curve = quadratic(logits, targets)
        assert priced.loss_change == pytest.approx(slope + curve / 2, rel=1e-7, abs=1e-12)
        assert (priced.promise, priced.criterion) == (0.0, "obd")


@pytest.mark.parametrize("kind", [ShrinkKernel, Factorise, PruneBranch])
def test_the_price_is_the_loss_of_small_changes_to_second_order(kind):
    """In a network of ReLUs the GGN is the Hessian along a change, as long as no ReLU flips."""
    genome = EXAMPLES["small_resnet"]()
    model, (inputs, targets) = randomised(genome), examples_of(genome)
    edit = next(legal_edits(genome, (kind,)))
    joint, old, new = change_at_joint(model, genome, edit, inputs)

    def loss(t):
        value = forward(model, genome, inputs, known={joint: old + t * (new - old)})
        return cross_entropy(value, targets).item()

    h = 1e-5
    slope, curve = (loss(h) - loss(-h)) / (2 * h), (loss(h) - 2 * loss(0) + loss(-h)) / h**2
    (priced,) = QUADRATIC(model, genome, [edit], *twice(inputs, targets))
    assert priced.loss_change == pytest.approx(slope + curve / 2, rel=1e-3)


def grown(model, genome, edit, inputs, targets):
    """A growth with its direction, found on these examples."""
    growth = Growth(model, genome, edit, layer_readings(model, genome, Probe(inputs, targets)))
    with ChangeProbe(model, genome, growth.joints) as probe:
        logits = probe.forward(inputs)
        seeds = loss_seeds(logits, targets, "exact", 1, torch.Generator())
        growth.observe(probe.values, probe.responses(logits, seeds))
    growth.settle()
    return growth


def nudged_logits(model, genome, edit, growth, inputs):
    """Logits of the inherited child when its new parameters take a step of a given length."""
    child, child_model = edit.apply(genome), inherit(model, genome, edit).double().requires_grad_(False)
    steps = {new.target: new.weight for _, new in growth._maps}
    if isinstance(edit, GrowKernel):
        (layer,) = steps
    else:
        layer = next(node.name for node in child.nodes if node.name not in genome.by_name)
    ((step),) = steps.values()
    module = child_model.get_submodule(layer)
    start = module.weight.clone()

    def logits(t):
        norm_eps = getattr(module, "eps", None)
        scale = 1.0 if norm_eps is None else (1 + norm_eps) ** 0.5
        module.__dict__["_parameters"]["weight"] = None
        del module._parameters["weight"]
        module.weight = start + t * scale * step
        return evaluate_nodes(child_model, child, inputs)[child.nodes[-1].name]

    return logits


def plain():
    """Convolutions with a bias and no BatchNorm, so that new layers have none either."""
    net = Sketch(2, 5, 5)
    x = net.relu(net.conv(net.input, 3, bias=True))
    x = net.relu(net.conv(net.relu(net.conv(x, 4, 1, bias=True)), 3, bias=True))
    return net.end(x)


PLAIN_GROWTHS = list(legal_edits(plain(), (SplitLayer, SplitBranch, GrowKernel)))


@pytest.mark.parametrize("edit", PLAIN_GROWTHS, ids=lambda edit: edit.describe())
def test_growths_promise_the_best_step_of_the_dense_quadratic_form(edit):
    genome = plain()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 12)
    growth = grown(model, genome, edit, inputs[:6], targets[:6])
    logits = nudged_logits(model, genome, edit, growth, inputs[6:])
    slope, curve = quadratic(logits, targets[6:])
    expected = -0.5 * min(slope, 0) ** 2 / curve
    (priced,) = price(model, genome, [edit], inputs, targets, "exact", share=1, batch_size=6)
    assert priced.promise == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert (priced.loss_change, priced.criterion) == (0.0, "gauss-newton")


@pytest.mark.parametrize("edit", PLAIN_GROWTHS, ids=lambda edit: edit.describe())
def test_directions_descend_where_they_were_found_and_old_taps_stay(edit):
    genome = plain()
    model, (inputs, targets) = randomised(genome), examples_of(genome)
    growth = grown(model, genome, edit, inputs, targets)
    slope, _ = quadratic(nudged_logits(model, genome, edit, growth, inputs), targets)
    assert slope < 0
    if isinstance(edit, GrowKernel):
        ((_, new),), inner = growth._maps, genome.by_name[edit.conv].op.kernel
        border = [(k - n) // 2 for k, n in zip(new.weight.shape[2:], inner, strict=True)]
        middle = [slice(b, b + n) for b, n in zip(border, inner, strict=True)]
        assert not new.weight[(..., *middle)].any()


@pytest.mark.parametrize("name", ["one_dimensional", "flat_tied", "grouped", "dense"])
@pytest.mark.parametrize("directions", ["gradmax", "tiny"])
def test_new_units_promise_the_best_step_of_their_outgoing_weights(name, directions):
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 8)
    edits = [AddUnits(e.group, 2, directions) for e in legal_edits(genome, (AddUnits,))]
    for edit in edits:
        growth = grown(model, genome, edit, inputs, targets)
        child, child_model = edit.apply(genome), inherit(model, genome, edit, Probe(inputs, targets)).eval()
        child_model.load_state_dict(growth._modules.state_dict(), strict=False)  # other draws of new biases
        child_model.requires_grad_(False)
        channels = edit.channel_map(genome)
        columns = {new.target: new.weight for _, new in growth._maps}
        starts = {target: child_model.get_submodule(target).weight.clone() for target in columns}

        def logits(t, child=child, child_model=child_model, columns=columns, starts=starts, at=channels):
            for target, step in columns.items():
                module = child_model.get_submodule(target)
                module._parameters.pop("weight", None)
                new = [c for c, o in enumerate(at[child.by_name[target].inputs[0]]) if o == -1]
                nudge = torch.zeros_like(starts[target])
                nudge[:, new] = step
                module.weight = starts[target] + t * nudge
            return evaluate_nodes(child_model, child, inputs)[child.nodes[-1].name]

        if not columns:
            continue
        with ChangeProbe(model, genome, growth.joints) as probe:
            scores = probe.forward(inputs)
            responses = probe.responses(scores, loss_seeds(scores, targets, "exact", 1, torch.Generator()))
            slopes, *roots = along(responses, growth.differences(probe.values))
        slope, curve = quadratic(logits, targets)
        assert slopes.mean().item() == pytest.approx(slope, rel=1e-6, abs=1e-14)
        assert sum(r.square().mean().item() for r in roots) == pytest.approx(curve, rel=1e-6, abs=1e-14)


SPARSE = [node.name for node in EXAMPLES["sparse"]().nodes if getattr(node.op, "fan_in", None)]


@pytest.mark.parametrize("layer", SPARSE)
def test_new_connections_promise_the_best_step_of_those_of_steepest_slope(layer):
    genome = EXAMPLES["sparse"]()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 32)
    edit = GrowConnections(layer)
    growth = grown(model, genome, edit, inputs[:16], targets[:16])
    ((_, new),) = growth._maps
    child = inherit(model, genome, edit, Probe(inputs[:16], targets[:16])).get_submodule(layer)
    parent = model.get_submodule(layer)
    moves = new.weight != 0
    gained = ~parent.mask & getattr(child, "mask", torch.tensor(True))  # no mask where all are there
    alive = moves.flatten(1).any(1)  # of units that are never active all slopes are zero
    assert alive.any()
    assert torch.equal(moves[alive], gained[alive])
    dense = replace(genome.by_name[layer].op, fan_in=None)

    def logits(t):
        nudged = Layer(parent.weight.detach() + t * new.weight, parent.bias)
        changed = {layer: partial(layer_output, nudged, dense)}
        return forward(model, genome, inputs[16:], changed=changed)

    slope, curve = quadratic(logits, targets[16:])
    (priced,) = price(model, genome, [edit], inputs, targets, "exact", share=1, batch_size=16)
    assert priced.promise == pytest.approx(-0.5 * min(slope, 0) ** 2 / curve, rel=1e-6, abs=1e-12)
    assert (priced.loss_change, priced.criterion) == (0.0, "gauss-newton")


def test_connections_are_priced_as_those_that_the_criterion_chooses():
    genome = versatile(8)
    model, (inputs, targets) = randomised(genome), examples_of(genome, 16)
    by_obd, by_size = edits = [PruneConnections("conv4", 36, criterion) for criterion in ("obd", "magnitude")]
    cheap, dear = price(model, genome, edits, inputs, targets, "exact", share=1)
    assert [cheap.edit, dear.edit] == [by_obd, by_size]
    assert cheap.loss_change != dear.loss_change
    assert cheap.flop_change == dear.flop_change == -2 * 8 * 36 * 16


def test_one_new_parameter_promises_its_own_newton_step():
    net = Sketch(1, 4)
    x = net.relu(net.conv(net.input, 1, bias=True))
    genome = net.end(net.relu(net.conv(x, 1, bias=True)))
    model, (inputs, targets) = randomised(genome), examples_of(genome, 16)
    edit = next(e for e in legal_edits(genome, (SplitBranch,)) if e.kernel == 0)
    (priced,) = price(model, genome, [edit], *twice(inputs, targets), "exact", batch_size=16)
    values = evaluate_nodes(model, genome, inputs)
    known = {edit.target: values[edit.target]}

    def logits(t):
        return forward(
            model, genome, inputs, known={edit.target: known[edit.target] + t * values[edit.source]}
        )

    slope, curve = quadratic(logits, targets)
    assert priced.promise == pytest.approx(-0.5 * slope**2 / curve, rel=1e-9)


@pytest.mark.parametrize("name", [*NAMES, "sparse", "binary"])
def test_every_edit_has_a_price(name):
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 8)
    edits = [edit for kind in KINDS for edit in islice(kind.legal(genome), 6)]
    found = price(model, genome, edits, inputs, targets)
    assert [item.edit for item in found] == edits
    for item in found:
        assert item.flop_change == count_flops(item.edit.apply(genome)) - count_flops(genome)
        assert item.promise <= 0
        if item.edit.is_function_preserving:
            assert item.loss_change == 0
        assert item.loss_change == item.loss_change
    kinds = {type(item.edit): item.criterion for item in found}
    assert kinds[PruneUnits] == "obd"
    assert kinds.get(Trade, "sum") == "sum"


def test_units_are_priced_as_by_the_gates():
    genome = versatile()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 8)
    sets = (("conv1", (0, 2)), ("conv4", (1,)))
    edits = [PruneUnits(sets), SplitUnits(sets)]
    slope = gate_statistics(model, genome, inputs, targets).gradient
    statistics = gate_statistics(model, genome, inputs[:6], targets[:6])._replace(gradient=slope)
    pruned, split = price(model, genome, edits, inputs, targets, "exact", batch_size=3)
    assert pruned.loss_change == pytest.approx(set_saliency(statistics, dict(sets)))
    assert (split.loss_change, split.promise) == (0.0, pytest.approx(min(-pruned.loss_change, 0.0)))


@pytest.mark.parametrize("name", ["small_resnet", "one_dimensional", "depthwise"])
def test_prices_in_bfloat16_are_those_in_float32_but_for_rounding(monkeypatch, name):
    genome = EXAMPLES[name]()
    model, (inputs, targets) = randomised(genome).float(), examples_of(genome, 32)
    edits, found = list(legal_edits(genome)), {}
    for fast in (False, True):
        monkeypatch.setattr("evo_topo.saliency.derivative_pass.has_fast_bfloat16", lambda _, fast=fast: fast)
        found[fast] = price(model, genome, edits, inputs.float(), targets, batch_size=4)
    most = max(abs(item.loss_change) for item in found[False] if item.criterion == "obd")
    for exact, rounded in zip(found[False], found[True], strict=True):
        is_by_gates = exact.criterion in ("obd", "saliency")
        if not is_by_gates:  # they come from the batches before
            assert exact == rounded
        assert rounded.loss_change == pytest.approx(exact.loss_change, abs=0.1 * most)
    assert found[False] != found[True]


def test_a_trade_costs_the_sum_of_its_parts():
    genome = versatile()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 8)
    prune, growth = PruneUnits((("conv1", (0,)),)), next(legal_edits(genome, (SplitLayer,)))
    first, second, both = price(model, genome, [prune, growth, Trade(prune, growth)], inputs, targets)
    assert both.loss_change == first.loss_change
    assert both.promise == second.promise
    shifted = Trade(prune, SplitUnits((("conv1", (0,)),)))  # unit 1 of the parent
    split = SplitUnits((("conv1", (1,)),))
    priced, alone = price(model, genome, [shifted, split], inputs, targets)
    assert priced.promise == pytest.approx(alone.promise)


def test_what_has_no_joint_is_measured():
    genome = EXAMPLES["dense"]()
    model, (inputs, targets) = randomised(genome), examples_of(genome, 8)
    edit = next(edit for edit in legal_edits(genome, (PruneBranch,)) if edit.joint(genome) is None)
    (priced,) = price(model, genome, [edit], inputs, targets)
    few = inputs[:2], targets[:2]
    expected = mean_loss(inherit(model, genome, edit), *few) - mean_loss(model, *few)
    assert (priced.loss_change, priced.criterion) == (pytest.approx(expected), "measured")


def test_pricing_leaves_the_model_as_it_is():
    genome = versatile()
    model, (inputs, targets) = randomised(genome).train(), examples_of(genome, 8)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    price(model, genome, list(legal_edits(genome, LOCAL)), inputs, targets)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.training


def test_what_does_not_apply_is_refused_before_the_pass():
    genome = versatile()
    model, inputs = randomised(genome), random_inputs(genome, 8)
    targets = torch.zeros(8, dtype=torch.int64)
    with pytest.raises(EditError):
        price(model, genome, [PruneUnits((("nope", (0,)),))], inputs, targets)
    growth = next(iter(legal_edits(genome, (SplitLayer,))))
    with pytest.raises(ValueError, match="expected two examples"):
        price(model, genome, [growth], inputs[:1], targets[:1])
