"""What is left of a trained network that is pruned in one go and not trained again?

    python -m analysis.benchmarks.oneshot --networks plain --seeds 1 2 3

Prunes trained Fashion-MNIST networks to shares of their MACs, with this package and with Torch-Pruning
(Fang et al. 2023; ``pip install torch-pruning``), on the same examples, and compares validation accuracies.
BatchNorm statistics are re-estimated on the same training examples after every method. Cells of the table are
kept as they are made, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from analysis.benchmarks.oneshot_methods import METHODS, MethodName
from analysis.benchmarks.rival import module_macs
from analysis.benchmarks.subject import Subject, trained_network
from analysis.common import run_command
from analysis.table import format_table
from evo_topo.cost import count_macs
from evo_topo.datasets import DatasetError, load_dataset
from evo_topo.evaluation import evaluate, reestimate_batchnorm
from evo_topo.genome import Genome
from evo_topo.recipe import Recipe
from evo_topo.task import Task
from evo_topo.training_end import Diverged
from populations.founders import conv_net, residual_net

PROG = "python -m analysis.benchmarks.oneshot"
SHARES = (0.7, 0.5, 0.35, 0.25)
"""Of the MACs, what is left."""
SLACK = 1.02
"""Of the budget, what a pruned network may have; Torch-Pruning sometimes prunes nothing at all."""

NetworkName = Literal["plain", "residual"]
NETWORKS: dict[NetworkName, Callable[[], Genome]] = {
    "plain": lambda: conv_net((1, 28, 28), 10, (16, 16, 32, 32, 64, 64), (1, 1, 2, 1, 2, 1)),
    "residual": lambda: residual_net((1, 28, 28), 10, (16, 32, 64), 1),
}


class Cell(Struct, frozen=True):
    """One measurement.

    Attributes:
        network: Which architecture.
        seed: Of its training.
        method: What pruned it.
        share: Of the MACs that might be left.
        share_left: Of the MACs that are left.
        accuracy: On the validation split, without any training afterwards.
        cpu_seconds: Processor time of the method: measuring, choosing, compensating.
    """

    network: str
    seed: int
    method: str
    share: float
    share_left: float
    accuracy: float
    cpu_seconds: float


def measure(
    subject: Subject, task: Task, method: MethodName, share: float, examples: int
) -> tuple[float, float, float]:
    """Share of MACs left, validation accuracy and processor seconds of one method at one size."""
    macs = count_macs(subject.genome)
    started = time.process_time()
    pruned = METHODS[method](subject, int(share * macs))
    seconds = time.process_time() - started
    left = module_macs(pruned.eval(), subject.inputs) / macs
    reestimate_batchnorm(pruned, task, examples, seed=0)
    return left, evaluate(pruned, task.validation, task).accuracy, seconds


def oneshot_table(cells: Sequence[Cell], shares: Sequence[float]) -> str:
    """Mean validation accuracy over seeds and its range, by method and share; mean time of one prune.

    A network that kept more than it was asked for is counted as over the budget, not by its accuracy.
    """
    texts = []
    for network in dict.fromkeys(cell.network for cell in cells):
        here = [cell for cell in cells if cell.network == network]
        rows = [(network, "seeds", *[f"{share:.0%} of MACs" for share in shares], "CPU seconds")]
        for method in dict.fromkeys(cell.method for cell in here):
            found = [cell for cell in here if cell.method == method]
            seconds = statistics.mean(cell.cpu_seconds for cell in found)
            by_share = [[cell for cell in found if cell.share == share] for share in shares]
            seeds = len({cell.seed for cell in found})
            rows.append((method, str(seeds), *map(_mean_and_range, by_share), f"{seconds:.1f}"))
        texts.append(format_table(rows, right=range(1, len(shares) + 3)))
    return "\n\n".join(texts)


def _mean_and_range(cells: Sequence[Cell]) -> str:
    values = [cell.accuracy for cell in cells if cell.share_left <= SLACK * cell.share]
    over = f", {len(cells) - len(values)} over" if len(values) < len(cells) else ""
    if not values:
        return "-" + over
    return f"{statistics.mean(values):.3f} ({min(values):.3f} .. {max(values):.3f}){over}"


def read_cells(path: Path) -> list[Cell]:
    """The cells of an earlier run, one JSON object a line.

    Raises:
        ValueError: When a line is none.
    """
    cells = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], start=1):
        try:
            cells.append(msgspec.json.decode(line, type=Cell))
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise ValueError(f"{path}, line {number}: expected a cell: {error}; remove the line") from None
    return cells


def main(
    networks: tuple[NetworkName, ...] = ("plain", "residual"),
    seeds: tuple[int, ...] = (1, 2, 3),
    shares: tuple[float, ...] = SHARES,
    methods: tuple[MethodName, ...] = get_args(MethodName),
    examples: int = 2000,
    training_examples: int = 240_000,
    data_dir: Path | None = None,
    out: Path = Path("runs/benchmarks"),
    json: bool = False,
) -> None:
    """Prunes in one go and measures what is left.

    Args:
        networks: Architectures to train and prune.
        seeds: Seeds of their training. Settings of the package were looked at on another network, of seed 0.
        shares: Of the MACs, what may be left.
        methods: What prunes.
        examples: Training examples that methods look at, and that BatchNorm is re-estimated on.
        training_examples: Examples that a network sees before, counted with repetition.
        data_dir: Folder to look for the data in first.
        out: Folder for the trained networks and for the file that keeps the cells.
        json: Print the cells as JSON instead of the table.
    """
    if examples < 1:
        raise ValueError(f"examples: expected at least 1, got {examples}")
    task = load_dataset("fashion-mnist", data_dir)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"oneshot-{training_examples}-{examples}.jsonl"
    cells = read_cells(path)
    done = {(cell.network, cell.seed, cell.method, cell.share) for cell in cells}
    inputs, targets = (tensor[:examples] for tensor in task.train)
    for network, seed in itertools.product(networks, seeds):
        missing = [m for m in itertools.product(methods, shares) if (network, seed, *m) not in done]
        if missing:
            genome, weights = NETWORKS[network](), out / f"{network}-{seed}-{training_examples}.safetensors"
            recipe = Recipe(
                examples=training_examples, batch_size=128, learning_rate=0.1, crop_padding=2, flip=True
            )
            model = trained_network(genome, task, recipe, seed, weights)
            subject = Subject(model, genome, task.normalise(inputs), targets)
        for method, share in missing:
            left, accuracy, seconds = measure(subject, task, method, share, examples)
            cells.append(Cell(network, seed, method, share, left, accuracy, seconds))
            with path.open("ab") as file:
                file.write(msgspec.json.encode(cells[-1]) + b"\n")
    wanted = set(itertools.product(networks, seeds, methods, shares))
    asked = [c for c in cells if (c.network, c.seed, c.method, c.share) in wanted]
    print(msgspec.json.encode(asked).decode() if json else oneshot_table(asked, shares))


def command(args: Sequence[str] | None = None) -> None:
    """The command line; without Torch-Pruning one message says how to get it."""
    try:
        run_command(main, PROG, args, (DatasetError, Diverged, OSError, ValueError))
    except ImportError as error:
        print(f"{PROG}: {error}; pip install torch-pruning", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    command()
