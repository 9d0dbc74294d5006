"""What the cells come to: accuracies at budgets of MACs, hypervolumes, and a table of them.

A budget is filled by the reported network of the best validation accuracy within it; its test accuracy is
the entry. The hypervolume is that of `analysis.front`: with the reference point at accuracy 0 and the
founder's MACs, linear in MACs, it is the accuracy reached within a budget, averaged over all budgets below.
Budgets below the cheapest network have none, so how far down a method goes decides much of it; a second
figure leaves the lowest twentieth out. Half of both are budgets above half of the founder's MACs; a third one
averages over logarithms, as fitness has them, so that each halving of the budget counts as much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from msgspec import Struct

from analysis import front
from analysis.benchmarks.peers.cells import DataName, Point, Record
from analysis.table import format_table

LEAST_BUDGET = 0.05
"""Share of the founder's MACs from which the second hypervolume counts."""
LEAST_OCTAVE = 0.01
"""Share of the founder's MACs from which the one by octaves counts."""
BUDGETS: dict[DataName, tuple[float, ...]] = {
    "digits": (0.05e6, 0.1e6, 0.2e6, 0.4e6, 0.8e6),
    "fashion-mnist": (0.3e6, 0.5e6, 1e6, 2e6, 4e6),
}
"""MACs; the founders have 1.5 M and 2.0 M."""


class Summary(Struct, frozen=True):
    """One method on one data set, over its seeds.

    Attributes:
        data: Data set.
        minutes: Wall-clock of each cell.
        method: What searched.
        seeds: Seeds of the cells.
        budgets: MACs.
        test_accuracies: For each budget, one value per seed that has a network within it.
        test_hypervolumes: One per seed: of the reported networks, chosen by validation accuracy.
        upper_hypervolumes: The same over budgets from `LEAST_BUDGET` alone.
        octave_hypervolumes: The same over logarithms of budgets from `LEAST_OCTAVE`.
        hypervolumes: One per seed: of everything measured on the validation split, which flatters whoever
            measures most.
        measured: Mean number of networks measured.
        seconds: Longest wall-clock of a cell.
        busy: Smallest processor time of a cell, as a share of its workers' wall-clock.
    """

    data: DataName
    minutes: float
    method: str
    seeds: list[int]
    budgets: tuple[float, ...]
    test_accuracies: list[list[float]]
    test_hypervolumes: list[float]
    upper_hypervolumes: list[float]
    octave_hypervolumes: list[float]
    hypervolumes: list[float]
    measured: float
    seconds: float
    busy: float


def summarise(records: Sequence[Record]) -> Summary:
    """Sums up the cells of one method, data set and length."""
    cell = records[0].cell
    budgets = BUDGETS[cell.data]
    at_budgets = [[accuracy_within(budget, r.reported) for r in records] for budget in budgets]
    return Summary(
        data=cell.data,
        minutes=cell.minutes,
        method=cell.method,
        seeds=[r.cell.seed for r in records],
        budgets=budgets,
        test_accuracies=[[value for value in values if value is not None] for values in at_budgets],
        test_hypervolumes=[reported_hypervolume(r) for r in records],
        upper_hypervolumes=[reported_hypervolume(r, LEAST_BUDGET) for r in records],
        octave_hypervolumes=[reported_hypervolume(r, LEAST_OCTAVE, by_octaves=True) for r in records],
        hypervolumes=[hypervolume(r.points, r.founder_macs) for r in records],
        measured=statistics.fmean(len(r.points) for r in records),
        seconds=max(r.seconds for r in records),
        busy=min(r.cpu_seconds / (r.workers * r.seconds) for r in records),
    )


def chosen_within(budget: float, reported: Iterable[Point]) -> Point | None:
    """The network of the best validation accuracy within a budget of MACs, the cheapest of equals."""
    fitting = [point for point in reported if point.macs <= budget]
    return min(fitting, key=lambda point: (-point.accuracy, point.macs), default=None)


def accuracy_within(budget: float, reported: Iterable[Point]) -> float | None:
    """Test accuracy of the network chosen within a budget; None where none fits."""
    chosen = chosen_within(budget, reported)
    return None if chosen is None else chosen.test_accuracy


def reported_hypervolume(record: Record, least: float = 0.0, by_octaves: bool = False) -> float:
    """Test accuracy of the network chosen within a budget, averaged over all budgets below the founder's.

    Args:
        record: A finished cell.
        least: Share of the founder's MACs below which budgets do not count.
        by_octaves: Average over the logarithms of the budgets; needs a least share above 0.
    """
    place: Callable[[float], float] = math.log2 if by_octaves else float
    end = record.founder_macs
    start = least * end
    sizes = sorted({start, *(p.macs for p in record.reported if start < p.macs < end)})
    area = 0.0
    for size, following in pairwise([*sizes, end]):
        area += (accuracy_within(size, record.reported) or 0.0) * (place(following) - place(size))
    return area / (place(end) - place(start))


def hypervolume(points: Iterable[Point], founder_macs: int) -> float:
    """Hypervolume by validation accuracy."""
    return front.hypervolume((front.Point(0, 0, p.accuracy, p.macs) for p in points), founder_macs)


def hypervolume_over_time(record: Record) -> list[tuple[float, float]]:
    """Seconds at which the hypervolume of all that was measured by then rose, and to what."""
    curve = [(0.0, 0.0)]
    kept: list[Point] = []
    for seconds in sorted({point.seconds for point in record.points}):
        kept += [point for point in record.points if point.seconds == seconds]
        volume = hypervolume(kept, record.founder_macs)
        if volume > curve[-1][1]:
            curve.append((seconds, volume))
    return curve


def peers_table(summaries: Sequence[Summary], machines: Sequence[str]) -> str:
    """The numbers as text, one table for each data set and length."""
    texts = ["\n".join(machines)]
    for data, minutes in dict.fromkeys((s.data, s.minutes) for s in summaries):
        some = [s for s in summaries if (s.data, s.minutes) == (data, minutes)]
        budgets = [f"{budget / 1e6:g} M" for budget in some[0].budgets]
        volumes = "hypervolume", f"from {LEAST_BUDGET:.0%}", "by octaves", "(validation)"
        heading = (f"{data}, {minutes:g} min", "seeds", *budgets, *volumes)
        rows = [(*heading, "networks", "seconds", "busy")]
        for s in sorted(some, key=lambda s: -statistics.fmean(s.test_hypervolumes)):
            cells = [_mean_and_range(values, len(s.seeds)) for values in s.test_accuracies]
            each = s.test_hypervolumes, s.upper_hypervolumes, s.octave_hypervolumes, s.hypervolumes
            means = [_mean_and_range(values, len(s.seeds)) for values in each]
            costs = f"{s.measured:.0f}", f"{s.seconds:.0f}", f"{s.busy:.0%}"
            rows.append((s.method, str(len(s.seeds)), *cells, *means, *costs))
        texts.append(format_table(rows, right=range(1, len(rows[0]))))
    return "\n\n".join([*texts, LEGEND])


LEGEND = """Test accuracy of the network that validation accuracy chooses within so many MACs: mean (lowest ..
highest) over seeds; [n] where only n seeds have such a network. Hypervolume: the same, averaged over all
budgets below the founder's MACs (reference point: accuracy 0, founder's MACs); then over those from a
twentieth of them alone; by octaves, over the logarithms of those from a hundredth of them; in brackets that
of all networks measured, on the validation split. Networks: how many were measured, on average. Seconds: of
the longest cell. Busy: least processor time of a cell, as a share of its two workers'; low where others used
the machine."""


def _mean_and_range(values: Sequence[float], seeds: int) -> str:
    if not values:
        return "-"
    few = "" if len(values) == seeds else f" [{len(values)}]"
    text = f"{statistics.fmean(values):.3f}"
    return text + (f" ({min(values):.3f} .. {max(values):.3f})" if len(values) > 1 else "") + few
