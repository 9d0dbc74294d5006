"""Optimal Brain Damage for single weights, as in the paper (LeCun, Denker & Solla 1989)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from evo_topo.curvature import Curvature, hessian_root
from evo_topo.hooks import in_mode


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
