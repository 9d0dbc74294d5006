"""Which way leads to the best small networks in the same time? Equal wall-clock, cores, data and recipe.

    python -m analysis.benchmarks.peers --data digits --seeds 1 --minutes 2 --control-minutes 1

evo_topo against Torch-Pruning, iterated (Fang et al. 2023), Optuna's NSGA-II over architectures trained from
scratch (Akiba et al. 2019), and its own controls. Needs ``pip install -e '.[peers]'``. The grid takes hours:
finished cells are kept and not run again. Every cell has two workers of one thread and its own process, on
the clock from its start to the last network read on the test split; the machine should do nothing else.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from analysis.benchmarks.peers.cells import Cell, DataName, Record, read_record, record_path
from analysis.benchmarks.peers.figure import draw_peers
from analysis.benchmarks.peers.report import hypervolume, peers_table, summarise
from analysis.benchmarks.peers.running import (
    CONTROLS,
    METHODS,
    TUNED,
    MethodName,
    check_installed,
    prepare_data,
    run_cell,
)
from analysis.common import run_command, save_figure
from analysis.table import format_table
from evo_topo.datasets import DatasetError

PROG = "python -m analysis.benchmarks.peers"
TUNING_SEED = 0
"""Settings of the rivals are chosen with a seed that the comparison does not use."""


def cells_of(
    data: Sequence[DataName],
    methods: Sequence[MethodName],
    seeds: Sequence[int],
    minutes: float,
    control_minutes: float,
) -> list[Cell]:
    """The grid, seed by seed; where controls are shorter, evo_topo runs once more, as short as they."""
    found = []
    for seed, name in itertools.product(seeds, data):
        for method in methods:
            found.append(Cell(name, method, seed, control_minutes if method in CONTROLS else minutes))
        if set(methods) & set(CONTROLS) and "evo_topo" in methods:
            found.append(Cell(name, "evo_topo", seed, control_minutes))
    return list(dict.fromkeys(found))


def tune(
    data: Sequence[DataName], methods: Sequence[MethodName], minutes: float, data_dir: Path | None, out: Path
) -> str:
    """Runs rivals with every setting that there is to choose from, by validation accuracy alone.

    Returns:
        A table of hypervolumes by validation accuracy; the best become the constants `SETTING`.
    """
    rows = [("data", "method", "setting", "hypervolume (validation)", "networks")]
    for name, method in itertools.product(data, [method for method in methods if method in TUNED]):
        prepare_data(name, data_dir, out)
        for number, setting in enumerate(TUNED[method][1]):
            path = record_path(out, cell := Cell(name, method, TUNING_SEED, minutes, number))
            if read_record(path) is None:
                run_cell(cell, out)
            record = read_record(path)
            text = ", ".join(f"{key} {value:g}" for key, value in setting.items())
            volume = f"{hypervolume(record.points, record.founder_macs):.4f}" if record else "failed"
            rows.append((name, method, text, volume, str(len(record.points)) if record else "-"))
    return format_table(rows, right=(3, 4))


def report(records: Sequence[Record], out: Path) -> None:
    """Prints the table, writes the numbers and one figure for each data set and length."""
    groups: dict[tuple[str, float], dict[str, list[Record]]] = {}
    for record in records:
        by_method = groups.setdefault((record.cell.data, record.cell.minutes), {})
        by_method.setdefault(record.cell.method, []).append(record)
    summaries = [summarise(some) for by_method in groups.values() for some in by_method.values()]
    machines = dict.fromkeys(
        f"{r.machine.cpu}, {r.workers} workers x {r.machine.threads} thread, torch {r.machine.torch}"
        for r in records
    )
    print(peers_table(summaries, list(machines)))
    if (versions := len({record.code for record in records})) > 1:
        print(f"These cells were run with {versions} versions of the code; remove the older ones to compare.")
    document = {"machines": list(machines), "summaries": summaries}
    (out / "peers.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    for (data, minutes), by_method in groups.items():
        shown = [record for some in by_method.values() for record in some]
        save_figure(draw_peers(shown), out, f"peers-{data}-{minutes:g}min")


def main(
    data: tuple[DataName, ...] = ("digits", "fashion-mnist"),
    methods: tuple[MethodName, ...] = METHODS,
    seeds: tuple[int, ...] = (1, 2, 3),
    minutes: float = 15.0,
    control_minutes: float = 5.0,
    data_dir: Path | None = None,
    out: Path = Path("runs/benchmarks/peers"),
    tuning: bool = False,
) -> None:
    """Compares ways to small networks at equal wall-clock.

    Args:
        data: Data sets.
        methods: What searches; the last six are controls of evo_topo.
        seeds: Of everything random.
        minutes: Wall-clock of each cell of evo_topo and its rivals.
        control_minutes: Wall-clock of each control, and of one more cell of evo_topo beside them.
        data_dir: Folder to look for the data in first.
        out: Folder for finished cells, run folders, peers.json and figures.
        tuning: Try the rivals' settings instead, on the validation split, with a seed of its own.
    """
    if not seeds or not data or not methods or not all(0 < time < 1e6 for time in (minutes, control_minutes)):
        raise ValueError("expected at least one data set, method and seed, and minutes above 0")
    check_installed(methods)
    if tuning:
        print(tune(data, methods, minutes, data_dir, out))
        return
    cells = cells_of(data, methods, seeds, minutes, control_minutes)
    failed = []
    for number, cell in enumerate(cells, start=1):
        if read_record(record_path(out, cell)) is None:
            print(f"{number} of {len(cells)}: {cell.name}", file=sys.stderr, flush=True)
            prepare_data(cell.data, data_dir, out)
            if not run_cell(cell, out):
                failed.append(cell.name)
    records = [record for cell in cells if (record := read_record(record_path(out, cell)))]
    if records:
        report(records, out)
    if failed:
        raise ValueError(
            f"these cells failed, as said above; run again to try them again: {', '.join(failed)}"
        )


def command(args: Sequence[str] | None = None) -> None:
    """The command line."""
    run_command(main, PROG, args, (DatasetError, ImportError, OSError, ValueError))


if __name__ == "__main__":
    command()
