"""What a worker does: develop an individual (inherit, train, measure, store), or price one."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from functools import lru_cache
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from evo_topo.candidates import candidate_edits
from evo_topo.cost import count_flops
from evo_topo.distillation import Teaching
from evo_topo.edits import PruneLayer
from evo_topo.evaluation import evaluate, reestimate_batchnorm
from evo_topo.genome import Genome
from evo_topo.inheritance import Probe
from evo_topo.mutation import random_prices
from evo_topo.phenotype import build
from evo_topo.prices import Prices
from evo_topo.restart import shrink_and_perturb
from evo_topo.saliency import magnitude_prices, mean_loss, obd_prices, price_with_gates
from evo_topo.task import Task
from evo_topo.task_file import load_task
from evo_topo.training import train
from evo_topo.training_end import Diverged, Stopped
from populations.conception import Conception, conceive, parent_network
from populations.config import Criterion
from populations.files import write_whole
from populations.further import train_further
from populations.individual import Outcome, Status
from populations.orders import DATA, Order, outcome_path, weights_path
from populations.weights import WeightsError, load_weights, save_weights


def develop(order: Order, device: str) -> Outcome:
    """Develops one child, or prices its parent; every failure of its own comes back as an outcome.

    Raises:
        OSError: When something cannot be written.
        WeightsError: When weights are missing or damaged, or cannot be written.
    """
    started = time.perf_counter()
    status: Status
    child: Conception | None = None
    try:
        task = shared_task(Path(order.run_dir) / DATA, device)
        probe = probe_split(task, order.probe_examples)
        if order.criterion is not None:
            genome, model = parent_network(order, torch.device(device))
            prices = price_edits(model, genome, *probe, order.criterion, order.seed)
            return Outcome("ok", prices=prices, seconds=time.perf_counter() - started, device=device)
        unseen = unseen_split(task, order.probe_examples)
        child = conceive(order, probe, unseen, torch.device(device))
        if order.shrink < 1:
            shrink_and_perturb(child.model, child.genome, order.shrink, order.seed)
        return _trained(order, child, task, torch.device(device), started)
    except (OSError, WeightsError):  # of the disk, not of the child: the run stops, and can go on
        raise
    except Diverged as error:
        status, reason = "diverged", str(error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        status, reason = "out-of-memory", str(error)
    except Exception as error:  # a child that fails is recorded; the run goes on
        status, reason = "failed", f"{type(error).__name__}: {error}"
    screened = () if child is None else child.screened
    seconds = time.perf_counter() - started
    return Outcome(status, reason, screened=screened, seconds=seconds, device=device)


def _trained(order: Order, child: Conception, task: Task, device: torch.device, started: float) -> Outcome:
    """Trains a child, measures it, and stores what came of it."""
    run_dir, (genome, model) = Path(order.run_dir), child[:2]
    unseen = unseen_split(task, order.probe_examples)
    recipe = dataclasses.replace(order.recipe, examples=child.examples)
    teaching = _teaching(order, task, device)
    try:
        if order.edit is None and (order.parent is not None or order.id < 0):  # long trainings
            model, result = train_further(order, model, task, recipe, teaching, device)
        else:
            result = train(model, task, recipe, order.seed, device, teaching, order.hurdle, order.seconds)
    except Stopped as stop:
        return _stopped(child, stop, device, started)
    reestimate_batchnorm(model, task, recipe.calibration_examples, order.seed)
    measured = evaluate(model, task.validation, task)
    if not measured.loss < math.inf:
        raise Diverged(result.steps, measured.loss)
    outcome = Outcome(
        "ok",
        inherited_loss=child.inherited_loss,
        refit_loss=child.refit_loss,
        screened=child.screened,
        probe_loss=mean_loss(model, *unseen),
        halfway_loss=result.halfway_loss,
        loss=measured.loss,
        accuracy=measured.accuracy,
        soft_error=measured.soft_error,
        correct=f"{_as_bits(measured.correct):x}",
        examples=result.examples,
        flops=3 * count_flops(genome) * result.examples,
        training_seconds=result.seconds,
        device=str(device),
        weights_sha256=save_weights(model, weights_path(run_dir, order.id)),
        seconds=time.perf_counter() - started,
    )
    write_whole(outcome_path(run_dir, order.id), msgspec.json.encode(outcome))
    return outcome


def _stopped(child: Conception, stop: Stopped, device: torch.device, started: float) -> Outcome:
    """What is known of a child that was stopped at half-time; it leaves no weights."""
    return Outcome(
        "stopped",
        str(stop),
        inherited_loss=child.inherited_loss,
        refit_loss=child.refit_loss,
        screened=child.screened,
        halfway_loss=stop.result.halfway_loss,
        examples=stop.result.examples,
        flops=3 * count_flops(child.genome) * stop.result.examples,
        training_seconds=stop.result.seconds,
        device=str(device),
        seconds=time.perf_counter() - started,
    )


def _teaching(order: Order, task: Task, device: torch.device) -> Teaching | None:
    if order.teacher is None:
        return None
    model = build(Genome.from_json(order.teacher.genome))
    load_weights(model, weights_path(Path(order.run_dir), order.teacher.id), order.teacher.sha256)
    return Teaching.of(model.to(device), task, order.teacher.share)


def measure_on_test(order: Order, device: str) -> float:
    """Test accuracy of the order's parent, whose genome and weights the order names."""
    task = shared_task(Path(order.run_dir) / DATA, device)
    _, model = parent_network(order, torch.device(device))
    return evaluate(model, task.test, task).accuracy


def price_edits(
    model: nn.Module, genome: Genome, inputs: Tensor, targets: Tensor, criterion: Criterion, seed: int
) -> Prices:
    """The price list that the next mutations of this network are chosen from."""
    if criterion == "random":
        return random_prices(genome, random.Random(seed))
    if criterion == "magnitude":
        prices = magnitude_prices(model, genome)
    else:
        edits = [*PruneLayer.legal(genome), *candidate_edits(genome, random.Random(seed))]
        statistics, priced = price_with_gates(model, genome, edits, inputs, targets, seed=seed, refit=True)
        prices = obd_prices(statistics, genome, seed, priced)
    if not prices.are_finite:
        raise ArithmeticError("the predicted loss changes of its mutations are not finite")
    return prices


def shared_task(path: Path, device: str) -> Task:
    """The run's data, loaded once per process; on the CPU all processes map the same file."""
    found = path.stat()  # another run may have followed in the same folder
    return _loaded_task(path, device, (found.st_ino, found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=2)
def _loaded_task(path: Path, device: str, version: tuple[int, int, int]) -> Task:
    return load_task(path).to(device)


def probe_split(task: Task, examples: int) -> Probe:
    """The first training examples, at most half, normalised, and their classes: what edits are priced on."""
    first = slice(min(examples, -(-len(task.train.targets) // 2)))
    return Probe(task.normalise(task.train.inputs[first]), task.train.targets[first])


def unseen_split(task: Task, examples: int) -> Probe:
    """The last training examples, none of them in `probe_split`: what mutations are measured on."""
    last = slice(-max(1, min(examples, len(task.train.targets) // 2)), None)
    return Probe(task.normalise(task.train.inputs[last]), task.train.targets[last])


def _as_bits(correct: Tensor) -> int:
    return sum(1 << i for i in correct.nonzero().flatten().tolist())
