"""The price list of a network: plain numbers from which mutations are chosen without torch."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import msgspec
import torch
from torch import Tensor

from evo_topo.edits import PruneLayer
from evo_topo.genome import Genome
from evo_topo.prices import JointOrder, PricedEdit, Prices, UnitPrices
from evo_topo.saliency.joint import MacLedger, removals
from evo_topo.saliency.obd import GateStatistics
from evo_topo.unit_choice import MOST_OF_GROUP

JOINT_ORDERS = 4
"""Orders over all groups in a price list: siblings that draw different ones differ in where they cut."""


def obd_prices(
    statistics: GateStatistics, genome: Genome, seed: int = 0, edits: Iterable[PricedEdit] = ()
) -> Prices:
    """The price list of a network: nested sets of units to remove, and other edits.

    Args:
        statistics: Of `gate_statistics`.
        genome: Its network.
        seed: Seed of the random factors that tell the joint orders apart.
        edits: Prices of other edits, those that bypass layers among them.
    """
    units = {}
    for name, where in statistics.columns.items():
        order, cumulative = _greedy_order(statistics.gradient[where], statistics.root[:, where])
        units[name] = UnitPrices(tuple(order), tuple(_short(value) for value in cumulative))
    rng = Random(seed)
    joint = [_joint_order(statistics, genome, rng) for _ in range(JOINT_ORDERS)]
    others = [
        msgspec.structs.replace(e, loss_change=_short(e.loss_change), promise=_short(e.promise))
        for e in edits
    ]
    layers = {e.edit.layer: e.loss_change for e in others if isinstance(e.edit, PruneLayer)}
    others = [e for e in others if not isinstance(e.edit, PruneLayer)]
    return Prices("obd", units, layers, tuple(joint), tuple(others))


def _joint_order(statistics: GateStatistics, genome: Genome, rng: Random) -> JointOrder:
    """An order over all groups, with prices that know all interactions.

    The prices of each group are multiplied by a draw from the exponential distribution, such that it
    comes first with probability inverse to its price per MAC.
    """
    ledger = MacLedger(genome, statistics.columns, MOST_OF_GROUP)
    factors = torch.ones(len(ledger.left), dtype=torch.float64)
    for where in statistics.columns.values():
        factors[where] = rng.expovariate(1.0)
    steps = [(column, _short(total), ledger.macs) for column, total in removals(statistics, ledger, factors)]
    columns, cumulative, macs = zip(*steps, strict=True) if steps else ((), (), ())
    return JointOrder(columns, cumulative, macs)


def _greedy_order(gradient: Tensor, root: Tensor) -> tuple[list[int], list[float]]:
    """Units in the order in which each next one adds least, given those gone before."""
    cost = gradient + 0.5 * root.square().sum(0).double()
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
        cost = cost + (root[:, unit] @ root).double()
    return order, cumulative


def _short(value: float) -> float:
    """Five significant digits: more would be noise, and a lineage holds very many prices."""
    return float(f"{value:.5g}")
