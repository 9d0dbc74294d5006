"""Optimal Brain Damage for single weights, as in the paper (LeCun, Denker & Solla 1989)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.functional import cross_entropy

from evo_topo.phenotype import in_mode
from evo_topo.saliency.obd import Curvature, hessian_root


_MOST_NUMBERS = 2**26  # in the gradients of a batch of examples: 256 MiB of float32


def ggn_diagonal(
    model: nn.Module,
    inputs: Tensor,
    curvature: Curvature = "exact",
    batch_size: int | None = None,
    seed: int = 0,
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Diagonal of the generalised Gauss-Newton matrix of the mean cross-entropy.

    The paper's Levenberg-Marquardt approximation drops the term with second derivatives of the
    network; what it keeps is this. Where the network is piecewise linear in each single weight (ReLU
    networks in evaluation mode) that term is zero and this *is* the Hessian's diagonal.

    Args:
        model: Its network; BatchNorm uses its running statistics.
        inputs: Normalised inputs (examples, *input_shape).
        curvature: ``exact`` (one backward pass per class) or ``sampled`` (one in all).
        batch_size: Examples whose gradients are held at once; by default up to 32, less for many parameters.
        seed: Seed of the drawn labels.
        names: The parameters to look at; by default all of them.

    Returns:
        For each parameter by name, a tensor of its shape.
    """
    parameters = {
        name: value.detach() for name, value in model.named_parameters() if names is None or name in names
    }
    buffers = dict(model.named_buffers())
    diagonal = {name: torch.zeros_like(value) for name, value in parameters.items()}
    generator = torch.Generator().manual_seed(seed)

    def gradient(example: Tensor, column: Tensor) -> dict[str, Tensor]:
        def logits(values: dict[str, Tensor]) -> Tensor:
            out: Tensor = functional_call(model, (values, buffers), (example[None],))[0]
            return out

        found: dict[str, Tensor] = vjp(logits, parameters)[1](column)[0]
        return found

    if batch_size is None:
        batch_size = max(1, min(32, _MOST_NUMBERS // sum(map(torch.numel, parameters.values()))))
    with in_mode(model, training=False):
        for batch in torch.split(inputs, batch_size):
            with torch.no_grad():
                log_p = model(batch).log_softmax(1)
            for columns in hessian_root(log_p, curvature, 1, generator):
                for name, per_example in vmap(gradient)(batch, columns).items():
                    diagonal[name] += per_example.square().sum(0)
    return {name: total / len(inputs) for name, total in diagonal.items()}


def weight_obd(
    model: nn.Module,
    inputs: Tensor,
    curvature: Curvature = "exact",
    seed: int = 0,
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Saliency of every weight, ``1/2 h_kk w_k^2`` (eq. 5 of the paper): the predicted loss increase.

    The network is taken to be at a minimum, as in the paper: there is no first-order term.

    Args:
        model: Trained network.
        inputs: Normalised inputs (examples, *input_shape).
        curvature: ``exact`` or ``sampled``.
        seed: Seed of the drawn labels.
        names: The parameters to look at; by default all of them.

    Returns:
        For each parameter by name, a tensor of its shape.
    """
    diagonal = ggn_diagonal(model, inputs, curvature, seed=seed, names=names)
    values = dict(model.named_parameters())
    return {name: 0.5 * curved * values[name].detach().square() for name, curved in diagonal.items()}


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
