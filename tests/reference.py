"""Slow and obviously right: what the package computes, written a second time without its shortcuts."""

from collections import deque
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch.nn.functional import conv1d, conv2d, linear
from torch.utils.flop_counter import FlopCounterMode

from evo_topo.ops import Add, Concat, Conv, Flatten, Input, Linear, Multiply, Output, Scale, Select
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
        for a, b in links(genome, node):
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


def links(genome, node):
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
