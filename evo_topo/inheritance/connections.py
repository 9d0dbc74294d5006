"""Which connections a sparse layer keeps, and which it grows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, unfold

from evo_topo.curvature import Curvature, hessian_root, seeded_gradients
from evo_topo.edits import AnyEdit, GrowConnections, PruneConnections
from evo_topo.hooks import hook_value, in_mode
from evo_topo.inheritance.probe import Probe

_MOST_NUMBERS = 2**26  # in the gradients of a batch of examples: 256 MiB of float32


def connection_scores(
    model: nn.Module, layer: str, edit: AnyEdit, probe: Probe | None
) -> tuple[Tensor | None, Tensor | None]:
    """What decides which connections a layer keeps and which it grows; None is magnitude, or chance.

    Args:
        model: The parent's network.
        layer: Name of a Conv or Linear node.
        edit: The mutation.
        probe: Examples to measure on, if there are any.
    """
    if probe is None or not isinstance(edit, PruneConnections | GrowConnections) or edit.layer != layer:
        return None, None
    if isinstance(edit, GrowConnections):
        return None, kernel_gradient(model, layer, *probe).abs()
    return layer_obd(model, layer, probe.inputs) if edit.criterion == "obd" else None, None


def layer_obd(
    model: nn.Module, layer: str, inputs: Tensor, curvature: Curvature = "exact", seed: int = 0
) -> Tensor:
    """What `weight_obd` gives for the weights of one real layer, many times faster.

    Args:
        model: Trained network.
        layer: Name of a Conv or Linear node.
        inputs: Normalised inputs (examples, *input_shape).
        curvature: ``exact`` or ``sampled``.
        seed: Seed of the drawn labels.

    Returns:
        A tensor of the shape of the layer's weights.
    """
    module = model.get_submodule(layer)
    weight = module.weight
    assert isinstance(weight, Tensor)
    squares = torch.zeros_like(weight)
    generator = torch.Generator().manual_seed(seed)
    places: list[Tensor] = []

    def keep(args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        places[:] = [args[0].detach(), output.detach().requires_grad_()]
        return places[1]

    with in_mode(model, training=False), torch.enable_grad(), hook_value(model, layer, keep):
        for batch in torch.split(inputs, max(1, min(64, _MOST_NUMBERS // weight.numel()))):
            logits = model(batch)
            for column in hessian_root(logits.detach().log_softmax(1), curvature, 1, generator):
                (slope,) = seeded_gradients(logits, column, places[1:])
                squares += _squared_gradients(module, places[0], slope).view_as(weight)
    return 0.5 * squares / len(inputs) * weight.detach().square()


def _squared_gradients(module: nn.Module, read: Tensor, slope: Tensor) -> Tensor:
    """Square of each example's gradient by the weights, summed over examples: (groups, units, fan-in).

    Args:
        module: A Conv or Linear.
        read: Its inputs, (examples, channels, ...).
        slope: Gradient at its outputs, (examples, units, ...).
    """
    groups = 1
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        groups = module.groups
        if isinstance(module, nn.Conv1d):
            read = read.unsqueeze(2)  # as an image of height one
        window = (module.kernel_size, module.dilation, module.padding, module.stride)
        fill = zip(window, (1, 1, 0, 1), strict=True)
        read = unfold(read, *[(*(one,) * (2 - len(size)), *size) for size, one in fill])
    patches = read.reshape(len(read), groups, read.shape[1] // groups, -1)
    slopes = slope.reshape(len(slope), groups, slope.shape[1] // groups, -1)
    return (slopes @ patches.transpose(2, 3)).square_().sum(0)


def kernel_gradient(model: nn.Module, layer: str, inputs: Tensor, targets: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy by all weights of a layer, those masked included.

    Args:
        model: Its network; BatchNorm uses its running statistics.
        layer: Name of a Conv or Linear node.
        inputs: Normalised inputs (examples, *input_shape).
        targets: Class of each example (examples,).

    Returns:
        A tensor of the shape of the layer's weights.
    """
    weight = model.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    values = {f"{layer}.weight": weight.detach().requires_grad_()}
    if f"{layer}.mask" in dict(model.named_buffers()):  # what is masked is zero, so nothing changes
        values[f"{layer}.mask"] = torch.ones_like(weight, dtype=torch.bool)
    with in_mode(model, training=False), torch.enable_grad():
        loss = cross_entropy(functional_call(model, values, (inputs,)), targets)
        return torch.autograd.grad(loss, values[f"{layer}.weight"])[0]
