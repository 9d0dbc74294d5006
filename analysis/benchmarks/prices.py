"""How well does the price list know what an edit does, and what does it take to make?

    python -m analysis.benchmarks.prices --network residual --weights residual.safetensors

Prices every edit of a trained network and measures, kind by kind, how well the prices rank the loss changes
that come true: of prunes right after inheritance, of growths after some steps of training, less what the
unedited network gains by as many. With ``--cost``, also compares the
cost with that of training, in seconds of the CPU.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from torch import nn

from analysis.benchmarks.machine import Machine, this_machine
from analysis.benchmarks.prices_cost import CostInfo, cost_info
from analysis.benchmarks.subject import Subject, trained_network
from analysis.benchmarks.synthetic import network
from analysis.common import run_command
from analysis.ranks import spearman
from analysis.table import format_table
from evo_topo.datasets import DatasetError, load_dataset
from evo_topo.edits import AnyEdit, EditError, PruneUnits, SplitUnits, legal_edits
from evo_topo.genome import Genome
from evo_topo.inheritance import Probe, inherit
from evo_topo.prices import PricedEdit
from evo_topo.recipe import Recipe
from evo_topo.saliency import mean_loss, price
from evo_topo.task import Task
from evo_topo.training import train
from evo_topo.training_end import Diverged
from populations.founders import conv_net, residual_net

PROG = "python -m analysis.benchmarks.prices"
DataName = Literal["digits", "fashion-mnist"]
NetworkName = Literal["small", "small-residual", "plain", "residual"]
NETWORKS: dict[NetworkName, tuple[DataName, Callable[[], Genome]]] = {
    "small": ("digits", lambda: conv_net((1, 8, 8), 10, (8, 12, 12), (1, 2, 1))),
    "small-residual": ("digits", lambda: residual_net((1, 8, 8), 10, (8, 12), 1)),
    "plain": ("fashion-mnist", lambda: network("7 M")),
    "residual": ("fashion-mnist", lambda: residual_net((1, 28, 28), 10, (16, 32, 64), 1)),
}


class KindInfo(Struct, frozen=True):
    """How well the edits of one kind are ranked.

    Attributes:
        kind: The kind, or a set of kinds together.
        count: Edits measured.
        spearman: Rank correlation of prediction and measurement; None where it cannot be told.
        by_obd: That of OBD alone, without the loss of a few examples; None for growths.
    """

    kind: str
    count: int
    spearman: float | None
    by_obd: float | None = None


class PricesInfo(Struct, frozen=True):
    """All numbers of the benchmark."""

    network: str
    loss: float
    examples: int
    machine: Machine
    inherited: list[KindInfo]
    grown: list[KindInfo]
    cost: CostInfo | None


def inherited_info(subject: Subject, units: int, seed: int) -> list[KindInfo]:
    """Rank correlations right after inheritance, by kind and for all local edits together."""
    edits = [e for e in legal_edits(subject.genome) if not e.is_function_preserving]
    few = [edit for edit in edits if isinstance(edit, PruneUnits)]
    few = random.Random(seed).sample(few, min(units, len(few)))
    local = [edit for edit in edits if not isinstance(edit, PruneUnits)]
    every = subject.model, subject.genome, [*few, *local], subject.inputs, subject.targets
    priced, plain = price(*every, seed=seed), price(*every, seed=seed, measured=0)
    before = mean_loss(subject.model, subject.inputs, subject.targets)
    changes = []
    for item in priced:
        child = inherit(subject.model, subject.genome, item.edit)
        changes.append(mean_loss(child, subject.inputs, subject.targets) - before)
    kinds = []
    for prices in (priced, plain):
        predicted = [item.loss_change for item in prices]
        together = _kind_info("all but units", predicted[len(few) :], changes[len(few) :])
        kinds.append([*_by_kind(prices, predicted, changes), together])
    return [msgspec.structs.replace(kind, by_obd=other.spearman) for kind, other in zip(*kinds, strict=True)]


def grown_info(subject: Subject, task: Task, steps: int, seeds: int) -> list[KindInfo]:
    """Rank correlations of what growths promise with what they gain over training on."""
    rng, edits = random.Random(0), list[AnyEdit]()
    for edit in legal_edits(subject.genome):
        if edit.is_function_preserving and not isinstance(edit, SplitUnits):
            edits.append(edit.varied(subject.genome, rng))
    priced = [
        item
        for item in price(subject.model, subject.genome, edits, subject.inputs, subject.targets)
        if item.criterion == "gauss-newton"
    ]
    recipe = Recipe(examples=steps * 32, batch_size=32, learning_rate=0.01)
    probe, gains = Probe(subject.inputs, subject.targets), []

    def after(model: nn.Module) -> float:
        losses = 0.0
        for seed in range(seeds):
            again = copy.deepcopy(model)
            train(again, task, recipe, seed)
            losses += mean_loss(again, subject.inputs, subject.targets) / seeds
        return losses

    control = after(subject.model)
    for item in priced:
        gains.append(after(inherit(subject.model, subject.genome, item.edit, probe.first(512))) - control)
    promises = [item.promise for item in priced]
    return [*_by_kind(priced, promises, gains), _kind_info("all growths", promises, gains)]


def _by_kind(
    priced: Sequence[PricedEdit], predicted: Sequence[float], measured: Sequence[float]
) -> list[KindInfo]:
    kinds = [str(item.edit.__struct_config__.tag).replace("_", " ") for item in priced]
    found = []
    for kind in dict.fromkeys(kinds):
        at = [place for place, name in enumerate(kinds) if name == kind]
        found.append(_kind_info(kind, [predicted[i] for i in at], [measured[i] for i in at]))
    return found


def _kind_info(kind: str, predicted: Sequence[float], measured: Sequence[float]) -> KindInfo:
    return KindInfo(kind, len(predicted), spearman(predicted, measured))


def prices_table(info: PricesInfo) -> str:
    """The numbers as text."""
    rows: list[tuple[str, ...]] = [("edits", "number", "Spearman", "OBD alone")]
    for item in (*info.inherited, *info.grown):
        both = ["n/a" if rank is None else f"{rank:+.3f}" for rank in (item.spearman, item.by_obd)]
        rows.append((item.kind, str(item.count), *both))
    lines = [f"{info.network}: loss {info.loss:.3f} on {info.examples:,} training examples", ""]
    lines.append(format_table(rows, right=(1, 2, 3)))
    if info.cost is not None:
        cost, mib = info.cost, 2**20
        lines += [
            "",
            f"ResNet-20: pricing {cost.edits:,} edits takes {cost.pricing_seconds:.1f} s and "
            f"{cost.pricing_bytes / mib:,.0f} MiB; training on 3,000 examples {cost.training_seconds:.1f} s, "
            f"a step at batch size 256 {cost.training_bytes / mib:,.0f} MiB",
        ]
    return "\n".join(lines)


def main(
    network: NetworkName = "small",
    examples: int = 1000,
    training_examples: int = 12_000,
    units: int = 100,
    steps: int = 200,
    seeds: int = 2,
    cost: bool = False,
    seed: int = 0,
    data_dir: Path | None = None,
    weights: Path | None = None,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Compares the price list with what comes true.

    Args:
        network: Which network, and with it which data.
        examples: Training examples on which edits are priced and measured.
        training_examples: Examples that the network is trained on first, counted with repetition.
        units: Units that are removed one by one, drawn at random.
        steps: Steps of training after each growth; 0 leaves growths out.
        seeds: Trainings that each growth is judged by.
        cost: Whether cost is measured too.
        seed: Of all that is random.
        data_dir: Folder to look for the data in first.
        weights: Safetensors file of the trained network: read where it exists, otherwise written.
        out: Folder for the JSON file.
    """
    if examples < 2 or min(units, steps) < 0 or seeds < 1:
        raise ValueError("expected two examples, no fewer units and steps than 0, and one seed at least")
    data, make = NETWORKS[network]
    task, genome = load_dataset(data, data_dir), make()
    recipe = Recipe(examples=training_examples, batch_size=64, learning_rate=0.05)
    model = trained_network(genome, task, recipe, seed, weights)
    inputs, targets = task.normalise(task.train.inputs[:examples]), task.train.targets[:examples]
    subject = Subject(model, genome, inputs, targets)
    inherited = inherited_info(subject, units, seed)
    grown = grown_info(subject, task, steps, seeds) if steps else []
    loss, costs = mean_loss(model, inputs, targets), cost_info(examples) if cost else None
    info = PricesInfo(network, loss, len(inputs), this_machine(), inherited, grown, costs)
    print(prices_table(info))
    out.mkdir(parents=True, exist_ok=True)
    (out / f"prices-{network}.json").write_bytes(msgspec.json.format(msgspec.json.encode(info)))


def command(args: Sequence[str] | None = None) -> None:
    """The command line."""
    run_command(main, PROG, args, (DatasetError, Diverged, EditError, OSError, ValueError))


if __name__ == "__main__":
    command()
