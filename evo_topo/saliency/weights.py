"""Optimal Brain Damage for single weights, as in the paper (LeCun, Denker & Solla 1989)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.functional import cross_entropy, unfold

from evo_topo.phenotype import in_mode
from evo_topo.saliency.obd import Curvature, hessian_root

_MOST_NUMBERS = 2**26  # in the gradients of a batch of examples: 256 MiB of float32


def ggn_diagonal(
    model: nn.Module,
    inputs: Tensor,
    curvature: Curvature = "exact",
    batch_size: int = 32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Diagonal of the generalised Gauss-Newton matrix of the mean cross-entropy.

    The paper's Levenberg-Marquardt approximation drops the term with second derivatives of the
    network; what it keeps is this. Where the network is piecewise linear in each single weight (ReLU
    networks in evaluation mode) that term is zero and this *is* the Hessian's diagonal.

    Args:
        model: Its network; BatchNorm uses its running statistics.
        inputs: Normalised inputs (examples, *input_shape).
        curvature: ``exact`` (one backward pass per class) or ``sampled`` (one in all).
        batch_size: Examples whose gradients are held at once.
        seed: Seed of the drawn labels.

    Returns:
        For each parameter by name, a tensor of its shape.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = dict(model.named_buffers())
    diagonal = {name: torch.zeros_like(value) for name, value in parameters.items()}
    generator = torch.Generator().manual_seed(seed)

    def gradient(example: Tensor, column: Tensor) -> dict[str, Tensor]:
        def logits(values: dict[str, Tensor]) -> Tensor:
            out: Tensor = functional_call(model, (values, buffers), (example[None],))[0]
            return out

        found: dict[str, Tensor] = vjp(logits, parameters)[1](column)[0]
        return found

    with in_mode(model, training=False):
        for batch in torch.split(inputs, batch_size):
            with torch.no_grad():
                log_p = model(batch).log_softmax(1)
            for columns in hessian_root(log_p, curvature, 1, generator):
                for name, per_example in vmap(gradient)(batch, columns).items():
                    diagonal[name] += per_example.square().sum(0)
    return {name: total / len(inputs) for name, total in diagonal.items()}


def weight_obd(
    model: nn.Module, inputs: Tensor, curvature: Curvature = "exact", seed: int = 0
) -> dict[str, Tensor]:
    """Saliency of every weight, ``1/2 h_kk w_k^2`` (eq. 5 of the paper): the predicted loss increase.

    The network is taken to be at a minimum, as in the paper: there is no first-order term.

    Args:
        model: Trained network.
        inputs: Normalised inputs (examples, *input_shape).
        curvature: ``exact`` or ``sampled``.
        seed: Seed of the drawn labels.

    Returns:
        For each parameter by name, a tensor of its shape.
    """
    diagonal = ggn_diagonal(model, inputs, curvature, seed=seed)
    return {name: 0.5 * diagonal[name] * value.detach().square() for name, value in model.named_parameters()}


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

    def keep(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        places[:] = [args[0].detach(), output.detach().requires_grad_()]
        return places[1]

    with in_mode(model, training=False), torch.enable_grad(), module.register_forward_hook(keep):
        for batch in torch.split(inputs, max(1, min(64, _MOST_NUMBERS // weight.numel()))):
            logits = model(batch)
            for column in hessian_root(logits.detach().log_softmax(1), curvature, 1, generator):
                (slope,) = torch.autograd.grad(logits, places[1], column, retain_graph=True)
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
