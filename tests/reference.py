"""Slow and obviously right: what the package computes, written a second time without its shortcuts."""

import copy
from collections import deque
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from msgspec.structs import replace
from torch.nn.functional import conv1d, conv2d, linear
from torch.utils.flop_counter import FlopCounterMode

from evo_topo.edits import (
    Binarise,
    Debinarise,
    DownsampleEarlier,
    DownsampleLater,
    Factorise,
    MergeLayers,
    PruneBranch,
    PruneConnections,
    PruneLayer,
    PruneUnits,
    ShrinkKernel,
    Trade,
    layer_chain,
)
from evo_topo.edits.merge_layers import link_between
from evo_topo.edits.regions import region_behind
from evo_topo.inheritance import inherit
from evo_topo.ops import Add, Concat, Conv, Flatten, Input, Linear, Multiply, Norm, Output, Scale, Select
from evo_topo.phenotype import build
from evo_topo.units import unit_table


class Layer(NamedTuple):
    """What a Conv or Linear holds."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    mask: torch.Tensor | None = None


def layer_output(module, op, read, change=lambda read: read):
    """A Conv or Linear on `read`, from its weights; what these multiply passes `change` first."""
    if not isinstance(module, torch.nn.Module | Layer):
        return module(read)
    weight = module.weight
    if op.fan_in:
        weight = torch.where(module.mask, weight, 0)
    if op.binary:
        read, weight = signs(read), signs(weight)
    read = change(read)
    if isinstance(op, Linear):
        out = linear(read, weight)
    else:
        convolve = {1: conv1d, 2: conv2d}[len(op.kernel)]
        out = convolve(read, weight, None, op.stride, op.padding, op.dilation, op.groups)
    point = (-1,) + (1,) * (out.dim() - 2)
    out = out * module.scale.view(point) if op.binary else out
    return out if module.bias is None else out + module.bias.view(point)


def signs(x):
    """+1 or -1, with the slope of a hard tanh."""
    hard = x.clamp(-1, 1)
    return torch.where(x > 0, 1.0, -1.0).to(x) + (hard - hard.detach())


def zeroed(channels, read):
    read = read.clone()
    read[:, channels] = 0
    return read


def evaluate_nodes(model, genome, inputs, dead=frozenset(), bypassed=None, known=None, changed=None):
    """The value of every node, node by node.

    The channels `dead`, pairs of node and channel, are zeroed where a layer mixes channels; each node
    that is a key of `bypassed` takes the value of the node named there; each key of `known` has the
    value given; each key of `changed` computes the function given, of the values it reads.
    """
    values = {}
    for node in genome.nodes:
        if node.name in (known or {}):
            values[node.name] = known[node.name]
            continue
        reads = [values[name] for name in node.inputs]
        if node.name in (changed or {}):
            values[node.name] = changed[node.name](*reads)
            continue
        match node.op:
            case Input():
                value = inputs
            case Add():
                value = torch.stack(broadcast(reads)).sum(0)
            case Multiply():
                value = torch.stack(broadcast(reads)).prod(0)
            case Concat():
                value = torch.cat(reads, 1)
            case Flatten():
                value = reads[0].reshape(len(inputs), -1)
            case Select():
                value = torch.stack([reads[0][:, channel] for channel in node.op.channels], 1)
            case Scale():
                value = node.op.factor * reads[0] + node.op.offset
            case Output():
                value = reads[0]
            case Conv() | Linear():
                mixes = isinstance(node.op, Linear) or node.op.groups == 1
                channels = range(reads[0].shape[1]) if mixes else ()
                gone = [c for c in channels if (node.inputs[0], c) in dead]
                value = layer_output(model.get_submodule(node.name), node.op, reads[0], partial(zeroed, gone))
            case _:
                value = model.get_submodule(node.name)(reads[0])
        source = (bypassed or {}).get(node.name)
        values[node.name] = value if source is None else values[source]
    return values


def broadcast(reads):
    """Tensors of one shape; the last extents of those that lack some are taken to be 1."""
    dims = max(read.dim() for read in reads)
    return torch.broadcast_tensors(*(read[(..., *[None] * (dims - read.dim()))] for read in reads))


def forward(model, genome, inputs, **changes):
    return evaluate_nodes(model, genome, inputs, **changes)[genome.nodes[-1].name]


def masked_forward(model, genome, units, inputs):
    """The network with units, given as (group, units) pairs, zeroed wherever they are mixed."""
    components = {vertex: part for part in find_components(genome) for vertex in part}
    groups = unit_table(genome).groups
    dead = set()
    for group, chosen in units:
        for maker, channels in groups[group].makers.items():
            dead.update(*(components[maker, channels[unit][0]] for unit in chosen if channels[unit]))
    return forward(model, genome, inputs, dead=dead)


def expected_output(model, genome, edit, inputs):
    """What the child of an edit must compute right after inheritance."""
    if edit.is_function_preserving:
        return forward(model, genome, inputs)
    if isinstance(edit, PruneUnits):
        return masked_forward(model, genome, edit.units, inputs)
    if isinstance(edit, PruneLayer):
        end = layer_chain(genome, edit.layer)[-1]
        return forward(model, genome, inputs, bypassed={end: genome.by_name[edit.layer].inputs[0]})
    if isinstance(edit, PruneConnections | Binarise | Debinarise):
        module, op = model.get_submodule(edit.layer), genome.by_name[edit.layer].op
        change = {PruneConnections: thinned, Binarise: binarised, Debinarise: debinarised}[type(edit)]
        layer = partial(layer_output, *change(module, op, edit))
        return forward(model, genome, inputs, changed={edit.layer: layer})
    if isinstance(edit, ShrinkKernel):
        return forward(without_border_taps(model, edit.conv), genome, inputs)
    if isinstance(edit, PruneBranch):
        return forward_without_branch(model, genome, edit.node, edit.branch, inputs)
    if isinstance(edit, DownsampleEarlier | DownsampleLater):
        return forward_with_moved_stride(model, genome, edit, inputs)
    if isinstance(edit, MergeLayers):
        return forward_with_layers_merged(model, genome, edit, inputs)
    if isinstance(edit, Factorise):
        model = copy.deepcopy(model)
        weight = model.get_submodule(edit.layer).weight.data
        weight.copy_(nearest_factorisable(weight, edit.form, edit.rank))
        return forward(model, genome, inputs)
    if isinstance(edit, Trade):
        between = inherit(model, genome, edit.first)
        return expected_output(between, edit.first.apply(genome), edit.second, inputs)
    raise NotImplementedError(f"say what a child of {type(edit).__name__} computes")


def thinned(module, op, edit):
    """A layer without the smallest weights of each unit."""
    mask = module.mask.clone() if op.fan_in else torch.ones_like(module.weight, dtype=torch.bool)
    for weights, present in zip(module.weight.flatten(1), mask.flatten(1), strict=True):
        there = [i for i in range(len(weights)) if present[i]]
        for i in sorted(there, key=lambda i, weights=weights: abs(weights[i].item()))[: edit.count]:
            present[i] = False
    return Layer(module.weight, module.bias, mask=mask), replace(op, fan_in=1)


def binarised(module, op, edit):
    """A real layer with the signs of its weights, and their mean size as scale."""
    scale = torch.stack([row.abs().sum() / row.numel() for row in module.weight])
    return Layer(module.weight, module.bias, scale), replace(op, binary=True)


def debinarised(module, op, edit):
    """A binary layer that reads numbers rather than their signs."""
    rows = zip(module.weight, module.scale, strict=True)
    weight = torch.stack([torch.where(row > 0, scale, -scale) for row, scale in rows])
    return Layer(weight, module.bias), replace(op, binary=False)


def without_border_taps(model, conv):
    """A copy of the network in which the outermost taps of every extent of three or more are zero."""
    model = copy.deepcopy(model)
    weight = model.get_submodule(conv).weight.data
    for dim in range(2, weight.dim()):
        if weight.shape[dim] >= 3:
            weight.select(dim, 0).zero_()
            weight.select(dim, -1).zero_()
    return model


def forward_without_branch(model, genome, name, branch, inputs):
    """The network without one term or factor, or with channels joined by a Concat that no layer sees."""
    node = genome.by_name[name]
    if isinstance(node.op, Concat):
        start = sum(genome.shapes[source][0] for source in node.inputs[:branch])
        dead = {(name, start + c) for c in range(genome.shapes[node.inputs[branch]][0])}
        for later in genome.nodes[genome.nodes.index(node) + 1 :]:
            dead |= {made for read, made in _links(genome, later) if read in dead}
        return forward(model, genome, inputs, dead=dead)

    def combine(*reads):
        left = [read for i, read in enumerate(reads) if i != branch]
        stacked = torch.stack(torch.broadcast_tensors(*left))
        return stacked.sum(0) if isinstance(node.op, Add) else stacked.prod(0)

    return forward(model, genome, inputs, changed={name: combine})


def forward_with_moved_stride(model, genome, edit, inputs):
    """The network with a map thinned out where it is made, not where it is read, or the other way."""
    region, earlier = region_behind(genome, edit.conv), isinstance(edit, DownsampleEarlier)
    readers = [name for name in region.readers if isinstance(genome.by_name[name].op, Conv)]
    givers = readers if earlier else region.makers
    new = (2,) * (len(genome.shapes[edit.conv]) - 1)  # where only global pools read the map
    stride = model.get_submodule(givers[0]).stride if givers else new

    def convolution(name, thin):
        op = genome.by_name[name].op
        full = partial(layer_output, model.get_submodule(name), replace(op, stride=(1,) * len(stride)))
        return lambda read: full(read)[(..., *[slice(None, None, s if thin else 1) for s in stride])]

    changed = {name: convolution(name, earlier) for name in region.makers}
    changed |= {name: convolution(name, not earlier) for name in readers}
    dead = set()
    for name in region.readers:
        if isinstance(genome.by_name[name].op, Flatten):
            (shape,) = genome.input_shapes(genome.by_name[name])
            changed[name] = partial(flat_at_places, shape, stride, earlier)
            gone = torch.ones(shape)
            gone[(..., *[slice(None, None, s) for s in stride])] = 0
            channels = gone.flatten().nonzero().flatten().tolist() if earlier else ()
            dead |= {(behind, c) for behind in carriers(genome, name) for c in channels}
    return forward(model, genome, inputs, dead=dead, changed=changed)


def flat_at_places(shape, stride, earlier, read):
    """A map of another resolution as the features of one of this shape; places that are lacking are zero."""
    places = (..., *[slice(None, None, s) for s in stride])
    full = torch.zeros(len(read), *shape, dtype=read.dtype)
    if earlier:
        full[places] = read
    else:
        full = read[places]
    return full.flatten(1)


def carriers(genome, name):
    """A node and all that hand its features on until a layer mixes them."""
    found = {name}
    for node in genome.nodes:
        if not isinstance(node.op, Linear) and found.intersection(node.inputs):
            found.add(node.name)
    return found


def forward_with_layers_merged(model, genome, edit, inputs):
    """The network with the product of two layers, of which the taps in the middle are left."""
    first, second, between = link_between(genome, edit.first, edit.second)
    parts = [model.get_submodule(n.name) for n in between if isinstance(n.op, Norm)]
    read = evaluate_nodes(model, genome, inputs)[first.inputs[0]]
    one, two = (model.get_submodule(node.name) for node in (first, second))

    def in_turn(x, last):
        x = one(x)
        for part in parts:
            x = part(x)
        return last(x)

    if isinstance(second.op, Conv):
        taps = partial(torch.einsum, "om,nm...->no...", two.weight.flatten(2).sum(2))  # as a 1x1
        wide = product_of_windows(one.weight, gains(parts, one.weight), two.weight, first.op.stride)
        for dim, (a, b) in enumerate(zip(first.op.kernel, second.op.kernel, strict=True)):
            beyond = (wide.shape[dim + 2] - max(a, b)) // 2
            for at in (*range(beyond), *range(wide.shape[dim + 2] - beyond, wide.shape[dim + 2])):
                wide.select(dim + 2, at).zero_()
        steps = list(zip(first.op.stride, first.op.padding, second.op.stride, second.op.padding, strict=True))
        convolve = conv1d if len(steps) == 1 else conv2d
        stride, padding = [s * t for s, _, t, _ in steps], [p + q * s for s, p, _, q in steps]
        made = convolve(read, wide, None, stride, padding)
        point = (1, -1, *[1] * len(steps))
        nothing = torch.zeros(1, *genome.shapes[first.inputs[0]], dtype=read.dtype)
        constant = in_turn(nothing, taps)
        middle = constant[(..., *[extent // 2 for extent in constant.shape[2:]])]
    else:
        made = in_turn(read, lambda x: two(x.flatten(1)))
        made = made - in_turn(torch.zeros_like(read), lambda x: two(x.flatten(1)))
        middle = in_turn(torch.zeros_like(read), lambda x: linear(x.flatten(1), two.weight))[:1]
        point = (1, -1)
    if two.bias is not None:
        made = made + (middle + two.bias).view(point)
    return forward(model, genome, inputs, known={second.name: made})


def gains(norms, weight):
    """The slope of BatchNorms in turn, by channel."""
    shape = (1, len(weight), *[1] * (weight.dim() - 2))
    slope = torch.ones(shape, dtype=weight.dtype)
    for norm in norms:
        slope = slope * (norm(torch.ones_like(slope)) - norm(torch.zeros_like(slope)))
    return slope.flatten()


def product_of_windows(first, gain, second, stride):
    """The window of two convolutions in turn, tap by tap."""
    taps, inner = second.shape[2:], first.shape[2:]
    size = [(n - 1) * s + m for n, s, m in zip(taps, stride, inner, strict=True)]
    found = torch.zeros(len(second), first.shape[1], *size, dtype=first.dtype)
    for outer_tap in torch.cartesian_prod(*map(torch.arange, taps)).reshape(-1, len(taps)).tolist():
        for tap in torch.cartesian_prod(*map(torch.arange, inner)).reshape(-1, len(taps)).tolist():
            place = [t * s + u for t, s, u in zip(outer_tap, stride, tap, strict=True)]
            left, right = (
                w[(slice(None), slice(None), *at)] for w, at in ((second, outer_tap), (first, tap))
            )
            found[(slice(None), slice(None), *place)] += left @ torch.diag(gain) @ right
    return found


def patches(layer, read):
    """Rows of what the layer multiplies with its weights: read off with one-hot weights, slowly."""
    size = layer.weight[0].numel()
    one_hot = torch.eye(size).double().reshape(size, *layer.weight.shape[1:])
    if read.dim() == 2:
        return read
    convolve = {3: torch.conv1d, 4: torch.conv2d}[read.dim()]
    found = convolve(read, one_hot, None, layer.stride, layer.padding, layer.dilation)
    return found.transpose(0, 1).flatten(1).T


@torch.no_grad()
def solve_layer(layer, read, wanted, free_mean, damping):
    """Ridge regression of a layer by stacked equations; how far the means stay apart without a bias."""
    columns = patches(layer, read)
    target = wanted.transpose(0, 1).flatten(1).T
    mean_x, mean_z = (t.mean(0) if free_mean else torch.zeros(t.shape[1]).double() for t in (columns, target))
    x, old = columns - mean_x, layer.weight.flatten(1).T
    ridge = (damping * x.square().mean() * len(x)).sqrt()
    rows = torch.cat([x, ridge * torch.eye(x.shape[1]).double()])
    right = torch.cat([target - mean_z, ridge * old])
    new = torch.linalg.lstsq(rows, right).solution
    layer.weight.copy_(new.T.reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(mean_z - mean_x @ new)
        return None
    return mean_z - mean_x @ new


def nearest_factorisable(weight, form, rank):
    """The nearest weight that factors of a form can have, by projections onto leading eigenvectors."""
    if form == "expand":
        rows = weight.reshape(len(weight), -1)
        return (leading_projection(rows.T, rank) @ rows).reshape(weight.shape)
    if form == "separable":
        near = torch.empty_like(weight)
        for channel in range(weight.shape[1]):
            rows = weight[:, channel].reshape(len(weight), -1)
            near[:, channel] = (rows @ leading_projection(rows, 1)).reshape(near[:, channel].shape)
        return near
    near = weight.clone()
    if form == "fire":  # the first half of the outputs keep their middle tap alone
        taps = near.reshape(*near.shape[:2], -1)
        outer = [tap for tap in range(taps.shape[2]) if tap != taps.shape[2] // 2]
        taps[: len(near) // 2, :, outer] = 0
    rows = near.movedim(1, -1).reshape(-1, near.shape[1])
    projection = leading_projection(rows, rank)
    return torch.einsum("om...,mi->oi...", near, projection)


def leading_projection(rows, rank):
    """Projection onto the space in which rows, tall and wide, have most of their squares."""
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    leading = vectors[:, max(0, rows.shape[1] - rank) :]
    return leading @ leading.T


def output_by_joint(model, genome, child_model, child, joint, inputs):
    """The parent's output when one value in it is replaced by what the child computes there.

    The child's value is computed from what both have in common, the parent's activations, and the child's
    parameters alone.
    """
    before, after = joint
    values = evaluate_nodes(model, genome, inputs)
    common = {}
    for node in child.nodes:
        if genome.by_name.get(node.name) == node and common.keys() >= set(node.inputs):
            common[node.name] = values[node.name]
    replacement = evaluate_nodes(child_model, child, inputs, known=common)[after]
    assert replacement.shape == values[before].shape
    return forward(model, genome, inputs, known={before: replacement})


def find_components(genome):
    """Channels that live and die together: connected components over (node, channel)."""
    linked = {(name, c): set() for name, shape in genome.shapes.items() for c in range(shape[0])}
    for node in genome.nodes:
        for a, b in _links(genome, node):
            linked[a].add(b)
            linked[b].add(a)
    components, seen = [], set()
    for vertex in linked:
        if vertex not in seen:
            seen.add(vertex)
            part, queue = [], deque([vertex])
            while queue:
                part.append(at := queue.popleft())
                queue.extend(linked[at] - seen)
                seen |= linked[at]
            components.append(frozenset(part))
    return components


def _links(genome, node):
    """Pairs of a read and a made channel that a node ties."""
    width = genome.shapes[node.name][0]
    if isinstance(node.op, Concat):
        sources = [(name, c) for name in node.inputs for c in range(genome.shapes[name][0])]
        return [(source, (node.name, c)) for c, source in enumerate(sources)]
    if isinstance(node.op, Flatten):
        size = prod(genome.shapes[node.inputs[0]][1:])
        return [((node.inputs[0], c // size), (node.name, c)) for c in range(width)]
    if isinstance(node.op, Select):
        return [((node.inputs[0], channel), (node.name, c)) for c, channel in enumerate(node.op.channels)]
    if isinstance(node.op, Conv):
        if node.op.groups == 1:
            return []
        reads, makes = genome.shapes[node.inputs[0]][0] // node.op.groups, width // node.op.groups
        return [
            ((node.inputs[0], k * reads + i), (node.name, k * makes + j))
            for k in range(node.op.groups)
            for i in range(reads)
            for j in range(makes)
        ]
    if isinstance(node.op, Input | Linear):
        return []
    return [((name, c), (node.name, c)) for name in node.inputs for c in range(width)]


def is_fixed(genome, component):
    return any(isinstance(genome.by_name[name].op, Input | Output) for name, _ in component)


def counted_flops(genome, model=None):
    """FLOPs for one example, by torch's own counter."""
    model = (model or build(genome)).eval()
    parameter = next(model.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *genome.input_shape, dtype=parameter.dtype, device=parameter.device))
    return counter.get_total_flops()


def randomised(genome, seed=0):
    """A network in float64 and evaluation mode with random weights and BatchNorm statistics.

    They are chosen such that signals keep their size and few units are dead, so that faults show.
    """
    model = build(genome, seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.dim() == 1:
            value.copy_(0.3 * torch.randn(value.shape, generator=generator) + name.endswith("weight"))
        elif value.dim() > 1 and value.is_floating_point():
            value.mul_(3**0.5)
    return model


def random_inputs(genome, batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *genome.input_shape, generator=generator, dtype=torch.float64)


def relative_error(got, expected):
    return ((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()
