"""evo_topo and its controls, each of which lacks one of its ideas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from analysis.benchmarks.peers import search
from analysis.benchmarks.peers.cells import Bench, Point
from evo_topo.cost import count_flops
from evo_topo.genome import Genome
from evo_topo.ops import Conv, GlobalPool
from populations.config import Config
from populations.founders import conv_net
from populations.lineage import Lineage
from populations.progress import Progress
from populations.run import evolve

Variant = Callable[[Config, Genome], tuple[Config, Genome]]

THIN = 8
"""A thin founder has the widths of the preset's divided by this: it costs about 1/64."""


def as_it_is(config: Config, founder: Genome) -> tuple[Config, Genome]:
    """The preset."""
    return config, founder


def random_edits(config: Config, founder: Genome) -> tuple[Config, Genome]:
    """Edits drawn by random prices; those that only prices make choosable (trades, kernels) do not occur."""
    return dataclasses.replace(config, criterion="random"), founder


def magnitude(config: Config, founder: Genome) -> tuple[Config, Genome]:
    """Units and layers chosen by the size of their weights instead of by OBD."""
    return dataclasses.replace(config, criterion="magnitude"), founder


def no_inheritance(config: Config, founder: Genome) -> tuple[Config, Genome]:
    """Every child starts from fresh weights: it trains at the full rate, and as long as Optuna's trials."""
    examples = round(search.SETTING["examples"] * config.founder_examples)
    recipe = dataclasses.replace(config.recipe, examples=examples)
    return dataclasses.replace(config, inherit=False, inherited_rate=1.0, recipe=recipe), founder


def prunes_only(config: Config, founder: Genome) -> tuple[Config, Genome]:
    """No growth and no trade."""
    return dataclasses.replace(config, mutations="prunes"), founder


def from_thin(config: Config, founder: Genome) -> tuple[Config, Genome]:
    """From a thin founder up to the preset's ceiling: what a search builds itself."""
    thin = thinned(founder, THIN)
    if config.ceiling is not None:  # a multiple of the founder's FLOPs, whichever founder that is
        ceiling = config.ceiling * count_flops(founder) / count_flops(thin)
        config = dataclasses.replace(config, ceiling=ceiling)
    return config, thin


def splits_only(config: Config, founder: Genome) -> tuple[Config, Genome]:
    """Splits and other growths alone, from a thin founder."""
    config, thin = from_thin(config, founder)
    return dataclasses.replace(config, mutations="growths"), thin


def thinned(founder: Genome, divisor: int) -> Genome:
    """A chain of convolutions with the strides of the founder and its widths divided."""
    convs = [node for node in founder.nodes if isinstance(node.op, Conv)]
    widths = [max(1, founder.shapes[node.name][0] // divisor) for node in convs]
    extents = [(founder.input_shapes(node)[0][1], founder.shapes[node.name][1]) for node in convs]
    strides = [math.ceil(before / after) for before, after in extents]
    pooled = any(isinstance(node.op, GlobalPool) for node in founder.nodes)
    return conv_net(founder.input_shape, founder.num_classes, widths, strides, pooled)


def evolved(bench: Bench, variant: Variant = as_it_is) -> list[Point]:
    """Runs an evolution as users do, but for the founder for comparison: no other method has one.

    A child counts as known when its generation is selected upon.
    """
    clock = bench.clock
    left = clock.limit - clock.elapsed  # the evolution itself leaves time to read the test split
    config, founder = variant(bench.config, bench.founder)
    config = dataclasses.replace(
        config, generations=None, minutes=left / 60, compare=False, run_dir=bench.folder
    )
    begun = math.inf

    def report(progress: Progress) -> None:
        nonlocal begun
        begun = min(begun, clock.elapsed - progress.elapsed)

    result = evolve(config, founder=founder, report=report)
    tested = {entry.id: entry.test_accuracy for entry in result.front}
    with Lineage(bench.folder, read_only=True) as lineage:
        individuals, seconds = lineage.individuals(), lineage.seconds()
    return [
        Point(begun + seconds[i.generation], i.macs, i.params, i.outcome.accuracy, tested.get(i.id))
        for i in individuals
        if i.outcome.accuracy is not None
    ]
