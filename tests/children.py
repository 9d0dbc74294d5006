"""What the child of an edit must compute, from its parent's network: slow and obviously right."""

import copy
from functools import partial

import torch
from msgspec.structs import replace
from torch.nn.functional import conv1d, conv2d, linear

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
from evo_topo.ops import Add, Concat, Conv, Flatten, Linear, Norm
from tests.reference import Layer, evaluate_nodes, forward, layer_output, links, masked_forward


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
            dead |= {made for read, made in links(genome, later) if read in dead}
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
    readers = [genome.by_name[name] for name in genome.readers[second.name]]
    if two.bias is not None or not all(isinstance(node.op, Norm) for node in readers):
        made = made + (middle if two.bias is None else middle + two.bias).view(point)
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
            left, right = second[(..., *outer_tap)], first[(..., *tap)]
            found[(..., *place)] += (left * gain) @ right
    return found


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
