"""Optimal Brain Damage for units (LeCun, Denker & Solla 1989), beyond the diagonal.

A deletion changes some activation by ``d``; to second order the loss changes by

    dL  =  E[<g, d>]  +  1/2 E[<s, d>^2]

with ``g`` the gradient of the loss at that activation and ``s`` the gradient for a label drawn from the
model's own prediction, which makes the second term the generalised Gauss-Newton (GGN) curvature along
``d``. With the columns of the square root of the output Hessian in place of drawn labels it is exact. The
derivatives of all gates form a matrix ``D`` (examples x columns), so ``H = D^T D / N`` is the full curvature
over all groups, and a set S of units costs ``sum g_S + 1/2 1^T H_SS 1``, interactions included. ``H`` itself
is never formed: everything asked of it is a product of ``D`` with a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evo_topo.curvature import Curvature, hessian_root
from evo_topo.genome import Genome
from evo_topo.saliency.gates import GateProbe


class GateStatistics(NamedTuple):
    """First and second order of the loss along the closing of gates, on the CPU.

    Attributes:
        gradient: Mean first-order loss change of removing each unit, (columns,), float64.
        root: Square root of the GGN along these changes, which is ``root.T @ root``: (rows, columns), with
            as many rows as derivatives were taken, but at most twice the columns.
        columns: For each unit group, its slice of the columns; units in order.
    """

    gradient: Tensor
    root: Tensor
    columns: dict[str, slice]

    @property
    def alone(self) -> Tensor:
        """Predicted loss change of removing each unit alone, (columns,)."""
        return self.gradient + 0.5 * self.root.square().sum(0).double()


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
        Gradient and curvature over all unit groups together.
    """
    with GateProbe(model, genome) as probe:
        sums = DerivativeSums(probe.width)
        generator = torch.Generator().manual_seed(seed)
        for batch, labels in zip(
            torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True
        ):
            logits = probe.forward(batch)
            seeds = loss_seeds(logits, labels, curvature, samples, generator)
            sums.add(probe.derivatives(logits, column) for column in seeds)
    return GateStatistics(*sums.mean(), probe.columns)


class DerivativeSums:
    """First and second moments of derivatives, which come batch by batch.

    Args:
        width: Number of columns.
    """

    def __init__(self, width: int) -> None:
        self.width, self.count, self._curved = width, 0, 0  # examples, and those with curvature
        self.gradient = torch.zeros(width, dtype=torch.float64)
        self.roots: list[Tensor] = []

    def add(self, tables: Iterable[Tensor]) -> None:
        """Adds a batch: tables (examples, columns), the first for `loss_seeds`' first seed, and so on.

        Without any but the first, a batch says nothing of the curvature.
        """
        for number, table in enumerate(tables):
            if number == 0:
                self.gradient += table.sum(0).double().cpu()
                self.count += len(table)
                continue
            self._curved += len(table) if number == 1 else 0
            self.roots.append(table.cpu())
            if sum(map(len, self.roots)) > 4 * self.width:
                self.roots = [_condensed(self.roots)]

    def mean(self) -> tuple[Tensor, Tensor]:
        """Mean gradient (columns,), and a root (rows, columns) of the mean curvature."""
        return self.gradient / self.count, _condensed(self.roots) / self._curved**0.5


def loss_seeds(
    logits: Tensor, labels: Tensor, curvature: Curvature, samples: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Weights of the logits whose derivatives are asked for: of the loss, then those of `hessian_root`."""
    log_p = logits.detach().log_softmax(1)
    yield log_p.exp().scatter_add(1, labels[:, None], -torch.ones_like(log_p[:, :1]))
    yield from hessian_root(log_p, curvature, samples, generator)


def _condensed(tables: list[Tensor]) -> Tensor:
    """One table with the same ``D^T D``, by a QR decomposition where rows are many."""
    table = torch.cat(tables)
    return torch.linalg.qr(table, mode="r").R if len(table) > 2 * table.shape[1] else table


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
    return {name: statistics.alone[where] for name, where in statistics.columns.items()}


def set_saliency(statistics: GateStatistics, units: Mapping[str, Sequence[int]]) -> float:
    """Predicted loss increase of removing several units together, of any groups.

    Args:
        statistics: Of `gate_statistics`.
        units: Units to remove, by group.
    """
    chosen = [statistics.columns[name].start + unit for name, some in units.items() for unit in some]
    first = statistics.gradient[chosen].sum()
    return float(first + 0.5 * statistics.root[:, chosen].sum(1).double().square().sum())


def cautious_saliency(statistics: GateStatistics, units: Mapping[str, Sequence[int]]) -> float:
    """Predicted loss increase of removing units together, where they were chosen because it looked small.

    The quadratic model is good nearby; a set that minimises it ends where its errors are largest, in
    negative slopes and in changes of different layers that cancel to first order only. So nothing counts
    here that would pay: ``sum max(g, 0) + 1/2 sum max(H_SS, 0)``, both by element.

    Args:
        statistics: Of `gate_statistics`.
        units: Units to remove, by group.
    """
    chosen = [statistics.columns[name].start + unit for name, some in units.items() for unit in some]
    root = statistics.root[:, chosen]
    first = statistics.gradient[chosen].clamp(min=0).sum()
    return float(first + 0.5 * (root.T @ root).clamp(min=0).double().sum())
