"""CPU seconds that genome operations take, against the number of nodes; and figures of imported networks.

``python -m analysis.benchmarks.genome_ops`` prints a table for chains of residual blocks of 100 to 10,000
nodes, with the exponent of each operation's growth (1 is linear); ``--imported`` measures torchvision's
networks instead.

Each figure is the best of several trials without the cyclic garbage collector, as `timeit` measures, and in
the table it is CPU time. Otherwise linear operations look steeper than they are: the collector's passes walk
all that is alive, networks of other sizes included, and on a busy machine only short trials escape a break.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

from evo_topo.cost import count_flops, unit_macs
from evo_topo.edits import PruneUnits, legal_edits, random_edit
from evo_topo.genome import Genome, Node
from evo_topo.ops import Activation, Add, Conv, Flatten, GlobalPool, Input, Linear, Norm, Output
from evo_topo.units import unit_table

SIZES = (100, 300, 1000, 3000, 10_000)
WIDTH = 4
BUDGET = 0.5
"""Seconds: fast operations are tried until these have passed."""


def residual_chain(nodes: int) -> Genome:
    """A chain of residual blocks, each with units of its own, of about so many nodes."""
    made = [Node("input0", Input((3, 4, 4)))]

    def add(op: Any, *reads: str) -> str:
        made.append(Node(f"n{len(made)}", op, reads))
        return made[-1].name

    last = add(Conv(WIDTH, (1, 1)), "input0")
    while len(made) < nodes - 4:
        hidden = add(Activation("relu"), add(Norm(), add(Conv(WIDTH, (3, 3), (), (1, 1)), last)))
        last = add(Add(), last, add(Conv(WIDTH, (1, 1)), hidden))
    add(Output(), add(Linear(3), add(Flatten(), add(GlobalPool(), last))))
    return Genome(tuple(made))


def fresh(genome: Genome) -> Genome:
    """The genome without anything that was computed for it."""
    return Genome(genome.nodes)


OPERATIONS: dict[str, Callable[[Genome], object]] = {
    "validate": fresh,
    "to_json": lambda genome: genome.to_json(),
    "from_json": lambda genome: Genome.from_json(genome.to_json()),
    "fingerprint": lambda genome: fresh(genome).fingerprint,
    "unit_table": lambda genome: unit_table(fresh(genome)),
    "count_flops": lambda genome: count_flops(fresh(genome)),
    "unit_macs": lambda genome: unit_macs(fresh(genome)),
    "legal_edits": lambda genome: sum(1 for _ in legal_edits(fresh(genome))),
    "random_edit": lambda genome: random_edit(fresh(genome), random.Random(0)),
    "prune": lambda genome: _prune_first(genome).apply(genome),
}


def measure(
    operation: Callable[[], object],
    repeats: int = 3,
    budget: float = 0.0,
    timer: Callable[[], float] = time.perf_counter,
) -> float:
    """Least seconds of an operation: of so many trials, and of as many more as begin within the budget."""
    trials = timeit.repeat(operation, timer=timer, number=1, repeat=repeats)
    while sum(trials) < budget:
        trials.append(timeit.timeit(operation, timer=timer, number=1))
    return min(trials)


def growth(sizes: list[int], seconds: list[float]) -> float:
    """Exponent of growth: the slope of log seconds over log nodes, from the two largest sizes."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def genome_table(
    sizes: tuple[int, ...] = SIZES, repeats: int = 3, budget: float = BUDGET
) -> dict[str, list[float]]:
    """CPU seconds of every operation at every size, by name."""
    genomes = [residual_chain(size) for size in sizes]
    return {
        name: [measure(partial(function, genome), repeats, budget, time.process_time) for genome in genomes]
        for name, function in OPERATIONS.items()
    }


def measure_imported() -> dict[str, float]:
    """Seconds, bytes and ratios of imported networks."""
    from torchvision import models

    from evo_topo import from_module, inherit

    found: dict[str, float] = {}
    for name in ("resnet18", "resnet50", "densenet121"):
        net = models.get_model(name, weights=None).eval()
        start = time.perf_counter()
        genome, model = from_module(net, (3, 224, 224))
        found[f"import of {name} / s"] = time.perf_counter() - start
        found[f"JSON of {name} / kB"] = len(genome.to_json()) / 1000
        found[f"unit groups of {name} / s"] = measure(lambda g=genome: unit_table(fresh(g)))  # type: ignore[misc]
        found[f"legal edits of {name} / s"] = measure(lambda g=genome: sum(1 for _ in legal_edits(g)))  # type: ignore[misc]
        edit = _prune_first(genome)
        found[f"prune of {name} with inheritance / s"] = measure(
            lambda m=model, g=genome, e=edit: inherit(m, g, e)  # type: ignore[misc]
        )
        if name == "resnet18":
            found["forward of resnet18, imported to original"] = _forward_ratio(model.eval(), net)
    return found


def _forward_ratio(first: Any, second: Any, repeats: int = 9) -> float:
    """Median ratio of the seconds that two networks take for 32 images, run in turn."""
    import torch

    batch = torch.randn(32, 3, 224, 224)
    with torch.no_grad():
        first(batch), second(batch)
        ratios = [
            measure(lambda: first(batch), 1) / measure(lambda: second(batch), 1) for _ in range(repeats)
        ]
    return statistics.median(ratios)


def _prune_first(genome: Genome) -> PruneUnits:
    group = next(iter(unit_table(genome).groups.values()))
    return PruneUnits(((group.name, (0,)),))


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--imported", action="store_true", help="measure networks of torchvision instead")
    if parser.parse_args(argv).imported:
        for what, value in measure_imported().items():
            print(f"{what:45s} {value:10.3f}")
        return
    print("milliseconds".ljust(14) + "".join(f"{size:>10,}" for size in SIZES) + "  exponent")
    for name, seconds in genome_table().items():
        cells = "".join(f"{1000 * s:10.2f}" for s in seconds)
        print(f"{name:14s}{cells}{growth(list(SIZES), seconds):10.2f}")


if __name__ == "__main__":
    main()
