"""Optimal Brain Damage for units and layers (LeCun, Denker & Solla 1989), beyond the diagonal.

A deletion changes some activation by ``d``; to second order the loss changes by

    dL  =  E[<g, d>]  +  1/2 E[<s, d>^2]

with ``g`` the gradient of the loss at that activation and ``s`` the gradient for a label drawn from the
model's own prediction, which makes the second term the generalised Gauss-Newton (GGN) curvature along
``d``. With the columns of the square root of the output Hessian in place of drawn labels it is exact. The
derivatives of all gates of a group form a matrix ``D`` (examples x units), so ``D^T D / N`` is the full gate
curvature, and a set S of units costs ``sum g_S + 1/2 1^T H_SS 1``, interactions included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from evo_topo.genome import Genome
from evo_topo.prices import Prices, UnitPrices
from evo_topo.saliency.gates import GateProbe

Curvature = Literal["exact", "sampled"]


class GateStatistics(NamedTuple):
    """First and second order of the loss along the closing of gates, in float64 on the CPU.

    Attributes:
        gradient: By group: mean first-order loss change of removing each unit, (units,).
        curvature: By group: GGN of the gates, (units, units).
        layer_gradient: First-order loss change of bypassing a layer, by node name.
        layer_curvature: GGN along that change.
    """

    gradient: dict[str, Tensor]
    curvature: dict[str, Tensor]
    layer_gradient: dict[str, float]
    layer_curvature: dict[str, float]


def gate_statistics(
    model: nn.Module,
    genome: Genome,
    inputs: Tensor,
    targets: Tensor,
    curvature: Curvature = "exact",
    samples: int = 1,
    batch_size: int = 256,
    seed: int = 0,
) -> GateStatistics:
    """Measures gradient and GGN curvature of all gates over a batch of examples.

    Args:
        model: Trained network of `genome`; cross-entropy of its softmax is the loss.
        genome: Its genome.
        inputs: Normalised inputs (examples, *input_shape).
        targets: Class of each example (examples,).
        curvature: ``exact`` takes one backward pass per class, ``sampled`` one per drawn label.
        samples: Labels drawn per example where curvature is ``sampled``.
        batch_size: Examples per forward pass.
        seed: Seed of the drawn labels.

    Returns:
        Gradient and curvature by unit group and by layer.
    """
    with GateProbe(model, genome) as probe:
        gradient = torch.zeros(probe.width, dtype=torch.float64)
        squares = {name: torch.zeros(0) for name in probe.columns}
        layer_squares = torch.zeros(len(probe.layer_columns), dtype=torch.float64)
        layers = list(probe.layer_columns.values())
        generator = torch.Generator().manual_seed(seed)
        for batch, labels in zip(
            torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True
        ):
            logits = probe.forward(batch)
            log_p = logits.detach().log_softmax(1)
            label_seed = log_p.exp().scatter_add(1, labels[:, None], -torch.ones_like(log_p[:, :1]))
            gradient += probe.derivatives(logits, label_seed).sum(0).double().cpu()
            for column in hessian_root(log_p, curvature, samples, generator):
                table = probe.derivatives(logits, column)
                for name, where in probe.columns.items():
                    part = (table[:, where].T @ table[:, where]).double().cpu()
                    squares[name] = part if squares[name].numel() == 0 else squares[name] + part
                layer_squares += table[:, layers].double().square().sum(0).cpu()
    count = len(inputs)
    gradient /= count
    return GateStatistics(
        {name: gradient[where] for name, where in probe.columns.items()},
        {name: total / count for name, total in squares.items()},
        {name: float(gradient[column]) for name, column in probe.layer_columns.items()},
        dict(zip(probe.layer_columns, (layer_squares / count).tolist(), strict=True)),
    )


def hessian_root(
    log_p: Tensor, curvature: Curvature, samples: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Columns whose outer products sum (exactly, or in expectation) to the Hessian of the logits.

    The Hessian of cross-entropy is ``diag(p) - p p^T = sum_c p_c (e_c - p)(e_c - p)^T``: either all
    classes weighted by the root of their probability, or classes drawn with it.
    """
    p = log_p.exp()
    if curvature == "exact":
        for label in range(p.shape[1]):
            column = -p
            column[:, label] += 1
            yield column * p[:, label : label + 1].sqrt()
        return
    for _ in range(samples):
        drawn = torch.multinomial(p.cpu(), 1, generator=generator).to(p.device)
        yield (p.scatter_add(1, drawn, -torch.ones_like(p[:, :1]))) * samples**-0.5


def obd_saliency(
    model: nn.Module,
    genome: Genome,
    inputs: Tensor,
    targets: Tensor,
    curvature: Curvature = "sampled",
    seed: int = 0,
) -> dict[str, Tensor]:
    """Predicted loss increase of removing each unit alone.

    Args:
        model: Trained network of `genome`.
        genome: Its genome.
        inputs: Normalised inputs (examples, *input_shape).
        targets: Class of each example (examples,).
        curvature: ``sampled``, or ``exact`` at one more backward pass per class for a little better ranks.
        seed: Seed of the drawn labels.

    Returns:
        For each unit group, a tensor (units,) of predicted increases of the mean cross-entropy.
    """
    statistics = gate_statistics(model, genome, inputs, targets, curvature, seed=seed)
    return {
        name: gradient + 0.5 * statistics.curvature[name].diagonal()
        for name, gradient in statistics.gradient.items()
    }


def set_saliency(statistics: GateStatistics, group: str, units: Sequence[int]) -> float:
    """Predicted loss increase of removing several units of a group together.

    Args:
        statistics: Of `gate_statistics`.
        group: Name of the unit group.
        units: Units to remove.
    """
    chosen = list(units)
    first = statistics.gradient[group][chosen].sum()
    return float(first + 0.5 * statistics.curvature[group][chosen][:, chosen].sum())


def obd_prices(statistics: GateStatistics) -> Prices:
    """The price list of a network: nested sets of units to remove, and layers to bypass."""
    units = {}
    for name, gradient in statistics.gradient.items():
        order, cumulative = _greedy_order(gradient, statistics.curvature[name])
        units[name] = UnitPrices(tuple(order), tuple(_short(value) for value in cumulative))
    layers = {
        name: _short(first + 0.5 * statistics.layer_curvature[name])
        for name, first in statistics.layer_gradient.items()
    }
    return Prices("obd", units, layers)


def _greedy_order(gradient: Tensor, curvature: Tensor) -> tuple[list[int], list[float]]:
    """Units in the order in which each next one adds least, given those gone before."""
    cost = gradient + 0.5 * curvature.diagonal()
    order: list[int] = []
    cumulative: list[float] = []
    total = 0.0
    left = torch.ones(len(cost), dtype=torch.bool)
    for _ in range(len(cost)):
        unit = int(torch.where(left, cost, torch.inf).argmin())
        total += float(cost[unit])
        order.append(unit)
        cumulative.append(total)
        left[unit] = False
        cost = cost + curvature[:, unit]
    return order, cumulative


def _short(value: float) -> float:
    """Five significant digits: more would be noise, and a lineage holds very many prices."""
    return float(f"{value:.5g}")
