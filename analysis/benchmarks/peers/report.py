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
    "digits": (0.01e6, 0.02e6, 0.05e6, 0.1e6, 0.2e6, 0.4e6, 0.8e6, 1.6e6),
    "fashion-mnist": (0.02e6, 0.05e6, 0.1e6, 0.2e6, 0.3e6, 0.5e6, 1e6, 2.1e6),
}
"""MACs; the founders have 1.5 M and 2.05 M."""


class Result(Struct, frozen=True):
    """What one cell comes to.

    Attributes:
        seed: Of the cell.
        test_accuracies: One for each budget; None where no network fits.
        test_hypervolume: Of the reported networks, chosen by validation accuracy.
        upper_hypervolume: The same over budgets from `LEAST_BUDGET` alone.
        octave_hypervolume: The same over logarithms of budgets from `LEAST_OCTAVE`.
        hypervolume: Of everything measured on the validation split, which flatters whoever measures most.
        networks: How many were measured.
        seconds: Wall-clock.
        busy: Processor time, as a share of the wall-clock of its workers.
    """

    seed: int
    test_accuracies: list[float | None]
    test_hypervolume: float
    upper_hypervolume: float
    octave_hypervolume: float
    hypervolume: float
    networks: int
    seconds: float
    busy: float


class Summary(Struct, frozen=True):
    """One method on one data set, over its seeds.

    Attributes:
        data: Data set.
        minutes: Wall-clock of each cell.
        method: What searched.
        budgets: MACs.
        results: One per seed.
    """

    data: DataName
    minutes: float
    method: str
    budgets: tuple[float, ...]
    results: list[Result]

    @property
    def mean_hypervolume(self) -> float:
        """Mean over seeds of the hypervolume by test accuracy."""
        return statistics.fmean(result.test_hypervolume for result in self.results)


def summarise(records: Sequence[Record]) -> Summary:
    """Sums up the cells of one method, data set and length."""
    cell = records[0].cell
    budgets = BUDGETS[cell.data]
    return Summary(cell.data, cell.minutes, cell.method, budgets, [_result(r, budgets) for r in records])


def _result(record: Record, budgets: Sequence[float]) -> Result:
    return Result(
        seed=record.cell.seed,
        test_accuracies=[accuracy_within(budget, record.reported) for budget in budgets],
        test_hypervolume=reported_hypervolume(record),
        upper_hypervolume=reported_hypervolume(record, LEAST_BUDGET),
        octave_hypervolume=reported_hypervolume(record, LEAST_OCTAVE, by_octaves=True),
        hypervolume=hypervolume(record.points, record.founder_macs),
        networks=len(record.points),
        seconds=record.seconds,
        busy=record.cpu_seconds / (record.workers * record.seconds),
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
    """The numbers as text, one table for each data set and length: a row per seed, then the means."""
    texts = ["\n".join(machines)]
    for data, minutes in dict.fromkeys((s.data, s.minutes) for s in summaries):
        some = [s for s in summaries if (s.data, s.minutes) == (data, minutes)]
        budgets = [f"{budget / 1e6:g} M" for budget in some[0].budgets]
        volumes = "hypervolume", f"from {LEAST_BUDGET:.0%}", "by octaves", "(validation)"
        rows = [(f"{data}, {minutes:g} min", "seed", *budgets, *volumes, "networks", "seconds", "busy")]
        some.sort(key=lambda s: -s.mean_hypervolume)
        rows += [_row(s.method, str(r.seed), [r]) for s in some for r in s.results]
        rows += [_row(s.method, "mean", s.results) for s in some if len(s.results) > 1]
        texts.append(format_table(rows, right=range(1, len(rows[0]))))
    return "\n\n".join([*texts, LEGEND])


LEGEND = """Test accuracy of the network that validation accuracy chooses within so many MACs; the mean where
every seed has such a network. Hypervolume: the same, averaged over all budgets below the founder's MACs
(reference point: accuracy 0, founder's MACs); then over those from a twentieth of them alone; by octaves,
over the logarithms of those from a hundredth of them; in brackets that of all networks measured, on the
validation split. Networks: how many were measured. Busy: processor time, as a share of the wall-clock of two
workers; low where others used the machine."""


def _row(method: str, seed: str, results: Sequence[Result]) -> tuple[str, ...]:
    """Means over results, as text."""
    mean = statistics.fmean
    accuracies = [
        "-" if None in values else f"{mean(v for v in values if v is not None):.3f}"
        for values in zip(*(r.test_accuracies for r in results), strict=True)
    ]
    volumes = (
        mean(r.test_hypervolume for r in results),
        mean(r.upper_hypervolume for r in results),
        mean(r.octave_hypervolume for r in results),
        mean(r.hypervolume for r in results),
    )
    costs = mean(r.networks for r in results), mean(r.seconds for r in results)
    busy = f"{mean(r.busy for r in results):.0%}"
    return (method, seed, *accuracies, *(f"{v:.4f}" for v in volumes), *(f"{c:.0f}" for c in costs), busy)
