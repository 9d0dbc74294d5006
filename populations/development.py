"""Developing one individual, inside a worker: inherit, train, measure, price, store."""

from __future__ import annotations

import hashlib
import os
import random
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from msgspec import Struct
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.fx import GraphModule

from evo_topo.candidates import candidate_edits
from evo_topo.cost import count_flops
from evo_topo.distillation import Teaching
from evo_topo.edits import AnyEdit, Trade, edit_from_json
from evo_topo.evaluation import evaluate, reestimate_batchnorm
from evo_topo.genome import Genome
from evo_topo.inheritance import Probe, inherit
from evo_topo.mutation import random_prices
from evo_topo.phenotype import build
from evo_topo.prices import Prices
from evo_topo.recipe import Recipe
from evo_topo.saliency import magnitude_prices, mean_loss, obd_prices, price_with_gates, reconstruct
from evo_topo.task import Task, load_task
from evo_topo.training import Diverged, train
from populations.config import Criterion
from populations.individual import Outcome, Status

WEIGHTS = "weights"
DATA = "data.safetensors"
START = "founder.safetensors"
"""Weights that the founder starts from, where it does not start afresh."""

REFIT_EXAMPLES = 512
"""Of the probe, what new parameters are directed by and survivors refit on; more helped little."""


class WeightsError(ValueError):
    """Stored weights are missing, damaged, or belong to another genome."""


class Teacher(Struct, frozen=True):
    """A trained network of the run that a child learns from beside the targets.

    Attributes:
        id: Its id.
        genome: JSON of its genome.
        sha256: Digest of its weights.
        share: Share of the loss that is the distance from its answers.
    """

    id: int
    genome: str
    sha256: str
    share: float


class Order(Struct, frozen=True):
    """What a worker needs to develop one child: data and paths, nothing live.

    Attributes:
        id: The child's id.
        run_dir: The run folder.
        genome: JSON of the parent's genome; of its own for a founder.
        parent: The parent's id; None for a founder.
        parent_sha256: Digest of the parent's weights.
        edit: JSON of the mutation; None to train on.
        seed: Seed of the child.
        recipe: How it trains.
        criterion: What prices its own mutations.
        probe_examples: Training examples on which they are priced.
        teacher: Whom it learns from beside the targets.
    """

    id: int
    run_dir: str
    genome: str
    parent: int | None
    parent_sha256: str
    edit: str | None
    seed: int
    recipe: Recipe
    criterion: Criterion
    probe_examples: int
    teacher: Teacher | None = None

    def read_outcome(self) -> Outcome | None:
        """The outcome that a worker left on disk, if it finished."""
        try:
            return msgspec.json.decode(outcome_path(Path(self.run_dir), self.id).read_bytes(), type=Outcome)
        except (OSError, msgspec.DecodeError):
            return None


def weights_path(run_dir: Path, id: int) -> Path:  # noqa: A002
    """Where the weights of an individual are stored."""
    return run_dir / WEIGHTS / f"{id}.safetensors"


def outcome_path(run_dir: Path, id: int) -> Path:  # noqa: A002
    """Where a worker leaves an outcome until the driver has stored it in the lineage."""
    return run_dir / WEIGHTS / f"{id}.json"


def develop(order: Order, device: str) -> Outcome:
    """Develops one child; every ordinary failure comes back as an outcome."""
    started = time.perf_counter()
    status: Status
    try:
        return _develop(order, torch.device(device), started)
    except Diverged as error:
        status, reason = "diverged", str(error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        status, reason = "out-of-memory", str(error)
    except Exception as error:  # a child that fails is recorded; the run goes on
        status, reason = "failed", f"{type(error).__name__}: {error}"
    return Outcome(status, reason, seconds=time.perf_counter() - started, device=device)


class _Conception(NamedTuple):
    """A child before training, and its loss on the probe: as the edit leaves it, and once refit."""

    genome: Genome
    model: GraphModule
    inherited_loss: float | None = None
    refit_loss: float | None = None


def _develop(order: Order, device: torch.device, started: float) -> Outcome:
    run_dir = Path(order.run_dir)
    task = shared_task(run_dir / DATA, str(device))
    probe = probe_split(task, order.probe_examples)
    genome, model, inherited, refit = _conceive(order, probe, device)
    result = train(model, task, order.recipe, order.seed, device, _teaching(order, task, device))
    model.to(memory_format=torch.channels_last)  # a quarter faster on the CPU
    reestimate_batchnorm(model, task, order.recipe.calibration_examples, order.seed)
    measured = evaluate(model, task.validation, task)
    if not measured.loss < float("inf"):
        raise Diverged(result.steps, measured.loss)
    model.to(memory_format=torch.contiguous_format)
    prices = price_edits(model, genome, *probe, order.criterion, order.seed)
    outcome = Outcome(
        "ok",
        inherited_loss=inherited,
        refit_loss=refit,
        probe_loss=mean_loss(model, *probe),
        loss=measured.loss,
        accuracy=measured.accuracy,
        correct=f"{_as_bits(measured.correct):x}",
        examples=result.examples,
        flops=3 * count_flops(genome) * result.examples,
        training_seconds=result.seconds,
        device=str(device),
        weights_sha256=save_weights(model, weights_path(run_dir, order.id)),
        prices=prices,
        seconds=time.perf_counter() - started,
    )
    _write_durably(outcome_path(run_dir, order.id), msgspec.json.encode(outcome))
    return outcome


def _conceive(order: Order, probe: Probe, device: torch.device) -> _Conception:
    """The child as it starts: inherited, and refit to its parent where the edit changes the function."""
    genome, model = _parent(order, device)
    if order.edit is None:
        return _Conception(genome, model)
    edit: AnyEdit = edit_from_json(order.edit)
    inherited = refit = None
    for part in (edit.first, edit.second) if isinstance(edit, Trade) else (edit,):
        child, child_model = part.apply(genome), inherit(model, genome, part, probe.first(REFIT_EXAMPLES))
        if not part.is_function_preserving:
            inherited = mean_loss(child_model, *probe)
            reconstruct(child_model, model, genome, part, probe.first(REFIT_EXAMPLES).inputs, seed=order.seed)
            refit = mean_loss(child_model, *probe)
        genome, model = child, child_model
    return _Conception(genome, model, mean_loss(model, *probe) if inherited is None else inherited, refit)


def _parent(order: Order, device: torch.device) -> tuple[Genome, GraphModule]:
    """The parent with its weights; for a founder, the network itself as it starts."""
    genome = Genome.from_json(order.genome)
    model = build(genome, order.seed)
    if order.parent is None:
        load_start(model, Path(order.run_dir))
    else:
        load_weights(model, weights_path(Path(order.run_dir), order.parent), order.parent_sha256)
    model.to(device)
    return genome, model


def _teaching(order: Order, task: Task, device: torch.device) -> Teaching | None:
    if order.teacher is None:
        return None
    model = build(Genome.from_json(order.teacher.genome))
    load_weights(model, weights_path(Path(order.run_dir), order.teacher.id), order.teacher.sha256)
    return Teaching.of(model.to(device), task, order.teacher.share)


def measure_on_test(order: Order, device: str) -> float:
    """Test accuracy of the order's parent, whose genome and weights the order names."""
    task = shared_task(Path(order.run_dir) / DATA, device)
    _, model = _parent(order, torch.device(device))
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
        edits = candidate_edits(genome, random.Random(seed))
        statistics, priced = price_with_gates(model, genome, edits, inputs, targets, seed=seed)
        prices = obd_prices(statistics, genome, seed, priced)
    if not prices.are_finite:
        raise ArithmeticError("the predicted loss changes of its mutations are not finite")
    return prices


@lru_cache(maxsize=2)
def shared_task(path: Path, device: str) -> Task:
    """The run's data, loaded once per process; on the CPU all processes map the same file."""
    return load_task(path).to(device)


def probe_split(task: Task, examples: int) -> Probe:
    """The first training examples, normalised, and their classes: what edits are priced on."""
    return Probe(task.normalise(task.train.inputs[:examples]), task.train.targets[:examples])


def save_weights(model: nn.Module, path: Path) -> str:
    """Stores a model's state durably; returns the SHA-256 of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary)
    data = temporary.read_bytes()
    _sync(temporary)
    os.replace(temporary, path)
    return hashlib.sha256(data).hexdigest()


def load_weights(model: nn.Module, path: Path, sha256: str) -> None:
    """Loads a stored state into the model it belongs to.

    Raises:
        WeightsError: When the file is missing, damaged, or does not fit the model.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror}") from None
    # safetensors notices truncation but not a flipped bit.
    if hashlib.sha256(data).hexdigest() != sha256:
        raise WeightsError(f"weights {path} are damaged: their SHA-256 is not the recorded one")
    try:
        model.load_state_dict(load(data))
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(f"weights {path} do not fit their genome: {error}") from None


def load_start(model: nn.Module, run_dir: Path) -> None:
    """Loads the weights that the founder of a run starts from, if there are any.

    Raises:
        WeightsError: When they are damaged or do not fit.
    """
    path = run_dir / START
    if not path.exists():
        return
    try:
        model.load_state_dict(load(path.read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"weights {path} do not fit the founder: {error}") from None


def _as_bits(correct: Tensor) -> int:
    return sum(1 << i for i in correct.nonzero().flatten().tolist())


def _write_durably(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".json.tmp")
    temporary.write_bytes(data)
    _sync(temporary)
    os.replace(temporary, path)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
