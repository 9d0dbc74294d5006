"""Synthetic runs and genomes of many shapes, written through the real lineage store."""

import json
from math import exp, log
from pathlib import Path
from random import Random

from evo_topo import EditError, Genome, Node, count_flops, random_edit
from evo_topo.ops import (
    Activation,
    Add,
    Concat,
    Conv,
    Flatten,
    GlobalPool,
    Input,
    Linear,
    Multiply,
    Norm,
    Output,
    Pool,
)
from populations.individual import Individual, Outcome
from populations.lineage import Lineage


class Builder:
    """Grows a list of nodes; each method returns the name of its last node."""

    def __init__(self, *shape: int) -> None:
        self.nodes = [Node("input0", Input(shape))]

    def add(self, prefix: str, op: object, *inputs: str) -> str:
        name = f"{prefix}{len(self.nodes)}"
        self.nodes.append(Node(name, op, inputs or (self.nodes[-1].name,)))
        return name

    def conv(self, width: int, source: str, kernel: int = 3, stride: int = 1, relu: bool = True) -> str:
        dims = len(self.nodes[0].op.shape) - 1
        extents = (kernel,) * dims
        last = self.add("conv", Conv(width, extents, (stride,) * dims, padding=(kernel // 2,) * dims), source)
        last = self.add("norm", Norm(), last)
        return self.add("relu", Activation(), last) if relu else last

    def end(self, classes: int = 10) -> Genome:
        self.add("global_pool", GlobalPool())
        self.add("flatten", Flatten())
        self.add("linear", Linear(classes))
        self.add("output", Output())
        return Genome(tuple(self.nodes))


def chain_genome(widths: tuple[int, ...] = (8, 16), dims: int = 2) -> Genome:
    net = Builder(1, *(8,) * dims)
    last = "input0"
    for width in widths:
        last = net.conv(width, last)
    return net.end()


def resnet_genome(blocks_per_stage: int = 3, widths: tuple[int, ...] = (16, 32, 64)) -> Genome:
    net = Builder(3, 32, 32)
    last = net.conv(widths[0], "input0")
    for stage, width in enumerate(widths):
        for block in range(blocks_per_stage):
            stride = 2 if stage and not block else 1
            inner = net.conv(width, last, stride=stride)
            inner = net.conv(width, inner, relu=False)
            if stride == 2:
                last = net.conv(width, last, kernel=1, stride=2, relu=False)
            last = net.add("add", Add(), inner, last)
            last = net.add("relu", Activation(), last)
    return net.end()


def branched_genome() -> Genome:
    net = Builder(3, 16, 16)
    stem = net.conv(16, "input0")
    pooled = net.add("pool", Pool((3, 3), stride=(1, 1), padding=(1, 1)), stem)
    branches = [net.conv(8, stem, 1), net.conv(16, net.conv(8, stem, 1)), net.conv(4, stem, 5)]
    last = net.add("concat", Concat(), *branches, net.conv(4, pooled, 1))
    gate = net.add("global_pool", GlobalPool(), last)
    gate = net.add("conv", Conv(32, (1, 1), bias=True), gate)
    gate = net.add("sigmoid", Activation("sigmoid"), gate)
    net.add("multiply", Multiply(), last, gate)
    return net.end()


def vector_genome() -> Genome:
    net = Builder(13)
    net.add("linear", Linear(64))
    net.add("relu", Activation())
    net.add("linear", Linear(3))
    net.add("output", Output())
    return Genome(tuple(net.nodes))


def make_run(
    folder: Path,
    generations: int = 4,
    offspring: int = 6,
    survivors: int = 4,
    seed: int = 0,
    founder: Genome | None = None,
) -> list[Individual]:
    """Writes a run folder whose individuals descend by random edits; some children fail, some are stopped."""
    rng = Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    with Lineage(folder) as lineage:
        everyone = [_individual(0, None, 0, founder or chain_genome(), rng)]
        alive = everyone[:1]
        lineage.add(everyone[0])
        lineage.set_population(0, [0], 1.0)
        for generation in range(1, generations + 1):
            children = [
                _individual(len(everyone) + i, rng.choice(alive), generation, None, rng)
                for i in range(offspring)
            ]
            for child in children:
                lineage.add(child)
            everyone += children
            pool = [individual for individual in alive + children if individual.is_alive]
            alive = sorted(pool, key=_fitness)[-survivors:]
            lineage.set_population(generation, sorted(i.id for i in alive), 1.0 + generation)
    return everyone


def write_front(folder: Path, front: list[Individual], founder: Individual) -> None:
    """Writes ``front.json`` and ``founder.json``, the founder two points better than it was."""

    def record(individual: Individual, gain: float = 0) -> dict[str, object]:
        return {
            "id": individual.id,
            "accuracy": individual.outcome.accuracy + gain,
            "test_accuracy": individual.outcome.accuracy - 0.01,
            "macs": individual.macs,
            "flops": individual.flops,
            "params": individual.params,
            "genome": json.loads(individual.genome.to_json()),
        }

    (folder / "front.json").write_text(json.dumps([record(individual) for individual in front]))
    (folder / "founder.json").write_text(json.dumps({**record(founder, 0.02), "examples": 12345}))


def _fitness(individual: Individual) -> float:
    return individual.outcome.accuracy - 0.02 * log(individual.flops)


def _individual(
    number: int, parent: Individual | None, generation: int, genome: Genome | None, rng: Random
) -> Individual:
    edit = None
    if parent is not None:
        genome = parent.genome
        try:
            edit = random_edit(genome, rng) if rng.random() < 0.9 else None
        except EditError:
            edit = None
        genome = genome if edit is None else edit.apply(genome)
    preserving = edit is None or edit.is_function_preserving
    change = 0.0 if preserving else exp(rng.gauss(-4, 2))
    return Individual(
        id=number,
        parent=None if parent is None else parent.id,
        generation=generation,
        edit=edit,
        genome=genome,
        predicted_loss_change=None if edit is None else change * exp(rng.gauss(0, 0.7)),
        promised_loss_change=None if edit is None else -abs(rng.gauss(0, 0.01)) * edit.is_function_preserving,
        inherited_examples=0 if parent is None else parent.total_examples,
        inherited_flops=0 if parent is None else parent.total_flops,
        inherited_seconds=0.0 if parent is None else parent.total_seconds,
        outcome=_outcome(parent, genome, change, rng),
    )


def _outcome(parent: Individual | None, genome: Genome, change: float, rng: Random) -> Outcome:
    before = 0.9 if parent is None else parent.outcome.loss
    probed = 0.8 if parent is None else parent.outcome.probe_loss
    luck = 1.0 if parent is None else rng.random()
    if luck < 0.05:
        return Outcome("diverged", reason="the loss is not finite", seconds=0.5)
    if luck < 0.1:
        spent = {"examples": 500, "flops": 1500 * count_flops(genome), "seconds": 0.25}
        measured = {"inherited_loss": probed + change, "halfway_loss": before + 1}
        return Outcome("stopped", reason="above the hurdle", **measured, **spent)
    loss = max(0.08, before + 0.3 * change + rng.gauss(-0.02, 0.03))
    return Outcome(
        "ok",
        inherited_loss=None if parent is None else probed + change,
        probe_loss=0.9 * loss,
        halfway_loss=1.1 * loss,
        loss=loss,
        accuracy=max(0.1, min(0.99, exp(-0.4 * loss) + rng.gauss(0, 0.005))),
        soft_error=0.25 * loss,
        correct=f"{rng.getrandbits(64):x}",
        examples=1000,
        flops=3000 * count_flops(genome),
        seconds=0.5,
        device="cpu",
        weights_sha256="0" * 64,
    )
