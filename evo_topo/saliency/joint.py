"""Choosing units of all groups together, by predicted loss per MAC saved.

Both currencies depend on what has gone before. Curvature couples units of all groups, so the price of a unit
moves with every other one that goes; and the MACs of a layer are a product of the widths that it reads and
makes, so a unit saves the less, the fewer are left on the other side.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from evo_topo.cost import BOPS_PER_MAC
from evo_topo.edits import EditError
from evo_topo.genome import Genome
from evo_topo.ops import Conv, Linear, Select
from evo_topo.saliency.obd import GateStatistics
from evo_topo.units import mixes_units, unit_table


class MacLedger:
    """MACs of a network while units go, exactly: products of the widths that are left.

    A sparse layer saves nothing by reading less as long as others can take its connections up, as
    `PruneUnits` has it. Binary operations count at their rate.

    Args:
        genome: The network with all its units.
        columns: For each unit group, its slice of the columns; units in order.
        most_of_group: Largest share of a group that may go, but at least one unit.
    """

    def __init__(self, genome: Genome, columns: dict[str, slice], most_of_group: float = 1.0) -> None:
        table = unit_table(genome)
        layers = [(node, node.op) for node in genome.nodes if isinstance(node.op, Conv | Linear)]
        width = max((where.stop for where in columns.values()), default=0)
        self._makes = torch.zeros(len(layers), width, dtype=torch.float64)  # channels of a unit in the output
        self._reads = torch.zeros_like(self._makes)  # the same in the input
        self._made = torch.tensor([genome.shapes[node.name][0] for node, _ in layers]).double()
        self._read = torch.ones_like(self._made)
        positions, self._taps, most = [], torch.ones_like(self._made), []
        for row, (node, op) in enumerate(layers):
            for table_row, name in ((self._makes[row], node.name), (self._reads[row], node.inputs[0])):
                if name == node.name or mixes_units(node):
                    for member in table.members[name]:
                        if member is not None:
                            table_row[columns[member[0]].start + member[1]] += 1
            channels = genome.shapes[node.inputs[0]][0]
            if mixes_units(node):  # a grouped convolution reads as much per output as before
                self._read[row] = channels
            self._taps[row] = op.dense_fan_in(channels) / self._read[row]
            most.append(op.fan_in or torch.inf)
            positions.append(prod(genome.shapes[node.name][1:]))
        self._most = torch.tensor(most, dtype=torch.float64)  # connections per output unit
        self._rate = torch.tensor([BOPS_PER_MAC if op.binary else 1 for _, op in layers]).double()
        self._each = torch.tensor(positions).double()  # operations per output channel and connection
        selects = [node.name for node in genome.nodes if isinstance(node.op, Select)]
        self._selects = torch.zeros(len(selects), width, dtype=torch.float64)  # channels in each selection
        self._selected = torch.tensor([genome.shapes[name][0] for name in selects]).double()
        for group in table.groups.values():
            for name, counts in group.selections.items():
                self._selects[selects.index(name), columns[group.name]] = torch.tensor(counts).double()
        self.left = torch.ones(width, dtype=torch.bool)
        sizes = torch.tensor([where.stop - where.start for where in columns.values()], dtype=torch.long)
        self._group = torch.arange(len(sizes)).repeat_interleave(sizes)
        self._room = (most_of_group * sizes).long().clamp(min=1)

    @property
    def macs(self) -> int:
        """MACs of the network that is left."""
        return round(float((self._each * self._made * self._fan_in(self._read) / self._rate).ceil().sum()))

    @property
    def saved(self) -> Tensor:
        """MACs that removing each unit alone saves now, before any rounding of binary layers, (columns,)."""
        each, now = self._each / self._rate, self._fan_in(self._read)
        left = self._fan_in((self._read[:, None] - self._reads).T).T
        return (each * self._made) @ (now[:, None] - left) + (each[:, None] * self._makes * left).sum(0)

    def _fan_in(self, read: Tensor) -> Tensor:
        """Connections per output unit of each layer when it reads so many channels, (..., layers)."""
        return (read * self._taps).minimum(self._most)

    @property
    def spare(self) -> Tensor:
        """Which units are left and can go while layers and selections keep a channel, bool (columns,)."""
        held, holds = torch.cat([self._made, self._selected]), torch.cat([self._makes, self._selects])
        last = ((holds > 0) & (held[:, None] <= holds)).any(0)
        return self.left & ~last & (self._room[self._group] > 0)

    def remove(self, column: int) -> None:
        """Takes a unit out."""
        self._made -= self._makes[:, column]
        self._read -= self._reads[:, column]
        self._selected -= self._selects[:, column]
        self._room[self._group[column]] -= 1
        self.left[column] = False

    def restore(self, column: int) -> None:
        """Puts a removed unit back."""
        self._made += self._makes[:, column]
        self._read += self._reads[:, column]
        self._selected += self._selects[:, column]
        self._room[self._group[column]] += 1
        self.left[column] = True


def removals(
    statistics: GateStatistics, ledger: MacLedger, factors: Tensor | None = None
) -> Iterator[tuple[int, float]]:
    """Takes units out one by one, each time the one that adds least predicted loss per MAC saved.

    The choice trusts the quadratic model; the price that goes with it is that of `cautious_saliency`.

    Args:
        statistics: Of `gate_statistics`, for the network of the ledger.
        ledger: Counts MACs; each unit is taken out of it before it is yielded.
        factors: What each unit's price is multiplied by in the choice, (columns,); all 1 by default.

    Yields:
        Column of the unit, and predicted loss change when it goes together with all those before it.
    """
    units = len(ledger.left)
    root, cost = statistics.root[:, :units], statistics.alone[:units]
    gain = statistics.gradient[:units].clamp(max=0)
    cautious = cost - gain  # what removing each unit next adds to the price
    weight = torch.ones_like(cost) if factors is None else factors
    total = 0.0
    while (spare := ledger.spare).any():
        rate = weight * cost / ledger.saved.clamp(min=1.0)
        column = int(torch.where(spare, rate, torch.inf).argmin())
        total += float(cautious[column])
        ledger.remove(column)
        interaction = (root[:, column] @ root).double()
        cost = cost + interaction
        cautious = cautious + interaction.clamp(min=0)
        yield column, total


def cheapest_units(statistics: GateStatistics, genome: Genome, macs: float) -> list[int]:
    """Units to remove such that the network has at most `macs`: greedy, then as many put back as fit.

    Args:
        statistics: Of `gate_statistics`.
        genome: Its network.
        macs: Most MACs that may be left.

    Returns:
        Columns of the units, none of which fits back in.

    Raises:
        EditError: When even one channel per layer takes more.
    """
    ledger = MacLedger(genome, statistics.columns)
    removing = removals(statistics, ledger)
    gone = []
    while ledger.macs > macs:
        step = next(removing, None)
        if step is None:
            raise EditError(
                f"expected room for one channel per layer, {ledger.macs:,} MACs, got {macs:,.0f}; "
                "allow more MACs, or prune layers first"
            )
        gone.append(step[0])
    for column in reversed(gone):  # what was taken last is worth most
        ledger.restore(column)
        if ledger.macs > macs:
            ledger.remove(column)
    return [column for column in gone if not ledger.left[column]]
